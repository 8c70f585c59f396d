package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/text/hf"
	"modelgate/modelstore"
	"modelgate/modelstore/dir"
	"modelgate/modelstore/disk"
)

// The callers that predict while bundles are swapped: enough for a drain to have something to wait for, few enough to leave the
// cores to the swap.
const (
	callers     = 4
	callerPause = 10 * time.Millisecond
)

// phased is what each phase of a real bundle's swap costs.
type phased struct {
	bundle   string
	bytes    int64
	swaps    int
	requests int64
	phases   map[modelstore.Phase]*series
	rest     series // of a swap: what is no phase, such as looking at the folder, writing state and ledger, and pruning the cache
	total    series // from the order to look at the folder until the version serves
}

func phases() []modelstore.Phase {
	return []modelstore.Phase{modelstore.PhaseFetch, modelstore.PhaseVerify, modelstore.PhaseRetire, modelstore.PhaseLoad, modelstore.PhaseWarmUp,
		modelstore.PhaseCheck, modelstore.PhaseCompare, modelstore.PhasePublishWait, modelstore.PhasePublishHeld, modelstore.PhaseDrain}
}

// measurePhases swaps a bundle from a folder through cache, engine and updater, as `modelgate serve --models` does.
func measurePhases(ctx context.Context, s settings, eng engine.Engine, b bundleKind, scratch string) (phased, error) {
	p := phased{bundle: b.name, phases: map[modelstore.Phase]*series{}}
	for _, phase := range phases() {
		p.phases[phase] = &series{}
	}
	for range s.runs {
		if err := p.run(ctx, s.swaps, eng, b, scratch); err != nil {
			return p, err
		}
		if err := os.RemoveAll(scratch); err != nil {
			return p, err
		}
	}
	return p, nil
}

// run is one run: a gateway's inside without its ports, from empty folders.
func (p *phased) run(ctx context.Context, swaps int, eng engine.Engine, b bundleKind, scratch string) error {
	models := filepath.Join(scratch, "models")
	if err := os.MkdirAll(filepath.Join(models, "text"), 0o750); err != nil {
		return err
	}
	if err := b.add(models, 1); err != nil {
		return err
	}
	size, err := b.size(models, 1)
	if err != nil {
		return err
	}
	p.bytes = size
	rig, err := newRig(eng, models, scratch)
	if err != nil {
		return err
	}
	defer rig.close()
	if err := rig.start(ctx); err != nil {
		return err
	}
	p.total.next()
	p.rest.next()
	for _, series := range p.phases {
		series.next()
	}
	stop := startReaders(ctx, rig.store, callers, callerPause, predict)
	for n := 2; n < swaps+2 && err == nil; n++ {
		if err = b.add(models, n); err == nil {
			err = p.swap(ctx, rig, int64(n))
		}
	}
	requests, failed := stop()
	p.requests += requests
	return errors.Join(err, failed)
}

// swap has the updater find version n, and notes how long each phase took.
func (p *phased) swap(ctx context.Context, rig *rig, n int64) error {
	rig.phases.reset()
	began := time.Now()
	if err := rig.updater.Refresh(ctx, "text"); err != nil {
		return err
	}
	total := time.Since(began)
	if active, _ := rig.store.Serving("text"); active.Number != n {
		return fmt.Errorf("version %d was not taken: %v serves", n, active)
	}
	took, err := rig.phases.all(ctx)
	if err != nil {
		return err
	}
	p.swaps++
	p.total.add(total)
	rest := total
	for phase, d := range took {
		p.phases[phase].add(d)
		if phase != modelstore.PhaseDrain {
			rest -= d
		}
	}
	p.rest.add(rest)
	return nil
}

// rig is the inside of a gateway.
type rig struct {
	source  *dir.Source
	data    *disk.Data
	store   *modelstore.Store[*inference.Model]
	updater *modelstore.Updater
	phases  *recorder
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newRig(eng engine.Engine, models, scratch string) (*rig, error) {
	r := &rig{phases: newRecorder(), stop: func() {}}
	source, err := dir.New(dir.Options{Dir: models})
	if err != nil {
		return nil, err
	}
	r.source = source
	cache, err := disk.OpenCache(filepath.Join(scratch, "cache"), disk.CacheOptions{})
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	r.data, err = disk.OpenData(filepath.Join(scratch, "data"), disk.DataOptions{})
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	tokenizers := hf.NewPool()
	load := func(ctx context.Context, b modelstore.Bundle) (*inference.Model, error) {
		return inference.Open(ctx, b.Dir, eng, inference.Options{Tokenizers: tokenizers})
	}
	// No standby is kept, so that each swap shows the drain of the version that it replaces.
	r.store = modelstore.New(load, modelstore.StoreOptions{Observe: r.phases.observe})
	r.updater = modelstore.NewUpdater(source, r.store, cache, r.data, modelstore.UpdaterOptions{
		Models: []modelstore.ModelConfig{{Name: "text"}}, Interval: time.Hour, Observe: r.phases.observe, Logger: slog.New(slog.DiscardHandler),
	})
	return r, nil
}

// start has the updater serve the first version.
func (r *rig) start(ctx context.Context) error {
	running, stop := context.WithCancel(ctx)
	r.stop = stop
	r.running.Go(func() { _ = r.updater.Run(running) }) // its errors are those of Refresh
	if err := r.updater.Refresh(ctx, "text"); err != nil {
		return err
	}
	if active, _ := r.store.Serving("text"); active.IsZero() {
		return errors.New("the first version was not taken")
	}
	return nil
}

func (r *rig) close() {
	r.stop()
	r.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = errors.Join(r.store.Close(ctx), r.data.Close(), r.source.Close()) // what was measured stays as it is
}

func predict(ctx context.Context, m *inference.Model) error {
	text := "this was a very good film and not a bad day"
	_, err := m.Predict(ctx, inference.Input{Text: &text})
	return err
}

// A recorder collects the phases of one swap.
type recorder struct {
	mu   sync.Mutex // guards what follows
	took map[modelstore.Phase]time.Duration
	done chan struct{} // closed when every phase has been told of
}

func newRecorder() *recorder {
	r := &recorder{}
	r.reset()
	return r
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took, r.done = map[modelstore.Phase]time.Duration{}, make(chan struct{})
}

func (r *recorder) observe(e modelstore.Event) {
	if e.Kind != modelstore.PhaseEnded || e.Err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, seen := r.took[e.Phase]; seen {
		return
	}
	r.took[e.Phase] = e.Duration
	if len(r.took) == len(phases()) {
		close(r.done)
	}
}

// all waits for the drain, which may end after the swap, and gives the durations.
func (r *recorder) all(ctx context.Context) (map[modelstore.Phase]time.Duration, error) {
	select {
	case <-r.done:
		return r.took, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
