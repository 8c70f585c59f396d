package batch

// Waiting is how many requests b counts as waiting.
func (b *Batcher[In, Out]) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.room.requestsLocked()
}
