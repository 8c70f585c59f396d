package modelstore

import (
	"context"
	"errors"
	"time"
)

// A Comparer is a Servable that can be held against the version that it is to replace, which answers requests meanwhile.
type Comparer[M any] interface {
	// Compare says whether a version may take the place of active, and how long a run of each takes on the same inputs, which is 0
	// where it couldn't be measured. It is called after Check; active isn't closed before it returns.
	Compare(ctx context.Context, active M) (before, after time.Duration, err error)
}

// compare holds l against the version that serves, if one does. What is found against a version that the operator asked for, or that
// served before, is told and doesn't stop it.
func (s *Store[M]) compare(ctx context.Context, l *loaded[M], t Timings) error {
	v := l.bundle.Version
	c, ok := any(l.model).(Comparer[M])
	if !ok {
		return nil
	}
	h, err := s.Acquire(v.Model)
	if errors.Is(err, ErrNotReady) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Release()
	var before, after time.Duration
	err = s.phase(v, PhaseCompare, t, func() (err error) {
		before, after, err = c.Compare(ctx, h.Model())
		return s.judged(err)
	})
	if before > 0 && after > 0 {
		t[PhaseRunBefore], t[PhaseRun] = before, after
	}
	if before > 0 && after > 0 || err != nil {
		s.o.Observe(Event{Kind: Compared, Version: v, Before: before, Duration: after, Err: err, Anyway: l.bundle.Anyway})
	}
	if l.bundle.Anyway && ctx.Err() == nil {
		return nil
	}
	return err
}
