package hf_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"modelgate/inference/text/hf"
)

const tiny = `{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,` +
	`"post_processor":%s,"decoder":null,"model":%s}`

// normalized is a tiny tokenizer with that normalizer.
func normalized(normalizer string) string {
	return strings.Replace(fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}`), `"normalizer":null`, `"normalizer":`+normalizer, 1)
}

// doubling makes 2^times characters of each "a".
func doubling(times int) string {
	one := `{"type":"Replace","pattern":{"String":"a"},"content":"aa"}`
	return `{"type":"Sequence","normalizers":[` + strings.Repeat(one+",", times-1) + one + `]}`
}

// chain is a sequence of a step, times over.
func chain(field, step string, times int) string {
	return `{"type":"Sequence","` + field + `":[` + strings.Repeat(step+",", times-1) + step + `]}`
}

const byteLevel = `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}`

// cutting is a tiny tokenizer with that pre-tokenizer.
func cutting(preTokenizer string) string {
	return strings.Replace(normalized("null"), `"pre_tokenizer":null`, `"pre_tokenizer":`+preTokenizer, 1)
}

// precompiled makes n characters of each "a". Its trie has the key "a" alone.
func precompiled(n int) string {
	units := make([]uint32, 256)
	units[0] = 128 << 10                  // the children of the root are at 128 ^ their byte
	units[128^'a'] = 'a' | 1<<8 | 128<<10 // and this one's value at 128 ^ 'a' ^ 128
	units['a'] = 1 << 31                  // which is 0, the first text
	data := binary.LittleEndian.AppendUint32(nil, uint32(4*len(units)))
	for _, u := range units {
		data = binary.LittleEndian.AppendUint32(data, u)
	}
	data = append(data, strings.Repeat("a", n)+"\x00"...)
	return `{"type":"Precompiled","precompiled_charsmap":"` + base64.StdEncoding.EncodeToString(data) + `"}`
}

// malformed are files that must be an error when they are read or used, and never the end of the process.
var malformed = map[string]string{
	"empty":               "",
	"NUL":                 "\x00",
	"not JSON":            "tokenizer",
	"null":                "null",
	"number":              "1e999",
	"list":                "[]",
	"object":              "{}",
	"cut off":             `{"version":"1.0","model":{"type":"BPE","vocab":{"a":0`,
	"invalid UTF-8":       "{\"version\":\"\xff\"}",
	"another version":     strings.Replace(fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}`), "1.0", "9.9", 1),
	"unknown model":       fmt.Sprintf(tiny, "null", `{"type":"Magic","vocab":{}}`),
	"id out of range":     fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":4294967296},"unk_token":"a"}`),
	"negative id":         fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":-1},"unk_token":"a"}`),
	"merge not in vocab":  fmt.Sprintf(tiny, "null", `{"type":"BPE","vocab":{"a":0},"merges":[["a","b"]]}`),
	"merge of one":        fmt.Sprintf(tiny, "null", `{"type":"BPE","vocab":{"a":0},"merges":["a"]}`),
	"empty unigram":       fmt.Sprintf(tiny, "null", `{"type":"Unigram","unk_id":0,"vocab":[]}`),
	"unigram unknown id":  fmt.Sprintf(tiny, "null", `{"type":"Unigram","unk_id":7,"vocab":[["a",0.0]]}`),
	"template of nothing": fmt.Sprintf(tiny, `{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}}],"pair":[],"special_tokens":{}}`, `{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}`),
	"regex":               strings.Replace(fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}`), `"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated","invert":false}`, 1),
	"charsmap":            strings.Replace(fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}`), `"normalizer":null`, `"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"}`, 1),
	"charsmap too short":  strings.Replace(fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}`), `"normalizer":null`, `"normalizer":{"type":"Precompiled","precompiled_charsmap":"/////wAAAAA="}`, 1),
	"deep nesting":        strings.Replace(fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}`), `"normalizer":null`, `"normalizer":`+strings.Repeat(`{"type":"Sequence","normalizers":[`, 5000)+strings.Repeat(`]}`, 5000), 1),
	"text that doubles":   normalized(doubling(40)),
	"in sequences":        normalized(`{"type":"Sequence","normalizers":[` + doubling(4) + "," + doubling(4) + `]}`),
	"under another name":  strings.Replace(normalized(doubling(40)), `"version"`, `"Normalizer":null,"version"`, 1),
	"long replacement":    normalized(`{"type":"Replace","pattern":{"Regex":""},"content":"` + strings.Repeat("a", 100) + `"}`),
	"many beginnings":     normalized(chain("normalizers", `{"type":"Prepend","prepend":"a"}`, 2000)),
	"bytes as characters": normalized(chain("normalizers", `{"type":"ByteLevel"}`, 12)),
	"and before it cuts":  cutting(chain("pretokenizers", byteLevel, 12)),
	"both at once":        strings.Replace(cutting(chain("pretokenizers", byteLevel, 4)), `"normalizer":null`, `"normalizer":`+chain("normalizers", `{"type":"ByteLevel"}`, 4), 1),
	"many steps":          cutting(chain("pretokenizers", `{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}`, 2000)),
	"long characters":     normalized(precompiled(100)),
	"longer and longer":   normalized(chain("normalizers", precompiled(20), 4)),
	"a list of its parts": normalized(`["` + strings.Repeat("a", 2000) + `"]`),
	"lists of theirs":     normalized(chain("normalizers", `[{"String":"a"},"aa"]`, 12)),
	"long beginning":      normalized(`{"type":"Prepend","prepend":"` + strings.Repeat("a", 2000) + `"}`),
	"deep list":           strings.Repeat("[", 1<<20),
	"word without unk":    fmt.Sprintf(tiny, "null", `{"type":"WordLevel","vocab":{"a":0},"unk_token":"b"}`),
}

func TestMalformedFilesAreErrors(t *testing.T) {
	for name, file := range malformed {
		t.Run(name, func(t *testing.T) {
			tok, err := hf.Parse([]byte(file))
			if err != nil {
				if len(err.Error()) < 20 {
					t.Errorf("%q says too little", err)
				}
				return
			}
			defer tok.Close()
			if e, err := tok.Encode("ab", hf.EncodeOptions{}); err == nil {
				t.Errorf("parsed and used: %v", e.IDs)
			}
		})
	}
}

// FuzzParse reads files that are nearly right. Whatever they do, the process goes on.
func FuzzParse(f *testing.F) {
	for _, file := range malformed {
		if len(file) < 4096 {
			f.Add([]byte(file), "a b\x00c")
		}
	}
	for _, model := range []string{
		`{"type":"WordLevel","vocab":{"a":0,"<unk>":1},"unk_token":"<unk>"}`,
		`{"type":"WordPiece","vocab":{"a":0,"##b":1,"[UNK]":2},"unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":9}`,
		`{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]],"unk_token":"a","fuse_unk":false}`,
		`{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["a",-1.5],["b",-2.0]],"byte_fallback":false}`,
	} {
		f.Add(fmt.Appendf(nil, tiny, `{"type":"BertProcessing","sep":["b",1],"cls":["a",0]}`, model), "ab ba")
	}
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		tok, err := hf.Parse(file)
		if err != nil {
			return
		}
		defer tok.Close()
		e, err := tok.Encode(text, hf.EncodeOptions{MaxLength: 8})
		if err == nil && (len(e.IDs) > 8 || len(e.Mask) != len(e.IDs)) {
			t.Errorf("%d ids, %d mask values", len(e.IDs), len(e.Mask))
		}
	})
}

// TestTruncatedFiles cuts a real file at many places.
func TestTruncatedFiles(t *testing.T) {
	data, err := os.ReadFile(path("phobert"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(data); n += 1 + len(data)/200 {
		if tok, err := hf.Parse(data[:n]); err == nil {
			tok.Close()
			t.Errorf("the first %d of %d bytes are a tokenizer", n, len(data))
		}
	}
}

// What tokenizers do to texts for good reasons is allowed.
func TestNormalizersThatAreFine(t *testing.T) {
	xlmr, err := os.ReadFile(path("xlmr"))
	var kept struct{ Normalizer json.RawMessage }
	if err != nil || json.Unmarshal(xlmr, &kept) != nil {
		t.Fatal(err)
	}
	spaces := `{"type":"Replace","pattern":{"Regex":" {2,}"},"content":"▁"}`
	for _, n := range []string{doubling(5), `{"type":"Prepend","prepend":"▁"}`, `{"type":"ByteLevel"}`, precompiled(20), string(kept.Normalizer),
		`{"type":"Sequence","normalizers":[` + string(kept.Normalizer) + "," + spaces + `]}`,
		`{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}`, `{"type":"Replace","pattern":{"Regex":" {2,}"},"content":"▁"}`,
		`{"type":"Sequence","normalizers":[{"type":"Replace","pattern":{"String":"` + "``" + `"},"content":"\""},{"type":"Replace","pattern":{"String":" "},"content":"▁"},{"type":"NFKD"}]}`} {
		tok, err := hf.Parse([]byte(normalized(n)))
		if err != nil {
			t.Errorf("%s: %v", n, err)
			continue
		}
		encode(t, tok, "a a", hf.EncodeOptions{})
		tok.Close()
	}
}

// What stands for a character in a map of characters does so in the library too: the bound is of what it does.
func TestMapOfCharacters(t *testing.T) {
	tok, err := hf.Parse([]byte(strings.Replace(normalized(precompiled(20)), `"pre_tokenizer":null`,
		`"pre_tokenizer":{"type":"Split","pattern":{"Regex":"."},"behavior":"Isolated","invert":false}`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	if e := encode(t, tok, "aa", hf.EncodeOptions{}); len(e.IDs) != 40 {
		t.Errorf("%d tokens of two characters that become twenty each", len(e.IDs))
	}
}
