package batch_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/inference/batch"
)

// hanging runs take ten milliseconds a job, unless one of them is called "hang".
func hanging(ctx context.Context, jobs []job) ([]string, error) {
	took := time.Duration(len(jobs)) * 10 * time.Millisecond
	out := make([]string, len(jobs))
	for i, j := range jobs {
		if out[i] = j.name; j.name == "hang" {
			took = time.Hour
		}
	}
	select {
	case <-time.After(took):
		return out, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A request that never ends holds up those of its run for a moment only, whether its caller waits long or not; and a worker for no
// longer than a run may take.
func TestHangIsForOneRequest(t *testing.T) {
	for name, deadline := range map[string]time.Duration{"patient": time.Hour, "in a hurry": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := batch.New(batch.Options[job]{Workers: 1, MaxBatch: 4, MaxRun: 30 * time.Second}, hanging)
				defer b.Close()
				ask := func(name string, deadline time.Duration) (time.Duration, error) {
					ctx, cancel := context.WithTimeout(t.Context(), deadline)
					defer cancel()
					began := time.Now()
					_, err := b.Do(ctx, job{name: name})
					return time.Since(began), err
				}
				if _, err := ask("first", time.Minute); err != nil { // how long one takes is known
					t.Fatal(err)
				}
				hung := make(chan error, 1)
				others := make(chan time.Duration, 3)
				go func() { _, _ = ask("before", time.Minute) }()
				synctest.Wait() // it runs, and those that come now are the next run
				go func() {
					_, err := ask("hang", deadline)
					hung <- err
				}()
				synctest.Wait()
				for range 3 {
					go func() {
						took, err := ask("other", time.Minute)
						if err != nil {
							t.Errorf("who shared its run: %v", err)
						}
						others <- took
					}()
				}
				for range 3 {
					if took := <-others; took > 3*time.Second {
						t.Errorf("who shared its run waited %v", took)
					}
				}
				want := context.DeadlineExceeded
				if name == "patient" {
					want = batch.ErrSlowRun
				}
				if err := <-hung; !errors.Is(err, want) {
					t.Errorf("the one that hangs got %v, want %v", err, want)
				}
				if took, err := ask("after", time.Minute); err != nil || took > time.Second {
					t.Errorf("after it: %v, %v", took, err)
				}
			})
		})
	}
}

// Runs that are slow by nature are given the time that they take.
func TestSlowIsNoHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		b := batch.New(batch.Options[job]{Workers: 1, MaxBatch: 4}, func(ctx context.Context, jobs []job) ([]string, error) {
			runs++
			select {
			case <-time.After(time.Duration(len(jobs)) * 3 * time.Second):
				return make([]string, len(jobs)), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		defer b.Close()
		answered := make(chan error, 9)
		for range 9 {
			go func() {
				_, err := b.Do(t.Context(), job{})
				answered <- err
			}()
			synctest.Wait()
		}
		for range 9 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		if runs != 3 {
			t.Errorf("%d runs of 1, 4 and 4 requests", runs)
		}
	})
}
