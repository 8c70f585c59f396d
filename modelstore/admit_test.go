package modelstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"modelgate/modelstore"
)

// scales admit as many units of memory as they have; each version of the lab takes one.
type scales struct {
	mu      sync.Mutex // guards the fields below
	asked   []string   // "3 beside 2, 1 leaves"
	room    int        // how many versions there is memory for, those that leave counted
	pending int        // loads whose end wasn't told
}

func (s *scales) admit(a modelstore.Admission) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	active := "nothing"
	if a.Active != nil {
		active = a.Active.Version.ID()
	}
	line := fmt.Sprintf("%s beside %s", a.Bundle.Version.ID(), active)
	for _, b := range a.Leaving {
		line += fmt.Sprintf(", %s leaves", b.Version.ID())
	}
	s.asked = append(s.asked, line)
	if s.room+len(a.Leaving) < 1 {
		return nil, fmt.Errorf("%w: none of 1", modelstore.ErrNoMemory)
	}
	s.pending++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pending--
	}, nil
}

func (s *scales) set(room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room, s.asked = room, nil
}

func (s *scales) check(t *testing.T, asked ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.asked, asked) {
		t.Errorf("asked %q, want %q", s.asked, asked)
	}
	if s.pending != 0 {
		t.Errorf("%d loads are over and weren't told", s.pending)
	}
}

// A version for which there is no memory changes nothing for callers, and costs the standby only if the memory might have sufficed.
func TestAdmit(t *testing.T) {
	l, m := newLab(t), &scales{room: 1}
	loading := 0 // what was pending during the last load
	l.beforeLoad = func(modelstore.Version) {
		m.mu.Lock()
		defer m.mu.Unlock()
		loading = m.pending
	}
	s := modelstore.New(l.load, modelstore.StoreOptions{KeepPrevious: time.Hour, Admit: m.admit})
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil || l.alive.Load() != 0 {
			t.Errorf("%v, %d models are still loaded", err, l.alive.Load())
		}
	})
	refused := func(number int64, want string) {
		t.Helper()
		released := l.released.Load()
		_, err := s.Swap(t.Context(), l.bundle("text", number), nil)
		if !errors.Is(err, modelstore.ErrNoMemory) || errors.Is(err, modelstore.ErrPermanent) {
			t.Errorf("Swap: %v, want ErrNoMemory, for now", err)
		}
		if got := serving(s, "text"); got != want || l.released.Load() == released {
			t.Errorf("active/standby is %s, want %s; %d bundles were released", got, want, l.released.Load()-released)
		}
	}
	swap(t, s, l.bundle("text", 1))
	m.check(t, "1 beside nothing")
	if loading != 1 {
		t.Errorf("%d loads were counted while one was in progress", loading)
	}
	swap(t, s, l.bundle("text", 2))

	m.set(-1) // not even without the standby
	refused(3, "2/1")
	m.check(t, "3 beside 2, 1 leaves")

	m.set(0) // the standby's memory would do, but something else takes it
	refused(3, "2/")
	m.check(t, "3 beside 2, 1 leaves", "3 beside 2")
	refused(3, "2/")

	m.set(1)
	swap(t, s, l.bundle("text", 3))
	m.check(t, "3 beside 2")
	l.fail(errors.New("boom"), nil)
	if _, err := s.Swap(t.Context(), l.bundle("text", 4), nil); err == nil {
		t.Error("a load that fails was published")
	}
	m.check(t, "3 beside 2", "4 beside 3, 2 leaves", "4 beside 3")
}
