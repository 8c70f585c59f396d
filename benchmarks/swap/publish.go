package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"modelgate/examples"
	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/modelstore"
)

// waits says what most readers do; see measurePublish.
const waits = "waits 1 to 3 ms"

// published is what publishing costs under one sort of readers.
type published struct {
	readers    int
	does       string // what a reader does while it holds its pin
	wait, held series
	requests   int64
}

// measurePublish publishes versions one after the other while readers hold pins, as requests do, and not the lock.
func measurePublish(ctx context.Context, s settings, eng engine.Engine, scratch string) ([]published, error) {
	m, err := exampleModel(ctx, eng, scratch)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }()

	// While ONNX Runtime computes elsewhere, a request waits, here for 1 to 3 ms; the timer stands for that.
	wait := func(context.Context) error {
		time.Sleep(time.Millisecond + rand.N(2*time.Millisecond))
		return nil
	}
	var all []published
	var holds []func(context.Context) error
	for _, n := range s.readers {
		all, holds = append(all, published{readers: n, does: waits}), append(holds, wait)
	}
	most := s.readers[len(s.readers)-1]
	text := "the worst day of my life, and nobody even noticed"
	all = append(all, published{readers: min(64, most), does: "predicts (all cores busy)"})
	holds = append(holds, func(ctx context.Context) error {
		_, err := m.Predict(ctx, inference.Input{Text: &text})
		return err
	})
	for range s.runs { // the sorts of readers take turns, so that a busy spell of the machine meets all of them
		for i := range all {
			if err := all[i].run(ctx, s.publish, holds[i]); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// exampleModel opens the committed text bundle.
func exampleModel(ctx context.Context, eng engine.Engine, dir string) (*inference.Model, error) {
	bundle, err := fs.Sub(examples.Models(), "text/1")
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(dir, bundle); err != nil {
		return nil, err
	}
	return inference.Open(ctx, dir, eng, inference.Options{})
}

// run publishes n versions while the readers read.
func (p *published) run(ctx context.Context, n int, hold func(context.Context) error) error {
	p.wait.next()
	p.held.next()
	store := modelstore.New(loadInstant, modelstore.StoreOptions{})
	if _, err := store.Swap(ctx, version(1), nil); err != nil {
		return err
	}
	stop := startReaders(ctx, store, p.readers, 0, func(ctx context.Context, _ instant) error { return hold(ctx) })
	var failed error
	for i := range n {
		t, err := store.Swap(ctx, version(i+2), nil)
		if err != nil {
			failed = err
			break
		}
		p.wait.add(t[modelstore.PhasePublishWait])
		p.held.add(t[modelstore.PhasePublishHeld])
	}
	requests, err := stop()
	p.requests += requests
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return err
	}
	return store.Close(ctx)
}

// startReaders has n goroutines pin the model, use it and release it, over and over, with a pause between. stop ends them and says
// how many requests there were, and which error ended one of them before that.
func startReaders[M modelstore.Servable](ctx context.Context, store *modelstore.Store[M], n int, pause time.Duration,
	use func(context.Context, M) error) (stop func() (int64, error)) {
	var (
		running  sync.WaitGroup
		requests atomic.Int64
		ended    = make(chan struct{})
		failed   = make(chan error, n)
	)
	read := func() error {
		h, err := store.Acquire("text")
		if err != nil {
			return err
		}
		defer h.Release()
		requests.Add(1)
		return use(ctx, h.Model())
	}
	for range n {
		running.Go(func() {
			for wait := time.NewTimer(0); ; wait.Reset(pause) {
				select {
				case <-wait.C:
				case <-ended:
					return
				}
				if err := read(); err != nil {
					failed <- fmt.Errorf("a request failed: %w", err)
					return
				}
			}
		})
	}
	return func() (int64, error) {
		close(ended)
		running.Wait()
		select {
		case err := <-failed:
			return requests.Load(), err
		default:
			return requests.Load(), nil
		}
	}
}
