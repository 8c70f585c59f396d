package modelstore

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// ModelConfig names a model to keep up to date and the rules for it.
type ModelConfig struct {
	Name       string // served name, such as "text"
	Registered string // name in the registry, for people; may be empty
	Rules      Rules
}

// UpdaterOptions configure an Updater. The zero values are good where nothing else is said.
type UpdaterOptions struct {
	Models []ModelConfig
	// Discover, if not nil, is asked every Interval for models that weren't known before.
	Discover func(ctx context.Context) ([]ModelConfig, error)
	// Interval is the time between two passes over one model; 0 means 30 minutes. Each wait is jittered by a tenth.
	Interval time.Duration
	// RetryAfter is the wait after a first failure; it doubles with each further one, up to Interval or, if that is shorter, a minute.
	// 0 means 5 seconds.
	RetryAfter time.Duration
	Policy     Policy // nil means Improve
	// Prepare, if not nil, makes what loads fast of a bundle, or finds it, before the swap. It gives back the bundle, Prepared set if
	// something was made. On an error the bundle is still the caller's.
	Prepare func(ctx context.Context, b Bundle) (Bundle, error)
	Observe func(Event) // nil means nobody
	Logger  *slog.Logger
}

// slots is what the Updater needs of a Store, whatever it stores.
type slots interface {
	Serving(model string) (active, standby Version)
	Swap(ctx context.Context, b Bundle, commit func() error) (Timings, error)
	Rollback(ctx context.Context, model string, commit func(Version) error) (Timings, error)
}

// An Updater keeps the models of a store in step with a registry.
//
// It is level-based: each pass looks only at what is true now. One goroutine a model does everything to that model, one thing
// after the other; models don't wait for each other. An operator's order interrupts a pass in progress, which starts again after it.
// What is to serve is on disk before it serves. A candidate that fails changes nothing for callers.
//
// All methods are safe for concurrent use.
type Updater struct {
	o       UpdaterOptions
	src     Source
	slots   slots
	cache   Cache
	journal Journal

	mu       sync.Mutex // guards what follows and the fields of each model that say so; never held across I/O or a callback
	models   map[string]*model
	watchers map[*watcher]struct{}
	started  bool
	ended    bool

	loops sync.WaitGroup // one a model, while Run runs
}

// NewUpdater returns an Updater that does nothing until Run.
func NewUpdater(src Source, store slots, cache Cache, journal Journal, o UpdaterOptions) *Updater {
	if o.Interval <= 0 {
		o.Interval = 30 * time.Minute
	}
	if o.RetryAfter <= 0 {
		o.RetryAfter = 5 * time.Second
	}
	if o.Policy == nil {
		o.Policy = Improve
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	u := &Updater{o: o, src: src, slots: store, cache: cache, journal: journal,
		models: make(map[string]*model), watchers: make(map[*watcher]struct{})}
	for _, c := range o.Models {
		u.models[c.Name] = newModel(c)
	}
	return u
}

// A model is what the Updater knows of one model.
type model struct {
	ModelConfig
	wake chan struct{} // capacity 1: there is an order or a hint

	added     bool               // found by Discover while running
	orders    []*order           // guarded by Updater.mu
	hinted    bool               // guarded by Updater.mu: somebody said that the registry changed, and no pass began since
	interrupt context.CancelFunc // guarded by Updater.mu: ends the pass in progress; nil if none is
	progress  progress           // guarded by Updater.mu: what Status tells

	condemned    Version   // guarded by Updater.mu: what Condemn was told of last
	condemnAgain time.Time // guarded by Updater.mu: when it may be told of that again

	// The fields below belong to the model's goroutine.

	saved    Saved
	kept     Version           // does harm, and serves since there was nothing to go back to; until something else serves
	givenUp  Version           // was lost from the cache, and the registry can't give it back
	noted    map[string]string // by candidate: what the ledger was told last, so that it isn't told again each pass
	failures int               // in a row

	unprepared bool          // what was restored was loaded as it is
	leave      time.Duration // how long the registry wants to be left alone, from the newest pass on
	asked      bool          // the registry answered in the newest pass

	next       time.Time // when a pass is due
	nextHinted time.Time // when one is due if there is a hint
}

func newModel(c ModelConfig) *model {
	return &model{ModelConfig: c, wake: make(chan struct{}, 1), noted: make(map[string]string)}
}

// Run keeps the models up to date until ctx ends, and returns when all its work has ended.
func (u *Updater) Run(ctx context.Context) error {
	u.mu.Lock()
	if u.started {
		u.mu.Unlock()
		return errors.New("the updater ran already")
	}
	u.started = true
	for _, m := range u.models {
		u.startLocked(ctx, m)
	}
	u.mu.Unlock()
	u.discover(ctx)
	u.mu.Lock()
	u.ended = true
	for w := range u.watchers {
		w.endLocked(ErrClosed)
	}
	u.mu.Unlock()
	u.loops.Wait()
	u.refuseOrders()
	return nil
}

// discover adds models as they appear, until ctx ends.
func (u *Updater) discover(ctx context.Context) {
	if u.o.Discover == nil {
		<-ctx.Done()
		return
	}
	for first := true; ctx.Err() == nil; first = false {
		found, err := u.o.Discover(ctx)
		if err != nil && ctx.Err() == nil {
			u.o.Logger.Warn("looking for models failed", "error", err)
		}
		u.mu.Lock()
		for _, c := range found {
			if u.models[c.Name] == nil && ctx.Err() == nil {
				u.models[c.Name] = newModel(c)
				u.models[c.Name].added = !first
				u.startLocked(ctx, u.models[c.Name])
			}
		}
		u.mu.Unlock()
		wait(ctx, jittered(u.o.Interval), nil)
	}
}

func (u *Updater) startLocked(ctx context.Context, m *model) {
	u.loops.Add(1)
	go func() {
		defer u.loops.Done()
		u.loop(ctx, m)
	}()
}

// loop is a model's goroutine.
func (u *Updater) loop(ctx context.Context, m *model) {
	u.restore(ctx, m)
	for due := true; ctx.Err() == nil; {
		if o := u.nextOrder(m); o != nil {
			u.carryOut(ctx, m, o)
			due = true // an order may have changed what a pass would do
			continue
		}
		if due {
			u.takeHint(m)
			due = u.interruptiblePass(ctx, m)
			u.plan(m)
			continue
		}
		due = wait(ctx, u.untilDue(m), m.wake)
	}
}

// wait waits until d has passed (true), or there is something on wake (false), or ctx ends.
func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) (passed bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-wake:
	case <-ctx.Done():
	}
	return false
}

func jittered(d time.Duration) time.Duration {
	return d - d/20 + rand.N(d/10+1)
}

// untilNextPass is the interval while all is well, and the back-off while the model fails.
func (u *Updater) untilNextPass(m *model) time.Duration {
	if m.failures == 0 {
		return jittered(u.o.Interval)
	}
	return max(u.backOff(m.failures), min(m.leave, mostLeave))
}

// backOff is the wait after so many failures in a row, one at least.
func (u *Updater) backOff(failures int) time.Duration {
	return jittered(min(max(u.o.Interval, time.Minute), u.o.RetryAfter<<min(failures-1, 16)))
}

// mostLeave bounds how long a registry can make us leave it alone.
const mostLeave = time.Hour

// interruptiblePass does a pass that an order may end. It returns true if it was ended by one, and so is still due.
func (u *Updater) interruptiblePass(ctx context.Context, m *model) (due bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	u.mu.Lock()
	if len(m.orders) > 0 {
		u.mu.Unlock()
		return true
	}
	m.interrupt = cancel
	u.mu.Unlock()

	err := u.pass(ctx, m)
	u.prepareLater(ctx, m)

	u.mu.Lock()
	m.interrupt = nil
	u.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		return true
	}
	u.passEnded(m, err)
	return false
}
