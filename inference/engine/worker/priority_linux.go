package worker

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A priority has what isn't live yet run only where nobody else wants to, as far as that can be undone: nobody but root may raise a
// thread again. Others may lower the threads that end with their work, and by less, since nobody can help them if they starve.
type priority struct {
	mayRaise bool
	own      *unix.SchedAttr // what the process was started with: the usual
	threads  *os.File        // the folder of all threads, opened before it is out of reach
	starved  atomic.Bool     // others keep the lowest priority from running

	mu     sync.Mutex // guards raised, and that no thread is lowered after it is set
	raised bool
}

// starving is for how long a thread may be kept from running.
const starving = 3 * time.Second

func newPriority() (*priority, error) {
	threads, err := os.Open("/proc/self/task")
	if err != nil {
		return nil, err
	}
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, errors.Join(err, threads.Close())
	}
	p := &priority{threads: threads, own: own}
	onThread(func() { p.mayRaise = lowest(0) == nil && p.usual(0) == nil })
	return p, nil
}

func set(thread int, policy uint32, nice int32) error {
	return unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: nice}, 0)
}

// lowest has the kernel run a thread only on processors that nobody else wants, and let it read only where no one else reads.
func lowest(thread int) error { return set(thread, unix.SCHED_IDLE, 0) }

// low gives a thread a tenth of what others get.
func (p *priority) low(thread int) error { return set(thread, unix.SCHED_BATCH, max(p.own.Nice, 10)) }

func (p *priority) usual(thread int) error { return unix.SchedSetAttr(thread, p.own, 0) }

// lowered runs f on a thread of its own that has a lower priority and ends with f. Where it can't be lowered, f runs as it is.
func (p *priority) lowered(f func()) {
	onThread(func() {
		if !p.mayRaise || p.starved.Load() {
			_ = p.low(0)
			f()
			return
		}
		_ = lowest(0)
		thread, began := unix.Gettid(), time.Now()
		watch := time.AfterFunc(starving, func() {
			if used, err := threadTime(thread); err == nil && used < time.Since(began)/4 {
				p.help()
			}
		})
		defer watch.Stop()
		f()
	})
}

// lowerAll has all threads, and those that they start, run where nobody else wants to, for good. Where they starve they get a tenth of
// what others get. The returned func ends the watch over that.
func (p *priority) lowerAll() (stop func()) {
	if !p.mayRaise {
		p.each(p.low)
		return func() {}
	}
	p.each(lowest)
	began, done := time.Now(), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(starving):
			}
			var used unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used); err != nil || time.Duration(used.Nano()) < time.Since(began)/4 {
				p.help()
				return
			}
		}
	}()
	return func() { close(done) }
}

// onThread runs f on a thread that ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		f()
	}()
	<-done
}

// threadTime is for how long a thread has run.
func threadTime(thread int) (time.Duration, error) {
	const sched, perThread = 2, 4 // the exact one of its clocks
	var t unix.Timespec
	err := unix.ClockGettime(int32(^thread<<3|perThread|sched), &t)
	return time.Duration(t.Nano()), err
}

// help gives all threads, of which some wait for the processors in vain, a tenth of what others get.
func (p *priority) help() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starved.Store(true)
	if !p.raised {
		p.all(p.low)
	}
}

// raise gives all threads the usual priority: those that the loading left behind have that of the loading.
func (p *priority) raise() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.raised = true
	p.all(p.usual)
}

func (p *priority) all(set func(thread int) error) {
	if p.mayRaise {
		p.each(set)
	}
}

func (p *priority) each(set func(thread int) error) {
	list, err := p.threads.ReadDir(-1)
	_, seekErr := p.threads.Seek(0, 0)
	if err != nil || seekErr != nil {
		return
	}
	for _, e := range list {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			_ = set(id) // it may have ended
		}
	}
}
