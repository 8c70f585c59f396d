package modelstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/modelstore"
)

// condemn blames the version that serves, or number n if that isn't 0.
func (g *gateway) condemn(n int64) {
	g.t.Helper()
	s, err := g.u.Status("text")
	if err != nil {
		g.t.Fatal(err)
	}
	v := s.Active
	if n != 0 {
		v = version(n, 0)
	}
	g.u.Condemn(v, "a test says so")
	synctest.Wait()
}

func (g *gateway) status() modelstore.Status {
	g.t.Helper()
	s, err := g.u.Status("text")
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

func TestCondemnedVersionGivesWayToTheOneBefore(t *testing.T) {
	for name, wait := range map[string]time.Duration{"from memory": 0, "from the cache": time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *registry) {
				g := twoVersions(t, r, r, threshold)
				time.Sleep(wait)
				down(r, errDown) // the registry isn't needed
				g.condemn(0)
				g.wantServing("1/2")
				if s := g.status(); !s.Previous.IsZero() || !strings.Contains(s.Last.Reason, "a test says so") {
					t.Errorf("previous %v, reason %q", s.Previous, s.Last.Reason)
				}
				down(r, nil)
				g.refresh() // the pointer still names 2
				g.restart()
				g.refresh()
				g.wantServing("1/")
				g.wantHistory("1 swapped first_version policy", "2 swapped improved policy", "1 rolled_back condemned supervisor",
					"2 refused quarantined policy", "1 restored restored restart")
				if err := g.u.Rollback(t.Context(), "text"); !errors.Is(err, modelstore.ErrNoPrevious) {
					t.Errorf("a rollback to what was condemned: %v, want ErrNoPrevious", err)
				}
				r.publish(3, 0.90)
				g.refresh()
				g.wantServing("3/1")
				g.must(g.u.Promote(t.Context(), "text", 2)) // the operator's word counts
				g.wantServing("2/3")
			})
		})
	}
}

func TestLastGoodVersionStays(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.80)
		g.refresh()
		g.condemn(0)
		g.condemn(0)
		g.wantServing("1/")
		g.wantHistory("1 swapped first_version policy", "1 noted last_good_version supervisor")
		r.publish(2, 0.90)
		g.refresh()
		g.condemn(0)
		g.wantServing("1/2")
		g.condemn(0) // there is only 2, which is worse
		g.wantServing("1/2")
		r.publish(3, 0.95)
		g.refresh()
		g.wantServing("3/1")
	})
}

func TestVersionBeforeThatCantServe(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		time.Sleep(time.Hour)
		g.lab.fail(modelstore.Permanent(errors.New("a bad graph")), nil)
		g.condemn(0)
		g.condemn(0)
		g.wantServing("2/")
		g.lab.fail(nil, nil)
		time.Sleep(2 * time.Minute) // each input that does harm says it again, but isn't heard each time
		g.condemn(0)
		g.wantServing("1/2")
		g.wantHistory("1 swapped first_version policy", "2 swapped improved policy", "2 failed last_good_version supervisor",
			"1 rolled_back condemned supervisor", "2 refused quarantined policy")
	})
}

func TestPinDoesntKeepWhatIsCondemned(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		g.must(g.u.Pin(t.Context(), "text", 2))
		g.condemn(0)
		r.publish(3, 0.95)
		g.refresh()
		g.wantServing("1/2")
		if s := g.status(); s.Pin != 1 {
			t.Errorf("pinned to %d, want 1: what a pin says, not to follow the registry, still holds", s.Pin)
		}
		g.must(g.u.Unpin(t.Context(), "text"))
		g.wantServing("3/1")
	})
}

func TestVersionIsCondemnedTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		g.condemn(1) // the standby
		g.wantServing("2/1")
		g.condemn(0) // now there is none to go back to
		g.wantServing("2/1")
		g.condemn(7) // was never heard of
		g.u.Condemn(modelstore.Version{Model: "unknown", Number: 1}, "a test says so")
		g.wantHistory("1 swapped first_version policy", "2 swapped improved policy", "1 noted condemned supervisor", "2 noted last_good_version supervisor",
			"7 noted condemned supervisor")
		g.stop()
		g.u.Condemn(version(2, 0), "a test says so") // after the end
	})
}

// The order ends a pass in progress, as an operator's does: what does harm doesn't serve on until a download has ended.
func TestCondemnInterruptsADownload(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		r.set(func(r *registry) {
			r.fetch = func(ctx context.Context, _ modelstore.Version, _ string) error { <-ctx.Done(); return ctx.Err() }
		})
		r.publish(3, 0.9)
		time.Sleep(45 * time.Minute)
		synctest.Wait()
		g.wantServing("2/")
		g.condemn(0)
		g.wantServing("1/2")
	})
}

// A version that does harm, and stays since there is nothing to go back to, is replaced by the next one however often it does harm meanwhile.
func TestHarmDoesntHinderTheCure(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.80)
		g.refresh()
		g.condemn(0)
		harmful := g.status().Active
		r.set(func(r *registry) {
			r.fetch = func(ctx context.Context, _ modelstore.Version, _ string) error {
				select {
				case <-time.After(10 * time.Second):
				case <-ctx.Done():
				}
				return ctx.Err()
			}
		})
		r.publish(2, 0.90)
		asked := r.asked()
		for range 12 * 60 {
			time.Sleep(5 * time.Second)
			g.u.Condemn(harmful, "another input ended its process")
		}
		synctest.Wait()
		if active := g.status().Active; active.Number != 2 {
			t.Errorf("%v serves after an hour", active)
		}
		if n := r.asked() - asked; n > 30 {
			t.Errorf("the registry was asked %d times in an hour", n)
		}
	})
}
