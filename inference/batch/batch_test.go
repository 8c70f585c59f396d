package batch_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"modelgate/inference/batch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A job is a request of the tests: its size and its name.
type job struct {
	size int
	name string
}

// A recorder is a run that waits to be let go and remembers its batches.
type recorder struct {
	mu      sync.Mutex // guards batches
	batches []string
	gate    chan struct{} // each receive lets one run go; nil: runs don't wait
	fail    func(job) error
}

func (r *recorder) run(ctx context.Context, jobs []job) ([]string, error) {
	names := ""
	for _, j := range jobs {
		names += j.name
	}
	r.mu.Lock()
	r.batches = append(r.batches, names)
	r.mu.Unlock()
	if r.gate != nil {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	out := make([]string, len(jobs))
	for i, j := range jobs {
		if r.fail != nil {
			if err := r.fail(j); err != nil {
				return nil, err
			}
		}
		out[i] = "answer to " + j.name
	}
	return out, nil
}

func (r *recorder) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.batches)
}

func options(workers, maxBatch, maxQueue int) batch.Options[job] {
	return batch.Options[job]{Workers: workers, MaxBatch: maxBatch, MaxQueue: maxQueue, Size: func(j job) int { return j.size }}
}

// A result is what one call of Do returned.
type result struct {
	out string
	err error
}

// do calls Do in a goroutine of its own, and returns when the request waits or runs.
func do(ctx context.Context, b *batch.Batcher[job, string], j job) <-chan result {
	c := make(chan result, 1)
	go func() {
		out, err := b.Do(ctx, j)
		c <- result{out, err}
	}()
	synctest.Wait()
	return c
}

func want(t *testing.T, c <-chan result, name string) {
	t.Helper()
	if r := <-c; r.err != nil || r.out != "answer to "+name {
		t.Errorf("%s got %q, %v", name, r.out, r.err)
	}
}

func TestIdleRunsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := batch.New(options(1, 8, 0), (&recorder{}).run)
		start := time.Now()
		want(t, do(t.Context(), b, job{1, "a"}), "a")
		if waited := time.Since(start); waited != 0 {
			t.Errorf("a lone request waited %v", waited)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestOldestFirstWithItsEquals(t *testing.T) {
	for name, c := range map[string]struct {
		maxBatch int
		want     []string
	}{
		"large batches": {8, []string{"x", "acd", "be"}},
		"pairs":         {2, []string{"x", "ac", "be", "d"}},
		"singles":       {1, []string{"x", "a", "b", "c", "d", "e"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{gate: make(chan struct{})}
				b := batch.New(options(1, c.maxBatch, 0), r.run)
				var answers []<-chan result
				jobs := []job{{9, "x"}, {1, "a"}, {2, "b"}, {1, "c"}, {1, "d"}, {2, "e"}}
				for _, j := range jobs {
					answers = append(answers, do(t.Context(), b, j))
				}
				close(r.gate)
				for i, a := range answers {
					want(t, a, jobs[i].name)
				}
				if got := r.seen(); !reflect.DeepEqual(got, c.want) {
					t.Errorf("batches %v, want %v", got, c.want)
				}
				_ = b.Close()
			})
		})
	}
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{gate: make(chan struct{})}
		b := batch.New(options(1, 8, 2), r.run)
		running := do(t.Context(), b, job{1, "x"})
		ctx, leave := context.WithCancel(t.Context())
		first, second := do(ctx, b, job{1, "a"}), do(t.Context(), b, job{1, "b"})
		if res := <-do(t.Context(), b, job{1, "c"}); !errors.Is(res.err, batch.ErrFull) {
			t.Errorf("third waiting request: %v, want ErrFull", res.err)
		}
		leave()
		if res := <-first; !errors.Is(res.err, context.Canceled) {
			t.Errorf("the request that was left: %v", res.err)
		}
		third := do(t.Context(), b, job{1, "d"}) // takes the place of the one that was left
		close(r.gate)
		want(t, running, "x")
		want(t, second, "b")
		want(t, third, "d")
		if got := r.seen(); !reflect.DeepEqual(got, []string{"x", "bd"}) {
			t.Errorf("batches %v: the one that was left must not run", got)
		}
		_ = b.Close()
	})
}

func TestLeavingDoesntStopOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{gate: make(chan struct{})}
		b := batch.New(options(1, 8, 0), r.run)
		running := do(t.Context(), b, job{1, "x"})
		ctx, leave := context.WithCancel(t.Context())
		leaver, stayer := do(ctx, b, job{2, "a"}), do(t.Context(), b, job{2, "b"})
		r.gate <- struct{}{}
		want(t, running, "x")
		synctest.Wait() // "ab" runs now
		leave()
		if res := <-leaver; !errors.Is(res.err, context.Canceled) {
			t.Errorf("the leaver got %v", res.err)
		}
		r.gate <- struct{}{}
		want(t, stayer, "b")
		if got := r.seen(); !reflect.DeepEqual(got, []string{"x", "ab"}) {
			t.Errorf("batches %v", got)
		}
		_ = b.Close()
	})
}

func TestRunEndsWhenAllHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{gate: make(chan struct{})} // never let go
		b := batch.New(options(1, 8, 0), r.run)
		ctx, leave := context.WithCancel(t.Context())
		a := do(ctx, b, job{1, "a"})
		leave()
		<-a
		if err := b.Close(); err != nil { // returns only once the run has
			t.Error(err)
		}
		if _, err := b.Do(t.Context(), job{}); !errors.Is(err, batch.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestEndedContext(t *testing.T) {
	r := &recorder{}
	b := batch.New(options(1, 8, 0), r.run)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Do(ctx, job{1, "a"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = b.Close()
	if got := r.seen(); len(got) > 0 {
		t.Errorf("it ran: %v", got)
	}
}

func TestOnlyTheBadOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errBad := errors.New("bad row")
		r := &recorder{gate: make(chan struct{}), fail: func(j job) error {
			if j.name == "b" {
				return errBad
			}
			return nil
		}}
		b := batch.New(options(1, 8, 0), r.run)
		x := do(t.Context(), b, job{9, "x"})
		a, bad, c := do(t.Context(), b, job{1, "a"}), do(t.Context(), b, job{1, "b"}), do(t.Context(), b, job{1, "c"})
		close(r.gate)
		want(t, x, "x")
		want(t, a, "a")
		want(t, c, "c")
		if res := <-bad; !errors.Is(res.err, errBad) {
			t.Errorf("the bad one got %q, %v", res.out, res.err)
		}
		if got := r.seen(); !reflect.DeepEqual(got, []string{"x", "abc", "a", "b", "c"}) {
			t.Errorf("batches %v", got)
		}
		_ = b.Close()
	})
}

func TestBrokenRuns(t *testing.T) {
	for name, run := range map[string]func(context.Context, []job) ([]string, error){
		"panic":           func(context.Context, []job) ([]string, error) { panic("boom") },
		"too few answers": func(context.Context, []job) ([]string, error) { return nil, nil },
		"too many":        func(context.Context, []job) ([]string, error) { return make([]string, 9), nil },
	} {
		b := batch.New(options(1, 8, 0), run)
		for range 2 { // the worker survives the first
			if out, err := b.Do(t.Context(), job{1, "a"}); err == nil {
				t.Errorf("%s: %q and no error", name, out)
			}
		}
		_ = b.Close()
	}
}

func TestCloseAnswersThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{gate: make(chan struct{})}
		b := batch.New(options(1, 1, 0), r.run)
		var answers []<-chan result
		for i := range 4 {
			answers = append(answers, do(t.Context(), b, job{1, fmt.Sprint(i)}))
		}
		closed := make(chan struct{})
		go func() { _ = b.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close returned while requests wait")
		default:
		}
		if res := <-do(t.Context(), b, job{1, "late"}); !errors.Is(res.err, batch.ErrClosed) {
			t.Errorf("a request after Close: %v", res.err)
		}
		close(r.gate)
		for i, a := range answers {
			want(t, a, fmt.Sprint(i))
		}
		<-closed
	})
}

func TestObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{gate: make(chan struct{})}
		o := options(1, 8, 0)
		var sizes []int
		var longest time.Duration
		o.Observed = func(n int, waits []time.Duration) {
			sizes = append(sizes, n)
			longest = slices.Max(append(waits, longest))
		}
		b := batch.New(o, r.run)
		x := do(t.Context(), b, job{1, "x"})
		a, c := do(t.Context(), b, job{1, "a"}), do(t.Context(), b, job{1, "c"})
		time.Sleep(3 * time.Second) // of the bubble's time
		close(r.gate)
		want(t, x, "x")
		want(t, a, "a")
		want(t, c, "c")
		_ = b.Close()
		if !reflect.DeepEqual(sizes, []int{1, 2}) || longest != 3*time.Second {
			t.Errorf("runs of %v, longest wait %v", sizes, longest)
		}
	})
}

// Whatever comes and leaves in whatever order, everybody gets the own answer or the own error, and runs keep their rules.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		maxBatch := rapid.IntRange(1, 4).Draw(t, "max batch")
		var broken atomic.Value
		run := func(_ context.Context, jobs []job) ([]string, error) {
			if len(jobs) > maxBatch {
				broken.Store(fmt.Sprintf("a batch of %d", len(jobs)))
			}
			out := make([]string, len(jobs))
			for i, j := range jobs {
				if j.size != jobs[0].size {
					broken.Store(fmt.Sprintf("sizes %d and %d in one batch", j.size, jobs[0].size))
				}
				if j.size == 3 {
					return nil, errors.New("three is bad")
				}
				out[i] = "answer to " + j.name
			}
			return out, nil
		}
		b := batch.New(options(rapid.IntRange(1, 3).Draw(t, "workers"), maxBatch, rapid.IntRange(1, 30).Draw(t, "queue")), run)
		sizes := rapid.SliceOfN(rapid.IntRange(1, 4), 1, 40).Draw(t, "sizes")
		leaves := rapid.SliceOfN(rapid.Bool(), len(sizes), len(sizes)).Draw(t, "leaves")
		patient := rapid.SliceOfN(rapid.Bool(), len(sizes), len(sizes)).Draw(t, "patient")
		dropped := rapid.SliceOfN(rapid.Bool(), len(sizes), len(sizes)).Draw(t, "dropped") // nothing is made of them
		closeAt := rapid.IntRange(0, len(sizes)).Draw(t, "close at")
		var wg sync.WaitGroup
		for i, size := range sizes {
			if i == closeAt {
				wg.Go(func() { _ = b.Close() })
			}
			wg.Go(func() {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if leaves[i] {
					go cancel()
				}
				name := fmt.Sprint(i)
				p, err := b.Enter(ctx, patient[i])
				if err == nil {
					defer p.Leave()
				}
				if err == nil && dropped[i] {
					return
				}
				var out string
				if err == nil {
					out, err = p.Do(ctx, job{size, name})
				}
				switch {
				case err == nil && (out != "answer to "+name || size == 3):
					broken.Store(fmt.Sprintf("%s of size %d got %q", name, size, out))
				case err != nil && !errors.Is(err, batch.ErrFull) && !errors.Is(err, batch.ErrClosed) && !errors.Is(err, context.Canceled) && size != 3:
					broken.Store(fmt.Sprintf("%s of size %d: %v", name, size, err))
				case errors.Is(err, context.Canceled) && !leaves[i]:
					broken.Store(name + " was cancelled and hadn't left")
				}
			})
		}
		wg.Wait()
		_ = b.Close()
		if s := broken.Load(); s != nil {
			t.Fatal(s)
		}
		if n := b.Waiting(); n != 0 {
			t.Fatalf("%d count as waiting at the end", n)
		}
	})
}
