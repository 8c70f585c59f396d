// Package worker runs graphs in child processes, so that a graph that crashes, hangs or hoards memory takes none but itself down.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"modelgate/inference/engine"
)

// Options configure an Engine.
type Options struct {
	// Path is the absolute path of a program that calls Serve when it is started with Args, of which the first is its name.
	Path   string
	Args   []string
	Logger *slog.Logger
	// LoadTimeout is how long loading a graph may take; 0: five minutes. What takes longer is killed.
	LoadTimeout time.Duration
	// Grace is how long a worker may take to end a run that was cancelled, to read a message, and to end; 0: five seconds. One
	// that takes longer is killed.
	Grace time.Duration
	// DataLimit is how many bytes of memory of its own a worker may take beyond what it has before it loads a graph; 0: no
	// limit but the engine.Options' Memory. Mapped files don't count; the stacks of threads do.
	DataLimit int64
	// MaxData is how many bytes of tensors may cross at once; 0: a gibibyte.
	MaxData int64
}

func (o Options) check() error {
	switch {
	case !filepath.IsAbs(o.Path) || len(o.Args) == 0:
		return fmt.Errorf("a worker is %q, started with %q: it needs an absolute path, and a name at least", o.Path, o.Args)
	case o.Logger == nil:
		return errors.New("a worker needs a logger")
	case o.LoadTimeout < 0 || o.Grace < 0 || o.DataLimit < 0 || o.MaxData < 0:
		return fmt.Errorf("load timeout %v, grace %v, data limit %d, max data %d: none may be negative", o.LoadTimeout, o.Grace, o.DataLimit, o.MaxData)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.LoadTimeout == 0 {
		o.LoadTimeout = 5 * time.Minute
	}
	if o.Grace == 0 {
		o.Grace = 5 * time.Second
	}
	if o.MaxData == 0 {
		o.MaxData = 1 << 30
	}
	return o
}

// An Engine opens each graph in a worker process of its own. It is safe for concurrent use, and holds nothing but the pace of what
// loads: what there is belongs to the sessions.
//
// A worker that dies is started anew: at once the first time, and later where it goes on dying. What was in flight when
// it died: a run of one row is tried once more with no other beside it, unless it was the first of a new worker and alone in it. A
// run of several rows gets an engine.CrashError. A worker that doesn't end a cancelled run is killed; that run gets its context's
// error.
//
// Until Live is called on its session, a worker loads and computes only where nobody else wants to (SCHED_IDLE, with the idle class
// for reading from disks that comes with it), and after three seconds of waiting for a tenth of what others get. Without root's
// rights it is a tenth from the start; with several threads a run, which couldn't be raised again, it is no less than others. While it
// loads, and while a job is done, it also stands still for up to half of the time, when runs of live sessions of the same Engine keep all
// processors busy.
type Engine struct {
	o    Options
	pace *pace
}

// New returns an Engine. No process is started before a graph is opened.
func New(o Options) (*Engine, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return &Engine{o.withDefaults(), newPace()}, nil
}

// Try starts a worker and ends it, without a graph. Its error says why no worker can be started here.
func (e *Engine) Try(ctx context.Context) error {
	c, _, err := start(ctx, e.o, e.pace, watch{}, openMessage{Protocol: protocolVersion, MaxData: e.o.MaxData, Live: true})
	if err == nil {
		c.close()
	}
	return err
}

// Open loads the graph at path in a new worker. That the worker dies of it, or takes longer than it may, is the graph's fault. That
// it couldn't be started, was killed from outside, or was kept from running by others isn't.
func (e *Engine) Open(ctx context.Context, path string, o engine.Options) (engine.Session, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open graph: %w", err)
	}
	limit := o.Memory
	if limit <= 0 || e.o.DataLimit > 0 && e.o.DataLimit < limit {
		limit = e.o.DataLimit
	}
	open := openMessage{Protocol: protocolVersion, Path: path, Threads: o.Threads, DataLimit: limit, MaxData: e.o.MaxData, Prepared: o.Prepared, Lanes: lanesFor(o.Runs)}
	w := watch{o.Died, o.Restarted}
	c, opened, err := start(ctx, e.o, e.pace, w, open)
	if err != nil {
		return nil, err
	}
	return newSession(ctx, e.o, e.pace, w, open, c, opened), nil
}

// A watch is who wants to know of deaths. The zero watch is nobody.
type watch struct {
	onDeath   func(engine.Cause)
	onRestart func()
}

func (w watch) died(cause engine.Cause) {
	if w.onDeath != nil {
		w.onDeath(cause)
	}
}

func (w watch) restarted() {
	if w.onRestart != nil {
		w.onRestart()
	}
}
