package main

import (
	"context"
	"errors"
	"sync"
	"testing"

	"modelgate/modelstore"
)

// instant is a model that costs nothing, so that only the store is measured.
type instant struct{}

func (instant) WarmUp(context.Context) error { return nil }
func (instant) Check(context.Context) error  { return nil }
func (instant) Close() error                 { return nil }

func loadInstant(context.Context, modelstore.Bundle) (instant, error) { return instant{}, nil }

func version(n int) modelstore.Bundle {
	return modelstore.Bundle{Version: modelstore.Version{Model: "text", Number: int64(n)}, Release: func() {}}
}

// acquired is the cost of one operation on one goroutine and on one a core.
type acquired struct {
	what             string
	single, parallel float64 // nanoseconds
}

// measureAcquire measures Acquire and Release, and beside it the read lock alone, which is the least that it can cost.
func measureAcquire(ctx context.Context, runs int) ([]acquired, error) {
	store := modelstore.New(loadInstant, modelstore.StoreOptions{})
	if _, err := store.Swap(ctx, version(1), nil); err != nil {
		return nil, err
	}
	var mu sync.RWMutex
	lock := func() error {
		mu.RLock()
		defer mu.RUnlock()
		return nil
	}
	kinds := []acquired{{what: "read lock alone"}, {what: "Acquire and Release"}}
	for i, op := range []func() error{lock, func() error { return acquireRelease(store) }} {
		var single, parallel []float64
		for range runs {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			single = append(single, nanoseconds(testing.Benchmark(func(b *testing.B) { loop(b, op) })))
			parallel = append(parallel, nanoseconds(testing.Benchmark(func(b *testing.B) { loopParallel(b, op) })))
		}
		kinds[i].single, kinds[i].parallel = median(single), median(parallel)
		if kinds[i].single == 0 || kinds[i].parallel == 0 {
			return nil, errors.New("a benchmark failed")
		}
	}
	return kinds, store.Close(ctx)
}

func acquireRelease(store *modelstore.Store[instant]) error {
	h, err := store.Acquire("text")
	if err != nil {
		return err
	}
	h.Release()
	return nil
}

func loop(b *testing.B, op func() error) {
	b.ReportAllocs()
	for b.Loop() {
		if err := op(); err != nil {
			b.Fatal(err)
		}
	}
}

func loopParallel(b *testing.B, op func() error) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := op(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func nanoseconds(r testing.BenchmarkResult) float64 {
	if r.N == 0 {
		return 0
	}
	return float64(r.T.Nanoseconds()) / float64(r.N)
}
