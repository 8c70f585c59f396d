package modelstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

func TestWhatTheCacheLostIsFetchedAgain(t *testing.T) {
	cases := []struct {
		name  string
		order func(t *testing.T, g *gateway, r *registry)
	}{
		{"after a rollback", func(t *testing.T, g *gateway, _ *registry) { g.must(g.u.Rollback(t.Context(), "text")) }},
		{"pinned", func(t *testing.T, g *gateway, _ *registry) { g.must(g.u.Pin(t.Context(), "text", 1)) }},
		{"after the pointer was moved back", func(_ *testing.T, g *gateway, r *registry) {
			r.set(func(r *registry) { r.pointer = 1 })
			g.refresh()
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *registry) {
				g := twoVersions(t, r, r, threshold)
				c.order(t, g, r)
				g.wantServing("1/2")
				g.stop()
				damage(t, g.dir, "text v1")
				down(r, errDown)
				g.start()
				g.wantServing("2/") // better than nothing
				g.restart()
				g.wantServing("2/")
				down(r, nil)
				g.refresh()
				g.wantServing("1/2") // what the operator wanted
			})
			bubble(t, func(t *testing.T, r *registry) {
				g := twoVersions(t, r, r, threshold)
				c.order(t, g, r)
				g.stop()
				if err := os.RemoveAll(filepath.Join(g.dir, "cache")); err != nil {
					t.Fatal(err)
				}
				g.start()
				g.wantServing("1/")
			})
		})
	}
}

// A state that can't be read for now is not one that isn't there: a pin in it would be forgotten, and saved over.
func TestTheModelWaitsForAStateThatCannotBeRead(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		g.must(g.u.Pin(t.Context(), "text", 1))
		g.stop()
		state := filepath.Join(g.dir, "data", "state", "text.json")
		g.must(os.Rename(state, state+".aside"))
		g.must(os.Mkdir(state, 0o700)) // reading it fails as a bad disk's would
		r.publish(3, 0.85)
		g.start()
		time.Sleep(time.Hour)
		g.wantServing("/")
		if s, err := g.u.Status("text"); err != nil || !strings.Contains(s.LastError, "the saved state can't be read") || g.u.Ready() == nil {
			t.Errorf("status %+v, %v; ready: %v", s, err, g.u.Ready())
		}
		g.must(os.Remove(state))
		g.must(os.Rename(state+".aside", state))
		time.Sleep(time.Hour)
		g.wantServing("1/")
		if s, err := g.u.Status("text"); err != nil || s.Pin != 1 || s.LastError != "" {
			t.Errorf("status %+v, %v", s, err)
		}
	})
}

func TestLostVersionThatIsGoneStandsInNobodysWay(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := twoVersions(t, r, r, threshold)
		g.stop()
		damage(t, g.dir, "text v2")
		r.set(func(r *registry) {
			r.fetch = func(_ context.Context, v modelstore.Version, _ string) error {
				if v.Number == 2 {
					return errors.New("the storage behind it is broken")
				}
				return nil
			}
		})
		r.publish(3, 0.85)
		g.start()
		g.wantServing("3/1")
		g.refresh()
	})
}

// A failed check says that the version can't be served, as a bad graph does.
func TestFailedCheckIsPermanent(t *testing.T) {
	broken := errors.New("the scores are NaN")
	for name, fail := range map[string]func(l *lab){
		"at load":    func(l *lab) { l.fail(broken, nil) },
		"at warm-up": func(l *lab) { l.fail(nil, broken) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			s := modelstore.New(l.load, modelstore.StoreOptions{Permanent: func(err error) bool { return errors.Is(err, broken) }})
			fail(l)
			_, err := s.Swap(t.Context(), l.bundle("text", 1), nil)
			if !errors.Is(err, modelstore.ErrPermanent) || !errors.Is(err, broken) {
				t.Errorf("Swap: %v, want a permanent failure", err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// anyModel is a registry that has the same versions of every model.
type anyModel struct{ *registry }

func (a anyModel) Latest(ctx context.Context, model string) (modelstore.Version, error) {
	v, err := a.registry.Latest(ctx, model)
	v.Model = model
	return v, err
}

func (a anyModel) F1(ctx context.Context, v modelstore.Version) (modelstore.F1, error) {
	v.Model = "text"
	return a.registry.F1(ctx, v)
}

func TestModelThatAppearsLaterDoesNotEndReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &registry{kind: "alias:production"}
		r.publish(1, 0.80)
		data, err := disk.OpenData(filepath.Join(t.TempDir(), "data"), disk.DataOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cache, err := disk.OpenCache(filepath.Join(t.TempDir(), "cache"), disk.CacheOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l := newLab(t)
		l.checkDir = func(modelstore.Version, string) error { return nil }
		store := modelstore.New(l.load, modelstore.StoreOptions{})
		var found atomic.Pointer[[]modelstore.ModelConfig]
		found.Store(&[]modelstore.ModelConfig{})
		u := modelstore.NewUpdater(anyModel{r}, store, cache, data, modelstore.UpdaterOptions{
			Models:   []modelstore.ModelConfig{{Name: "text", Rules: threshold}},
			Discover: func(context.Context) ([]modelstore.ModelConfig, error) { return *found.Load(), nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- u.Run(ctx) }()
		synctest.Wait()
		if err := u.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		r.set(func(r *registry) {
			r.fetch = func(ctx context.Context, _ modelstore.Version, _ string) error { <-ctx.Done(); return ctx.Err() }
		})
		found.Store(&[]modelstore.ModelConfig{{Name: "video", Rules: threshold}})
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, err := u.Status("video"); err != nil {
			t.Fatal(err)
		}
		if err := u.Ready(); err != nil {
			t.Errorf("Ready while a model that was added is fetched for the first time: %v", err)
		}
		cancel()
		if err := errors.Join(<-ended, store.Close(context.Background()), data.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestLostVersionWhoseContentChangedIsJudgedAnew(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.80)
		g.refresh()
		g.stop()
		if err := os.RemoveAll(filepath.Join(g.dir, "cache")); err != nil {
			t.Fatal(err)
		}
		r.set(func(r *registry) { // as metrics.json does that comes later
			r.fetch = func(_ context.Context, _ modelstore.Version, dir string) error {
				return os.WriteFile(filepath.Join(dir, "metrics.json"), []byte("{}"), 0o600)
			}
		})
		g.start()
		g.wantServing("1/")
	})
}

// interrupted is a registry that is gone when a promotion is to be written.
type interrupted struct {
	promoter
	times *atomic.Int64
}

func (i interrupted) MarkPromoted(ctx context.Context, v modelstore.Version) error {
	if i.times.Add(1) < 3 {
		return errors.New("connection refused")
	}
	return i.promoter.MarkPromoted(ctx, v)
}

func TestPromotionIsWrittenWhenTheRegistryIsBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		src := interrupted{promoter{registry: r}, new(atomic.Int64)}
		r.publish(1, 0.76)
		g := newGateway(t, src, modelstore.Rules{Newest: true})
		g.wantServing("1/")
		g.refresh()
		g.restart()
		g.refresh()
		g.refresh()
		if len(r.promoted) != 1 || r.promoted[0] != 1 {
			t.Errorf("promoted in the registry: %v, want [1]", r.promoted)
		}
		g.wantHistory("1 swapped first_version policy", "1 noted promotion_not_recorded policy", "1 restored restored restart")
	})
}

// A folder is looked at every two seconds, but a version that can't be had is not copied every two seconds.
func TestBackOffGrowsBeyondAShortInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &registry{kind: "newest"}
		r.publish(1, 0.80)
		r.fetch = func(context.Context, modelstore.Version, string) error { return errors.New("no space left on device") }
		data, err := disk.OpenData(t.TempDir(), disk.DataOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cache, err := disk.OpenCache(t.TempDir(), disk.CacheOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var checked, failed atomic.Int64
		store := modelstore.New(newLab(t).load, modelstore.StoreOptions{})
		u := modelstore.NewUpdater(r, store, cache, data, modelstore.UpdaterOptions{
			Models: []modelstore.ModelConfig{{Name: "text", Rules: threshold}}, Interval: 2 * time.Second,
			Observe: func(e modelstore.Event) {
				switch e.Kind {
				case modelstore.Checked:
					checked.Add(1)
				case modelstore.CheckFailed:
					failed.Add(1)
				}
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- u.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := r.fetches(); n < 8 || n > 20 {
			t.Errorf("%d fetches in ten minutes of failures, want one a minute or so", n)
		}
		if s, err := u.Status("text"); err != nil || time.Since(s.LastCheck) > 2*time.Minute || checked.Load() == 0 || failed.Load() != 0 {
			t.Errorf("last check %v, %d checks went well, %d failed (%v): the registry answered each time", s.LastCheck, checked.Load(), failed.Load(), err)
		}
		cancel()
		if err := errors.Join(<-ended, store.Close(context.Background()), data.Close()); err != nil {
			t.Error(err)
		}
	})
}

// A model whose version is neither in the cache nor in the registry any more doesn't keep the others from traffic.
func TestModelThatIsGoneDoesNotEndReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &registry{kind: "alias:production"}
		r.publish(1, 0.80)
		top := t.TempDir()
		data, err := disk.OpenData(filepath.Join(top, "data"), disk.DataOptions{})
		if err != nil {
			t.Fatal(err)
		}
		gone := version(7, 0.9)
		gone.Model, gone.Digest = "video", strings.Repeat("0", 64)
		if err := data.Save("video", modelstore.Saved{Active: gone, LastPointer: gone}); err != nil {
			t.Fatal(err)
		}
		cache, err := disk.OpenCache(filepath.Join(top, "cache"), disk.CacheOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l := newLab(t)
		l.checkDir = func(modelstore.Version, string) error { return nil }
		r.fetch = func(_ context.Context, v modelstore.Version, _ string) error {
			if v.Model == "video" {
				return modelstore.ErrNoVersion
			}
			return nil
		}
		store := modelstore.New(l.load, modelstore.StoreOptions{})
		u := modelstore.NewUpdater(anyModel{r}, store, cache, data, modelstore.UpdaterOptions{Models: []modelstore.ModelConfig{
			{Name: "text", Rules: threshold}, {Name: "video", Rules: modelstore.Rules{Threshold: 0.95}}}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- u.Run(ctx) }()
		synctest.Wait()
		if err := u.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		cancel()
		if err := errors.Join(<-ended, store.Close(context.Background()), data.Close()); err != nil {
			t.Error(err)
		}
	})
}
