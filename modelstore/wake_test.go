package modelstore_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/modelstore"
)

func TestHintIsFollowedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		time.Sleep(10 * time.Second)
		r.publish(1, 0.76)
		g.u.Wake("audio") // not ours
		synctest.Wait()
		g.wantServing("/")
		g.u.Wake("text")
		synctest.Wait()
		g.wantServing("1/")
		time.Sleep(10 * time.Second)
		r.publish(2, 0.79)
		g.u.WakeAll()
		synctest.Wait()
		g.wantServing("2/1")
	})
}

// A storm costs one pass, and one more for what was said meanwhile, however long it is in a second.
func TestStormOfHints(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		time.Sleep(10 * time.Second)
		before := r.asked()
		for range 500 {
			g.u.Wake("text")
			time.Sleep(time.Millisecond)
		}
		if n := r.asked() - before; n != 1 {
			t.Errorf("%d questions during half a second of hints, want 1", n)
		}
		time.Sleep(10 * time.Second)
		if n := r.asked() - before; n != 2 {
			t.Errorf("%d questions ten seconds later, want 2: one more for the hints that came during and after the first pass", n)
		}
		before = r.asked()
		for range 100 * 60 {
			g.u.Wake("text")
			time.Sleep(10 * time.Millisecond)
		}
		if n := r.asked() - before; n < 55 || n > 61 {
			t.Errorf("%d questions during a minute of hints, want about one a second", n)
		}
	})
}

// A slowRegistry does something between its answer and the moment that it arrives.
type slowRegistry struct {
	*registry
	late func()
}

func (r *slowRegistry) Latest(ctx context.Context, model string) (modelstore.Version, error) {
	v, err := r.registry.Latest(ctx, model)
	if f := r.late; f != nil {
		r.late = nil
		f()
	}
	return v, err
}

// A hint during a pass, which may have asked before the change, isn't lost. It doesn't end the pass either.
func TestHintDuringAPass(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		slow := &slowRegistry{registry: r}
		g := newGateway(t, slow, threshold)
		r.publish(1, 0.76)
		g.refresh()
		synctest.Wait()
		slow.late = func() {
			r.publish(2, 0.79)
			g.u.Wake("text")
		}
		g.u.Wake("text")
		time.Sleep(10 * time.Second)
		g.wantServing("2/1")
	})
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.set(func(r *registry) {
			r.fetch = func(ctx context.Context, _ modelstore.Version, _ string) error {
				time.Sleep(time.Minute)
				return ctx.Err()
			}
		})
		r.publish(1, 0.76)
		g.u.Wake("text")
		for range 50 {
			time.Sleep(time.Second)
			g.u.Wake("text")
		}
		time.Sleep(20 * time.Second)
		g.wantServing("1/")
		if n := r.fetches(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

func TestHintsLeaveAFailingRegistryAlone(t *testing.T) {
	storm := func(g *gateway, d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			g.u.WakeAll()
		}
	}
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.set(func(r *registry) { r.down = fmt.Errorf("ask: %w", busy{}) })
		_ = g.u.Refresh(t.Context(), "text")
		synctest.Wait()
		before := r.asked()
		storm(g, 9*time.Minute)
		if n := r.asked() - before; n != 0 {
			t.Errorf("asked %d times within 9 of the 10 minutes for which it wants to be left alone", n)
		}
	})
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.set(func(r *registry) { r.down = fmt.Errorf("connection refused") })
		_ = g.u.Refresh(t.Context(), "text")
		time.Sleep(time.Hour)
		before := r.asked()
		storm(g, 30*time.Minute)
		if n := r.asked() - before; n < 25 || n > 32 {
			t.Errorf("asked %d times within half an hour of hints, want about once a minute", n)
		}
	})
}

// Waking never waits: neither before Run nor after it.
func TestHintsBeforeAndAfter(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		g.stop()
		g.u.Wake("text")
		g.u.WakeAll()
		idle := modelstore.NewUpdater(r, g.store, nil, nil, modelstore.UpdaterOptions{Models: []modelstore.ModelConfig{{Name: "text"}}})
		idle.Wake("text")
		idle.Wake("text")
		idle.WakeAll()
	})
}
