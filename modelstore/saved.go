package modelstore

import (
	"strings"
	"time"
)

// serve notes that v is about to serve, in place of the active version.
func (s *Saved) serve(v Version) {
	if !s.Active.Same(v) {
		s.Previous = s.Active
	}
	s.Active, s.Lost, s.Unpromoted = v, Version{}, false
	s.lift(v)
}

// hold keeps the model where the operator put it, in place of a pin. The pass that follows fills in what the pointer names.
func (s *Saved) hold(why string) {
	s.Pin, s.Hold = 0, &Hold{Since: time.Now(), Why: why}
}

func (s *Saved) also(f func(*Saved)) {
	if f != nil {
		f(s)
	}
}

// mostQuarantined bounds what a broken publisher can make us remember: the oldest entries go first.
const mostQuarantined = 100

func (s *Saved) quarantine(v Version, why string) {
	s.lift(v)
	s.Quarantine = append(s.Quarantine, Quarantined{Version: v, Since: time.Now(), Why: why})
	if over := len(s.Quarantine) - mostQuarantined; over > 0 {
		s.Quarantine = s.Quarantine[over:]
	}
}

// lift takes v out of quarantine.
func (s *Saved) lift(v Version) {
	var rest []Quarantined // a new slice: others may read the old one
	for _, q := range s.Quarantine {
		if !q.Version.Same(v) {
			rest = append(rest, q)
		}
	}
	s.Quarantine = rest
}

func (s *Saved) quarantined(v Version) *Quarantined {
	for _, q := range s.Quarantine {
		if q.Version.Same(v) {
			return &q
		}
	}
	return nil
}

// save changes what is known of m and makes it durable. On an error nothing is changed.
func (u *Updater) save(m *model, change func(*Saved)) error {
	s := m.saved
	if s.Quarantine != nil {
		s.Quarantine = append([]Quarantined(nil), s.Quarantine...)
	}
	change(&s)
	if err := u.journal.Save(m.Name, s); err != nil {
		return err
	}
	m.saved = s
	u.update(m, "", func(p *progress) { p.saved = s })
	return nil
}

// record writes an entry to the ledger and tells the observer, the log and the watchers.
func (u *Updater) record(m *model, e Entry) {
	e.Time, e.Model, e.Threshold = time.Now(), m.Name, m.Rules.Threshold
	if err := u.journal.Record(e); err != nil {
		u.o.Logger.Error("the ledger was not written", "model", m.Name, "error", err)
	}
	u.o.Logger.Info("decision", "model", m.Name, "outcome", string(e.Outcome), "code", e.Code, "reason", e.Reason,
		"candidate", e.Candidate.ID(), "candidate_f1", e.Candidate.F1.String(), "actor", e.Actor)
	u.o.Observe(Event{Kind: Decided, Version: e.Candidate, Entry: &e})
	u.update(m, "decision", func(p *progress) { p.last = e })
}

// live records that e's candidate serves now.
func (u *Updater) live(m *model, e Entry) {
	clear(m.noted) // a new comparison: what was refused before is judged anew
	m.kept = Version{}
	u.update(m, "swap", func(p *progress) { p.since = time.Now() })
	u.record(m, e)
}

// noteOnce records a refusal or failure of c, unless the ledger was told the very same last time.
func (u *Updater) noteOnce(m *model, c Version, e Entry) {
	if m.noted[noteKey(c)] == noteOf(e) {
		return
	}
	m.noted[noteKey(c)] = noteOf(e)
	u.record(m, e)
}

func noteKey(c Version) string { return c.ID() + " " + c.Created.UTC().String() + " " + c.Source }

// noteOf is what two entries about a version have in common if they tell the same. The errors of a network differ in their port numbers.
func noteOf(e Entry) string {
	if e.Outcome == Failed {
		return e.Code + withoutDigits(e.Reason)
	}
	return e.Code + e.Reason
}

func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, s)
}

// recall reads back what the ledger was told since the last swap.
func (u *Updater) recall(m *model) {
	entries, err := u.journal.History(m.Name, 200)
	if err != nil {
		u.o.Logger.Error("the ledger can't be read", "model", m.Name, "error", err)
	}
	for i, e := range entries {
		if i == 0 {
			u.update(m, "", func(p *progress) { p.last = e })
		}
		switch {
		case e.Outcome == Swapped || e.Outcome == RolledBack:
			return
		case e.Outcome == Refused || e.Outcome == Failed || e.Code == codeUnpromoted:
			if _, told := m.noted[noteKey(e.Candidate)]; !told {
				m.noted[noteKey(e.Candidate)] = noteOf(e)
			}
		}
	}
}
