package modelstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"modelgate/modelstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab makes models that notice when they are misused, and counts what lives.
type lab struct {
	t        testing.TB
	alive    atomic.Int64
	mostEver atomic.Int64
	released atomic.Int64 // bundles given back

	mu         sync.Mutex
	loadErr    error
	warmUpErr  error
	checkErr   error
	compareErr error
	compared   []string // "2 with 1"
	beforeLoad func(modelstore.Version)

	checkDir func(v modelstore.Version, dir string) error // says if dir isn't v's
}

func newLab(t testing.TB) *lab {
	return &lab{t: t, checkDir: func(v modelstore.Version, dir string) error {
		if want := "dir of " + v.String(); dir != want {
			return fmt.Errorf("load(%v) got folder %q, want %q", v, dir, want)
		}
		return nil
	}}
}

// weights is a loaded model of the lab.
type weights struct {
	lab    *lab
	v      modelstore.Version
	using  atomic.Int64
	closed atomic.Bool
}

func (l *lab) load(_ context.Context, b modelstore.Bundle) (*weights, error) {
	v, dir := b.Version, b.Dir
	l.mu.Lock()
	err, before := l.loadErr, l.beforeLoad
	l.mu.Unlock()
	if before != nil {
		before(v)
	}
	if err != nil {
		return nil, err
	}
	if err := l.checkDir(v, dir); err != nil {
		return nil, err
	}
	n := l.alive.Add(1)
	for m := l.mostEver.Load(); n > m && !l.mostEver.CompareAndSwap(m, n); m = l.mostEver.Load() {
	}
	return &weights{lab: l, v: v}, nil
}

func (l *lab) fail(load, warmUp error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loadErr, l.warmUpErr = load, warmUp
}

func (l *lab) failCheck(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checkErr = err
}

func (w *weights) WarmUp(context.Context) error {
	w.lab.mu.Lock()
	defer w.lab.mu.Unlock()
	return w.lab.warmUpErr
}

func (w *weights) Check(context.Context) error {
	w.lab.mu.Lock()
	defer w.lab.mu.Unlock()
	return w.lab.checkErr
}

func (l *lab) failCompare(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.compareErr = err
}

// Compare uses the version that serves as a request would.
func (w *weights) Compare(_ context.Context, active *weights) (before, after time.Duration, err error) {
	active.predict(func() {})
	w.lab.mu.Lock()
	defer w.lab.mu.Unlock()
	w.lab.compared = append(w.lab.compared, w.v.ID()+" with "+active.v.ID())
	return 2 * time.Millisecond, 3 * time.Millisecond, w.lab.compareErr
}

func (w *weights) Close() error {
	if w.closed.Swap(true) {
		w.lab.t.Errorf("%v was closed twice", w.v)
	}
	if n := w.using.Load(); n != 0 {
		w.lab.t.Errorf("%v was closed while %d requests used it", w.v, n)
	}
	w.lab.alive.Add(-1)
	return nil
}

// predict is what a request does with a model: it is answered by one version from beginning to end.
func (w *weights) predict(between func()) modelstore.Version {
	w.using.Add(1)
	defer w.using.Add(-1)
	if w.closed.Load() {
		w.lab.t.Errorf("%v was used after it was closed", w.v)
	}
	between()
	if w.closed.Load() {
		w.lab.t.Errorf("%v was closed under a request", w.v)
	}
	return w.v
}

func (l *lab) bundle(model string, number int64) modelstore.Bundle {
	v := modelstore.Version{Model: model, Number: number}
	var once atomic.Bool
	return modelstore.Bundle{Version: v, Dir: "dir of " + v.String(), Release: func() {
		if once.Swap(true) {
			l.t.Errorf("the bundle of %v was released twice", v)
		}
		l.released.Add(1)
	}}
}

func newStore(t testing.TB, keep time.Duration) (*modelstore.Store[*weights], *lab) {
	l := newLab(t)
	s := modelstore.New(l.load, modelstore.StoreOptions{KeepPrevious: keep, DrainTimeout: 10 * time.Second})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if n := l.alive.Load(); n != 0 {
			t.Errorf("%d models are still loaded after Close", n)
		}
	})
	return s, l
}

func swap(t testing.TB, s *modelstore.Store[*weights], b modelstore.Bundle) {
	t.Helper()
	if _, err := s.Swap(context.Background(), b, nil); err != nil {
		t.Fatal(err)
	}
}

func serving(s *modelstore.Store[*weights], model string) string {
	active, standby := s.Serving(model)
	return active.ID() + "/" + standby.ID()
}

func TestNoRequestFailsOverManySwaps(t *testing.T) {
	const swaps, readers = 200, 16
	s, l := newStore(t, time.Hour)
	swap(t, s, l.bundle("text", 1))
	stop, ended := make(chan struct{}), make(chan struct{})
	var requests atomic.Int64
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			newest := int64(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				h, err := s.Acquire("text")
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				v := h.Model().predict(func() { time.Sleep(50 * time.Microsecond) }) // a request takes a while
				if v != h.Version() {
					t.Errorf("version %v answered under the name of %v", v, h.Version())
				}
				if v.Number < newest {
					t.Errorf("version %d answered after %d had", v.Number, newest)
				}
				newest = v.Number
				h.Release()
				requests.Add(1)
				select {
				case ended <- struct{}{}:
				default:
				}
			}
		})
	}
	for i := range swaps {
		swap(t, s, l.bundle("text", int64(i)+2))
		<-ended // load is really on
	}
	close(stop)
	wg.Wait()
	if n := l.mostEver.Load(); n > 2 {
		t.Errorf("%d versions were in memory at once; two are allowed", n)
	}
	t.Logf("%d requests over %d swaps", requests.Load(), swaps)
}

func TestDoubleBuffer(t *testing.T) {
	s, l := newStore(t, time.Hour)
	if _, err := s.Acquire("text"); !errors.Is(err, modelstore.ErrNotReady) {
		t.Errorf("Acquire before the first swap: %v, want ErrNotReady", err)
	}
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"the first version has no standby", func() { swap(t, s, l.bundle("text", 1)) }, "1/"},
		{"the second keeps the first", func() { swap(t, s, l.bundle("text", 2)) }, "2/1"},
		{"the third retires the first", func() { swap(t, s, l.bundle("text", 3)) }, "3/2"},
		{"a rollback is an exchange", func() { rollback(t, s, nil) }, "2/3"},
		{"and another goes forward again", func() { rollback(t, s, nil) }, "3/2"},
	}
	for _, step := range steps {
		step.do()
		if got := serving(s, "text"); got != step.want {
			t.Fatalf("%s: active/standby is %s, want %s", step.name, got, step.want)
		}
	}
	if n := l.mostEver.Load(); n != 2 {
		t.Errorf("%d versions were in memory at most, want 2", n)
	}
}

func rollback(t testing.TB, s *modelstore.Store[*weights], want error) {
	t.Helper()
	if _, err := s.Rollback(context.Background(), "text", nil); !errors.Is(err, want) {
		t.Fatalf("Rollback: %v, want %v", err, want)
	}
}

func TestCandidateThatFailsChangesNothing(t *testing.T) {
	boom := errors.New("boom")
	cases := []struct {
		name         string
		load, warmUp error
		check        error
		compare      error
		commit       error
	}{
		{name: "load", load: boom},
		{name: "warm-up", warmUp: boom},
		{name: "check", check: boom},
		{name: "compare", compare: boom},
		{name: "commit", commit: boom},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, l := newStore(t, time.Hour)
			swap(t, s, l.bundle("text", 1))
			l.fail(c.load, c.warmUp)
			l.failCheck(c.check)
			l.failCompare(c.compare)
			_, err := s.Swap(t.Context(), l.bundle("text", 2), func() error { return c.commit })
			if !errors.Is(err, boom) {
				t.Fatalf("Swap: %v, want boom", err)
			}
			if got := serving(s, "text"); got != "1/" {
				t.Errorf("active/standby is %s, want 1/", got)
			}
			if l.alive.Load() != 1 || l.released.Load() != 1 {
				t.Errorf("%d models alive and %d bundles released, want 1 and 1", l.alive.Load(), l.released.Load())
			}
		})
	}
}

func TestOldVersionIsDrainedBeforeItIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 0)
		swap(t, s, l.bundle("text", 1))
		h, err := s.Acquire("text")
		if err != nil {
			t.Fatal(err)
		}
		swap(t, s, l.bundle("text", 2))
		synctest.Wait()
		if n := l.alive.Load(); n != 2 {
			t.Fatalf("%d versions alive while a request still uses the first, want 2", n)
		}
		h.Model().predict(func() {})
		h.Release()
		synctest.Wait()
		if n := l.alive.Load(); n != 1 {
			t.Errorf("%d versions alive after the last request, want 1", n)
		}
	})
}

func TestThirdVersionWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, time.Hour)
		swap(t, s, l.bundle("text", 1))
		h, err := s.Acquire("text")
		if err != nil {
			t.Fatal(err)
		}
		swap(t, s, l.bundle("text", 2))
		if _, err := s.Swap(t.Context(), l.bundle("text", 3), nil); !errors.Is(err, modelstore.ErrStillDraining) {
			t.Fatalf("Swap while the first version is in use: %v, want ErrStillDraining", err)
		}
		if got := serving(s, "text"); got != "2/" {
			t.Errorf("active/standby is %s, want 2/", got)
		}
		go func() {
			time.Sleep(5 * time.Second)
			h.Release()
		}()
		swap(t, s, l.bundle("text", 3)) // waits those five seconds
		if n := l.mostEver.Load(); n != 2 {
			t.Errorf("%d versions were in memory at most, want 2", n)
		}
	})
}

func TestStandbyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 10*time.Minute)
		swap(t, s, l.bundle("text", 1))
		swap(t, s, l.bundle("text", 2))
		time.Sleep(10*time.Minute - time.Second)
		rollback(t, s, nil)
		if got := serving(s, "text"); got != "1/2" {
			t.Fatalf("active/standby is %s, want 1/2", got)
		}
		time.Sleep(10*time.Minute - time.Second) // the rollback began a new term
		if got := serving(s, "text"); got != "1/2" {
			t.Fatalf("active/standby is %s, want 1/2", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := serving(s, "text"); got != "1/" || l.alive.Load() != 1 {
			t.Errorf("active/standby is %s with %d alive, want 1/ with 1", got, l.alive.Load())
		}
		rollback(t, s, modelstore.ErrNoPrevious)
	})
}

func TestRollbackThatCannotBeSavedChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := newStore(t, 10*time.Minute)
		swap(t, s, l.bundle("text", 1))
		swap(t, s, l.bundle("text", 2))
		full := errors.New("disk full")
		if _, err := s.Rollback(t.Context(), "text", func(modelstore.Version) error { return full }); !errors.Is(err, full) {
			t.Fatalf("Rollback: %v, want disk full", err)
		}
		if got := serving(s, "text"); got != "2/1" {
			t.Errorf("active/standby is %s, want 2/1", got)
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if got := serving(s, "text"); got != "2/" {
			t.Errorf("after its time active/standby is %s, want 2/", got)
		}
	})
}

func TestModelsDoNotWaitForEachOther(t *testing.T) {
	s, l := newStore(t, time.Hour)
	swap(t, s, l.bundle("text", 1))
	loading, finish := make(chan struct{}), make(chan struct{})
	l.mu.Lock()
	l.beforeLoad = func(v modelstore.Version) {
		if v.Model == "video" {
			close(loading)
			<-finish
		}
	}
	l.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		_, err := s.Swap(context.Background(), l.bundle("video", 1), nil)
		done <- err
	}()
	<-loading
	swap(t, s, l.bundle("text", 2)) // a lock held while video loads would never let this end
	h, err := s.Acquire("text")
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestClose(t *testing.T) {
	t.Run("waits for requests", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, l := newStore(t, time.Hour)
			swap(t, s, l.bundle("text", 1))
			h, err := s.Acquire("text")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := s.Close(ctx); !errors.Is(err, modelstore.ErrStillDraining) {
				t.Errorf("Close with a request in progress: %v, want ErrStillDraining", err)
			}
			h.Release()
			if err := s.Close(t.Context()); err != nil {
				t.Errorf("Close after it: %v", err)
			}
		})
	})
	t.Run("ends service", func(t *testing.T) {
		s, l := newStore(t, time.Hour)
		swap(t, s, l.bundle("text", 1))
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Acquire("text"); !errors.Is(err, modelstore.ErrClosed) {
			t.Errorf("Acquire: %v, want ErrClosed", err)
		}
		if _, err := s.Swap(t.Context(), l.bundle("text", 2), nil); !errors.Is(err, modelstore.ErrClosed) {
			t.Errorf("Swap: %v, want ErrClosed", err)
		}
		if l.released.Load() != 2 {
			t.Errorf("%d bundles released, want 2", l.released.Load())
		}
	})
}

func TestReleasingTwicePanics(t *testing.T) {
	s, l := newStore(t, 0)
	swap(t, s, l.bundle("text", 1))
	h, err := s.Acquire("text")
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	defer func() {
		if r := recover(); r == nil {
			t.Error("the second Release went unnoticed")
		}
	}()
	h.Release()
}

func TestPhasesAreTold(t *testing.T) {
	var mu sync.Mutex
	var told []string
	l := newLab(t)
	s := modelstore.New(l.load, modelstore.StoreOptions{Observe: func(e modelstore.Event) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%d %s", e.Version.Number, e.Phase))
	}})
	swap(t, s, l.bundle("text", 1))
	swap(t, s, l.bundle("text", 2))
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	seen := map[string]int{}
	for _, e := range told {
		seen[e]++
	}
	for _, v := range []int{1, 2} {
		for _, p := range []modelstore.Phase{modelstore.PhaseRetire, modelstore.PhaseLoad, modelstore.PhaseWarmUp,
			modelstore.PhaseCheck, modelstore.PhasePublishWait, modelstore.PhasePublishHeld, modelstore.PhaseDrain} {
			if n := seen[fmt.Sprintf("%d %s", v, p)]; n != 1 {
				t.Errorf("phase %s of version %d was told %d times, want once", p, v, n)
			}
		}
	}
}
