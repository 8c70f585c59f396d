package modelstore_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/modelstore"
)

// A candidate is held against what serves, which stays loaded meanwhile, and what that finds is told with the swap's times.
func TestCandidateIsComparedWithWhatServes(t *testing.T) {
	var mu sync.Mutex
	var told []modelstore.Event
	l := newLab(t)
	s := modelstore.New(l.load, modelstore.StoreOptions{Observe: func(e modelstore.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == modelstore.Compared {
			told = append(told, e)
		}
	}})
	swap(t, s, l.bundle("text", 1)) // there is nothing to compare it with
	times, err := s.Swap(t.Context(), l.bundle("text", 2), nil)
	if err != nil {
		t.Fatal(err)
	}
	if times[modelstore.PhaseRunBefore] != 2*time.Millisecond || times[modelstore.PhaseRun] != 3*time.Millisecond {
		t.Errorf("times %v", times)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(l.compared, []string{"2 with 1"}) {
		t.Errorf("compared: %q", l.compared)
	}
	if len(told) != 1 || told[0].Version.Number != 2 || told[0].Before != 2*time.Millisecond || told[0].Duration != 3*time.Millisecond || told[0].Err != nil {
		t.Errorf("told: %+v", told)
	}
}

// The comparison is the registry's hurdle. The operator's word, the registry's own way back and a restart pass it.
func TestComparisonHoldsForNewVersionsOnly(t *testing.T) {
	bubble(t, func(t *testing.T, r *registry) {
		g := newGateway(t, r, threshold)
		g.lab.failCompare(modelstore.Permanent(errors.New("its labels are others")))
		r.publish(1, 0.76)
		g.refresh()
		g.wantServing("1/") // a first version has nothing to be compared with
		r.publish(2, 0.80)
		g.refresh()
		g.wantServing("1/")
		g.must(g.u.Promote(context.Background(), "text", 2))
		g.wantServing("2/1")
		g.restart()
		g.wantServing("2/")
		g.must(g.u.Unpin(context.Background(), "text"))
		time.Sleep(time.Hour)
		synctest.Wait()
		r.set(func(r *registry) { r.pointer = 1 }) // whoever moved it wants the old labels back
		g.refresh()
		g.wantServing("1/2")
		g.must(g.u.Pin(context.Background(), "text", 2))
		g.wantServing("2/1")
		g.wantHistory("1 swapped first_version policy", "2 failed quarantined policy", "2 refused quarantined policy", "2 swapped promoted operator", "2 restored restored restart",
			"2 noted unpinned operator", "1 rolled_back registry_rollback policy", "2 swapped pinned operator", "1 refused pinned policy")
	})
}
