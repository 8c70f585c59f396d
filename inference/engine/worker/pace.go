package worker

import (
	"runtime"
	"sync"
	"syscall"
	"time"
)

// A pace has processes that load stand still while runs of live versions keep all processors busy. The lowest priority isn't enough: what
// has it still takes the caches, and half a core where two processors are one core's, and the kernel leaves two runs on one
// processor where the other one has only that to do.
//
// Who loads stands still for half of the time at most. Where runs leave less, nothing is paced until all loads are done.
type pace struct {
	busy  int           // from so many threads of runs on
	spare time.Duration // for so long loads may stand still besides half of their time

	mu      sync.Mutex // guards the fields below
	running int        // threads of the runs of live versions
	loading map[*child]struct{}
	began   time.Time     // the first one of loading
	stood   time.Duration // for how long they have stood still since
	still   time.Time     // since when they stand still; zero: they don't
	enough  *time.Timer   // ends that
	off     bool          // until loading is empty
}

func newPace() *pace {
	return &pace{busy: runtime.GOMAXPROCS(0), spare: 100 * time.Millisecond, loading: map[*child]struct{}{}}
}

// load says that c loads, until the returned func is called: c doesn't stand still afterwards.
func (p *pace) load(c *child) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.loading) == 0 {
		p.began, p.stood, p.off = time.Now(), 0, false
	}
	p.goOnLocked() // all or none
	p.loading[c] = struct{}{}
	p.standLocked()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.goOnLocked()
		delete(p.loading, c)
		p.standLocked()
	}
}

// run says that a run of a live version takes so many threads, until the returned func is called.
func (p *pace) run(threads int) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running += threads
	p.standLocked()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running -= threads
		if p.running < p.busy {
			p.goOnLocked()
		}
	}
}

// standLocked has all that load stand still, if runs need the processors.
func (p *pace) standLocked() {
	if p.running < p.busy || len(p.loading) == 0 || p.off || !p.still.IsZero() {
		return
	}
	p.still = time.Now()
	since := p.still
	p.enough = time.AfterFunc(p.still.Sub(p.began)-2*p.stood+2*p.spare, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.still.Equal(since) {
			p.off = true
			p.goOnLocked()
		}
	})
	p.signalLocked(syscall.SIGSTOP)
}

// goOnLocked ends that they stand still.
func (p *pace) goOnLocked() {
	if p.still.IsZero() {
		return
	}
	p.enough.Stop()
	p.stood += time.Since(p.still)
	p.still = time.Time{}
	p.signalLocked(syscall.SIGCONT)
}

func (p *pace) signalLocked(s syscall.Signal) {
	for c := range p.loading {
		_ = c.cmd.Process.Signal(s) // it may have ended
	}
}
