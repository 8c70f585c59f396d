package worker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"modelgate/inference/engine"
)

// A child is one worker process, seen from the parent.
type child struct {
	o     Options
	watch watch
	conn  *net.UnixConn
	cmd   *exec.Cmd
	said  *head
	turn  chan struct{} // of capacity 1: who has put something in writes a message, and takes it out after
	born  time.Time

	hello chan message  // what answers open: hello, then opened or failed
	gone  chan struct{} // closed when the process has ended and nothing of it is left here
	death *deathError   // why; to be read once gone is closed
	hurry *time.Timer   // kills the worker that doesn't end after its socket; listen's, then bury's

	lanes  []*lane
	vacant *semaphore.Weighted // one for each of them

	mu     sync.Mutex // guards the fields below, and those of lanes that change; never held during a read, a write or a wait
	free   []*lane
	last   uint64 // the id that was given last
	dead   bool   // no answer comes any more
	flying int    // how many runs were in flight at the death
	reason error  // why we killed it; nil: we didn't

	outputs  atomic.Int64  // how many tensors a result has; 0: not known yet
	answered atomic.Bool   // a run came out well
	took     time.Duration // to start, load included; not changed once start has returned
}

// A deathError says why a worker ended.
type deathError struct {
	text   string
	cause  engine.Cause
	ours   error         // why we killed it; nil: we didn't
	flying int           // the runs in flight
	fresh  bool          // no run of it came out well
	used   time.Duration // processor time
}

// unexpected says that nobody wanted the worker to end, as who closes a session or gives a load up does.
func (e *deathError) unexpected() bool {
	return e.ours == nil || errors.Is(e, errHung) || errors.Is(e, errLoad) || errors.Is(e, errProtocol)
}

// blamesItsRun says that the worker ended by itself with a single run in it.
func (e *deathError) blamesItsRun() bool { return e.cause == engine.Crashed && e.flying <= 1 }

func (e *deathError) Error() string { return e.text }

func (e *deathError) Unwrap() error { return e.ours }

var (
	errHung   = errors.New("it didn't do as it was told in time")
	errClosed = errors.New("its session was closed")
	// errUnsent says that the worker had ended before the run reached it.
	errUnsent = errors.New("the worker has ended")
)

// spawn starts the process. Its thread waits for it to end: the kernel kills it when the thread that started it ends.
func spawn(ctx context.Context, o Options, w watch, lanes int) (*child, error) {
	ours, control, err := socketPair()
	if err != nil {
		return nil, err
	}
	ourLanes, theirs, err := makeLanes(lanes)
	if err != nil {
		return nil, errors.Join(err, ours.Close(), control.Close())
	}
	theirs = append([]*os.File{control}, theirs...)
	c := &child{
		o: o, watch: w, conn: ours, said: &head{}, turn: make(chan struct{}, 1), born: time.Now(),
		hello: make(chan message, 2), gone: make(chan struct{}),
		lanes: ourLanes, free: slices.Clone(ourLanes), vacant: semaphore.NewWeighted(int64(lanes)),
	}
	c.cmd, err = command(ctx, o, theirs)
	if err != nil {
		return nil, errors.Join(err, ours.Close(), closeLanes(ourLanes), closeAll(theirs))
	}
	c.cmd.Stderr = c.said
	started := make(chan error, 1)
	var both sync.WaitGroup
	both.Go(func() { wait(c.cmd, started) })
	err = <-started
	closeErr := closeAll(theirs)
	if err != nil {
		both.Wait()
		return nil, errors.Join(err, ours.Close(), closeLanes(ourLanes))
	}
	if closeErr != nil {
		c.kill(closeErr)
	}
	both.Go(c.listen)
	go func() {
		both.Wait()
		c.bury()
	}()
	return c, nil
}

// run computes one batch. Its error is errUnsent, a *deathError, ctx's, the engine's, or says that the run was cancelled, computed on,
// and was killed: an *engine.CrashError around ctx's.
func (c *child) run(ctx context.Context, k kind, inputs []engine.Tensor) ([]engine.Tensor, error) {
	l, id, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	frames, err := c.frames(message{kind: k, id: id, tensors: inputs})
	if err != nil {
		c.leave(l)
		return nil, err
	}
	var late *time.Timer
	var used time.Duration // when it was cancelled
	var usedErr error
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		late = c.killLater()
		used, usedErr = c.used()
		// Should it not get through, the answer is that the worker is gone.
		_ = c.send(context.WithoutCancel(ctx), message{kind: kindCancel, id: id, meta: binary.LittleEndian.AppendUint64(nil, l.id)})
	})
	outputs, err := c.exchange(l, id, frames)
	if stop() {
		return outputs, err
	}
	<-told
	late.Stop()
	var d *deathError
	if usedErr != nil || !errors.As(err, &d) || !errors.Is(d, errHung) || d.used-used < c.o.Grace/computing {
		return nil, ctx.Err()
	}
	return nil, &engine.CrashError{Cause: engine.Hung, Proven: d.flying <= 1, Err: ctx.Err()}
}

// computing is the part of the grace for which a run that doesn't end must have computed to be blamed for it: a worker that is stopped,
// or starved, isn't its run's fault.
const computing = 10

// used is for how long the worker has run on the processors.
func (c *child) used() (time.Duration, error) {
	select {
	case <-c.gone:
		return c.death.used, nil
	default:
		return processorTime(c.cmd.Process.Pid)
	}
}

// frames encodes a message. The error is engine.ErrInput where its tensors can't be sent.
func (c *child) frames(m message) (net.Buffers, error) {
	frames, err := m.frames()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrInput, err)
	}
	if size := total(frames); size > c.o.MaxData {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", engine.ErrInput, size, c.o.MaxData)
	}
	return frames, nil
}

// send writes a message to the control socket when its turn comes. A worker that doesn't read it is killed: half a message is none. The
// error is ctx's before anything was written, and the death of the worker.
func (c *child) send(ctx context.Context, m message) error {
	frames, err := c.frames(m)
	if err != nil {
		return err
	}
	select {
	case c.turn <- struct{}{}:
	case <-c.gone:
		return c.death
	case <-ctx.Done():
		return ctx.Err()
	}
	err = c.conn.SetWriteDeadline(time.Now().Add(c.o.Grace))
	if err == nil {
		err = write(c.conn, frames)
	}
	<-c.turn
	if err == nil {
		return nil
	}
	if !gone(err) {
		c.kill(fmt.Errorf("%w: %w", errHung, err))
	}
	<-c.gone
	return c.death
}

// listen reads what comes on the control socket, until the worker shuts its end. One that breaks the protocol is killed.
func (c *child) listen() {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		m, err := readMessage(r, c.o.MaxData)
		if err == nil {
			err = c.deliver(m)
		}
		if err != nil && !gone(err) {
			c.kill(err)
		}
		if err != nil {
			break
		}
	}
	c.mu.Lock()
	c.dead, c.flying = true, c.runsLocked()
	c.mu.Unlock()
	c.hurry = c.killLater() // a worker has no reason to live beyond its socket
}

// gone says whether err comes of a process at the other end that has ended, in the middle of a message or not.
func gone(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, os.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// killLater kills the worker when the grace has passed.
func (c *child) killLater() *time.Timer {
	return time.AfterFunc(c.o.Grace, func() { c.kill(errHung) })
}

// deliver gives what answers open to who waits for it.
func (c *child) deliver(m message) error {
	if m.id == 0 {
		select {
		case c.hello <- m:
			return nil
		default:
		}
	}
	return fmt.Errorf("%w: a message of kind %d, id %d, that nobody waits for", errProtocol, m.kind, m.id)
}

// kill ends the process, for the first reason that is given. It may have ended by itself.
func (c *child) kill(reason error) {
	c.mu.Lock()
	if c.reason == nil {
		c.reason = reason
	}
	c.mu.Unlock()
	_ = c.cmd.Process.Kill()
}

// close has the worker end, and kills it if it doesn't.
func (c *child) close() {
	c.mu.Lock()
	if c.reason == nil {
		c.reason = errClosed
	}
	c.mu.Unlock()
	late := c.killLater()
	defer late.Stop()
	_ = c.conn.CloseWrite() // fails only where the worker is gone
	<-c.gone
}

// bury says why the process ended, and tells all who wait for an answer. It is called once, when the process is reaped and all
// that it wrote is read.
func (c *child) bury() {
	c.mu.Lock()
	d := &deathError{ours: c.reason, flying: c.flying, fresh: !c.answered.Load()}
	c.mu.Unlock()
	d.text, d.cause = c.said.epitaph(c.cmd.ProcessState, d.ours)
	if s := c.cmd.ProcessState; s != nil {
		d.used = s.UserTime() + s.SystemTime()
	}
	c.death = d
	if d.unexpected() {
		c.watch.died(d.cause)
	}
	c.hurry.Stop()
	_ = c.conn.Close()
	_ = closeLanes(c.lanes)
	close(c.gone)
}

// logLast logs what the worker said on its standard error.
func (c *child) logLast() {
	if said := c.said.String(); said != "" {
		c.o.Logger.Warn("a worker said", "pid", c.cmd.Process.Pid, "text", said)
	}
}
