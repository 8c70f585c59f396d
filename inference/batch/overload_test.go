package batch_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/inference/batch"
)

// A machine is a model of one that computes: a run of n requests of a size takes base + n*size*each.
type machine struct {
	workers    int
	base, each time.Duration
	sizes      []int
}

func (m machine) run(_ context.Context, jobs []job) ([]string, error) {
	time.Sleep(m.base + time.Duration(len(jobs)*jobs[0].size)*m.each)
	return make([]string, len(jobs)), nil
}

// load is what came of requests that came at a rate for a while.
type load struct {
	sent, refused int
	latencies     []time.Duration
}

func (l load) p99() time.Duration {
	if len(l.latencies) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(l.latencies))[len(l.latencies)*99/100]
}

func (l load) goodput(length time.Duration) float64 {
	return float64(len(l.latencies)) / length.Seconds()
}

// offer sends requests at a rate, at random moments, whether or not those before are answered. Twice a second nothing comes for a while.
func offer(b *batch.Batcher[job, string], m machine, rate float64, length, stall time.Duration) load {
	var l load
	var mu sync.Mutex // guards l
	var running sync.WaitGroup
	r := rand.New(rand.NewPCG(1, 2))
	n := 0
	for at, start := time.Duration(0), time.Now(); at < length; {
		at += time.Duration(r.ExpFloat64() / rate * float64(time.Second))
		if n++; stall > 0 && n%int(rate/2) == 0 {
			at += stall
		}
		time.Sleep(at - time.Since(start))
		size := m.sizes[r.IntN(len(m.sizes))]
		running.Go(func() {
			began := time.Now()
			_, err := b.Do(context.Background(), job{size: size})
			mu.Lock()
			defer mu.Unlock()
			l.sent++
			if err == nil {
				l.latencies = append(l.latencies, time.Since(began))
			}
			if errors.Is(err, batch.ErrFull) {
				l.refused++
			}
		})
	}
	running.Wait()
	return l
}

// capacity is how many requests a second are answered to so many callers.
func capacity(b *batch.Batcher[job, string], m machine, callers int, length time.Duration) float64 {
	var running sync.WaitGroup
	var mu sync.Mutex // guards n
	n, start := 0, time.Now()
	for i := range callers {
		running.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for time.Since(start) < length {
				if _, err := b.Do(context.Background(), job{size: m.sizes[r.IntN(len(m.sizes))]}); err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				mu.Lock()
				n++
				mu.Unlock()
			}
		})
	}
	running.Wait()
	return float64(n) / time.Since(start).Seconds()
}

// The figures of the machines are virtual, and so exact: at 90 % of what it can do hardly anybody is refused; at five times that the
// machine does as much as ever, and those let in are late by little.
func TestOverload(t *testing.T) {
	for name, c := range map[string]struct {
		m     machine
		ratio float64 // of the p99s
		stall time.Duration
	}{
		"a small text model":              {machine{2, time.Millisecond, 7 * time.Millisecond, []int{1}}, 2, 0},
		"a flood that stalls":             {machine{2, time.Millisecond, 7 * time.Millisecond, []int{1}}, 2, 80 * time.Millisecond},
		"texts of many lengths":           {machine{2, time.Millisecond, time.Millisecond, []int{1, 2, 4, 8, 16, 32}}, 2, 0},
		"where company costs next to nil": {machine{2, 10 * time.Millisecond, 100 * time.Microsecond, []int{1}}, 2, 0},
		"sixteen cores":                   {machine{16, time.Millisecond, 7 * time.Millisecond, []int{1}}, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const length = 5 * time.Second
				fresh := func() *batch.Batcher[job, string] {
					b := batch.New(options(c.m.workers, 8, 0), c.m.run)
					t.Cleanup(func() { _ = b.Close() })
					return b
				}
				most := max(capacity(fresh(), c.m, 2*c.m.workers, length), capacity(fresh(), c.m, 16*c.m.workers, length))
				calm := offer(fresh(), c.m, .9*most, length, 0)
				b, stop := fresh(), make(chan struct{})
				go func() { // the first moments of a flood look like a burst
					offer(b, c.m, 5*most, time.Second, 0)
					close(stop)
				}()
				time.Sleep(time.Second - 10*time.Millisecond)
				flood := offer(b, c.m, 5*most, length, c.stall)
				<-stop
				t.Logf("capacity %.0f; at 90 %%: %d of %d refused, p99 %v; at 500 %%: goodput %.2f, p99 %v", most, calm.refused, calm.sent, calm.p99(),
					flood.goodput(length)/most, flood.p99())
				if share := float64(calm.refused) / float64(calm.sent); share > 0.02 {
					t.Errorf("at 90 %% of the capacity %.1f %% are refused", 100*share)
				}
				if share := flood.goodput(length) / most; share < 0.9 {
					t.Errorf("at five times the capacity %.0f %% of it are answered", 100*share)
				}
				if ratio := float64(flood.p99()) / float64(calm.p99()); ratio > c.ratio {
					t.Errorf("at five times the capacity the p99 is %v, %.1f times that at 90 %%", flood.p99(), ratio)
				}
			})
		})
	}
}

// Callers who wait for their answers before they ask again keep the workers busy for good, and are no flood.
func TestSteadyCallers(t *testing.T) {
	for _, m := range []machine{{2, time.Millisecond, 7 * time.Millisecond, []int{1}}, {2, 0, time.Second, []int{1}}} {
		synctest.Test(t, func(t *testing.T) {
			b := batch.New(options(m.workers, 8, 0), m.run)
			var running sync.WaitGroup
			for range 32 * m.workers {
				running.Go(func() {
					for range 50 {
						if _, err := b.Do(t.Context(), job{size: 1}); err != nil {
							t.Errorf("one of some steady callers: %v", err)
						}
					}
				})
			}
			running.Wait()
			_ = b.Close()
		})
	}
}

// A burst onto an idle machine is no overload.
func TestBurst(t *testing.T) {
	for name, m := range map[string]machine{
		"fresh": {2, 0, time.Millisecond, []int{1}},
		"known": {2, 0, time.Millisecond, []int{1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := batch.New(options(2, 1, 0), m.run)
			for range 100 {
				if _, err := b.Do(t.Context(), job{size: 1}); err != nil {
					t.Fatal(err)
				}
				if name == "fresh" {
					break
				}
			}
			for range 3 {
				var running sync.WaitGroup
				for range 64 {
					running.Go(func() {
						if _, err := b.Do(t.Context(), job{size: 1}); err != nil {
							t.Errorf("%s: one of a burst: %v", name, err)
						}
					})
				}
				running.Wait()
			}
			_ = b.Close()
		})
	}
}

// What one caller sends at once isn't refused because of itself, and leaves room for others.
func TestPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine{2, 0, 10 * time.Millisecond, []int{1}}
		b := batch.New(options(2, 1, 0), m.run)
		if _, err := b.Do(t.Context(), job{size: 1}); err != nil {
			t.Fatal(err)
		}
		var running sync.WaitGroup
		for range 300 {
			running.Go(func() {
				p, err := b.Enter(t.Context(), true)
				if err != nil {
					t.Errorf("a patient one: %v", err)
					return
				}
				defer p.Leave()
				if _, err := p.Do(t.Context(), job{size: 1}); err != nil {
					t.Errorf("a patient one: %v", err)
				}
			})
		}
		for range 50 { // over half a second, of the one and a half that the others take
			time.Sleep(10 * time.Millisecond)
			began := time.Now()
			if _, err := b.Do(t.Context(), job{size: 1}); err != nil {
				t.Errorf("one beside patient ones: %v", err)
			}
			if took := time.Since(began); took > 40*time.Millisecond {
				t.Errorf("one beside patient ones took %v", took)
			}
		}
		running.Wait()
		if n := b.Waiting(); n != 0 {
			t.Errorf("%d wait at the end", n)
		}
		_ = b.Close()
	})
}

// However many others come, patient ones get their turn.
func TestPatientDontStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine{2, 0, 10 * time.Millisecond, []int{1}}
		b := batch.New(options(2, 1, 0), m.run)
		ctx, stop := context.WithCancel(t.Context())
		var others sync.WaitGroup
		others.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Millisecond)
				others.Go(func() { _, _ = b.Do(ctx, job{size: 1}) })
			}
		})
		time.Sleep(time.Second)
		began := time.Now()
		var patient sync.WaitGroup
		for range 50 {
			patient.Go(func() {
				p, err := b.Enter(t.Context(), true)
				if err != nil {
					t.Errorf("a patient one: %v", err)
					return
				}
				_, _ = p.Do(t.Context(), job{size: 1})
			})
		}
		patient.Wait()
		if took := time.Since(began); took > time.Second { // a quarter of it alone
			t.Errorf("50 patient ones took %v", took)
		}
		stop()
		others.Wait()
		_ = b.Close()
	})
}

// A request whose turn comes after its deadline is refused at once; but never one that nothing is in the way of.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine{1, 0, 10 * time.Millisecond, []int{1}}
		b := batch.New(options(1, 1, 0), m.run)
		soon := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		}
		if _, err := b.Do(t.Context(), job{size: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Do(soon(), job{size: 1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that has the machine to itself: %v", err)
		}
		time.Sleep(time.Second) // for its run to end
		running, first := do(t.Context(), b, job{1, "x"}), do(t.Context(), b, job{1, "a"})
		began := time.Now()
		for _, patient := range []bool{false, true} {
			_, err := b.Enter(soon(), patient)
			var full *batch.FullError
			if !errors.As(err, &full) || full.Wait != 10*time.Millisecond || full.Requests != 1 || !errors.Is(err, batch.ErrFull) || time.Since(began) != 0 {
				t.Errorf("patient %v: %v after %v", patient, err, time.Since(began))
			}
			if err := b.Admit(soon()); !errors.Is(err, batch.ErrFull) {
				t.Errorf("Admit: %v", err)
			}
		}
		<-running
		<-first
		_ = b.Close()
	})
}

// One run that took long, for whatever reason, doesn't shut the door.
func TestSlowRunIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := true
		b := batch.New(options(1, 1, 0), func(context.Context, []job) ([]string, error) {
			if slow {
				time.Sleep(time.Hour)
			}
			slow = false
			time.Sleep(time.Millisecond)
			return make([]string, 1), nil
		})
		for range 200 {
			if _, err := b.Do(t.Context(), job{size: 1}); err != nil {
				t.Fatalf("a lone request: %v", err)
			}
		}
		var running sync.WaitGroup
		for range 32 {
			running.Go(func() {
				if _, err := b.Do(t.Context(), job{size: 1}); err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		_ = b.Close()
	})
}

// Those who wait outside may leave, and are told when the batcher closes.
func TestOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{gate: make(chan struct{})}
		b := batch.New(options(1, 1, 0), r.run)
		first := do(t.Context(), b, job{1, "x"})
		time.Sleep(time.Second)
		r.gate <- struct{}{} // a run takes a second
		want(t, first, "x")
		running, next := do(t.Context(), b, job{1, "y"}), do(t.Context(), b, job{1, "n"})
		waiting, last := do(t.Context(), b, job{1, "z"}), do(t.Context(), b, job{1, "l"})
		ctx, leave := context.WithCancel(t.Context())
		enter := func(ctx context.Context) <-chan error {
			c := make(chan error, 1)
			go func() {
				p, err := b.Enter(ctx, true)
				if err == nil {
					p.Leave()
					p.Leave() // twice is harmless
				}
				c <- err
			}()
			synctest.Wait()
			return c
		}
		leaver, invited, late := enter(ctx), enter(t.Context()), enter(t.Context())
		if n := b.Waiting(); n != 6 {
			t.Errorf("%d wait, want 6", n)
		}
		leave()
		if err := <-leaver; !errors.Is(err, context.Canceled) {
			t.Errorf("the leaver: %v", err)
		}
		r.gate <- struct{}{}
		want(t, running, "y")
		if err := <-invited; err != nil {
			t.Errorf("the one let in: %v", err)
		}
		closed := make(chan struct{})
		go func() { _ = b.Close(); close(closed) }()
		if err := <-late; !errors.Is(err, batch.ErrClosed) {
			t.Errorf("the one outside at the end: %v", err)
		}
		close(r.gate)
		want(t, next, "n")
		want(t, waiting, "z")
		want(t, last, "l")
		<-closed
		if n := b.Waiting(); n != 0 {
			t.Errorf("%d wait at the end", n)
		}
	})
}
