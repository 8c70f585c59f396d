package modelstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Refresh looks at the registry now and returns when that pass has ended. The error is the pass's.
func (u *Updater) Refresh(ctx context.Context, name string) error {
	return u.order(ctx, name, false, func(ctx context.Context, m *model) error {
		err := u.pass(ctx, m)
		if errors.Is(err, errPointerMoved) {
			err = u.pass(ctx, m)
		}
		if ctx.Err() == nil {
			u.passEnded(m, err)
		}
		return err
	})
}

// Promote serves version number even against the policy, and lifts its quarantine. The model then holds until the registry's
// pointer moves, or Unpin. The error wraps ErrNoVersion if neither the registry nor the ledger knows that version.
func (u *Updater) Promote(ctx context.Context, name string, number int64) error {
	return u.order(ctx, name, true, func(ctx context.Context, m *model) error {
		v, err := u.find(ctx, m, number)
		if err != nil {
			return err
		}
		d := Decision{Take, "promoted", "promoted by the operator, whatever the policy says"}
		return u.serveVersion(ctx, m, v, d, func(s *Saved) {
			s.hold("promote")
			s.LastPointer.Pointer = "" // the operator's word also settles which kind of pointer is followed
		})
	})
}

// Pin serves version number, or the active one if number is 0, and keeps it whatever the registry says, until Unpin.
func (u *Updater) Pin(ctx context.Context, name string, number int64) error {
	return u.order(ctx, name, true, func(ctx context.Context, m *model) error {
		if number == 0 {
			active, _ := u.slots.Serving(name)
			if active.IsZero() {
				return fmt.Errorf("pin %s: %w", name, ErrNotReady)
			}
			number = active.Number
		}
		v, ok := u.inMemory(m, number) // what serves is kept, with no question to the registry
		if !ok {
			var err error
			if v, err = u.find(ctx, m, number); err != nil {
				return err
			}
		}
		d := Decision{Take, CodePinned, fmt.Sprintf("pinned to version %d by the operator", number)}
		return u.serveVersion(ctx, m, v, d, func(s *Saved) { s.Pin, s.Hold = number, nil })
	})
}

// Unpin ends a pin and a hold: the model follows the registry again, from now on.
func (u *Updater) Unpin(ctx context.Context, name string) error {
	return u.order(ctx, name, true, func(_ context.Context, m *model) error {
		if m.saved.Pin == 0 && m.saved.Hold == nil {
			return nil
		}
		if err := u.save(m, func(s *Saved) { s.Pin, s.Hold = 0, nil }); err != nil {
			return err
		}
		u.note(m, "unpinned", "unpinned by the operator: the model follows the registry again")
		return nil
	})
}

// Rollback returns to the version that served before: at once if it is the standby, else from the local cache or the registry.
// The model then holds until the registry's pointer moves, or Unpin. The error wraps ErrNoPrevious if there is none.
func (u *Updater) Rollback(ctx context.Context, name string) error {
	return u.order(ctx, name, true, func(ctx context.Context, m *model) error {
		to := m.saved.Previous
		if to.IsZero() {
			return fmt.Errorf("roll back %s: %w", name, ErrNoPrevious)
		}
		d := Decision{Return, "operator_rollback", "rolled back by the operator"}
		return u.serveVersion(ctx, m, to, d, func(s *Saved) { s.hold("rollback") })
	})
}

// serveVersion serves v: it may be active already, be the standby, or have to be loaded.
func (u *Updater) serveVersion(ctx context.Context, m *model, v Version, d Decision, also func(*Saved)) error {
	active, standby := u.slots.Serving(m.Name)
	switch {
	case v.Same(active):
		if err := u.save(m, func(s *Saved) { s.Lost = Version{}; s.also(also) }); err != nil {
			return err
		}
		u.note(m, d.Code, d.Reason)
		return nil
	case v.Same(standby):
		err := u.exchange(ctx, m, active, "operator", d, also)
		if errors.Is(err, ErrNoPrevious) { // its time ended between our look and the exchange
			break
		}
		return err
	}
	return u.bring(ctx, m, v, bringing{decision: d, actor: "operator", also: also})
}

// exchange makes the standby active. The error wraps ErrNoPrevious if its time has ended.
func (u *Updater) exchange(ctx context.Context, m *model, active Version, actor string, d Decision, also func(*Saved)) error {
	var to Version
	t, err := u.slots.Rollback(ctx, m.Name, func(v Version) error {
		to = v
		return u.save(m, func(s *Saved) { s.serve(v); s.also(also) })
	})
	if err != nil {
		return err
	}
	e := Entry{Candidate: to, Active: active, Outcome: Swapped, Code: d.Code, Reason: d.Reason, Actor: actor, Seconds: t.Seconds()}
	if d.Action == Return {
		e.Outcome = RolledBack
	}
	u.live(m, e)
	return nil
}

// find looks for version number in the registry, which may have other weights under that number than what serves; if it isn't there, or
// the registry can't be asked, in memory and in the ledger.
func (u *Updater) find(ctx context.Context, m *model, number int64) (Version, error) {
	vs, err := u.src.Versions(ctx, m.Name)
	if i := slices.IndexFunc(vs, func(v Version) bool { return v.Number == number }); err == nil && i >= 0 {
		if v, ok := u.inMemory(m, number); ok && v.Same(vs[i]) {
			return v, nil
		}
		vs[i].F1, err = u.src.F1(ctx, vs[i])
		return vs[i], err
	}
	if v, ok := u.inMemory(m, number); ok {
		return v, nil
	}
	if v, ok := u.findInLedger(m, number); ok {
		return v, nil
	}
	if err != nil {
		return Version{}, fmt.Errorf("look for version %d of %s: %w", number, m.Name, err)
	}
	return Version{}, fmt.Errorf("%w: %s %d", ErrNoVersion, m.Name, number)
}

// inMemory looks for version number in what serves and the standby.
func (u *Updater) inMemory(m *model, number int64) (Version, bool) {
	active, standby := u.slots.Serving(m.Name)
	if active.Number == number {
		return active, true
	}
	return standby, standby.Number == number
}

// findInLedger looks for a version that served once, so that its files may still be in the cache.
func (u *Updater) findInLedger(m *model, number int64) (Version, bool) {
	entries, err := u.journal.History(m.Name, 1000)
	if err != nil {
		return Version{}, false
	}
	for _, e := range entries {
		if e.Candidate.Number == number && e.Candidate.Digest != "" {
			return e.Candidate, true
		}
	}
	return Version{}, false
}

// note records an operator's order that changed no version.
func (u *Updater) note(m *model, code, reason string) {
	active, _ := u.slots.Serving(m.Name)
	u.record(m, Entry{Candidate: active, Active: active, Outcome: Noted, Code: code, Reason: reason, Actor: "operator"})
}
