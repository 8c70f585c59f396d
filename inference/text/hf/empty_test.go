package hf_test

import (
	"runtime"
	"sync"
	"testing"

	"modelgate/inference/text/hf"
)

// What comes of an empty text lies nowhere: the library must not give an address for it that Go takes for a pointer's. Go looks at those
// when it moves the stack of who asks, which it does to stacks that are larger than they need be.
func TestEmptyEncodingHasNoAddress(t *testing.T) {
	tok := load(t, "bert")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 2000 {
				deep(100)
				for range 20 {
					if e, err := tok.Encode("", hf.EncodeOptions{NoSpecial: true}); err != nil || len(e.IDs) != 0 {
						t.Errorf("%v, %v", e, err)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	for {
		select {
		case <-done:
			return
		default:
			runtime.GC()
		}
	}
}

// deep makes the stack large.
//
//go:noinline
func deep(n int) byte {
	var fill [1 << 10]byte
	fill[n] = byte(n)
	if n > 0 {
		return deep(n-1) + fill[n]
	}
	return fill[0]
}
