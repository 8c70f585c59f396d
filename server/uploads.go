package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// A budget is the memory that the uploads in progress, and those being answered, may hold together.
//
// Only the oldest upload waits for a share, and only for a while; younger ones are refused when there is none. If all waited, uploads
// that are half done would wait for each other; if none did, all could be refused at once.
type budget struct {
	most  int64
	shown func(bytes int64) // what is held, as it changes; called under mu, must not block

	mu      sync.Mutex // guards what follows; nothing blocks under it
	held    int64
	holders []*incoming   // oldest first
	given   chan struct{} // closed and replaced when something is given back

	// joining is held while a clip's blocks are copied into one piece, so that no more than one clip is there twice.
	joining sync.Mutex
}

func newBudget(most int64, shown func(int64)) *budget {
	return &budget{most: most, shown: shown, given: make(chan struct{})}
}

// take adds n bytes to what c holds. The oldest waits for them until ctx ends.
func (b *budget) take(ctx context.Context, c *incoming, n int64) error {
	for {
		given, err := b.try(c, n)
		if given == nil {
			return err
		}
		select {
		case <-given:
		case <-ctx.Done():
			return errUploadsFull
		}
	}
}

// try is take without the wait: a channel says that there is something to wait for.
func (b *budget) try(c *incoming, n int64) (given <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.holders, c) {
		b.holders = append(b.holders, c)
	}
	switch {
	case n <= b.most-b.held:
		b.held += n
		c.charged += n
		b.shown(b.held)
		return nil, nil
	case b.holders[0] == c && n <= b.most-c.charged:
		return b.given, nil
	}
	return nil, errUploadsFull
}

// give takes back all that c holds.
func (b *budget) give(c *incoming) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holders = slices.DeleteFunc(b.holders, func(o *incoming) bool { return o == c })
	b.held -= c.charged
	c.charged = 0
	b.shown(b.held)
	close(b.given)
	b.given = make(chan struct{})
}

// blockBytes is the least that is allocated for an upload at once: chunks may be as small as one byte.
const blockBytes = 64 << 10

// An incoming is a clip that comes in chunks, in blocks that are allocated as they are filled, never for what is only announced.
type incoming struct {
	budget *budget
	most   int64 // bytes of the clip

	size    int64
	blocks  [][]byte
	charged int64 // guarded by budget.mu
}

// add appends a chunk, which stays the caller's. It may wait for memory until ctx ends.
func (c *incoming) add(ctx context.Context, chunk []byte) error {
	if int64(len(chunk)) > c.most-c.size {
		return fmt.Errorf("%w: it has more than %d bytes", errClipTooLarge, c.most)
	}
	for len(chunk) > 0 {
		if len(c.blocks) == 0 || len(c.last()) == cap(c.last()) {
			n := min(max(blockBytes, int64(len(chunk))), c.most-c.size)
			if err := c.budget.take(ctx, c, n); err != nil {
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
	c.blocks = nil
	c.budget.give(c)
}
