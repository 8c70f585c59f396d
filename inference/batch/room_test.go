package batch_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/inference/batch"
)

// MaxQueue bounds those that hold a place, since they hold tensors. More patient ones than that wait outside, and each gets its turn.
func TestPatientBeyondMaxQueue(t *testing.T) {
	for name, known := range map[string]bool{"fresh": false, "known": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const most = 9
				r := &recorder{}
				b := batch.New(options(8, 2, most), func(ctx context.Context, jobs []job) ([]string, error) {
					time.Sleep(100 * time.Millisecond)
					return r.run(ctx, jobs)
				})
				if known {
					want(t, do(t.Context(), b, job{1, "x"}), "x")
				}
				var running sync.WaitGroup
				for range 32 {
					running.Go(func() {
						p, err := b.Enter(t.Context(), true)
						if err != nil {
							t.Errorf("a patient one: %v", err)
							return
						}
						defer p.Leave()
						if n := b.Inside(); n > most {
							t.Errorf("%d hold a place, want %d at most", n, most)
						}
						time.Sleep(10 * time.Millisecond) // it is encoded
						if out, err := p.Do(t.Context(), job{1, "a"}); err != nil || out != "answer to a" {
							t.Errorf("a patient one: %q, %v", out, err)
						}
					})
				}
				synctest.Wait()
				if n := b.Inside(); n != most {
					t.Errorf("%d hold a place while most are outside, want %d", n, most)
				}
				running.Wait()
				if n := b.Waiting(); n != 0 {
					t.Errorf("%d wait at the end", n)
				}
				_ = b.Close()
			})
		})
	}
}

// Those outside have a bound too, and take no place from those who come beside them.
func TestOutsideIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, outside = 2, 1024
		b := batch.New(options(1, 1, most), (&recorder{}).run)
		var places []*batch.Place[job, string]
		for range most {
			p, err := b.Enter(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			places = append(places, p)
		}
		ctx, leave := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for range outside {
			running.Go(func() {
				if _, err := b.Enter(ctx, true); !errors.Is(err, context.Canceled) {
					t.Errorf("one outside: %v", err)
				}
			})
		}
		synctest.Wait()
		var full *batch.FullError
		if _, err := b.Enter(t.Context(), true); !errors.As(err, &full) || full.Requests != most+outside {
			t.Errorf("one more outside: %v", err)
		}
		if _, err := b.Enter(t.Context(), false); !errors.As(err, &full) || full.Requests != most {
			t.Errorf("one that isn't patient, where all places are held: %v", err)
		}
		leave()
		running.Wait()
		for _, p := range places {
			p.Leave()
		}
		if n := b.Waiting(); n != 0 {
			t.Errorf("%d wait at the end", n)
		}
		_ = b.Close()
	})
}

// What waits is in nobody's way while there are more workers with nothing to do.
func TestDeadlineWithIdleWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 8
		b := batch.New(options(workers, 1, 0), machine{workers, 0, 10 * time.Millisecond, nil}.run)
		if _, err := b.Do(t.Context(), job{size: 80}); err != nil { // 800 ms
			t.Fatal(err)
		}
		synctest.Wait()
		soon, cancel := context.WithTimeout(t.Context(), 90*time.Millisecond)
		defer cancel()
		var places []*batch.Place[job, string]
		for i := range workers { // each is let in beside those that are being encoded
			if err := b.Admit(soon); err != nil {
				t.Errorf("Admit beside %d: %v", i, err)
			}
			p, err := b.Enter(soon, i%2 == 0)
			if err != nil {
				t.Fatalf("beside %d that are being encoded, with %d idle workers: %v", i, workers, err)
			}
			places = append(places, p)
		}
		for _, patient := range []bool{false, true} { // who comes now has to wait for one of them
			if _, err := b.Enter(soon, patient); !errors.Is(err, batch.ErrFull) {
				t.Errorf("one more than workers, patient %v: %v", patient, err)
			}
		}
		if _, err := places[0].Do(soon, job{size: 1}); err != nil {
			t.Errorf("a short one: %v", err)
		}
		for _, p := range places {
			p.Leave()
		}
		_ = b.Close()
	})
}
