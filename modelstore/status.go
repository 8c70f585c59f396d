package modelstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Status is what an Updater knows of one model at one moment.
type Status struct {
	Name        string
	Registered  string
	Threshold   float64
	Active      Version   // zero if nothing serves yet
	Standby     Version   // zero if none is in memory
	Previous    Version   // what a rollback returns to; it may have to be loaded from the cache
	Candidate   Version   // being fetched, loaded or warmed up; zero if none is
	Phase       Phase     // of Candidate
	Done, Total int64     // bytes of Candidate's download; Total is 0 if unknown
	Since       time.Time // Active serves since then
	Last        Entry     // the newest decision; zero if none was made yet
	LastCheck   time.Time // the last pass that could ask the registry
	LastError   string    // why the newest pass failed; empty if it didn't
	Pin         int64     // 0 if not pinned
	Hold        *Hold     // nil if not held
	Quarantine  []Quarantined
}

// progress is the part of a Status that the model's goroutine keeps up to date.
type progress struct {
	saved       Saved
	candidate   Version
	phase       Phase
	done, total int64
	since       time.Time
	last        Entry
	lastCheck   time.Time
	lastError   string
	checking    bool
	restored    bool // what was served before the restart serves, or can't
	passed      bool // the first pass has ended, well or not
	gone        bool // what was served before the restart is neither in the cache nor in the registry
}

// update changes a model's progress and, unless change is empty, tells the watchers.
func (u *Updater) update(m *model, change string, f func(*progress)) {
	u.mu.Lock()
	f(&m.progress)
	u.mu.Unlock()
	if change == "" {
		return
	}
	c := Change{What: change, Status: u.status(m)}
	u.mu.Lock()
	defer u.mu.Unlock()
	for w := range u.watchers {
		w.tellLocked(c)
	}
}

// passEnded notes how a pass ended.
func (u *Updater) passEnded(m *model, err error) {
	m.failures++
	m.leave = 0
	if later := RetryLater(nil); errors.As(err, &later) {
		m.leave = later.RetryAfter()
	}
	kind, text := CheckFailed, ""
	if m.asked {
		kind = Checked
	}
	switch {
	case err == nil:
		m.failures = 0
	case errors.Is(err, errPointerMoved): // no failure, and worth another look at once
		text = err.Error()
	default:
		text = err.Error()
		log := u.o.Logger.Warn
		if withoutDigits(text) == withoutDigits(m.progress.lastError) {
			log = u.o.Logger.Debug // it was told
		}
		log("the pass failed and will be tried again", "model", m.Name, "failures", m.failures, "error", err)
	}
	u.o.Observe(Event{Kind: kind, Version: Version{Model: m.Name}, Err: err})
	what := ""
	u.mu.Lock()
	if m.progress.lastError != text || !m.progress.passed {
		what = "state"
	}
	u.mu.Unlock()
	u.update(m, what, func(p *progress) {
		p.passed, p.lastError = true, text
		if m.asked {
			p.lastCheck = time.Now()
		}
	})
}

// Status tells of one model. The error wraps ErrUnknownModel.
func (u *Updater) Status(name string) (Status, error) {
	u.mu.Lock()
	m := u.models[name]
	u.mu.Unlock()
	if m == nil {
		return Status{}, fmt.Errorf("%w: %q", ErrUnknownModel, name)
	}
	return u.status(m), nil
}

func (u *Updater) status(m *model) Status {
	active, standby := u.slots.Serving(m.Name)
	u.mu.Lock()
	defer u.mu.Unlock()
	p := m.progress
	return Status{Name: m.Name, Registered: cmp.Or(m.Registered, active.Registered, p.candidate.Registered), Threshold: m.Rules.Threshold,
		Active: active, Standby: standby, Previous: p.saved.Previous, Candidate: p.candidate, Phase: p.phase, Done: p.done, Total: p.total,
		Since: p.since, Last: p.last, LastCheck: p.lastCheck, LastError: p.lastError, Pin: p.saved.Pin, Hold: p.saved.Hold,
		Quarantine: p.saved.Quarantine}
}

// List tells of every model, by name.
func (u *Updater) List() []Status {
	u.mu.Lock()
	ms := make([]*model, 0, len(u.models))
	for _, m := range u.models {
		ms = append(ms, m)
	}
	u.mu.Unlock()
	all := make([]Status, 0, len(ms))
	for _, m := range ms {
		all = append(all, u.status(m))
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Ready is nil once the first pass over every model has ended, every model that served before a restart serves again (if it can be had
// from the cache or the registry), and at least one serves. Otherwise it says what is missing.
func (u *Updater) Ready() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.started {
		return errors.New("starting")
	}
	serving := false
	for name, m := range u.models {
		active, _ := u.slots.Serving(name)
		serving = serving || !active.IsZero()
		switch {
		case m.added: // what is added to a gateway that is ready doesn't make it unready
		case !m.progress.restored:
			return fmt.Errorf("model %s is being restored from the cache", name)
		case active.IsZero() && !m.progress.saved.Active.IsZero() && !m.progress.gone:
			return fmt.Errorf("model %s served %v before the restart and doesn't yet", name, m.progress.saved.Active)
		case !m.progress.passed && !m.progress.checking:
			return fmt.Errorf("model %s was not checked against the registry yet", name)
		case !m.progress.passed:
			return fmt.Errorf("model %s is being checked against the registry for the first time", name)
		}
	}
	if !serving {
		return errors.New("no model serves yet")
	}
	return nil
}

// Versions lists what the registry has of a model, newest first, with their F1s, at most limit.
func (u *Updater) Versions(ctx context.Context, name string, limit int) ([]Version, error) {
	if _, err := u.Status(name); err != nil {
		return nil, err
	}
	vs, err := u.src.Versions(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(vs) > limit {
		vs = vs[:limit]
	}
	places := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i := range vs {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			f1, err := u.src.F1(ctx, vs[i])
			if err != nil {
				f1 = InvalidF1("", err.Error())
			}
			vs[i].F1 = f1
		})
	}
	wg.Wait()
	return vs, ctx.Err()
}

// History tells the newest decisions about a model ("" for all), newest first, at most limit.
func (u *Updater) History(name string, limit int) ([]Entry, error) {
	if name != "" {
		if _, err := u.Status(name); err != nil {
			return nil, err
		}
	}
	return u.journal.History(name, limit)
}
