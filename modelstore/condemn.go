package modelstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	actorSupervisor = "supervisor"
	codeLastGood    = "last_good_version"
	codeCharged     = "charged"
)

// Condemn says that v, which serves, does harm, and why: v goes into quarantine, and the version before it serves again, from memory
// or else from the cache. The last good version stays where there is none to go back to: it is better than nothing. It never blocks;
// the model's goroutine does the rest, as it does for an operator.
//
// A pin doesn't keep v: it goes over to the version that takes over, since what it says, not to follow the registry, still holds.
func (u *Updater) Condemn(v Version, why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	m := u.models[v.Model]
	// Each further input that does harm says the same again: it must not interrupt what brings the cure.
	if m == nil || u.ended || v.Same(m.condemned) && time.Now().Before(m.condemnAgain) {
		return
	}
	m.condemned, m.condemnAgain = v, time.Now().Add(condemnGap)
	u.enqueueLocked(m, true, func(ctx context.Context, m *model) error { return u.condemn(ctx, m, v, why) })
}

// Charge notes in the ledger what was charged to v, which serves, without condemning it for that. It never blocks.
func (u *Updater) Charge(v Version, what string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	m := u.models[v.Model]
	if m == nil || u.ended {
		return
	}
	u.enqueueLocked(m, false, func(_ context.Context, m *model) error {
		active, _ := u.slots.Serving(m.Name)
		u.record(m, Entry{Candidate: v, Active: active, Outcome: Noted, Code: codeCharged, Actor: actorSupervisor, Reason: fmt.Sprintf("%v: %s", v, what)})
		return nil
	})
}

// condemnGap is how long what is said against a version isn't heard again: most of all where there is nothing to go back to.
// What stood in the way of going back may be gone sooner.
const (
	condemnGap      = 10 * time.Minute
	condemnRetryGap = time.Minute
)

// condemn is on the model's goroutine. Its error has been told.
func (u *Updater) condemn(ctx context.Context, m *model, v Version, why string) error {
	active, standby := u.slots.Serving(m.Name)
	switch {
	case m.saved.quarantined(v) != nil || v.Same(m.kept):
		return nil // what it answered meanwhile told the same
	case !v.Same(active):
		return u.condemnIdle(m, v, active, why)
	}
	d := Decision{Return, CodeCondemned, fmt.Sprintf("%v is in quarantine: %s", v, why)}
	if m.saved.Pin == v.Number {
		d.Reason += "; the pin goes over to the version that serves now"
	}
	also := func(s *Saved) { s.condemn(v, why) }
	var failed error
	if !standby.IsZero() && m.saved.quarantined(standby) == nil {
		if failed = u.exchange(ctx, m, active, actorSupervisor, d, also); failed == nil {
			return nil
		}
	}
	// Where the exchange failed for another reason, as on a full disk, so would this; and it would close the standby first.
	if to := m.saved.Previous; (failed == nil || errors.Is(failed, ErrNoPrevious)) && !to.IsZero() && !to.Same(v) && m.saved.quarantined(to) == nil {
		if failed = u.returnTo(ctx, m, to, v, d, also); failed == nil {
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed != nil { // it may do the next time
		u.mu.Lock()
		m.condemnAgain = time.Now().Add(condemnRetryGap)
		u.mu.Unlock()
		u.noteOnce(m, v, Entry{Candidate: v, Active: v, Outcome: Failed, Code: codeLastGood, Actor: actorSupervisor,
			Reason: fmt.Sprintf("%v goes on serving, since the version before can't: %s; %v", v, why, failed)})
		return failed
	}
	m.kept = v
	u.record(m, Entry{Candidate: v, Active: v, Outcome: Noted, Code: codeLastGood, Actor: actorSupervisor,
		Reason: fmt.Sprintf("%v goes on serving, since there is no version to go back to: %s", v, why)})
	return nil
}

// condemnIdle keeps a version that serves no more from being taken again.
func (u *Updater) condemnIdle(m *model, v, active Version, why string) error {
	if active.IsZero() {
		return nil
	}
	err := u.save(m, func(s *Saved) {
		s.quarantine(v, why)
		if s.Previous.Same(v) {
			s.Previous = Version{}
		}
	})
	if err != nil {
		u.o.Logger.Error("the quarantine was not saved", "version", v.String(), "error", err)
		return err
	}
	u.record(m, Entry{Candidate: v, Active: active, Outcome: Noted, Code: CodeCondemned, Actor: actorSupervisor,
		Reason: fmt.Sprintf("%v, which serves no more, is in quarantine: %s", v, why)})
	return nil
}

// returnTo serves a version from the cache. The registry isn't asked: what serves meanwhile does harm.
func (u *Updater) returnTo(ctx context.Context, m *model, to, from Version, d Decision, also func(*Saved)) error {
	u.update(m, "candidate", func(p *progress) { p.candidate, p.phase = to, PhaseVerify })
	defer u.update(m, "candidate", func(p *progress) { p.candidate, p.phase = Version{}, "" })
	b, ok, err := u.cache.Lookup(ctx, to)
	switch {
	case err != nil:
		return fmt.Errorf("find %v in the cache: %w", to, err)
	case !ok:
		return fmt.Errorf("%v is not in the cache", to)
	}
	b.Version.F1, b.Version.Pointer, b.Anyway = to.F1, to.Pointer, true
	u.update(m, "candidate", func(p *progress) { p.phase = PhaseLoad })
	t, err := u.slots.Swap(ctx, b, func() error {
		return u.save(m, func(s *Saved) { s.serve(b.Version); s.also(also) })
	})
	if err != nil {
		return err
	}
	u.live(m, Entry{Candidate: b.Version, Active: from, Outcome: RolledBack, Code: d.Code, Reason: d.Reason, Actor: actorSupervisor, Seconds: t.Seconds()})
	return nil
}

// condemn notes, beside what serves now in v's place, that v must not serve again: nothing leads back to it but an operator's promotion.
func (s *Saved) condemn(v Version, why string) {
	s.quarantine(v, why)
	s.Previous = Version{}
	if s.Pin == v.Number {
		s.Pin = s.Active.Number
	}
}
