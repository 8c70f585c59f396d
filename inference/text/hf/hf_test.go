package hf_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"modelgate/inference/text/hf"
)

const parityDir = "../testdata/parity"

func path(family string) string { return filepath.Join(parityDir, family, "tokenizer.json") }

func load(t *testing.T, family string) *hf.Tokenizer {
	t.Helper()
	tok, err := hf.Load(path(family))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tok.Close)
	return tok
}

func encode(t *testing.T, tok *hf.Tokenizer, text string, o hf.EncodeOptions) hf.Encoding {
	t.Helper()
	e, err := tok.Encode(text, o)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if len(e.TypeIDs) != len(e.IDs) || len(e.Mask) != len(e.IDs) {
		t.Fatalf("%q: %d ids, %d type ids, %d mask values", text, len(e.IDs), len(e.TypeIDs), len(e.Mask))
	}
	return e
}

func TestEncodeOptions(t *testing.T) {
	bert := load(t, "bert")
	for _, tc := range []struct {
		name      string
		text      string
		o         hf.EncodeOptions
		want      []int64
		truncated bool
	}{
		{"whole", "hello world", hf.EncodeOptions{}, []int64{101, 7592, 2088, 102}, false},
		{"empty", "", hf.EncodeOptions{}, []int64{101, 102}, false},
		{"without special tokens", "hello world", hf.EncodeOptions{NoSpecial: true}, []int64{7592, 2088}, false},
		{"at the limit", "hello world", hf.EncodeOptions{MaxLength: 4}, []int64{101, 7592, 2088, 102}, false},
		{"cut on the right", "hello world", hf.EncodeOptions{MaxLength: 3}, []int64{101, 7592, 102}, true},
		{"cut on the left", "hello world", hf.EncodeOptions{MaxLength: 3, TruncateLeft: true}, []int64{101, 2088, 102}, true},
		{"cut to nothing", "hello world", hf.EncodeOptions{MaxLength: 2}, []int64{101, 102}, true},
		{"limit without special tokens", "hello world", hf.EncodeOptions{MaxLength: 1, NoSpecial: true}, []int64{7592}, true},
		{"special token", "[SEP]", hf.EncodeOptions{}, []int64{101, 102, 102}, false},
		{"special token as text", "[SEP]", hf.EncodeOptions{SpecialAsText: true}, []int64{101, 1031, 19802, 1033, 102}, false},
		{"NUL is a character", "hello\x00world", hf.EncodeOptions{}, []int64{101, 7592, 11108, 102}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := encode(t, bert, tc.text, tc.o)
			if !slices.Equal(e.IDs, tc.want) || e.Truncated != tc.truncated {
				t.Errorf("got %v, truncated %v; want %v, %v", e.IDs, e.Truncated, tc.want, tc.truncated)
			}
		})
	}
}

func TestNULDoesNotEndTheText(t *testing.T) {
	for _, family := range []string{"xlmr", "roberta", "phobert"} {
		tok := load(t, family)
		short, long := encode(t, tok, "a", hf.EncodeOptions{}), encode(t, tok, "a\x00 hello hello", hf.EncodeOptions{})
		if len(long.IDs) <= len(short.IDs)+1 {
			t.Errorf("%s: %v for a text with a NUL in it", family, long.IDs)
		}
	}
}

func TestEncodeErrors(t *testing.T) {
	tok := load(t, "bert")
	for _, tc := range []struct {
		name string
		text string
		o    hf.EncodeOptions
		want error
	}{
		{"invalid UTF-8", "caf\xe9", hf.EncodeOptions{}, hf.ErrInvalidUTF8},
		{"surrogate", "\xed\xa0\x80", hf.EncodeOptions{}, hf.ErrInvalidUTF8},
		{"no room for special tokens", "a", hf.EncodeOptions{MaxLength: 1}, hf.ErrMaxLength},
		{"negative length", "a", hf.EncodeOptions{MaxLength: -1}, hf.ErrMaxLength},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := tok.Encode(tc.text, tc.o); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestVocabulary(t *testing.T) {
	tok := load(t, "bert")
	if tok.VocabSize() != 30522 || tok.MaxID() != 30521 {
		t.Errorf("vocabulary of %d, largest id %d", tok.VocabSize(), tok.MaxID())
	}
	if id, ok := tok.TokenID("[SEP]"); !ok || id != 102 {
		t.Errorf("[SEP] is %d, %v", id, ok)
	}
	if s, ok := tok.Token(102); !ok || s != "[SEP]" {
		t.Errorf("102 is %q, %v", s, ok)
	}
	for _, id := range []int64{-1, 30522, 1 << 40} {
		if s, ok := tok.Token(id); ok {
			t.Errorf("%d is %q", id, s)
		}
	}
	if id, ok := tok.TokenID("no such token"); ok {
		t.Errorf("a token that isn't there has id %d", id)
	}
	if n := tok.Info().SpecialTokens; n != 2 {
		t.Errorf("%d special tokens around a text", n)
	}
	if p := tok.Info().Padding; p == nil || p.Token != "[PAD]" || p.Left {
		t.Errorf("padding block %+v", p)
	}
}

func TestClose(t *testing.T) {
	tok := load(t, "bert")
	tok.Close()
	tok.Close()
	if _, err := tok.Encode("a", hf.EncodeOptions{}); !errors.Is(err, hf.ErrClosed) {
		t.Errorf("encode after close: %v", err)
	}
	if _, ok := tok.TokenID("[SEP]"); ok {
		t.Error("a closed tokenizer has tokens")
	}
	if _, ok := tok.Token(102); ok {
		t.Error("a closed tokenizer has tokens")
	}
}

// TestConcurrentUse encodes from many goroutines, in both treatments of special tokens at once, and closes in between.
func TestConcurrentUse(t *testing.T) {
	tok := load(t, "roberta")
	texts := []string{"Tôi rất thích bát phở", "</s> hello </s>", "😀👩‍💻", "a\x00b", ""}
	want := map[bool][][]int64{}
	for _, asText := range []bool{false, true} {
		for _, s := range texts {
			want[asText] = append(want[asText], encode(t, tok, s, hf.EncodeOptions{SpecialAsText: asText}).IDs)
		}
	}
	var wg sync.WaitGroup
	half := make(chan struct{})
	for g := range 16 {
		wg.Go(func() {
			for i := range 400 {
				if g == 0 && i == 200 {
					close(half)
				}
				asText, n := (g+i)%4 == 0, (g+i)%len(texts)
				e, err := tok.Encode(texts[n], hf.EncodeOptions{SpecialAsText: asText})
				if errors.Is(err, hf.ErrClosed) {
					return
				}
				if err != nil || !slices.Equal(e.IDs, want[asText][n]) {
					t.Errorf("%q, special as text %v: %v, %v; want %v", texts[n], asText, e.IDs, err, want[asText][n])
					return
				}
			}
		})
	}
	<-half
	tok.Close()
	wg.Wait()
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.json")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, hf.MaxFileSize+1); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, path, want string }{
		{"absent", filepath.Join(dir, "absent.json"), "no such file"},
		{"a folder", dir, "directory"},
		{"too large", large, "larger than 64 MiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := hf.Load(tc.path); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}
