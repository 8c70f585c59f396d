package modelstore

import "time"

const (
	// hintGap is the least time between the end of a pass and the next one that a hint causes.
	hintGap = time.Second
	// mostHintBackOff is the most of a failing model's back-off that a hint doesn't shorten.
	mostHintBackOff = time.Minute
)

// Wake says that a model may have changed in the registry: a pass over it is due at once, rather than when the interval has passed. It is a hint to
// look and never says what to load; a model that isn't known is ignored. It never blocks, and a pass in progress goes on: what was hinted
// since it began is looked at by one more pass, however many hints there were. A hint shortens the back-off of a model that fails only
// down to a minute, and never the time for which the registry wants to be left alone.
func (u *Updater) Wake(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if m := u.models[name]; m != nil {
		m.hintLocked()
	}
}

// WakeAll wakes every model.
func (u *Updater) WakeAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range u.models {
		m.hintLocked()
	}
}

func (m *model) hintLocked() {
	m.hinted = true
	select {
	case m.wake <- struct{}{}:
	default: // it looks for hints anyway
	}
}

// takeHint is called before a pass, which sees whatever was hinted until then.
func (u *Updater) takeHint(m *model) {
	u.mu.Lock()
	defer u.mu.Unlock()
	m.hinted = false
}

// plan notes when the next pass is due, now that one has ended. These are points in time: a hint that comes during the wait for them must not
// begin it anew, or hints without end would mean no pass at all.
func (u *Updater) plan(m *model) {
	now, regular, hinted := time.Now(), u.untilNextPass(m), hintGap
	if m.failures > 0 {
		hinted = max(min(regular, mostHintBackOff), min(m.leave, mostLeave))
	}
	m.next, m.nextHinted = now.Add(regular), now.Add(hinted)
}

// untilDue is the time until a pass is due, by the interval or by a hint.
func (u *Updater) untilDue(m *model) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if m.hinted && m.nextHinted.Before(m.next) {
		return time.Until(m.nextHinted)
	}
	return time.Until(m.next)
}
