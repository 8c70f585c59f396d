package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"modelgate/inference/engine"
	"modelgate/inference/engine/worker"
)

// What loads stands still while live runs need all processors, goes on when they don't, and isn't kept from it for good.
func TestLoadsStandStill(t *testing.T) {
	e := newEngine(t, worker.Options{}, "probe", "-")
	s, err := openGraph(t.Context(), t, e, divide())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.(engine.Candidate).Live(t.Context()); err != nil {
		t.Fatal(err)
	}
	worker.StandStill(e, time.Hour)
	var all sync.WaitGroup
	defer all.Wait()
	runs, endAll := context.WithCancel(t.Context())
	defer endAll()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	all.Go(func() {
		if err := e.Do(ctx, worker.Job{Spec: []string{"hang"}}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("the job ended with %v", err)
		}
	})
	var pid int
	eventually(t, "a process loads", func() bool {
		for _, pid = range worker.Loading(e) {
			return true
		}
		return false
	})
	// As many runs as there are processors, which end when they are told to.
	run := func() (end func()) {
		ctx, cancel := context.WithCancel(runs)
		all.Go(func() {
			_, err := s.Run(ctx, []engine.Tensor{{Shape: []int64{1}, Data: []string{"patient"}}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a run ended with %v", err)
			}
		})
		return cancel
	}
	var end func()
	for range runtime.GOMAXPROCS(0) {
		end = run()
	}
	eventually(t, "it stands still", func() bool { return stands(t, pid) })
	end()
	eventually(t, "it goes on when there is room", func() bool { return !stands(t, pid) })
	end = run()
	eventually(t, "it stands still again", func() bool { return stands(t, pid) })
	end()
	eventually(t, "it goes on again", func() bool { return !stands(t, pid) })
	worker.StandStill(e, 0)
	run()
	eventually(t, "it stood still for half of the time", func() bool { return !worker.Paced(e) })
	eventually(t, "it goes on", func() bool { return !stands(t, pid) })
	// The next one begins anew, and doesn't stand still when it has loaded.
	cancel()
	eventually(t, "nothing loads", func() bool { return len(worker.Loading(e)) == 0 })
	next, err := openGraph(t.Context(), t, e, divide())
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if out, err := next.Run(t.Context(), []engine.Tensor{{Shape: []int64{1}, Data: []string{"scheduling"}}}); err != nil || len(out) != 1 {
		t.Errorf("a run of what has loaded gives %v, %v", out, err)
	}
}

// stands says that a process was stopped.
func stands(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "T")
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for late := time.After(30 * time.Second); ; {
		if holds() {
			return
		}
		select {
		case <-late:
			t.Fatalf("it never came about that %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
