package batch

// Waiting is how many requests b counts as waiting.
func (b *Batcher[In, Out]) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.room.insideLocked() + len(b.room.outside)
}

// Inside is how many of them hold a place.
func (b *Batcher[In, Out]) Inside() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.room.insideLocked()
}
