package batch

import (
	"errors"
	"sync/atomic"
	"time"
)

// ErrSlowRun says that a run took longer than one may.
var ErrSlowRun = errors.New("the run takes longer than one may")

const (
	defaultMaxRun = time.Minute
	// hangs is the least time after which a run of several requests is taken for one that never ends, and hangsTimes how many times
	// what its requests take at most.
	hangs, hangsTimes = time.Second, 4
)

// A pace knows how long requests take to run, of late at most.
type pace struct{ longest atomic.Int64 }

// learn hears how long a run took that ended well. What is long ago counts less and less: one stall doesn't stay.
func (p *pace) learn(took time.Duration, requests int) {
	was := p.longest.Load()
	p.longest.Store(max(int64(took)/int64(requests), was-was/64)) // of two at the same time one may be lost
}

// limit is how long a run of so many requests may take before it is taken for one that hangs, or most where nothing is known yet.
func (p *pace) limit(requests int, most time.Duration) time.Duration {
	longest := time.Duration(p.longest.Load())
	if longest == 0 {
		return most
	}
	return min(max(hangs, hangsTimes*longest*time.Duration(requests)), most)
}

// oneByOne runs requests alone, so that each answers for itself. One that takes far longer than any did lately waits until the others are answered: it
// may never end.
func (b *Batcher[In, Out]) oneByOne(batch []*request[In, Out]) {
	var late []*request[In, Out]
	for _, r := range batch {
		if !b.alone(r, b.pace.limit(1, b.o.MaxRun)) {
			late = append(late, r)
		}
	}
	for _, r := range late {
		b.alone(r, b.o.MaxRun)
	}
}

// alone runs r and answers it, unless it takes longer than limit, which is less than MaxRun.
func (b *Batcher[In, Out]) alone(r *request[In, Out], limit time.Duration) (answered bool) {
	if r.ctx.Err() != nil {
		return true // nobody waits
	}
	outs, err := b.together([]*request[In, Out]{r}, limit)
	if errors.Is(err, ErrSlowRun) && limit < b.o.MaxRun {
		return false
	}
	if err != nil {
		r.done <- answer[Out]{err: err}
		return true
	}
	r.done <- answer[Out]{out: outs[0]}
	return true
}
