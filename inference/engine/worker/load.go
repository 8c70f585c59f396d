package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"modelgate/inference/engine"
)

var errLoad = errors.New("loading took too long")

// start starts a worker and has it load a graph. It returns when the graph is loaded, or the worker is gone.
func start(ctx context.Context, o Options, p *pace, w watch, open openMessage) (*child, openedMessage, error) {
	if err := ctx.Err(); err != nil {
		return nil, openedMessage{}, err
	}
	c, err := spawn(ctx, o, w, open.Lanes)
	if err != nil {
		return nil, openedMessage{}, fmt.Errorf("start a worker: %w", err)
	}
	done := func() {}
	if !open.Live {
		done = p.load(c)
	}
	opened, err := c.load(ctx, open)
	done()
	if err != nil {
		c.kill(err)
		<-c.gone
		c.logLast()
		return nil, openedMessage{}, err
	}
	c.took = time.Since(c.born)
	return c, opened, nil
}

// load sends open and waits for what comes of it.
func (c *child) load(ctx context.Context, open openMessage) (o openedMessage, err error) {
	late := time.NewTimer(c.o.LoadTimeout)
	defer late.Stop()
	if err := c.send(ctx, jsonMessage(kindOpen, open)); err != nil {
		return o, c.loadError(ctx, open, false)
	}
	var hello helloMessage
	for ready := false; ; {
		var m message
		select {
		case m = <-c.hello:
		case <-c.gone:
			return o, c.loadError(ctx, open, ready)
		case <-ctx.Done():
			return o, ctx.Err()
		case <-late.C:
			if c.starved() && time.Since(c.born) < patience*c.o.LoadTimeout {
				late.Reset(c.o.LoadTimeout / 4)
				continue
			}
			c.kill(errLoad)
			<-c.gone
			return o, c.loadError(ctx, open, ready)
		}
		switch {
		case m.kind == kindFailed:
			return o, m.asError()
		case ready:
			err := m.decode(kindOpened, &o)
			c.outputs.Store(int64(len(o.Outputs)))
			c.o.Logger.Debug("a worker is ready", "graph", open.Path, "pid", c.cmd.Process.Pid, "walls", hello.Walls)
			return o, err
		}
		if err := m.decode(kindHello, &hello); err != nil {
			return o, err
		}
		if hello.Protocol != protocolVersion {
			return o, fmt.Errorf("%w: the worker speaks version %d, this program version %d: they must be of one build", errProtocol, hello.Protocol, protocolVersion)
		}
		ready = true
	}
}

// patience is how many times its time a load may take that others keep from running.
const patience = 4

// starved says whether the worker has run for less than half the time that a load may take.
func (c *child) starved() bool {
	used, err := c.used()
	return err == nil && used < c.o.LoadTimeout/2
}

// loadError is what a worker that ended during a load says about the graph. Before it was ready it hadn't looked at it.
func (c *child) loadError(ctx context.Context, open openMessage, ready bool) error {
	if ctx.Err() != nil {
		c.kill(ctx.Err())
	}
	c.kill(errHung) // if it lives: it doesn't read
	<-c.gone
	d := c.death
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !ready:
		return fmt.Errorf("start a worker for %s: %w", open.what(), d)
	case d.cause == engine.Killed:
		return fmt.Errorf("load %s: %w", open.what(), d)
	case errors.Is(d, errLoad) && c.starved():
		return fmt.Errorf("load %s: it isn't done after %v, but others had the processors: %w", open.what(), time.Since(c.born).Round(time.Second), d)
	case errors.Is(d, errLoad):
		return fmt.Errorf("%w: %s isn't done after %v", engine.ErrGraph, open.what(), c.o.LoadTimeout)
	}
	return fmt.Errorf("%w: %s ended the worker: %w", engine.ErrGraph, open.what(), d)
}
