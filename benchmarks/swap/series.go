package main

import (
	"slices"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// A series is one quantity, measured in one or more runs.
type series struct{ runs []*hdr.Histogram }

// next starts a run.
func (s *series) next() {
	s.runs = append(s.runs, hdr.New(1, time.Hour.Nanoseconds(), 3))
}

// add notes a value in the present run.
func (s *series) add(d time.Duration) {
	// A clock that is too coarse gives 0 for what took some nanoseconds. The bounds of the histogram are never exceeded.
	_ = s.runs[len(s.runs)-1].RecordValue(min(max(d.Nanoseconds(), 1), time.Hour.Nanoseconds()))
}

// quantile is the median over the runs of each run's quantile, from 0 to 100.
func (s *series) quantile(q float64) time.Duration {
	var all []int64
	for _, r := range s.runs {
		all = append(all, r.ValueAtQuantile(q))
	}
	return time.Duration(median(all))
}

// overall99 is the p99 over all runs together, for runs too short to have one of their own.
func (s *series) overall99() time.Duration {
	all := hdr.New(1, time.Hour.Nanoseconds(), 3)
	for _, r := range s.runs {
		all.Merge(r)
	}
	return time.Duration(all.ValueAtQuantile(99))
}

// most is the largest value of all runs.
func (s *series) most() time.Duration {
	var most int64
	for _, r := range s.runs {
		most = max(most, r.Max())
	}
	return time.Duration(most)
}

func median[T int64 | float64](all []T) T {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
