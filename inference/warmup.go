package inference

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// DefaultMaxWarmUp is far above what a warm-up takes: a graph that doesn't come to an end would keep its place for ever.
const DefaultMaxWarmUp = 5 * time.Minute

var errSlowWarmUp = errors.New("its runs take longer than is allowed before it serves")

// WarmUp runs the model in the shapes that traffic will have, so that the first callers don't pay for first times, and checks what
// comes out. Its errors wrap ErrBundle where the model is at fault.
func (m *Model) WarmUp(ctx context.Context) error {
	if err := m.soon(ctx, m.warmUp); err != nil {
		return bundleError(ctx, fmt.Errorf("warm up: %w", err))
	}
	return nil
}

// soon is f, which runs the graph, within MaxWarmUp. A graph that needs more is at fault, unless it came to an end in its rehearsal:
// then others may have had the processors.
func (m *Model) soon(ctx context.Context, f func(context.Context) error) error {
	most := cmp.Or(m.options.MaxWarmUp, DefaultMaxWarmUp)
	bounded, cancel := context.WithTimeoutCause(ctx, most, errSlowWarmUp)
	defer cancel()
	err := f(bounded)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(bounded), errSlowWarmUp) {
		if m.options.Rehearsal != nil {
			return machineError{fmt.Errorf("%w, %v, though they came to an end when it was rehearsed: are the processors busy?", errSlowWarmUp, most)}
		}
		return fmt.Errorf("%w: %w, %v", ErrBundle, errSlowWarmUp, most)
	}
	return err
}

func (m *Model) warmUp(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: it panicked: %v", ErrBundle, p)
		}
	}()
	maxBatch, r := m.maxBatch, m.options.Rehearsal
	if r != nil {
		maxBatch = 1
		m.alone.Store(r.Alone)
		m.pads.Store(r.Pads)
	}
	runs, err := m.graph.warmups(ctx, maxBatch)
	if err != nil {
		return err
	}
	if r != nil {
		runs = slices.DeleteFunc(runs, func(run []Example) bool { return m.graph.size(run[0]) > rehearsedWarmup })
	}
	for _, examples := range runs {
		rows, err := m.run(ctx, examples)
		if err != nil {
			return fmt.Errorf("%d inputs of size %d: %w", len(examples), m.graph.size(examples[0]), err)
		}
		for i, row := range rows {
			// All rows are the same input.
			if !near(row, rows[0]) {
				return fmt.Errorf("row %d of %d equal inputs of size %d has other scores than row 0: %v and %v", i, len(rows), m.graph.size(examples[0]), row, rows[0])
			}
		}
	}
	if r != nil {
		return nil
	}
	return m.tryCompany(ctx)
}

// rehearsedWarmup is the longest text that a model is warmed up with which was rehearsed: what is left to do is to bring the weights
// into memory.
const rehearsedWarmup = 32 // tokens

// tryCompany keeps rows apart whose scores depend on what else is in the run, as those of a graph do that quantize_dynamic made: its
// rounding follows the largest number of all rows.
func (m *Model) tryCompany(ctx context.Context) error {
	if m.maxBatch == 1 {
		return nil
	}
	pair, err := m.graph.strangers(ctx)
	if err != nil || pair == nil {
		return err
	}
	together, err := m.run(ctx, pair)
	if err != nil {
		return fmt.Errorf("two different inputs of one size: %w", err)
	}
	for i := range pair {
		alone, err := m.run(ctx, pair[i:i+1])
		if err != nil {
			return err
		}
		if !within(alone[0], together[i], 1e-5) {
			m.alone.Store(true)
			return nil
		}
	}
	return m.tryPadding(ctx)
}

// tryPadding lets texts of nearly one length share a run if that doesn't change their scores. A graph without a mask, or one that
// ignores it, is served all the same, with texts of exactly one length in a run.
func (m *Model) tryPadding(ctx context.Context) error {
	pair, err := m.graph.paddable(ctx)
	if err != nil || pair == nil {
		return err
	}
	alone, err := m.run(ctx, pair[:1])
	if err != nil {
		return err
	}
	together, err := m.run(ctx, pair)
	if err != nil {
		return fmt.Errorf("two inputs of different lengths: %w", err)
	}
	m.pads.Store(near(alone[0], together[0]))
	return nil
}

// near allows for what the order of additions changes in float32.
func near(a, b []float64) bool { return within(a, b, 1e-4) }

func within(a, b []float64, distance float64) bool {
	for i := range a {
		if math.Abs(a[i]-b[i]) > distance {
			return false
		}
	}
	return len(a) == len(b)
}
