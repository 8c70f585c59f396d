package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"modelgate/inference/engine"
)

// A session is one graph in one worker at a time.
type session struct {
	o       Options
	pace    *pace
	opened  openedMessage
	watch   watch
	gate    *semaphore.Weighted // a run takes one, a run that may be a killer all
	stop    context.CancelFunc  // has the supervisor end the worker and itself
	stopped chan struct{}       // closed when it has
	runs    engine.Runs

	mu      sync.Mutex // guards the fields below; never held during a run, a start or a wait
	open    openMessage
	child   *child        // nil while there is none
	changed chan struct{} // closed, and another put here, when child or failed changes
	failed  int           // starts that failed since the session was opened
	failure error         // of the last one
}

// whole is all of the gate: more than there will ever be runs.
const whole = 1 << 30

func newSession(ctx context.Context, o Options, p *pace, w watch, open openMessage, c *child, opened openedMessage) *session {
	s := &session{
		o: o, pace: p, watch: w, open: open, opened: opened, child: c, gate: semaphore.NewWeighted(whole),
		changed: make(chan struct{}), stopped: make(chan struct{}),
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.supervise(ctx, c)
	return s
}

func (s *session) Inputs() []engine.TensorSpec  { return s.opened.Inputs }
func (s *session) Outputs() []engine.TensorSpec { return s.opened.Outputs }

// PID is the process of the worker; 0 while there is none.
func (s *session) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return 0
	}
	return s.child.cmd.Process.Pid
}

// Live says that the version serves: its worker, and those that follow it, compute at the usual priority from the next run on.
func (s *session) Live(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open.Live = true
	return nil
}

// Run is safe for concurrent use.
func (s *session) Run(ctx context.Context, inputs []engine.Tensor) ([]engine.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.runs.Begin(); err != nil {
		return nil, err
	}
	defer s.runs.End()
	outputs, err := s.beside(ctx, inputs, 1)
	var d *deathError
	if !errors.As(err, &d) {
		return outputs, err
	}
	// A fresh worker that dies of its only run can blame nothing that came before.
	proof := d.fresh && d.blamesItsRun()
	if ctx.Err() == nil && !proof && rows(inputs) <= 1 {
		outputs, err = s.beside(ctx, inputs, whole)
	}
	switch {
	case !errors.As(err, &d):
		return outputs, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, &engine.CrashError{Cause: d.cause, Proven: d.blamesItsRun(), Err: d}
}

// rows is how many requests inputs may hold.
func rows(inputs []engine.Tensor) int64 {
	if len(inputs) == 0 || len(inputs[0].Shape) == 0 {
		return 1
	}
	return inputs[0].Shape[0]
}

// beside runs inputs with that share of the gate: with 1 beside others, with the whole alone.
func (s *session) beside(ctx context.Context, inputs []engine.Tensor, share int64) ([]engine.Tensor, error) {
	if err := s.gate.Acquire(ctx, share); err != nil {
		return nil, err
	}
	defer s.gate.Release(share)
	for {
		c, k, err := s.current(ctx)
		if err != nil {
			return nil, err
		}
		done := func() {}
		if k == kindRun {
			done = s.pace.run(max(1, s.open.Threads))
		}
		outputs, err := c.run(ctx, k, inputs)
		done()
		if !errors.Is(err, errUnsent) {
			return outputs, err
		}
		select { // the supervisor will see it too
		case <-c.gone:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s.replace(c, nil)
	}
}

// current is the worker, and what a run is for it. While there is none, it waits for the next start to succeed or fail.
func (s *session) current(ctx context.Context) (*child, kind, error) {
	s.mu.Lock()
	c, changed, failed, k := s.child, s.changed, s.failed, kindTry
	if s.open.Live {
		k = kindRun
	}
	s.mu.Unlock()
	for c == nil {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
		s.mu.Lock()
		c, changed = s.child, s.changed
		failure := s.failure
		again := s.failed != failed
		s.mu.Unlock()
		if c == nil && again {
			return nil, 0, fmt.Errorf("%w, and can't be started: %w", engine.ErrCrashed, failure)
		}
	}
	return c, k, nil
}

// replace puts next in the place of the worker c, if c is still there.
func (s *session) replace(c, next *child) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == c {
		s.child = next
		s.announceLocked()
	}
}

func (s *session) announceLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// A worker that lived for long is started anew at once. One that has at least answered something waits for as long as its start took:
// so deaths in a row keep half a processor free of starts, and callers wait no longer than they must. Else the gaps get longer.
const (
	calm     = 10 * time.Second
	firstGap = 50 * time.Millisecond
	maxGap   = 5 * time.Second
)

// supervise starts the worker anew when it dies, until ctx ends.
func (s *session) supervise(ctx context.Context, c *child) {
	defer close(s.stopped)
	var gap time.Duration
	for {
		select {
		case <-c.gone:
		case <-ctx.Done():
			c.close()
			c.logLast()
			return
		}
		s.replace(c, nil)
		s.o.Logger.Error("a worker died", "graph", s.open.Path, "cause", string(c.death.cause), "runs", c.death.flying, "error", c.death)
		c.logLast()
		switch {
		case time.Since(c.born) > calm:
			gap = 0
		case c.answered.Load():
			gap = min(c.took, maxGap)
		}
		if c, gap = s.restart(ctx, gap); c == nil {
			return
		}
		s.watch.restarted()
		s.replace(nil, c)
	}
}

// restart starts a worker after gap, and again after longer and longer ones until it lives. It returns nil when ctx ends.
func (s *session) restart(ctx context.Context, gap time.Duration) (*child, time.Duration) {
	for {
		select {
		case <-time.After(gap):
		case <-ctx.Done():
			return nil, 0
		}
		gap = min(max(2*gap, firstGap), maxGap)
		s.mu.Lock()
		open := s.open
		s.mu.Unlock()
		open.Live = true // callers wait
		c, _, err := start(ctx, s.o, s.pace, s.watch, open)
		if err == nil {
			return c, gap
		}
		if ctx.Err() != nil {
			return nil, 0
		}
		s.o.Logger.Error("a worker can't be started anew", "graph", open.Path, "again_in", gap, "error", err)
		s.mu.Lock()
		s.failed++
		s.failure = err
		s.announceLocked()
		s.mu.Unlock()
	}
}

// Close waits for runs in progress and ends the worker, which gives all of its memory back.
func (s *session) Close() error {
	s.runs.Close()
	s.stop()
	<-s.stopped
	return nil
}
