// Package batch joins requests that wait at the same time into one run.
package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

var (
	// ErrFull says that as many requests wait as may.
	ErrFull = errors.New("too many requests are waiting")
	// ErrClosed says that the batcher was closed.
	ErrClosed = errors.New("the batcher is closed")
)

// Options configure a Batcher. The zero Options are good, but for Size: without it all requests count as one size.
type Options[In any] struct {
	Workers  int // runs at the same time; 0 means one a core
	MaxBatch int // requests in one run; 0 means 8
	MaxQueue int // requests that hold a place; 0 means 1024. Memory is their limit; MaxWait is that of time
	// MaxWait is how long a request of a burst may be expected to wait; 0 means a quarter of a second, or 32 times what one takes. Where
	// requests come faster than they can be run, only so many wait as keep the workers busy (see room).
	MaxWait time.Duration
	// MaxRun is how long one run may take; 0 means a minute. A request whose run takes longer gets ErrSlowRun.
	MaxRun time.Duration
	// Size says how large a request is. Only requests of one size share a run: on a CPU padding costs more than batching gains.
	Size func(In) int
	// Observed is called, if set, when a run starts, with its number of requests and how long each waited. It must not block.
	Observed func(requests int, waits []time.Duration)
}

func (o Options[In]) withDefaults() Options[In] {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 8
	}
	if o.MaxQueue <= 0 {
		o.MaxQueue = 1024
	}
	if o.MaxRun <= 0 {
		o.MaxRun = defaultMaxRun
	}
	return o
}

// A Batcher runs requests in batches. A free worker never waits for company: it takes the oldest request, and with it those that
// wait already and have its size. So an idle batcher adds no latency, and a busy one fills its runs.
type Batcher[In, Out any] struct {
	o       Options[In]
	run     func(context.Context, []In) ([]Out, error)
	workers sync.WaitGroup
	pace    pace

	mu     sync.Mutex // guards the fields below; never held during a run
	wake   *sync.Cond // a request came, or the batcher was closed
	queue  []*request[In, Out]
	room   room
	closed bool
}

// A request is one caller's In on its way. done has room for its answer, since the caller may have left.
type request[In, Out any] struct {
	ctx     context.Context //nolint:containedctx // tells the worker that the caller has left
	in      In
	size    int
	patient bool
	came    time.Time
	done    chan answer[Out]
}

type answer[Out any] struct {
	out Out
	err error
}

// New starts a batcher's workers. run computes one Out for each In, in order, and may be called by several workers at once.
// Its context ends when every caller of the batch has left.
func New[In, Out any](o Options[In], run func(context.Context, []In) ([]Out, error)) *Batcher[In, Out] {
	b := &Batcher[In, Out]{o: o.withDefaults(), run: run}
	b.room = room{workers: b.o.Workers, most: b.o.MaxQueue, burst: b.o.MaxWait}
	b.wake = sync.NewCond(&b.mu)
	for range b.o.Workers {
		b.workers.Go(b.work)
	}
	return b
}

// Do runs in, alone or with others, and returns its own Out or error. When ctx ends first it returns ctx's error; the others
// of the batch don't notice. A request that would wait for too long is refused with a *FullError.
func (b *Batcher[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	p, err := b.Enter(ctx, false)
	if err != nil {
		var none Out
		return none, err
	}
	defer p.Leave()
	return p.Do(ctx, in)
}

// add puts r, which has a place, into the queue.
func (b *Batcher[In, Out]) add(r *request[In, Out]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.room.madeLocked(r.size)
	b.queue = append(b.queue, r)
	b.wake.Signal()
	return nil
}

// forget takes a request whose caller has left out of the queue, if it is still there, so that it doesn't count as waiting.
func (b *Batcher[In, Out]) forget(r *request[In, Out]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, q := range b.queue {
		if q == r {
			b.queue = append(b.queue[:i], b.queue[i+1:]...)
			b.room.takenLocked(r.size, 1, patients([]*request[In, Out]{r}))
			return
		}
	}
}

// Close refuses new requests, runs those that wait, and returns when the last has its answer. Closing twice is harmless.
func (b *Batcher[In, Out]) Close() error {
	b.mu.Lock()
	b.closed = true
	b.room.closeLocked()
	b.wake.Broadcast()
	b.mu.Unlock()
	b.workers.Wait()
	return nil
}

func (b *Batcher[In, Out]) work() {
	for {
		batch := b.take()
		if batch == nil {
			return
		}
		b.serve(batch)
	}
}

// take waits for the oldest request and returns it with its equals; nil means that the batcher is closed and empty.
func (b *Batcher[In, Out]) take() []*request[In, Out] {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) == 0 {
		if b.closed {
			return nil
		}
		b.room.idleLocked(1)
		b.wake.Wait()
		b.room.idleLocked(-1)
	}
	size := b.queue[0].size
	var batch []*request[In, Out]
	rest := b.queue[:0]
	for _, r := range b.queue {
		if r.size == size && len(batch) < b.o.MaxBatch {
			batch = append(batch, r)
		} else {
			rest = append(rest, r)
		}
	}
	clear(b.queue[len(rest):])
	b.queue = rest
	b.room.takenLocked(size, len(batch), patients(batch))
	return batch
}

func patients[In, Out any](batch []*request[In, Out]) (n int) {
	for _, r := range batch {
		if r.patient {
			n++
		}
	}
	return n
}

// serve runs a batch and answers each of its requests exactly once.
func (b *Batcher[In, Out]) serve(batch []*request[In, Out]) {
	batch = b.present(batch)
	if len(batch) == 0 {
		return
	}
	b.observe(batch)
	if len(batch) == 1 {
		b.alone(batch[0], b.o.MaxRun)
		return
	}
	outs, err := b.together(batch, b.pace.limit(len(batch), b.o.MaxRun))
	if err != nil { // one bad request fails a run as a whole, and one that hangs holds up all
		b.oneByOne(batch)
		return
	}
	for i, r := range batch {
		r.done <- answer[Out]{out: outs[i]}
	}
}

func (b *Batcher[In, Out]) learn(size, n int, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room.learnLocked(size, n, took)
}

// present drops the requests whose callers have left; nobody waits for their answers.
func (b *Batcher[In, Out]) present(batch []*request[In, Out]) []*request[In, Out] {
	here := batch[:0:0]
	for _, r := range batch {
		if r.ctx.Err() == nil {
			here = append(here, r)
		}
	}
	return here
}

func (b *Batcher[In, Out]) observe(batch []*request[In, Out]) {
	if b.o.Observed == nil {
		return
	}
	waits := make([]time.Duration, len(batch))
	for i, r := range batch {
		waits[i] = time.Since(r.came)
	}
	b.o.Observed(len(batch), waits)
}

// together is one run. Its context ends when all its callers have left, not when one of them has, or after limit, with ErrSlowRun.
func (b *Batcher[In, Out]) together(batch []*request[In, Out], limit time.Duration) (outs []Out, err error) {
	wanted, cancel := b.whileWanted(batch)
	defer cancel()
	ctx, stop := context.WithTimeoutCause(wanted, limit, ErrSlowRun)
	defer stop()
	defer func() {
		if p := recover(); p != nil {
			outs, err = nil, fmt.Errorf("the run panicked: %v", p)
		}
	}()
	ins := make([]In, len(batch))
	for i, r := range batch {
		ins[i] = r.in
	}
	began := time.Now()
	outs, err = b.run(ctx, ins)
	switch {
	case err == nil:
		b.pace.learn(time.Since(began), len(ins))
		b.learn(batch[0].size, len(ins), time.Since(began))
	case errors.Is(context.Cause(ctx), ErrSlowRun):
		return nil, fmt.Errorf("%w, %v", ErrSlowRun, limit)
	}
	if err == nil && len(outs) != len(ins) {
		return nil, fmt.Errorf("the run gave %d answers to %d requests", len(outs), len(ins))
	}
	return outs, err
}

// whileWanted is a context that ends once every request of the batch has been left. It descends from none of theirs: a batch has
// many callers and belongs to none of them.
func (b *Batcher[In, Out]) whileWanted(batch []*request[In, Out]) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex // guards waiting
	waiting := len(batch)
	stops := make([]func() bool, len(batch))
	for i, r := range batch {
		stops[i] = context.AfterFunc(r.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if waiting--; waiting == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
