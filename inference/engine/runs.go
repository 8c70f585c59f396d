package engine

import "sync"

// Runs counts the runs of a session until it is closed. The zero Runs is ready. It is safe for concurrent use.
type Runs struct {
	mu     sync.Mutex // guards closed, and that no run begins after it is set
	closed bool
	flying sync.WaitGroup // the runs in progress
}

// Begin counts a run, after which End must be called. Once the session is closed it is ErrClosed.
func (r *Runs) Begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.flying.Add(1)
	return nil
}

// End says that a run has ended.
func (r *Runs) End() { r.flying.Done() }

// Close refuses further runs and waits for those in progress. It says whether this call is the first.
func (r *Runs) Close() (first bool) {
	r.mu.Lock()
	first = !r.closed
	r.closed = true
	r.mu.Unlock()
	r.flying.Wait()
	return first
}
