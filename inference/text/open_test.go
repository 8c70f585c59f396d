package text_test

import (
	"path/filepath"
	"strings"
	"testing"

	"modelgate/inference/text"
	"modelgate/inference/text/hf"
)

// outside is a tokenizer whose post-processor puts id 99 before every text; the library doesn't look at it.
const outside = `{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,` +
	`"pre_tokenizer":{"type":"Whitespace"},"post_processor":{"type":"BertProcessing","sep":["b",1],"cls":["a",99]},"decoder":null,` +
	`"model":{"type":"WordLevel","vocab":{"a":0,"b":1,"<unk>":2},"unk_token":"<unk>"}}`

func TestOpenErrors(t *testing.T) {
	folder := func(files ...string) string {
		dir := t.TempDir()
		for i := 0; i < len(files); i += 2 {
			writeFile(t, dir, files[i], files[i+1])
		}
		return dir
	}
	bert, phobert := family("bert"), family("phobert")
	for _, tc := range []struct {
		name, dir string
		o         text.Options
		want      []string
	}{
		{"an empty folder", folder(), text.Options{}, []string{"tokenizer.json is missing", "save_pretrained"}},
		{"no folder", filepath.Join(t.TempDir(), "absent"), text.Options{}, []string{"absent", "tokenizer.json is missing"}},
		{"a slow SentencePiece tokenizer", folder("sentencepiece.bpe.model", "x"), text.Options{},
			[]string{"tokenizer.json is missing", "sentencepiece.bpe.model", "use_fast=True"}},
		{"a slow PhoBERT tokenizer", folder("vocab.txt", "x", "bpe.codes", "x"), text.Options{},
			[]string{"tokenizer.json is missing", "bpe.codes", "tools/parity/phobert.py"}},
		{"a malformed tokenizer", folder("tokenizer.json", "{}"), text.Options{}, []string{"tokenizer.json", "not a tokenizer"}},
		{"a malformed configuration", folder("tokenizer.json", outside, "tokenizer_config.json", "{"), text.Options{},
			[]string{"tokenizer_config.json", "unexpected end"}},
		{"a configuration of another type", folder("tokenizer.json", outside, "config.json", `{"vocab_size":"many"}`), text.Options{},
			[]string{"config.json", "vocab_size"}},
		{"special tokens outside of the vocabulary", folder("tokenizer.json", outside, "config.json", `{"vocab_size":3}`), text.Options{},
			[]string{"tokens around every text", "id 99", "the model has 3"}},
		{"a vocabulary larger than the model's", edited(t, bert, "config.json", "vocab_size", 30000), text.Options{},
			[]string{"id 30521", "weights for 30000 tokens", "don't belong together"}},
		{"no vocabulary", edited(t, bert, "config.json", "vocab_size", 0), text.Options{}, []string{"config.json", "vocab_size 0"}},
		{"PhoBERT without vocab_size", edited(t, phobert, "config.json", "vocab_size", nil), text.Options{},
			[]string{"config.json doesn't say vocab_size"}},
		{"an unknown padding token", edited(t, bert, "tokenizer_config.json", "pad_token", "<filler>"), text.Options{},
			[]string{"tokenizer_config.json", `"<filler>"`, "save_pretrained"}},
		{"an unknown added token", edited(t, bert, "tokenizer_config.json", "added_tokens_decoder", map[string]any{"30522": map[string]any{"content": "<new>"}}),
			text.Options{}, []string{"tokenizer_config.json", `"<new>"`}},
		{"a padding id outside", edited(t, edited(t, family("roberta"), "tokenizer_config.json", "pad_token", nil), "config.json", "pad_token_id", 9999),
			text.Options{}, []string{"padding id 9999"}},
		{"an unknown side", edited(t, bert, "tokenizer_config.json", "truncation_side", "middle"), text.Options{},
			[]string{"truncation_side", `"middle"`, "left or right"}},
		{"an unknown padding side", edited(t, bert, "tokenizer_config.json", "padding_side", "both"), text.Options{}, []string{"padding_side"}},
		{"more than the positions", bert, text.Options{MaxLength: 513}, []string{"513", "512 positions"}},
		{"more than the positions after the padding id", family("xlmr"), text.Options{MaxLength: 513}, []string{"513", "512 positions"}},
		{"no room for text", bert, text.Options{MaxLength: 2}, []string{"leaves no room", "2 special tokens"}},
		{"a negative limit", bert, text.Options{MaxBytes: -1}, []string{"negative limit"}},
		{"half a length", edited(t, bert, "tokenizer_config.json", "model_max_length", 1.5), text.Options{}, []string{"model_max_length 1.5"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.o.Tokenizers = hf.NewPool()
			_, err := text.Open(tc.dir, tc.o)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q doesn't say %q", err, want)
				}
			}
			if n := tc.o.Tokenizers.Len(); n != 0 {
				t.Errorf("%d tokenizers are still open", n)
			}
		})
	}
}

// TestOpenWithoutConfiguration needs no file but tokenizer.json; then nothing is known about the model.
func TestOpenWithoutConfiguration(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "tokenizer.json", outside)
	e := open(t, dir, text.Options{})
	got, err := e.Encode("a b c")
	if err != nil || len(got.IDs) != 5 || e.MaxLength() != 0 || e.PadID() != 0 {
		t.Errorf("%v, %v, max length %d, padding %d", got.IDs, err, e.MaxLength(), e.PadID())
	}
}
