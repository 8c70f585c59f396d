package text_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"modelgate/inference/text"
	"modelgate/inference/text/hf"
)

func family(name string) string { return filepath.Join(parityDir, name) }

func TestLimits(t *testing.T) {
	e := open(t, family("bert"), text.Options{MaxBytes: 10})
	for _, tc := range []struct {
		name, text string
		want       error
		says       string
	}{
		{"at the limit", "0123456789", nil, ""},
		{"over the limit", "01234567890", text.ErrTooLong, "it has 11 bytes, the limit is 10"},
		{"over the limit in bytes", "ệệệệ", text.ErrTooLong, "it has 12 bytes"},
		{"invalid UTF-8", "caf\xe9!", text.ErrInvalidUTF8, "byte 0xe9 at offset 3"},
		{"cut in a character", "a\xe1\xbb", text.ErrInvalidUTF8, "offset 1"},
		{"replacement character", "\ufffd", nil, ""},
		{"empty", "", nil, ""},
		{"NUL", "\x00", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := e.Encode(tc.text)
			if !errors.Is(err, tc.want) || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %v with %q", err, tc.want, tc.says)
			}
		})
	}
	if e := open(t, family("bert"), text.Options{}); e.MaxBytes() != 65536 {
		t.Errorf("the default limit is %d bytes", e.MaxBytes())
	}
}

// TestHostileText encodes the text of 64 KiB that costs most: each character becomes 18 when normalized. The bound is far
// above what it takes (0.2 s) and far below what an unlimited text could.
func TestHostileText(t *testing.T) {
	e := open(t, family("xlmr"), text.Options{MaxLength: 16})
	hostile := strings.Repeat("\ufdfa", text.DefaultMaxBytes/3)
	start := time.Now()
	got, err := e.Encode(hostile)
	if err != nil || len(got.IDs) != 16 || !got.Truncated {
		t.Errorf("%d ids, truncated %v, %v", len(got.IDs), got.Truncated, err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := e.Encode(hostile + "\ufdfa"); !errors.Is(err, text.ErrTooLong) {
		t.Errorf("one more: %v", err)
	}
}

func TestTruncation(t *testing.T) {
	long := strings.Repeat("hello ", 600) + "world"
	for _, tc := range []struct {
		name, family, side string
		override, want     int
		last               int64 // the id before the closing token
	}{
		{"bundle's length", "bert", "right", 0, 512, 7592},
		{"override", "bert", "right", 16, 16, 7592},
		{"left", "bert", "left", 16, 16, 2088},
		{"positions after the padding id", "roberta", "right", 0, 512, 0},
		{"PhoBERT", "phobert", "right", 0, 256, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := edited(t, family(tc.family), "tokenizer_config.json", "truncation_side", tc.side)
			e := open(t, dir, text.Options{MaxLength: tc.override})
			got, err := e.Encode(long)
			if err != nil {
				t.Fatal(err)
			}
			if e.MaxLength() != tc.want || len(got.IDs) != tc.want || !got.Truncated {
				t.Errorf("max length %d, %d ids, truncated %v; want %d", e.MaxLength(), len(got.IDs), got.Truncated, tc.want)
			}
			if last := got.IDs[len(got.IDs)-2]; tc.last != 0 && last != tc.last {
				t.Errorf("the last id is %d, want %d", last, tc.last)
			}
			if short, err := e.Encode("hello"); err != nil || short.Truncated {
				t.Errorf("a short text: truncated %v, %v", short.Truncated, err)
			}
		})
	}
}

func TestMaxLengthComesFrom(t *testing.T) {
	bert := family("bert") // its tokenizer.json has a truncation block of 128
	unsaid := edited(t, bert, "tokenizer_config.json", "model_max_length", nil)
	for _, tc := range []struct {
		name, dir string
		want      int
	}{
		{"tokenizer_config.json", edited(t, bert, "tokenizer_config.json", "model_max_length", 100), 100},
		{"positions, which bound it", edited(t, bert, "config.json", "max_position_embeddings", 64), 64},
		{"positions, when it is endless", edited(t, bert, "tokenizer_config.json", "model_max_length", 1e30), 512},
		{"the truncation block", unsaid, 128},
		{"nowhere", unlimited(t, bert), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := open(t, tc.dir, text.Options{}).MaxLength(); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestPadding(t *testing.T) {
	bert := family("bert")
	noFiles := edited(t, family("roberta"), "tokenizer_config.json", "pad_token", nil)
	left := edited(t, bert, "tokenizer_config.json", "padding_side", "left")
	typed := edited(t, bert, "tokenizer_config.json", "pad_token_type_id", 1)
	for _, tc := range []struct {
		name, dir  string
		id, typeID int64
		left       bool
	}{
		{"pad_token", bert, 0, 0, false},
		{"pad_token as an object", edited(t, bert, "tokenizer_config.json", "pad_token", map[string]string{"content": "[MASK]"}), 103, 0, false},
		{"config.json", noFiles, 1, 0, false},
		{"left", left, 0, 0, true},
		{"type id", typed, 0, 1, false},
		{"phobert", family("phobert"), 1, 0, false},
		{"xlmr", family("xlmr"), 1, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := open(t, tc.dir, text.Options{})
			if e.PadID() != tc.id || e.PadTypeID() != tc.typeID || e.PadLeft() != tc.left {
				t.Errorf("id %d, type id %d, left %v", e.PadID(), e.PadTypeID(), e.PadLeft())
			}
		})
	}
}

func TestSpecialTokensTypedByUsers(t *testing.T) {
	dir := family("bert")
	split := edited(t, dir, "tokenizer_config.json", "split_special_tokens", true)
	for _, tc := range []struct {
		name string
		e    *text.Encoder
		want []int64
	}{
		{"tokens by default", open(t, dir, text.Options{}), []int64{101, 102, 102}},
		{"text by option", open(t, dir, text.Options{SpecialAsText: true}), []int64{101, 1031, 19802, 1033, 102}},
		{"text by the bundle", open(t, split, text.Options{}), []int64{101, 1031, 19802, 1033, 102}},
	} {
		got, err := tc.e.Encode("[SEP]")
		if err != nil || !slices.Equal(got.IDs, tc.want) {
			t.Errorf("%s: %v, %v; want %v", tc.name, got.IDs, err, tc.want)
		}
	}
}

func TestSharedTokenizer(t *testing.T) {
	pool := hf.NewPool()
	var wg sync.WaitGroup
	for _, length := range []int{8, 16, 0} {
		e := open(t, family("phobert"), text.Options{MaxLength: length, Tokenizers: pool})
		for range 5 {
			wg.Go(func() {
				for range 50 {
					got, err := e.Encode(strings.Repeat("xin chào ", 300))
					if err != nil || len(got.IDs) != e.MaxLength() {
						t.Errorf("%d ids, want %d: %v", len(got.IDs), e.MaxLength(), err)
					}
				}
			})
		}
	}
	if pool.Len() != 1 {
		t.Errorf("%d tokenizers for one file", pool.Len())
	}
	wg.Wait()
}

func TestClose(t *testing.T) {
	pool := hf.NewPool()
	e, err := text.Open(family("phobert"), text.Options{Tokenizers: pool})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := e.Encode("a"); !errors.Is(err, hf.ErrClosed) {
		t.Errorf("encode after close: %v", err)
	}
	if pool.Len() != 0 {
		t.Errorf("%d tokenizers are still open", pool.Len())
	}
}

func writeFile(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
