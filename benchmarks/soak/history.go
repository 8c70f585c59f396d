package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// An event is one answer: when its request was sent, when it came, and which publication gave it. The publications of a history are
// numbered in their order. The order to publish is an event too: it ends when the version serves.
type event struct {
	began, ended time.Duration
	publication  int
	order        bool // it publishes; else it answers
}

// checkHistory says how many events contradict a single version that changes at some moment of each order: an answer that is older
// than one that came before its request was sent, and an answer that is newer than any order begun when it came. That is what a
// linearizable register does whose values only grow, so sorting is enough to see it.
func checkHistory(events []event) (wrong int, first error) {
	byBegin := slices.SortedFunc(slices.Values(events), func(a, b event) int { return cmp.Compare(a.began, b.began) })
	byEnd := slices.SortedFunc(slices.Values(events), func(a, b event) int { return cmp.Compare(a.ended, b.ended) })
	note := func(e event, say string, than int) {
		wrong++
		if first == nil {
			first = fmt.Errorf("a request of %v to %v got publication %d, though %s %d", e.began, e.ended, e.publication, say, than)
		}
	}
	newest, i := 0, 0 // newest of what had ended before a request began
	for _, e := range byBegin {
		for ; byEnd[i].ended < e.began; i++ {
			newest = max(newest, byEnd[i].publication)
		}
		if !e.order && e.publication < newest {
			note(e, "before it began there was", newest)
		}
	}
	ordered, i := 0, 0 // newest that was ordered before a request ended
	for _, e := range byEnd {
		for ; i < len(byBegin) && byBegin[i].began <= e.ended; i++ {
			if byBegin[i].order {
				ordered = max(ordered, byBegin[i].publication)
			}
		}
		if !e.order && e.publication > ordered {
			note(e, "when it ended the newest ordered was", ordered)
		}
	}
	return wrong, first
}
