package server

import (
	"fmt"
	"sync"
)

// A budget is the memory that the uploads in progress, and those being answered, may hold together.
//
// Nobody waits for a share: uploads that are half done and wait for each other would wait for ever.
type budget struct {
	most  int64
	shown func(bytes int64) // what is held, as it changes; called under mu, must not block

	mu   sync.Mutex // guards held
	held int64

	// joining is held while a clip's blocks are copied into one piece, so that no more than one clip is there twice.
	joining sync.Mutex
}

func (b *budget) take(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.most-b.held {
		return errUploadsFull
	}
	b.held += n
	b.shown(b.held)
	return nil
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	b.shown(b.held)
}

// blockBytes is the least that is allocated for an upload at once: chunks may be as small as one byte.
const blockBytes = 64 << 10

// An incoming is a clip that comes in chunks, in blocks that are allocated as they are filled, never for what is only announced.
type incoming struct {
	budget *budget
	most   int64 // bytes of the clip

	size, charged int64
	blocks        [][]byte
}

// charge counts n bytes against the budget until free.
func (c *incoming) charge(n int64) error {
	if err := c.budget.take(n); err != nil {
		return err
	}
	c.charged += n
	return nil
}

// add appends a chunk, which stays the caller's.
func (c *incoming) add(chunk []byte) error {
	if int64(len(chunk)) > c.most-c.size {
		return fmt.Errorf("%w: it has more than %d bytes", errClipTooLarge, c.most)
	}
	for len(chunk) > 0 {
		if len(c.blocks) == 0 || len(c.last()) == cap(c.last()) {
			n := min(max(blockBytes, int64(len(chunk))), c.most-c.size)
			if err := c.charge(n); err != nil {
				return err
			}
			c.blocks = append(c.blocks, make([]byte, 0, n))
		}
		last := c.last()
		n := min(len(chunk), cap(last)-len(last))
		c.blocks[len(c.blocks)-1] = append(last, chunk[:n]...)
		chunk, c.size = chunk[n:], c.size+int64(n)
	}
	return nil
}

func (c *incoming) last() []byte { return c.blocks[len(c.blocks)-1] }

// join is the clip in one piece, not nil. It stays charged until free.
func (c *incoming) join() []byte {
	if len(c.blocks) == 1 {
		return c.last()
	}
	c.budget.joining.Lock()
	defer c.budget.joining.Unlock()
	clip := make([]byte, 0, c.size)
	for _, b := range c.blocks {
		clip = append(clip, b...)
	}
	c.blocks = nil
	return clip
}

// free gives everything back.
func (c *incoming) free() {
	c.budget.give(c.charged)
	c.charged, c.blocks = 0, nil
}
