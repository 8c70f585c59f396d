package modelstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

const (
	actorPolicy  = "policy"
	actorRestart = "restart"
)

// restore serves what served before a restart, or else the version before that.
func (u *Updater) restore(ctx context.Context, m *model) {
	saved, ok := u.load(ctx, m)
	if !ok {
		return
	}
	defer u.update(m, "state", func(p *progress) { p.restored = true })
	m.saved = saved
	u.update(m, "", func(p *progress) { p.saved = saved })
	defer u.recall(m)
	for _, v := range []Version{saved.Active, saved.Previous} {
		if v.IsZero() || ctx.Err() != nil {
			continue
		}
		err := u.restoreVersion(ctx, m, v)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			u.record(m, Entry{Candidate: v, Outcome: Failed, Code: "not_restored", Reason: err.Error(), Actor: actorRestart})
		}
	}
}

// load reads the saved state, and tries again until it can be read or ctx ends (false): a model that went on without it would forget its
// pin, hold and quarantine, and save that.
func (u *Updater) load(ctx context.Context, m *model) (Saved, bool) {
	for failures := 1; ctx.Err() == nil; failures++ {
		saved, err := u.journal.Load(m.Name)
		if err == nil {
			u.update(m, "", func(p *progress) { p.lastError = "" })
			return saved, true
		}
		if failures == 1 {
			u.o.Logger.Error("the saved state can't be read, and the model waits for it", "model", m.Name, "error", err)
		}
		u.update(m, "state", func(p *progress) { p.lastError = "the saved state can't be read: " + err.Error() })
		wait(ctx, u.backOff(failures), nil)
	}
	return Saved{}, false
}

func (u *Updater) restoreVersion(ctx context.Context, m *model, v Version) error {
	u.update(m, "candidate", func(p *progress) { p.candidate, p.phase = v, PhaseVerify })
	defer u.update(m, "candidate", func(p *progress) { p.candidate, p.phase = Version{}, "" })
	b, ok, err := u.cache.Lookup(ctx, v)
	if err != nil {
		return fmt.Errorf("find %v in the cache: %w", v, err)
	}
	if !ok {
		return fmt.Errorf("%v is not in the cache, or was damaged there", v)
	}
	b.Version, b.Anyway, b.Restored = v, true, true
	t := Timings{}
	if b, err = u.prepare(ctx, m, b, t); errors.Is(err, ErrPermanent) || ctx.Err() != nil {
		b.Release()
		return fmt.Errorf("prepare %v: %w", v, err)
	}
	if err != nil { // it served before: that it takes longer to load is better than that nothing serves
		u.o.Logger.Warn("a version that served before the restart can't be prepared; it is loaded as it is", "version", v.String(), "error", err)
	}
	m.unprepared = u.o.Prepare != nil && b.Prepared == ""
	u.update(m, "candidate", func(p *progress) { p.phase = PhaseLoad })
	st, err := u.slots.Swap(ctx, b, func() error {
		if v.Same(m.saved.Active) {
			return nil
		}
		return u.save(m, func(s *Saved) {
			if s.Lost.IsZero() {
				s.Lost = s.Active
			}
			s.Active, s.Previous = v, Version{}
		})
	})
	if err != nil {
		return err
	}
	maps.Copy(t, st)
	u.live(m, Entry{Candidate: v, Outcome: Restored, Code: "restored", Actor: actorRestart, Seconds: t.Seconds(),
		Reason: fmt.Sprintf("%v served before the restart", v)})
	return nil
}

// fetchLost brings back what served before a restart and wasn't in the cache any more: an operator may have wanted just that version,
// and the registry's pointer need not name it. It gives up when the registry doesn't have it either.
func (u *Updater) fetchLost(ctx context.Context, m *model) error {
	lost := m.saved.Lost
	if active, _ := u.slots.Serving(m.Name); lost.IsZero() && active.IsZero() {
		lost = m.saved.Active
	}
	if lost.IsZero() || lost.Same(m.givenUp) || m.saved.quarantined(lost) != nil {
		return nil
	}
	d := Decision{Take, "fetched_again", fmt.Sprintf("%v served before the restart, and the cache had lost it", lost)}
	err := u.bring(ctx, m, lost, bringing{decision: d, actor: actorRestart})
	if errors.Is(err, ErrPermanent) || errors.Is(err, ErrNoVersion) {
		m.givenUp = lost
		u.update(m, "", func(p *progress) { p.gone = true })
		return u.save(m, func(s *Saved) { s.Lost = Version{} })
	}
	return err
}
