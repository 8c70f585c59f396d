package modelstore

import (
	"context"
	"time"
)

type restKey struct{}

// resting has what works under ctx Rest for as long as anything serves.
func (u *Updater) resting(ctx context.Context) context.Context {
	return context.WithValue(ctx, restKey{}, u.anyServes)
}

func (u *Updater) anyServes() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name := range u.models {
		if active, _ := u.slots.Serving(name); !active.IsZero() {
			return true
		}
	}
	return false
}

// Rest is for what copies and hashes a candidate's files, after each piece, which took so long: while versions serve it waits for twice
// that time, so that no more than a third of a processor is taken from them. It returns at once where nothing serves, and outside of a
// pass: for what served before a restart, and for what an operator has ordered.
func Rest(ctx context.Context, took time.Duration) {
	needed, ok := ctx.Value(restKey{}).(func() bool)
	if !ok || took <= 0 || !needed() {
		return
	}
	t := time.NewTimer(min(2*took, longestRest))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// longestRest bounds what follows a piece that waited for a disk.
const longestRest = 20 * time.Millisecond
