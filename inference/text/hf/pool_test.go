package hf_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"modelgate/inference/text/hf"
)

func TestPoolSharesByContent(t *testing.T) {
	data, err := os.ReadFile(path("phobert"))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	p := hf.NewPool()
	a, b, other := openShared(t, p, path("phobert")), openShared(t, p, copied), openShared(t, p, path("roberta"))
	if a.Tokenizer != b.Tokenizer || a.Tokenizer == other.Tokenizer || p.Len() != 2 {
		t.Errorf("one content %v, other content %v, %d in the pool", a.Tokenizer == b.Tokenizer, a.Tokenizer == other.Tokenizer, p.Len())
	}
	a.Close()
	a.Close() // harmless
	if _, err := b.Encode("xin chào", hf.EncodeOptions{}); err != nil {
		t.Errorf("after another user's close: %v", err)
	}
	b.Close()
	if _, err := b.Encode("xin chào", hf.EncodeOptions{}); !errors.Is(err, hf.ErrClosed) {
		t.Errorf("after the last close: %v", err)
	}
	if p.Len() != 1 {
		t.Errorf("%d in the pool after the last close of one of two", p.Len())
	}
	again := openShared(t, p, copied)
	if again.Tokenizer == a.Tokenizer {
		t.Error("a closed tokenizer was found again")
	}
	if _, err := again.Encode("xin chào", hf.EncodeOptions{}); err != nil {
		t.Error(err)
	}
}

func TestPoolConcurrentOpens(t *testing.T) {
	p := hf.NewPool()
	shared := make([]*hf.Shared, 16)
	var wg sync.WaitGroup
	for i := range shared {
		wg.Go(func() {
			s, err := p.Open(path("phobert"))
			if err != nil {
				t.Error(err)
				return
			}
			shared[i] = s
		})
	}
	wg.Wait()
	for _, s := range shared {
		if s == nil || s.Tokenizer != shared[0].Tokenizer {
			t.Fatal("concurrent opens of one file gave several tokenizers")
		}
	}
	for _, s := range shared {
		wg.Go(s.Close)
	}
	wg.Wait()
	if p.Len() != 0 {
		t.Errorf("%d in the pool after all closes", p.Len())
	}
}

// TestPoolChurn opens, uses and closes from many goroutines: a reference that was given out is usable until it is closed.
func TestPoolChurn(t *testing.T) {
	p := hf.NewPool()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				s, err := p.Open(path("phobert"))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Encode("a", hf.EncodeOptions{}); err != nil {
					t.Error(err)
				}
				s.Close()
			}
		})
	}
	wg.Wait()
	if p.Len() != 0 {
		t.Errorf("%d in the pool after all closes", p.Len())
	}
}

func TestPoolKeepsNoFailures(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := os.WriteFile(bad, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := hf.NewPool()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := p.Open(bad); err == nil {
				t.Error("a malformed file was opened")
			}
		})
	}
	wg.Wait()
	if p.Len() != 0 {
		t.Errorf("%d in the pool", p.Len())
	}
}

func openShared(t *testing.T, p *hf.Pool, path string) *hf.Shared {
	t.Helper()
	s, err := p.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
