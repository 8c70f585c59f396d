package modelstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errPointerMoved says that the registry's pointer moved while its version was being fetched.
var errPointerMoved = errors.New("the registry's pointer moved meanwhile")

// pass looks at the registry once and does what the policy says. An error means that the registry couldn't be asked or that a
// candidate failed for now: the pass is due again soon.
func (u *Updater) pass(ctx context.Context, m *model) error {
	ctx = u.resting(ctx)
	u.update(m, "", func(p *progress) { p.checking = true })
	defer u.update(m, "", func(p *progress) { p.checking = false })
	m.asked = false
	lost := u.fetchLost(ctx, m)
	u.writePromotion(ctx, m)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	candidates, err := u.candidates(ctx, m)
	switch {
	case err != nil && ctx.Err() == nil && !m.saved.LastPointer.IsZero():
		return errors.Join(err, u.settleHold(m, m.saved.LastPointer))
	case err != nil:
		return err
	}
	m.asked = true
	if len(candidates) == 0 {
		return errors.Join(lost, u.settleHold(m, m.saved.LastPointer))
	}
	pointer := candidates[0]
	if err := u.noticePointer(m, pointer); err != nil {
		return err
	}
	if err := u.considerAll(ctx, m, candidates); err != nil {
		return err
	}
	if active, _ := u.slots.Serving(m.Name); m.saved.Lost.IsZero() && !active.IsZero() {
		lost = nil // something else was taken
	}
	return errors.Join(u.followed(m, pointer), lost)
}

// followed remembers what the pointer names, now that it was acted on. A pin says not to act: a move of the pointer while it lasts is
// acted on when it ends.
func (u *Updater) followed(m *model, pointer Version) error {
	switch last := m.saved.LastPointer; {
	case pointer.Same(last) && pointer.Pointer == last.Pointer:
		return nil
	case pointerKindChanged(State{Candidate: pointer, LastPointer: last}): // it isn't followed until the operator says so
		return nil
	case m.saved.Pin != 0 && !last.IsZero():
		return nil
	}
	return u.save(m, func(s *Saved) { s.LastPointer = pointer })
}

// settleHold notes what a new hold is against.
func (u *Updater) settleHold(m *model, pointer Version) error {
	h := m.saved.Hold
	if h == nil || h.Settled || !h.Pointer.IsZero() {
		return nil
	}
	return u.save(m, func(s *Saved) { s.Hold = &Hold{Pointer: pointer, Settled: true, Since: h.Since, Why: h.Why} })
}

// noticePointer ends a hold when the registry's pointer has moved since it began. Without a pointer it ends with the next swap.
func (u *Updater) noticePointer(m *model, pointer Version) error {
	if pointerKindChanged(State{Candidate: pointer, LastPointer: m.saved.LastPointer}) { // it isn't the pointer that is followed
		return u.settleHold(m, m.saved.LastPointer)
	}
	if err := u.settleHold(m, pointer); err != nil {
		return err
	}
	h := m.saved.Hold
	if h == nil || m.Rules.Newest || held(State{Rules: m.Rules, Candidate: pointer, Hold: h}) {
		return nil
	}
	u.o.Logger.Info("hold ended: the registry's pointer moved", "model", m.Name, "from", h.Pointer.ID(), "to", pointer.ID())
	return u.save(m, func(s *Saved) { s.Hold = nil })
}

// bringing says how and why a version is brought into service.
type bringing struct {
	decision Decision
	actor    string
	recheck  bool         // look at the registry's pointer again before the swap
	also     func(*Saved) // what else to save with the swap
}

// bring fetches v if it isn't on disk, and swaps it in. It writes the ledger, whatever comes of it; a permanent failure puts v into quarantine.
func (u *Updater) bring(ctx context.Context, m *model, v Version, how bringing) error {
	active, _ := u.slots.Serving(m.Name)
	u.update(m, "candidate", func(p *progress) { p.candidate, p.phase = v, PhaseFetch })
	defer u.update(m, "candidate", func(p *progress) { p.candidate, p.phase = Version{}, "" })

	t := Timings{}
	e := Entry{Candidate: v, Active: active, Outcome: Swapped, Code: how.decision.Code, Reason: how.decision.Reason, Actor: how.actor}
	if how.decision.Action == Return {
		e.Outcome = RolledBack
	}
	digest, err := u.fetchAndSwap(ctx, m, v, how, t)
	e.Seconds = t.Seconds()
	if err != nil {
		return u.bringFailed(ctx, m, e, err)
	}
	e.Candidate.Digest = digest
	u.live(m, e)
	u.afterSwap(ctx, m)
	return nil
}

// fetchAndSwap is the straight line of a version: cache or registry, digest, rehearsal, load, warm-up, check, state on disk, publication.
func (u *Updater) fetchAndSwap(ctx context.Context, m *model, v Version, how bringing, t Timings) (digest string, err error) {
	b, err := u.bundle(ctx, m, v, t)
	if err != nil {
		return "", err
	}
	b.Anyway = how.actor != actorPolicy || how.decision.Action == Return
	if b, err = u.prepare(ctx, m, b, t); err != nil {
		b.Release()
		return "", fmt.Errorf("prepare %v: %w", v, err)
	}
	if how.recheck {
		if err := u.stillNamed(ctx, m, v); err != nil {
			b.Release()
			return "", err
		}
	}
	u.update(m, "candidate", func(p *progress) { p.phase = PhaseLoad })
	st, err := u.slots.Swap(ctx, b, func() error {
		return u.save(m, func(s *Saved) { s.serve(b.Version); s.also(how.also) })
	})
	for p, d := range st {
		t[p] = d
	}
	return b.Version.Digest, err
}

// stillNamed looks at the registry again: the pointer may have moved during the download or the rehearsal, which may take minutes.
func (u *Updater) stillNamed(ctx context.Context, m *model, v Version) error {
	now, err := u.src.Latest(ctx, m.Name)
	if err == nil && !now.Same(v) {
		err = fmt.Errorf("%w: from %v to %v", errPointerMoved, v, now)
	}
	if err != nil {
		return fmt.Errorf("look at the registry again before the swap to %v: %w", v, err)
	}
	return nil
}

// prepareLater has that made of the active version which wasn't there when it was restored: the next load is a fast one.
func (u *Updater) prepareLater(ctx context.Context, m *model) {
	if !m.unprepared || ctx.Err() != nil {
		return
	}
	active, _ := u.slots.Serving(m.Name)
	b, ok, err := u.cache.Lookup(ctx, active)
	if err != nil || !ok {
		return
	}
	prepared, err := u.o.Prepare(u.resting(ctx), b)
	if err == nil {
		b = prepared
	}
	b.Release()
	m.unprepared = err != nil && ctx.Err() != nil // an order came between
	if err != nil && ctx.Err() == nil {
		u.o.Logger.Warn("what serves can't be prepared for its next load", "version", active.String(), "error", err)
	}
}

// prepare makes what loads fast of b. On an error b is what it was.
func (u *Updater) prepare(ctx context.Context, m *model, b Bundle, t Timings) (Bundle, error) {
	if u.o.Prepare == nil {
		return b, nil
	}
	u.update(m, "candidate", func(p *progress) { p.phase = PhasePrepare })
	began := time.Now()
	prepared, err := u.o.Prepare(ctx, b)
	t[PhasePrepare] = time.Since(began)
	u.o.Observe(Event{Kind: PhaseEnded, Version: b.Version, Phase: PhasePrepare, Duration: t[PhasePrepare], Err: err})
	if err != nil {
		return b, err
	}
	return prepared, nil
}

// bundle finds v on disk or fetches it.
func (u *Updater) bundle(ctx context.Context, m *model, v Version, t Timings) (Bundle, error) {
	b, ok, err := u.cache.Lookup(ctx, v)
	if err != nil || ok {
		b.Version.F1, b.Version.Pointer = v.F1, v.Pointer // what was decided on now, not what was cached then
		return b, err
	}
	progress := func(done, total int64) {
		u.update(m, "", func(p *progress) { p.done, p.total = done, total })
		u.o.Observe(Event{Kind: Progressed, Version: v, Done: done, Total: total})
	}
	fetch := func(ctx context.Context, dir string) error {
		if err := u.src.Fetch(ctx, v, dir, progress); err != nil {
			return &fetchError{err}
		}
		return nil
	}
	b, err = u.cache.Add(ctx, v, fetch, func(phase string, d time.Duration) {
		t[Phase(phase)] = d
		u.o.Observe(Event{Kind: PhaseEnded, Version: v, Phase: Phase(phase), Duration: d})
	})
	if err != nil {
		return Bundle{}, fmt.Errorf("fetch %v: %w", v, err)
	}
	return b, nil
}

// bringFailed records a failure once, and puts the version into quarantine if trying again is pointless. One that served before a restart
// isn't: what differs now may be what the registry has under its number, which is judged like any other.
func (u *Updater) bringFailed(ctx context.Context, m *model, e Entry, err error) error {
	v := e.Candidate
	if ctx.Err() != nil && !errors.Is(err, ErrPermanent) {
		return err // interrupted by an order or the end of the program: nobody's failure
	}
	e.Outcome, e.Code, e.Reason = Failed, "failed", err.Error()
	switch {
	case errors.Is(err, ErrPermanent) && e.Actor != actorRestart:
		e.Code = "quarantined"
		if serr := u.save(m, func(s *Saved) { s.quarantine(v, err.Error()) }); serr != nil {
			u.o.Logger.Error("the quarantine was not saved", "version", v.String(), "error", serr)
		}
	case errors.Is(err, errPointerMoved):
		e.Code = "pointer_moved"
	}
	u.noteOnce(m, v, e)
	return err
}

// afterSwap does what can wait until the new version serves. What goes wrong here is told, and changes nothing.
func (u *Updater) afterSwap(ctx context.Context, m *model) {
	if err := u.cache.Prune(ctx, m.Name, []Version{m.saved.Active, m.saved.Previous}); err != nil {
		u.o.Logger.Warn("clean up the cache", "model", m.Name, "error", err)
	}
	u.writePromotion(ctx, m)
}

const codeUnpromoted = "promotion_not_recorded"

// writePromotion tells the registry that the active version was promoted, if it doesn't know yet. Each pass tries again.
func (u *Updater) writePromotion(ctx context.Context, m *model) {
	p, ok := u.src.(Promoter)
	if !ok || !m.saved.Unpromoted || ctx.Err() != nil {
		return
	}
	v := m.saved.Active
	err := p.MarkPromoted(ctx, v)
	if err != nil && ctx.Err() == nil {
		u.noteOnce(m, v, Entry{Candidate: v, Active: v, Outcome: Noted, Code: codeUnpromoted, Actor: actorPolicy,
			Reason: fmt.Sprintf("%v serves, but the registry did not take its promotion: %v", v, err)})
	}
	if err == nil || errors.Is(err, ErrNoVersion) {
		if err := u.save(m, func(s *Saved) { s.Unpromoted = false }); err != nil {
			u.o.Logger.Warn("the promotion was not saved; it is written again", "version", v.String(), "error", err)
		}
	}
}
