package modelstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// loaded is one version in memory. It is born with one reference, the store's; each handle adds one.
// Once the count has reached zero it never rises again.
type loaded[M Servable] struct {
	bundle Bundle
	model  M
	refs   atomic.Int64
	unused chan struct{} // closed when refs reaches zero
	closed chan struct{} // closed when, after a retirement, model is closed, bundle released and the drain told
}

func newLoaded[M Servable](b Bundle, m M) *loaded[M] {
	l := &loaded[M]{bundle: b, model: m, unused: make(chan struct{}), closed: make(chan struct{})}
	l.refs.Store(1)
	return l
}

// ref adds a reference. It is only called under the store's lock, while the store's own reference is held.
func (l *loaded[M]) ref() {
	if l.refs.Add(1) <= 1 {
		panic(fmt.Sprintf("modelstore: %v was found after its last reference was released", l.bundle.Version))
	}
}

func (l *loaded[M]) unref() {
	switch n := l.refs.Add(-1); {
	case n == 0:
		close(l.unused)
	case n < 0:
		panic(fmt.Sprintf("modelstore: %v was released too often", l.bundle.Version))
	}
}

func (l *loaded[M]) version() Version {
	if l == nil {
		return Version{}
	}
	return l.bundle.Version
}

// A Handle is one request's hold on a version.
type Handle[M Servable] struct {
	l        *loaded[M]
	released atomic.Bool
}

// Model is the loaded model. It must not be used after Release.
func (h *Handle[M]) Model() M { return h.l.model }

// Version is what the model was loaded from.
func (h *Handle[M]) Version() Version { return h.l.bundle.Version }

// Release ends the hold. The last one of a retired version lets it close, on another goroutine. Releasing twice panics.
func (h *Handle[M]) Release() {
	if h.released.Swap(true) {
		panic(fmt.Sprintf("modelstore: a handle of %v was released twice", h.l.bundle.Version))
	}
	h.l.unref()
}

// take waits for the turn of a model's slot, which it makes if it is new.
func (s *Store[M]) take(ctx context.Context, model string) (*slot[M], error) {
	s.mu.Lock()
	sl := s.slots[model]
	if sl == nil && !s.closed {
		sl = &slot[M]{turn: make(chan struct{}, 1)}
		s.slots[model] = sl
	}
	s.mu.Unlock()
	if sl == nil {
		return nil, fmt.Errorf("%s: %w", model, ErrClosed)
	}
	if err := sl.wait(ctx); err != nil {
		return nil, err
	}
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	if closed { // Close has had its turn, or waits for ours
		sl.give()
		return nil, fmt.Errorf("%s: %w", model, ErrClosed)
	}
	return sl, nil
}

func (sl *slot[M]) wait(ctx context.Context) error {
	select {
	case sl.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (sl *slot[M]) give() { <-sl.turn }

// makeRoom retires the standby and waits until every retired version is closed. The caller has the slot's turn.
func (s *Store[M]) makeRoom(ctx context.Context, sl *slot[M]) error {
	s.retireStandby(sl)
	timeout := time.NewTimer(s.o.DrainTimeout)
	defer timeout.Stop()
	for len(sl.draining) > 0 {
		l := sl.draining[0]
		select {
		case <-l.closed:
			sl.draining = sl.draining[1:]
		case <-timeout.C:
			return fmt.Errorf("%w: %v after %v", ErrStillDraining, l.bundle.Version, s.o.DrainTimeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// keepStandby lets the standby live for KeepPrevious from now. The caller has the slot's turn.
func (s *Store[M]) keepStandby(sl *slot[M]) {
	if s.o.KeepPrevious <= 0 {
		s.retireStandby(sl)
		return
	}
	if sl.timer != nil {
		sl.timer.Stop()
	}
	standby := sl.standby
	sl.timer = time.AfterFunc(s.o.KeepPrevious, func() { s.expire(sl, standby) })
}

// expire retires a standby whose time has passed. Whoever has the slot's turn meanwhile retires or replaces the standby anyway.
func (s *Store[M]) expire(sl *slot[M], standby *loaded[M]) {
	select {
	case sl.turn <- struct{}{}:
		defer sl.give()
	default:
		return
	}
	if sl.standby == standby {
		s.retireStandby(sl)
	}
}

// retireStandby takes the standby out of the store. The caller has the slot's turn.
func (s *Store[M]) retireStandby(sl *slot[M]) {
	if sl.timer != nil {
		sl.timer.Stop()
		sl.timer = nil
	}
	s.mu.Lock()
	old := sl.standby
	sl.standby = nil
	s.mu.Unlock()
	s.retire(sl, old)
}

// retire gives up the store's reference to l, which callers can't find any more, and has it closed once the requests that
// use it have ended. The caller has the slot's turn.
func (s *Store[M]) retire(sl *slot[M], l *loaded[M]) {
	if l == nil {
		return
	}
	sl.draining = append(sl.draining, l)
	began := time.Now()
	l.unref()
	go func() { // ends when the last request does; makeRoom and Close wait for it
		<-l.unused
		s.close(l)
		s.o.Observe(Event{Kind: PhaseEnded, Version: l.version(), Phase: PhaseDrain, Duration: time.Since(began)})
		close(l.closed)
	}()
}

// discard closes a version that was never published.
func (s *Store[M]) discard(l *loaded[M]) {
	l.unref()
	s.close(l)
}

// close frees l's model, then gives its folder back.
func (s *Store[M]) close(l *loaded[M]) {
	if err := l.model.Close(); err != nil {
		s.o.Observe(Event{Kind: CloseFailed, Version: l.version(), Err: err})
	}
	l.bundle.Release()
}
