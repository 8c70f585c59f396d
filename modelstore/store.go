package modelstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

var (
	// ErrUnknownModel says that no model of that name is configured.
	ErrUnknownModel = errors.New("no such model")
	// ErrNotReady says that a model is configured but no version of it serves yet.
	ErrNotReady = errors.New("no version of the model serves yet")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrNoPrevious says that there is no version to roll back to.
	ErrNoPrevious = errors.New("there is no previous version")
	// ErrStillDraining says that an old version is still in use after the bounded wait, so that a third can't be loaded.
	ErrStillDraining = errors.New("an old version is still answering requests")
)

// A Servable is a loaded model. WarmUp runs it on the shapes that traffic will have and says if the answers can't be right;
// Check, after it, says if the model isn't the one that was published. Each is called once, before the version is published. One that
// is a Comparer too is held against the version that serves then.
// Close frees it and is called once, when no request uses it any more.
type Servable interface {
	WarmUp(ctx context.Context) error
	Check(ctx context.Context) error
	io.Closer
}

// A LoadFunc opens b. It doesn't warm up, and doesn't release b. On an error nothing stays behind.
type LoadFunc[M Servable] func(ctx context.Context, b Bundle) (M, error)

// StoreOptions say how long versions outlive their service.
type StoreOptions struct {
	// KeepPrevious is how long the version before stays in memory as the standby after a swap. 0 closes it at once.
	KeepPrevious time.Duration
	// DrainTimeout bounds the wait for an old version's requests before the next one is loaded. 0 means a minute.
	DrainTimeout time.Duration
	// Permanent, if not nil, says of an error from a load, a warm-up, a check or a comparison that trying again can't mend it.
	Permanent func(error) bool
	// Admit, if not nil, says whether there is memory to load a version; its errors wrap ErrNoMemory, and the version is refused for now.
	// It is asked before the standby is retired, which is spared if the version couldn't be loaded anyway, and again when nothing
	// leaves any more. loaded is called when the memory is taken, or isn't needed. Called with no lock held; it should return soon.
	Admit func(Admission) (loaded func(), err error)
	// Observe, if not nil, is told of each phase's end. It is called with no lock held and should return soon.
	Observe func(Event)
}

// A Store holds the versions in memory: for each model the active one, and for a while the one before, the standby.
//
// It promises:
//  1. A request is answered wholly by the version that Acquire returned; that version isn't closed before Release.
//  2. Once a version has been published under a name, Acquire never fails for that name until Close.
//  3. At most two versions of a model are in memory, those being loaded and those still draining counted.
//  4. The lock is held for a few assignments only: for no I/O, no load, no wait, no callback.
//  5. A version that can't be loaded or warmed up, isn't what was published, or may not replace what serves, changes nothing for callers.
//
// All methods are safe for concurrent use.
type Store[M Servable] struct {
	load LoadFunc[M]
	o    StoreOptions

	mu     sync.RWMutex        // guards slots, the fields of each slot that say so, and closed; never held across anything that waits
	slots  map[string]*slot[M] // by model name; a slot is never removed
	closed bool
}

// A slot is the double buffer of one model.
type slot[M Servable] struct {
	turn chan struct{} // capacity 1: held by the one Swap, Rollback, Retire or Close in progress

	active  *loaded[M] // guarded by Store.mu
	standby *loaded[M] // guarded by Store.mu

	// The fields below belong to the holder of turn.

	draining []*loaded[M] // retired, perhaps not closed yet
	timer    *time.Timer  // retires the standby after KeepPrevious
}

// New returns an empty store. load is called by Swap, for one version of a model at a time.
func New[M Servable](load LoadFunc[M], o StoreOptions) *Store[M] {
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = time.Minute
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	return &Store[M]{load: load, o: o, slots: make(map[string]*slot[M])}
}

// Acquire pins the active version of a model: it stays loaded until the handle is released.
// The error wraps ErrNotReady if nothing was ever published under that name, or ErrClosed.
func (s *Store[M]) Acquire(model string) (*Handle[M], error) {
	s.mu.RLock()
	closed := s.closed
	var l *loaded[M]
	if sl := s.slots[model]; sl != nil && !closed {
		l = sl.active
	}
	yieldInRace() // a pin taken after the lock is given back would be caught here
	if l != nil {
		l.ref()
	}
	s.mu.RUnlock()
	switch {
	case closed:
		return nil, fmt.Errorf("acquire %s: %w", model, ErrClosed)
	case l == nil:
		return nil, fmt.Errorf("acquire %s: %w", model, ErrNotReady)
	}
	return &Handle[M]{l: l}, nil
}

// Serving returns the active and the standby version of a model; zero Versions where there are none.
func (s *Store[M]) Serving(model string) (active, standby Version) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sl := s.slots[model]
	if sl == nil {
		return Version{}, Version{}
	}
	return sl.active.version(), sl.standby.version()
}

// Swap loads b, warms it up, checks it, compares it with what serves and publishes it; the version that served becomes the standby. Callers notice nothing.
//
// Before it loads, it retires the standby and waits until that is closed, at most DrainTimeout (ErrStillDraining), and asks whether
// there is memory (ErrNoMemory).
// commit, if not nil, runs after the comparison and before the publication: an error from it calls the swap off.
// Swap takes over b: it is released when the version is closed, or at once if Swap fails.
// Swaps of one model wait for each other; those of different models don't.
func (s *Store[M]) Swap(ctx context.Context, b Bundle, commit func() error) (Timings, error) {
	t := Timings{}
	sl, err := s.take(ctx, b.Version.Model)
	if err != nil {
		b.Release()
		return t, err
	}
	defer sl.give()
	l, err := s.prepare(ctx, sl, b, t)
	if err != nil {
		return t, err
	}
	if commit != nil {
		if err := commit(); err != nil {
			s.discard(l)
			return t, err
		}
	}
	s.publish(sl, l, t)
	return t, nil
}

// prepare makes room for a second version, loads b's, warms it up, checks it and compares it, with no lock held. On an error b is released.
func (s *Store[M]) prepare(ctx context.Context, sl *slot[M], b Bundle, t Timings) (*loaded[M], error) {
	v := b.Version
	admitted, err := s.makeRoomFor(ctx, sl, b, t)
	if err != nil {
		b.Release()
		return nil, fmt.Errorf("make room for %v: %w", v, err)
	}
	defer admitted()
	var m M
	err = s.phase(v, PhaseLoad, t, func() (err error) { m, err = s.load(ctx, b); return s.judged(err) })
	if err != nil {
		b.Release()
		return nil, fmt.Errorf("load %v: %w", v, err)
	}
	l := newLoaded(b, m)
	err = s.phase(v, PhaseWarmUp, t, func() error { return s.judged(m.WarmUp(ctx)) })
	if err != nil {
		s.discard(l)
		return nil, fmt.Errorf("warm up %v: %w", v, err)
	}
	err = s.phase(v, PhaseCheck, t, func() error { return s.judged(m.Check(ctx)) })
	if err != nil {
		s.discard(l)
		return nil, fmt.Errorf("check %v: %w", v, err)
	}
	if err := s.compare(ctx, l, t); err != nil {
		s.discard(l)
		return nil, fmt.Errorf("compare %v with the version that serves: %w", v, err)
	}
	return l, nil
}

// judged marks a failure that trying again can't mend.
func (s *Store[M]) judged(err error) error {
	if err != nil && s.o.Permanent != nil && s.o.Permanent(err) {
		return Permanent(err)
	}
	return err
}

// publish makes l the active version and the one before it the standby.
func (s *Store[M]) publish(sl *slot[M], l *loaded[M], t Timings) {
	asked := time.Now()
	s.mu.Lock()
	got := time.Now()
	old := sl.active
	sl.active, sl.standby = l, old
	held := time.Since(got)
	s.mu.Unlock()
	t[PhasePublishWait], t[PhasePublishHeld] = got.Sub(asked), held
	s.report(l.bundle.Version, PhasePublishWait, t[PhasePublishWait])
	s.report(l.bundle.Version, PhasePublishHeld, held)
	if old != nil {
		s.keepStandby(sl)
	}
}

// Rollback makes the standby active again and the active version the standby: a pointer exchange.
// commit is told what will serve and runs before it does, as for Swap. The error wraps ErrNoPrevious if there is no standby.
func (s *Store[M]) Rollback(ctx context.Context, model string, commit func(Version) error) (Timings, error) {
	t := Timings{}
	sl, err := s.take(ctx, model)
	if err != nil {
		return t, err
	}
	defer sl.give()
	_, standby := s.Serving(model)
	if standby.IsZero() {
		return t, fmt.Errorf("roll back %s: %w in memory", model, ErrNoPrevious)
	}
	if commit != nil {
		if err := commit(standby); err != nil {
			s.keepStandby(sl) // its timer may have passed while we had the turn
			return t, err
		}
	}
	// Only the holder of the slot's turn replaces the standby, so it is still the one that commit was told.
	s.publish(sl, sl.standby, t)
	return t, nil
}

// Close retires every version and waits until the requests that use them have ended and they are closed, or until ctx ends.
// Acquire fails from now on.
func (s *Store[M]) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	slots := make([]*slot[M], 0, len(s.slots))
	for _, sl := range s.slots {
		slots = append(slots, sl)
	}
	s.mu.Unlock()
	var retired []*loaded[M]
	for _, sl := range slots {
		if err := sl.wait(ctx); err != nil {
			return fmt.Errorf("close the store: %w", err)
		}
		s.retireStandby(sl)
		s.mu.Lock()
		old := sl.active
		sl.active = nil
		s.mu.Unlock()
		s.retire(sl, old)
		retired = append(retired, sl.draining...)
		sl.give()
	}
	for _, l := range retired {
		select {
		case <-l.closed:
		case <-ctx.Done():
			return fmt.Errorf("close the store: %w: %v", ErrStillDraining, l.version())
		}
	}
	return nil
}
