package modelstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/modelstore"
)

var errDown = errors.New("registry down")

func down(r *registry, err error) { r.set(func(r *registry) { r.down = err }) }

// twoVersions makes 2 serve and 1 the version before it.
func twoVersions(t *testing.T, r *registry, src modelstore.Source, rules modelstore.Rules) *gateway {
	t.Helper()
	g := newGateway(t, src, rules)
	r.publish(1, 0.76)
	g.refresh()
	r.publish(2, 0.80)
	g.refresh()
	g.wantServing("2/1")
	return g
}

func TestHoldIsAgainstThePointerOfThen(t *testing.T) {
	t.Run("the registry was down, and the pointer moved before it came back", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *registry) {
			g := twoVersions(t, r, r, threshold)
			down(r, errDown)
			g.must(g.u.Rollback(t.Context(), "text"))
			g.wantServing("1/2")
			r.publish(3, 0.85)
			down(r, nil)
			g.refresh()
			g.wantServing("3/1")
		})
	})
	t.Run("the registry was down, and came back unchanged", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *registry) {
			g := twoVersions(t, r, r, threshold)
			down(r, errDown)
			g.must(g.u.Rollback(t.Context(), "text"))
			down(r, nil)
			g.refresh()
			time.Sleep(24 * time.Hour)
			g.wantServing("1/")
		})
	})
	t.Run("nothing was promoted then", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *registry) {
			g := twoVersions(t, r, r, threshold)
			r.set(func(r *registry) { r.pointer = 0 })
			g.must(g.u.Rollback(t.Context(), "text"))
			g.refresh()
			r.publish(3, 0.85)
			g.refresh()
			g.wantServing("3/1")
		})
	})
	t.Run("the alias is away for a while, and a stage names something", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *registry) {
			g := twoVersions(t, r, r, threshold)
			g.must(g.u.Rollback(t.Context(), "text"))
			r.set(func(r *registry) { r.kind, r.pointer = "stage:Production", 1 })
			g.refresh()
			r.set(func(r *registry) { r.kind, r.pointer = "alias:production", 2 })
			g.refresh()
			g.wantServing("1/2") // the operator's rollback stands
		})
	})
}

func TestRolledBackVersionStaysAwayWhenAWorseOneIsRegistered(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, modelstore.Rules{Newest: true})
		g.must(g.u.Rollback(t.Context(), "text"))
		r.publish(3, 0.10)
		g.refresh()
		g.wantServing("1/2") // not 2 again, which the operator took away
		r.publish(4, 0.90)
		g.refresh()
		g.wantServing("4/1")
		if s, err := g.u.Status("text"); err != nil || s.Hold != nil {
			t.Errorf("hold %v, %v; it ended with the swap", s.Hold, err)
		}
	})
}

// remade is the model's version n after the model was deleted and made again.
func remade(n int64, f1 float64) modelstore.Version {
	v := version(n, f1)
	v.Created = v.Created.AddDate(0, 1, 0)
	return v
}

func TestPinKeepsTheWeightsNotTheNumber(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.80)
		g.refresh()
		g.must(g.u.Pin(t.Context(), "text", 1))
		r.set(func(r *registry) { r.versions = []modelstore.Version{remade(1, 0.10)} })
		g.refresh()
		g.wantServing("1/")
		if n := r.fetches(); n != 1 {
			t.Errorf("%d fetches: a new version 1, far below the threshold, replaced the pinned one", n)
		}
	})
}

func TestPromoteMeansWhatTheRegistryHasNow(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.80)
		g.refresh()
		again := remade(1, 0.76)
		r.set(func(r *registry) { r.versions = []modelstore.Version{again} })
		g.refresh()
		g.wantServing("1/")
		g.must(g.u.Promote(t.Context(), "text", 1))
		if s, err := g.u.Status("text"); err != nil || !s.Active.Same(again) {
			t.Errorf("active is from %v (%v), want the one made again", s.Active.Created, err)
		}
	})
	bubble(t, func(t *testing.T, r *registry) { // deleted in the registry, still in memory or in the cache
		g := twoVersions(t, r, r, threshold)
		r.set(func(r *registry) { r.versions = r.versions[1:] })
		time.Sleep(time.Hour)
		g.must(g.u.Promote(t.Context(), "text", 1))
		g.wantServing("1/2")
	})
}

func TestPointerMovedBackWhilePinnedIsFollowedAfterwards(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		g.must(g.u.Pin(t.Context(), "text", 2))
		r.set(func(r *registry) { r.pointer = 1 })
		g.refresh()
		g.wantServing("2/1")
		g.must(g.u.Unpin(t.Context(), "text"))
		g.wantServing("1/2")
	})
}

func TestNewestThatCannotBeFetchedDoesNotHideOlderOnes(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		r.set(func(r *registry) {
			r.fetch = func(_ context.Context, v modelstore.Version, _ string) error {
				if v.Number == 2 {
					return errors.New("its folder is empty")
				}
				return nil
			}
		})
		r.publish(1, 0.76)
		r.publish(2, 0.80)
		g := newGateway(t, r, modelstore.Rules{Newest: true})
		g.wantServing("1/")
		if err := g.u.Refresh(t.Context(), "text"); err == nil || !strings.Contains(err.Error(), "empty") {
			t.Errorf("Refresh: %v; 2 is still worth a try", err)
		}
		r.set(func(r *registry) { r.fetch = nil })
		g.refresh()
		g.wantServing("2/1")
	})
}

func TestUnknownF1ServesOnlyIfNothingElseCan(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		r.publish(1, 0.76)
		r.set(func(r *registry) {
			r.versions = append(r.versions, withF1(version(2, 0), modelstore.AbsentF1("there is no metrics.json")))
		})
		g := newGateway(t, r, modelstore.Rules{Newest: true, AcceptUnknownFirst: true})
		g.wantServing("1/")
		time.Sleep(24 * time.Hour)
		g.wantServing("1/")
	})
}

func TestRollbackInterruptsARefresh(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		stuck := true
		r.set(func(r *registry) {
			r.fetch = func(ctx context.Context, _ modelstore.Version, _ string) error {
				if !stuck {
					return nil
				}
				<-ctx.Done() // a download without end
				return ctx.Err()
			}
		})
		r.publish(3, 0.85)
		refreshed := make(chan error, 1)
		go func() { refreshed <- g.u.Refresh(t.Context(), "text") }()
		synctest.Wait()
		stuck = false
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		g.must(g.u.Rollback(ctx, "text"))
		g.wantServing("1/2")
		if err := <-refreshed; err != nil { // it is done after the rollback
			t.Errorf("Refresh: %v", err)
		}
		g.wantServing("1/2")
	})
}

func TestOrderWhoseOperatorLeftIsNotCarriedOutLater(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		release := make(chan struct{})
		r.set(func(r *registry) {
			r.fetch = func(context.Context, modelstore.Version, string) error { <-release; return nil }
		})
		r.publish(3, 0.10)
		promoted := make(chan error, 1)
		go func() { promoted <- g.u.Promote(t.Context(), "text", 3) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.u.Rollback(ctx, "text"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Rollback behind an order that takes long: %v", err)
		}
		close(release)
		g.must(<-promoted)
		g.wantServing("3/2")
	})
}

func TestFailureThatOnlyDiffersInNumbersIsOneLine(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		port := 40000
		r.set(func(r *registry) {
			r.fetch = func(context.Context, modelstore.Version, string) error {
				port++
				return fmt.Errorf("read tcp 127.0.0.1:%d: connection reset", port)
			}
		})
		r.publish(1, 0.80)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		g.wantHistory("1 failed failed policy")
	})
}

func TestF1ThatIsRecordedLaterCounts(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		rules := modelstore.Rules{Newest: true, AcceptUnknownFirst: true}
		g := newGateway(t, r, rules)
		r.set(func(r *registry) {
			r.versions = []modelstore.Version{withF1(version(1, 0), modelstore.AbsentF1("there is no metrics.json"))}
		})
		g.refresh()
		g.wantServing("1/")
		r.set(func(r *registry) { r.versions[0].F1 = modelstore.KnownF1("eval_f1", 0.90) })
		r.publish(2, 0.30)
		g.refresh()
		g.wantServing("1/")
		r.publish(3, 0.95)
		g.refresh()
		g.wantServing("3/1")
	})
}

func TestUnpinDoesNotWaitForADownload(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		g.must(g.u.Rollback(t.Context(), "text"))
		r.set(func(r *registry) {
			r.fetch = func(ctx context.Context, _ modelstore.Version, _ string) error { <-ctx.Done(); return ctx.Err() }
		})
		r.publish(3, 0.85)
		time.Sleep(35 * time.Minute) // the pass is stuck in the download
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		g.must(g.u.Unpin(ctx, "text"))
	})
}
