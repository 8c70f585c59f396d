package modelstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

// registry is a Source whose answers a test decides.
type registry struct {
	mu       sync.Mutex
	versions []modelstore.Version // any order
	pointer  int64                // 0: nothing is promoted
	kind     string               // "alias:production"
	down     error                // every call fails
	fetch    func(ctx context.Context, v modelstore.Version, dir string) error
	fetched  []int64
	polls    int
	promoted []int64
}

func (r *registry) set(f func(r *registry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *registry) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.polls
}

func (r *registry) fetches() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.fetched)
}

// publish registers a version and, as a training job would, promotes it.
func (r *registry) publish(n int64, f1 float64) {
	r.set(func(r *registry) { r.versions = append(r.versions, version(n, f1)); r.pointer = n })
}

func (r *registry) Latest(_ context.Context, _ string) (modelstore.Version, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.polls++
	if r.down != nil {
		return modelstore.Version{}, r.down
	}
	for _, v := range r.versions {
		if v.Number == r.pointer {
			v.F1, v.Pointer = modelstore.F1{}, r.kind
			return v, nil
		}
	}
	return modelstore.Version{}, modelstore.ErrNoVersion
}

func (r *registry) Versions(context.Context, string) ([]modelstore.Version, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down != nil {
		return nil, r.down
	}
	vs := slices.Clone(r.versions)
	slices.SortFunc(vs, func(a, b modelstore.Version) int { return b.Compare(a) })
	for i := range vs {
		vs[i].F1, vs[i].Pointer = modelstore.F1{}, ""
	}
	return vs, nil
}

func (r *registry) F1(_ context.Context, v modelstore.Version) (modelstore.F1, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.versions {
		if w.Same(v) {
			return w.F1, r.down
		}
	}
	return modelstore.F1{}, fmt.Errorf("F1 was asked of %v, which isn't there", v)
}

func (r *registry) Fetch(ctx context.Context, v modelstore.Version, dir string, progress func(done, total int64)) error {
	r.mu.Lock()
	r.fetched = append(r.fetched, v.Number)
	fetch, down := r.fetch, r.down
	r.mu.Unlock()
	if down != nil {
		return down
	}
	progress(0, 7)
	if fetch != nil {
		if err := fetch(ctx, v, dir); err != nil {
			return err
		}
	}
	progress(7, 7)
	return os.WriteFile(filepath.Join(dir, "weights"), []byte(v.String()), 0o600)
}

// promoter is a registry that takes promotions.
type promoter struct {
	*registry
	err error
}

func (p promoter) MarkPromoted(_ context.Context, v modelstore.Version) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promoted = append(p.promoted, v.Number)
	return p.err
}

// gateway is a store with an updater over folders that outlive it.
type gateway struct {
	t     *testing.T
	dir   string
	rules modelstore.Rules
	src   modelstore.Source

	full atomic.Bool // the disk takes no state
	// prepare, if set before a start, is the updater's.
	prepare func(ctx context.Context, b modelstore.Bundle) (modelstore.Bundle, error)
	lab     *lab
	store   *modelstore.Store[*weights]
	u       *modelstore.Updater
	stop    func()
}

func newGateway(t *testing.T, src modelstore.Source, rules modelstore.Rules) *gateway {
	g := &gateway{t: t, dir: t.TempDir(), rules: rules, src: src}
	g.start()
	t.Cleanup(func() { g.stop() })
	return g
}

func (g *gateway) start() {
	g.t.Helper()
	data, err := disk.OpenData(filepath.Join(g.dir, "data"), disk.DataOptions{})
	if err != nil {
		g.t.Fatal(err)
	}
	cache, err := disk.OpenCache(filepath.Join(g.dir, "cache"), disk.CacheOptions{})
	if err != nil {
		g.t.Fatal(err)
	}
	if g.lab == nil {
		g.lab = &lab{t: g.t, checkDir: func(v modelstore.Version, dir string) error {
			b, err := os.ReadFile(filepath.Join(dir, "weights"))
			if err != nil || string(b) != v.String() {
				return modelstore.Permanent(fmt.Errorf("the weights are %q, want %q (%w)", b, v, err))
			}
			return nil
		}}
	}
	g.store = modelstore.New(g.lab.load, modelstore.StoreOptions{KeepPrevious: 10 * time.Minute})
	g.u = modelstore.NewUpdater(g.src, g.store, cache, fullDisk{data, &g.full}, modelstore.UpdaterOptions{
		Prepare: g.prepare, Models: []modelstore.ModelConfig{{Name: "text", Registered: "text_classification_model", Rules: g.rules}}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.u.Run(ctx) }()
	g.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Error(err)
		}
		if err := g.store.Close(context.Background()); err != nil {
			g.t.Error(err)
		}
		if err := data.Close(); err != nil {
			g.t.Error(err)
		}
		g.stop = func() {}
	}
	synctest.Wait()
}

func (g *gateway) restart() {
	g.t.Helper()
	g.stop()
	g.start()
}

func (g *gateway) refresh() {
	g.t.Helper()
	if err := g.u.Refresh(context.Background(), "text"); err != nil {
		g.t.Fatal(err)
	}
	synctest.Wait() // the pass that follows an order
}

func (g *gateway) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	synctest.Wait() // the pass that follows an order
}

func (g *gateway) wantServing(want string) {
	g.t.Helper()
	if got := serving(g.store, "text"); got != want {
		g.t.Fatalf("active/standby is %s, want %s; history:\n%s", got, want, strings.Join(g.history(), "\n"))
	}
}

// history is the ledger, oldest first, as "candidate outcome code actor".
func (g *gateway) history() []string {
	entries, err := g.u.History("text", 100)
	if err != nil {
		g.t.Fatal(err)
	}
	var lines []string
	for _, e := range slices.Backward(entries) {
		lines = append(lines, fmt.Sprintf("%s %s %s %s", e.Candidate.ID(), e.Outcome, e.Code, e.Actor))
	}
	return lines
}

func (g *gateway) wantHistory(want ...string) {
	g.t.Helper()
	if diff := cmp.Diff(want, g.history()); diff != "" {
		g.t.Errorf("the ledger differs (-want +got):\n%s", diff)
	}
}

var threshold = modelstore.Rules{Threshold: 0.75}

func bubble(t *testing.T, f func(t *testing.T, r *registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, &registry{kind: "alias:production"}) })
}

func TestUpdaterTakesWhatImproves(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		g.wantServing("/") // not registered yet
		r.publish(1, 0.76)
		g.refresh()
		g.wantServing("1/")
		r.publish(2, 0.79)
		time.Sleep(45 * time.Minute) // the interval is 30 minutes, and a standby is kept for 10
		synctest.Wait()
		g.wantServing("2/")
		r.publish(3, 0.77)
		g.refresh()
		r.publish(4, 0.70)
		g.refresh()
		g.refresh() // the same refusals again aren't worth another line
		time.Sleep(24 * time.Hour)
		g.wantServing("2/")
		g.restart()
		g.refresh() // nor does a restart
		g.wantHistory("1 swapped first_version policy", "2 swapped improved policy",
			"3 refused no_improvement policy", "4 refused below_threshold policy", "2 restored restored restart")
		if !slices.Equal(r.fetched, []int64{1, 2}) {
			t.Errorf("fetched %v, want only what was taken", r.fetched)
		}
	})
}

func TestUpdaterRemembersAcrossRestarts(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.80)
		g.refresh()
		r.set(func(r *registry) { r.down = errors.New("registry down") })
		g.restart()
		g.wantServing("1/")
		if err := g.u.Ready(); err != nil {
			t.Errorf("not ready with a cached model and the registry down: %v", err)
		}
		s, err := g.u.Status("text")
		if err != nil || s.Active.F1.Value != 0.80 || s.Active.Digest == "" || !strings.Contains(s.LastError, "registry down") {
			t.Errorf("after the restart: F1 %v, digest %q, error %q (%v)", s.Active.F1, s.Active.Digest, s.LastError, err)
		}
		r.set(func(r *registry) { r.down = nil })
		r.publish(2, 0.78) // not better than what served before the restart
		g.refresh()
		g.wantServing("1/")
		g.wantHistory("1 swapped first_version policy", "1 restored restored restart", "2 refused no_improvement policy")
	})
}

func TestUpdaterFallsBackWhenTheCacheIsDamaged(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		r.publish(2, 0.80)
		g.refresh()
		g.stop()
		r.set(func(r *registry) { r.down = errors.New("registry down") })
		damage(t, g.dir, "text v2")
		g.start()
		g.wantServing("1/")
		r.set(func(r *registry) { r.down = nil })
		g.refresh() // and fetches 2 again, since it is better
		g.wantServing("2/1")
	})
}

// damage changes the one file below dir that holds content, in place.
func damage(t *testing.T, dir, content string) {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Name() != "weights" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || string(b) != content {
			return err
		}
		found = true
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ToUpper(content)), 0o600)
	})
	if err != nil || !found {
		t.Fatalf("no file holds %q: %v", content, err)
	}
}

func TestUpdaterRetriesWhatMayPass(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		r.set(func(r *registry) {
			r.fetch = func(context.Context, modelstore.Version, string) error { return errors.New("connection reset") }
		})
		r.publish(2, 0.80)
		if err := g.u.Refresh(t.Context(), "text"); err == nil || !strings.Contains(err.Error(), "connection reset") {
			t.Fatalf("Refresh: %v, want connection reset", err)
		}
		g.wantServing("1/")
		time.Sleep(time.Minute)
		synctest.Wait()
		n := r.fetches()
		if n < 3 || n > 6 { // 5, 10, 20, 40 seconds
			t.Errorf("fetched %d times within a minute of the first failure, want a few, further and further apart", n)
		}
		r.set(func(r *registry) { r.fetch = nil })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		g.wantServing("2/1")
		g.wantHistory("1 swapped first_version policy", "2 failed failed policy", "2 swapped improved policy")
	})
}

// busy is what a registry says that wants to be left alone for ten minutes.
type busy struct{}

func (busy) Error() string             { return "429 Too Many Requests" }
func (busy) RetryAfter() time.Duration { return 10 * time.Minute }

func TestRegistryThatWantsToBeLeftAloneIs(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		r.set(func(r *registry) { r.down = fmt.Errorf("ask: %w", busy{}) })
		_ = g.u.Refresh(t.Context(), "text")
		synctest.Wait() // the pass that follows an order
		before := r.asked()
		time.Sleep(9 * time.Minute)
		if n := r.asked() - before; n != 0 {
			t.Errorf("asked %d times within 9 of the 10 minutes", n)
		}
		r.set(func(r *registry) { r.down = nil })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		g.wantServing("1/")
	})
}

func TestUpdaterQuarantinesWhatCannotPass(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		bad := modelstore.Permanent(errors.New("model.onnx is not a graph"))
		g.lab.fail(bad, nil)
		r.publish(2, 0.80)
		g.refresh()
		g.lab.fail(nil, nil)
		time.Sleep(24 * time.Hour)
		g.wantServing("1/")
		g.restart()
		time.Sleep(24 * time.Hour)
		g.wantServing("1/") // it is remembered
		r.publish(3, 0.78)
		g.refresh()
		g.wantServing("3/1") // and doesn't stand in the way of others
		g.must(g.u.Promote(t.Context(), "text", 2))
		g.wantServing("2/3")
		got := g.history()
		want := []string{"1 swapped first_version policy", "2 failed quarantined policy", "2 refused quarantined policy",
			"1 restored restored restart", "3 swapped improved policy", "2 swapped promoted operator", "3 refused held policy"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the ledger differs (-want +got):\n%s", diff)
		}
	})
}

func TestOperatorRollsBackAndForward(t *testing.T) {
	for _, later := range []time.Duration{0, time.Hour} { // from the standby, and from the cache
		t.Run(later.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *registry) {
				g := newGateway(t, r, threshold)
				if err := g.u.Rollback(t.Context(), "text"); !errors.Is(err, modelstore.ErrNoPrevious) {
					t.Errorf("Rollback with nothing to roll back to: %v", err)
				}
				r.publish(1, 0.76)
				g.refresh()
				r.publish(2, 0.80)
				g.refresh()
				time.Sleep(later)
				g.must(g.u.Rollback(t.Context(), "text"))
				g.wantServing("1/2")
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				g.wantServing("1/") // held, although 2 is better
				g.restart()
				time.Sleep(24 * time.Hour)
				g.wantServing("1/") // the hold survives a restart
				g.must(g.u.Rollback(t.Context(), "text"))
				g.wantServing("2/1")
				if n := r.fetches(); n != 2 {
					t.Errorf("%d fetches, want 2: rollbacks come from memory or the cache", n)
				}
				r.publish(3, 0.85) // the pointer moves: the hold ends
				g.refresh()
				g.wantServing("3/2")
			})
		})
	}
}

func TestUnpinFollowsTheRegistryAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		g.must(g.u.Pin(t.Context(), "text", 0))
		r.publish(2, 0.80)
		g.refresh()
		g.wantServing("1/")
		s, err := g.u.Status("text")
		if err != nil || s.Pin != 1 {
			t.Errorf("Status: pin %d, %v; want 1", s.Pin, err)
		}
		g.must(g.u.Unpin(t.Context(), "text"))
		g.wantServing("2/1")
		g.must(g.u.Pin(t.Context(), "text", 1))
		g.wantServing("1/2")
		if err := g.u.Promote(t.Context(), "text", 9); !errors.Is(err, modelstore.ErrNoVersion) {
			t.Errorf("Promote of a version that isn't there: %v", err)
		}
		if err := g.u.Promote(t.Context(), "audio", 1); !errors.Is(err, modelstore.ErrUnknownModel) {
			t.Errorf("Promote of a model that isn't there: %v", err)
		}
	})
}

func TestPromoteOverrulesThePolicy(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.80)
		g.refresh()
		r.publish(2, 0.10)
		g.refresh()
		g.wantServing("1/")
		g.must(g.u.Promote(t.Context(), "text", 2))
		g.wantServing("2/1")
		time.Sleep(24 * time.Hour)
		g.wantServing("2/")
		g.wantHistory("1 swapped first_version policy", "2 refused below_threshold policy", "2 swapped promoted operator")
	})
}

func TestRegistryRollbackIsFollowed(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		r.publish(2, 0.80)
		g.refresh()
		r.set(func(r *registry) { r.pointer = 1 })
		g.refresh()
		g.wantServing("1/2")
		g.wantHistory("1 swapped first_version policy", "2 swapped improved policy", "1 rolled_back registry_rollback policy")
	})
}

func TestAliasThatVanishesIsNotReplacedByTheStage(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		r.publish(2, 0.90)
		r.set(func(r *registry) { r.kind = "stage:Production" })
		g.refresh()
		g.restart()
		g.refresh()
		g.wantServing("1/")
		g.must(g.u.Promote(t.Context(), "text", 2)) // the operator settles it
		r.publish(3, 0.95)
		g.refresh()
		g.wantServing("3/2")
	})
}

func TestPointerThatMovesDuringTheDownload(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		r.publish(2, 0.80)
		r.set(func(r *registry) {
			r.fetch = func(_ context.Context, v modelstore.Version, _ string) error {
				if v.Number == 2 {
					r.publish(3, 0.85)
				}
				return nil
			}
		})
		g.refresh()
		g.wantServing("3/1")
		g.wantHistory("1 swapped first_version policy", "2 failed pointer_moved policy", "3 swapped improved policy")
	})
}

func TestOrderInterruptsADownload(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		r.publish(2, 0.78)
		g.refresh()
		r.set(func(r *registry) {
			r.fetch = func(ctx context.Context, _ modelstore.Version, _ string) error {
				<-ctx.Done() // a download without end
				return ctx.Err()
			}
		})
		r.publish(3, 0.80)
		time.Sleep(35 * time.Minute) // the pass is stuck in the download
		synctest.Wait()
		s, err := g.u.Status("text")
		if err != nil || s.Candidate.Number != 3 || s.Phase != modelstore.PhaseFetch || s.Total != 7 {
			t.Fatalf("candidate %v in phase %q, total %d (%v); want 3 in fetch", s.Candidate, s.Phase, s.Total, err)
		}
		g.must(g.u.Rollback(t.Context(), "text"))
		g.wantServing("1/2") // the standby was still there: no download was waited for
	})
}

func TestNewestCandidates(t *testing.T) {
	newest := modelstore.Rules{Threshold: 0.75, Newest: true}
	bubble(t, func(t *testing.T, r *registry) {
		p := promoter{registry: r}
		r.publish(1, 0.76)
		r.publish(2, 0.80)
		r.publish(3, 0.10)
		g := newGateway(t, p, newest)
		g.wantServing("2/") // the best that the newest ones have
		r.publish(9, 0.81)
		r.publish(10, 0.82)
		g.refresh()
		g.wantServing("10/2")
		g.wantHistory("3 refused below_threshold policy", "2 swapped first_version policy", "10 swapped improved policy")
		if !slices.Equal(r.promoted, []int64{2, 10}) {
			t.Errorf("promoted in the registry: %v, want [2 10]", r.promoted)
		}
	})
	bubble(t, func(t *testing.T, r *registry) {
		r.publish(1, 0.76)
		g := newGateway(t, promoter{registry: r, err: errors.New("read only")}, newest)
		g.wantServing("1/") // reported, not fatal
		g.wantHistory("1 swapped first_version policy", "1 noted promotion_not_recorded policy")
	})
}

func TestWatchTellsEveryChange(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		ended := make(chan error, 1)
		go func() {
			ended <- g.u.Watch(ctx, func(c modelstore.Change) error {
				got = append(got, fmt.Sprintf("%s %s %s", c.What, c.Status.Active.ID(), c.Status.Phase))
				return nil
			})
		}()
		synctest.Wait()
		r.publish(1, 0.76)
		g.refresh()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v", err)
		}
		want := []string{"snapshot  ", "candidate  fetch", "candidate  load", "swap 1 load", "decision 1 load", "candidate 1 "}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("changes differ (-want +got):\n%s", diff)
		}
	})
}

// fullDisk is a journal whose Save fails while full is set.
type fullDisk struct {
	modelstore.Journal
	full *atomic.Bool
}

func (d fullDisk) Save(model string, s modelstore.Saved) error {
	if d.full.Load() {
		return errors.New("no space left on device")
	}
	return d.Journal.Save(model, s)
}

func TestNothingServesThatIsNotOnDisk(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		r.publish(2, 0.80)
		g.full.Store(true)
		if err := g.u.Refresh(t.Context(), "text"); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("Refresh with a full disk: %v", err)
		}
		if err := g.u.Rollback(t.Context(), "text"); err == nil {
			t.Error("Rollback with a full disk went well")
		}
		g.wantServing("1/")
		g.full.Store(false)
		g.refresh()
		g.wantServing("2/1")
	})
}

func TestReady(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		if err := g.u.Ready(); err == nil || !strings.Contains(err.Error(), "no model serves") {
			t.Errorf("Ready with nothing serving: %v", err)
		}
		r.publish(1, 0.76)
		g.refresh()
		if err := g.u.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
	})
}

// A registry that is away for a day takes nothing from callers, is asked no more often than once a half hour and a bit, fills no ledger,
// and is followed again at the next look. A restart in the middle serves as before.
func TestRegistryDownForADay(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		before := len(g.history())
		r.publish(2, 0.80)
		r.set(func(r *registry) { r.down = errors.New("connection refused") })
		asked := r.asked()
		time.Sleep(12 * time.Hour)
		g.restart()
		g.wantServing("1/")
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		g.wantServing("1/")
		if n := r.asked() - asked; n < 40 || n > 100 {
			t.Errorf("asked %d times in a day, want about 2 an hour", n)
		}
		if h := g.history(); len(h) > before+1 { // the restart's line
			t.Errorf("the ledger grew by %d lines: %v", len(h)-before, h)
		}
		r.set(func(r *registry) { r.down = nil })
		time.Sleep(45 * time.Minute)
		synctest.Wait()
		g.wantServing("2/") // the standby has expired
	})
}

// A rehearsal may take minutes: a version that was withdrawn meanwhile isn't swapped in.
func TestPointerThatMovesWhileAVersionIsPrepared(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		g.stop()
		g.prepare = func(_ context.Context, b modelstore.Bundle) (modelstore.Bundle, error) {
			if b.Version.Number == 2 {
				r.set(func(r *registry) { r.pointer = 1 })
			}
			return b, nil
		}
		g.start()
		r.publish(2, 0.80)
		g.refresh()
		g.wantServing("1/")
	})
}

// What served before a restart doesn't wait for its prepared form, which is made once it serves.
func TestRestoredVersionIsPreparedLater(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		r.publish(1, 0.76)
		g.refresh()
		g.stop()
		var asked []string
		g.prepare = func(_ context.Context, b modelstore.Bundle) (modelstore.Bundle, error) {
			asked = append(asked, fmt.Sprintf("restored %v, served by %q", b.Restored, serving(g.store, "text")))
			return b, nil
		}
		g.start()
		g.wantServing("1/")
		time.Sleep(time.Hour)
		synctest.Wait()
		if diff := cmp.Diff([]string{`restored true, served by "/"`, `restored false, served by "1/"`}, asked); diff != "" {
			t.Errorf("prepared (-want +got):\n%s", diff)
		}
	})
}
