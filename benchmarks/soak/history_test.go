package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistory(t *testing.T) {
	order := func(n int, began, ended time.Duration) event { return event{began, ended, n, true} }
	answer := func(n int, began, ended time.Duration) event { return event{began, ended, n, false} }
	orders := []event{order(1, 0, 10), order(2, 100, 110)}
	for name, c := range map[string]struct {
		answers []event
		wrong   int
	}{
		"each in its time":                       {[]event{answer(1, 20, 30), answer(2, 120, 130)}, 0},
		"either while the order runs":            {[]event{answer(1, 101, 105), answer(2, 101, 105)}, 0},
		"the old one for who asked before":       {[]event{answer(2, 103, 104), answer(1, 90, 200)}, 0},
		"the old one after an answer of the new": {[]event{answer(2, 101, 102), answer(1, 103, 104)}, 1},
		"the old one after the order":            {[]event{answer(1, 111, 120)}, 1},
		"the new one before its order":           {[]event{answer(2, 20, 99)}, 1},
		"one that never was":                     {[]event{answer(3, 120, 130)}, 1},
		"at the same moment":                     {[]event{answer(2, 101, 105), answer(1, 105, 106)}, 0},
	} {
		if wrong, err := checkHistory(slices.Concat(c.answers, orders)); wrong != c.wrong || (err == nil) != (wrong == 0) {
			t.Errorf("%s: %d wrong, %v; want %d", name, wrong, err, c.wrong)
		}
	}
}

// Sorting finds what comparing every pair finds.
func TestHistoryAgainstEveryPair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event {
			began := time.Duration(rapid.IntRange(0, 30).Draw(t, "began"))
			return event{began, began + time.Duration(rapid.IntRange(0, 10).Draw(t, "took")), rapid.IntRange(1, 5).Draw(t, "publication"), rapid.Bool().Draw(t, "order")}
		}), 1, 20).Draw(t, "events")
		stale, early := 0, 0
		for _, e := range events {
			if e.order {
				continue
			}
			known := false
			older := false
			for _, f := range events {
				older = older || f.ended < e.began && f.publication > e.publication
				known = known || f.order && f.began <= e.ended && f.publication >= e.publication
			}
			if older {
				stale++
			}
			if !known {
				early++
			}
		}
		rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		if wrong, _ := checkHistory(events); wrong != stale+early {
			t.Fatalf("%d wrong, want %d and %d", wrong, stale, early)
		}
	})
}
