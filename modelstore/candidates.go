package modelstore

import (
	"context"
	"errors"
	"fmt"
)

// mostCandidates bounds how many versions one pass judges when candidates are the newest ones.
const mostCandidates = 20

// mostFailed bounds how many candidates that can't be had one pass puts up with: with each of them it is less likely their own fault.
const mostFailed = 3

// A fetchError says that the registry didn't hand out a version's F1 or files.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

// candidates are the versions to judge, best first: the promoted one, or the newest ones. None is no error.
func (u *Updater) candidates(ctx context.Context, m *model) ([]Version, error) {
	if !m.Rules.Newest {
		v, err := u.src.Latest(ctx, m.Name)
		switch {
		case errors.Is(err, ErrNoModel) || errors.Is(err, ErrNoVersion):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("ask the registry for %s: %w", m.Name, err)
		}
		return []Version{v}, nil
	}
	vs, err := u.src.Versions(ctx, m.Name)
	switch {
	case errors.Is(err, ErrNoModel):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("ask the registry for the versions of %s: %w", m.Name, err)
	}
	active := m.saved.Active
	for i, v := range vs {
		vs[i].Pointer = "newest"
		if i == mostCandidates || i > 0 && !active.IsZero() && v.Number <= active.Number {
			return vs[:i], nil // the newest is judged even if it is no news, so that the decision about it is current
		}
	}
	return vs, nil
}

// considerAll judges the candidates until one is taken. One whose files can't be had doesn't hide those after it.
func (u *Updater) considerAll(ctx context.Context, m *model, candidates []Version) error {
	var failed []error
	for _, c := range u.knownFirst(ctx, m, candidates) {
		taken, err := u.consider(ctx, m, c)
		switch {
		case taken:
			return errors.Join(failed...)
		case err == nil:
		case errors.As(err, new(*fetchError)) && ctx.Err() == nil && len(failed) < mostFailed:
			failed = append(failed, err)
		default:
			return err
		}
	}
	return errors.Join(failed...)
}

// knownFirst puts versions without a recorded F1 last while nothing serves: they serve only if nothing else can.
func (u *Updater) knownFirst(ctx context.Context, m *model, candidates []Version) []Version {
	if active, _ := u.slots.Serving(m.Name); !active.IsZero() || !m.Rules.AcceptUnknownFirst || len(candidates) < 2 {
		return candidates
	}
	var known, unknown []Version
	for _, c := range candidates {
		if f1, err := u.src.F1(ctx, c); err == nil && f1.Absent {
			unknown = append(unknown, c)
		} else {
			known = append(known, c)
		}
	}
	return append(known, unknown...)
}

// consider judges one candidate and takes it if the policy says so.
func (u *Updater) consider(ctx context.Context, m *model, c Version) (taken bool, err error) {
	active, _ := u.slots.Serving(m.Name)
	if !c.Same(active) {
		if c.F1, err = u.src.F1(ctx, c); err != nil {
			return false, &fetchError{fmt.Errorf("read the F1 of %v: %w", c, err)}
		}
	}
	if active, err = u.withF1(ctx, m, active); err != nil {
		return false, err
	}
	d := u.o.Policy(State{Rules: m.Rules, Active: active, Candidate: c, LastPointer: m.saved.LastPointer,
		Pin: m.saved.Pin, Hold: m.saved.Hold, Quarantined: m.saved.quarantined(c)})
	switch d.Action {
	case Keep:
		return true, nil
	case Refuse:
		u.noteOnce(m, c, Entry{Candidate: c, Active: active, Outcome: Refused, Code: d.Code, Reason: d.Reason, Actor: actorPolicy})
		return false, nil
	}
	_, promoter := u.src.(Promoter)
	err = u.bring(ctx, m, c, bringing{decision: d, actor: actorPolicy, recheck: !m.Rules.Newest, also: func(s *Saved) {
		s.Hold, s.Unpromoted = nil, promoter && m.Rules.Newest
	}})
	if errors.Is(err, ErrPermanent) {
		return false, nil // in quarantine; an older candidate may still do
	}
	return err == nil, err
}

// withF1 asks again for the active version's F1 if it is unknown: metrics may be recorded after a version serves.
func (u *Updater) withF1(ctx context.Context, m *model, active Version) (Version, error) {
	if active.IsZero() || active.F1.Known {
		return active, nil
	}
	f1, err := u.src.F1(ctx, active)
	if err != nil || !f1.Known { // it may be gone from the registry: unknown, as before
		return active, ctx.Err()
	}
	active.F1 = f1
	if m.saved.Active.Same(active) && m.saved.Active.F1 != f1 {
		return active, u.save(m, func(s *Saved) { s.Active.F1 = f1 })
	}
	return active, nil
}
