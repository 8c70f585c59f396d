package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"modelgate/inference/engine"
)

// A lane is the parent's end of a socket for one run at a time.
type lane struct {
	id   uint64
	conn *os.File
	r    *bufio.Reader
	told bool // the worker reads it
}

const maxLanes = 256

// lanesFor is how many lanes there are for so many runs at a time; 0: as many as it takes to keep this machine busy.
func lanesFor(runs int) int {
	if runs <= 0 {
		runs = max(8, 2*runtime.GOMAXPROCS(0))
	}
	return min(runs, maxLanes)
}

// makeLanes makes n lanes, and the files of the worker's ends.
func makeLanes(n int) (ours []*lane, theirs []*os.File, err error) {
	for id := range n {
		o, t, err := lanePair()
		if err != nil {
			return nil, nil, errors.Join(err, closeLanes(ours), closeAll(theirs))
		}
		ours = append(ours, &lane{id: uint64(id), conn: o, r: bufio.NewReaderSize(o, 64<<10)})
		theirs = append(theirs, t)
	}
	return ours, theirs, nil
}

func closeLanes(lanes []*lane) error {
	var errs []error
	for _, l := range lanes {
		errs = append(errs, l.conn.Close())
	}
	return errors.Join(errs...)
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// oneWrite is up to how many bytes a message is copied, to be written at once: so its reader wakes up once.
const oneWrite = 64 << 10

// write writes a message's frames.
func write(w io.Writer, frames net.Buffers) error {
	size := 0
	for _, b := range frames {
		size += len(b)
	}
	if size <= oneWrite && len(frames) > 1 {
		all := make([]byte, 0, size)
		for _, b := range frames {
			all = append(all, b...)
		}
		frames = net.Buffers{all}
	}
	_, err := frames.WriteTo(w)
	return err
}

// enter takes a lane, and gives the run an id. The one that was left last comes first: so no more of them are used, with threads for
// them in the worker, than there are runs at a time.
func (c *child) enter(ctx context.Context) (*lane, uint64, error) {
	if err := c.vacant.Acquire(ctx, 1); err != nil {
		return nil, 0, err
	}
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		c.vacant.Release(1)
		return nil, 0, errUnsent
	}
	l := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.last++
	id := c.last
	told := l.told
	l.told = true
	c.mu.Unlock()
	if told {
		return l, id, nil
	}
	if err := c.send(context.WithoutCancel(ctx), message{kind: kindLane, id: l.id}); err != nil {
		c.vacant.Release(1)
		return nil, 0, err
	}
	return l, id, nil
}

// leave gives a lane back whose last run has its answer.
func (c *child) leave(l *lane) {
	c.mu.Lock()
	c.free = append(c.free, l)
	c.mu.Unlock()
	c.vacant.Release(1)
}

// runsLocked is how many runs wait for their answers: the lane of a run that gets none isn't given back.
func (c *child) runsLocked() int { return len(c.lanes) - len(c.free) }

// exchange sends a run and waits for its answer. Any other end than an answer is the worker's: the error is its death then.
func (c *child) exchange(l *lane, id uint64, frames net.Buffers) ([]engine.Tensor, error) {
	late := c.killLater()
	err := write(l.conn, frames)
	late.Stop()
	if err != nil && !gone(err) {
		err = fmt.Errorf("%w: %w", errHung, err)
	}
	var m message
	if err == nil {
		m, err = readMessage(l.r, c.o.MaxData)
	}
	if err == nil {
		err = c.check(m, id)
	}
	if err != nil {
		if !gone(err) {
			c.kill(err)
		}
		late := c.killLater() // a worker has no reason to live beyond its sockets
		<-c.gone
		late.Stop()
		c.vacant.Release(1)
		return nil, c.death
	}
	c.leave(l)
	if m.kind == kindFailed {
		return nil, m.asError()
	}
	c.answered.Store(true)
	return m.tensors, nil
}

// check says whether m answers that run.
func (c *child) check(m message, id uint64) error {
	switch {
	case m.kind != kindFailed && m.kind != kindResult:
		return fmt.Errorf("%w: an answer of kind %d", errProtocol, m.kind)
	case m.id != id:
		return fmt.Errorf("%w: an answer to run %d where that to run %d is due", errProtocol, m.id, id)
	case m.kind == kindResult && int64(len(m.tensors)) != c.outputs.Load():
		return fmt.Errorf("%w: %d outputs, the graph has %d", errProtocol, len(m.tensors), c.outputs.Load())
	}
	return nil
}
