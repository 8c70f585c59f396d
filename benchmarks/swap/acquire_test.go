package main

import (
	"sync"
	"testing"

	"modelgate/modelstore"
)

func BenchmarkAcquireRelease(b *testing.B) {
	store := modelstore.New(loadInstant, modelstore.StoreOptions{})
	if _, err := store.Swap(b.Context(), version(1), nil); err != nil {
		b.Fatal(err)
	}
	op := func() error { return acquireRelease(store) }
	b.Run("single", func(b *testing.B) { loop(b, op) })
	b.Run("parallel", func(b *testing.B) { loopParallel(b, op) })
}

// What BenchmarkAcquireRelease is to be compared with.
func BenchmarkReadLock(b *testing.B) {
	var mu sync.RWMutex
	op := func() error {
		mu.RLock()
		defer mu.RUnlock()
		return nil
	}
	b.Run("single", func(b *testing.B) { loop(b, op) })
	b.Run("parallel", func(b *testing.B) { loopParallel(b, op) })
}
