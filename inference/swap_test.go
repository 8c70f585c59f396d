package inference_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/text/hf"
	"modelgate/modelstore"
)

// counted is a model that counts how many of its kind live.
type counted struct {
	*inference.Model
	alive *atomic.Int64
}

func (c counted) Close() error {
	defer c.alive.Add(-1)
	return c.Model.Close()
}

const (
	swapShift = 0.02 // between the logits of two versions: far more than the error of a score
	swapText  = "what a great day, not bad"
)

// TestNoRequestFailsOverSwapsOfRealSessions swaps real ONNX Runtime sessions 200 times under load: no request fails, each answer is the
// one that the version it names gives, and no third version is ever in memory.
func TestNoRequestFailsOverSwapsOfRealSessions(t *testing.T) {
	const swaps, clients = 200, 8
	dirs := make([]string, swaps+1)
	for i := range dirs {
		dirs[i] = filepath.Join(t.TempDir(), "bundle")
		if err := (enginetest.TextBundle{Seed: 7, Shift: swapShift * float32(i)}).Write(dirs[i]); err != nil {
			t.Fatal(err)
		}
	}
	base := logit(t, predict(t, openModel(t, dirs[0], inference.Options{}), swapText))

	var alive, most atomic.Int64
	eng, pool := newEngine(t), hf.NewPool()
	store := modelstore.New(func(ctx context.Context, b modelstore.Bundle) (counted, error) {
		m, err := inference.Open(ctx, b.Dir, eng, inference.Options{Tokenizers: pool, Workers: 2})
		if n := alive.Add(1); n > most.Load() { // one load of a model at a time
			most.Store(n)
		}
		return counted{m, &alive}, err
	}, modelstore.StoreOptions{KeepPrevious: time.Hour})
	swap := func(n int) {
		v := modelstore.Version{Model: "text", Number: int64(n) + 1}
		if _, err := store.Swap(t.Context(), modelstore.Bundle{Version: v, Dir: dirs[n], Release: func() {}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	swap(0)

	var answers atomic.Int64
	answered := make(chan struct{})
	load, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for load.Err() == nil {
				if err := ask(t.Context(), store, base); err != nil {
					t.Error(err)
					stop()
				}
				answers.Add(1)
				select {
				case answered <- struct{}{}:
				default:
				}
			}
		})
	}
	for n := 1; n <= swaps && load.Err() == nil; n++ {
		swap(n)
		for range clients { // traffic goes on between two swaps
			select {
			case <-answered:
			case <-load.Done():
			}
		}
	}
	stop()
	wg.Wait()
	if err := store.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if most.Load() != 2 || alive.Load() != 0 {
		t.Errorf("at most %d versions were in memory and %d are left, want 2 and 0", most.Load(), alive.Load())
	}
	t.Logf("%d answers over %d swaps, none failed", answers.Load(), swaps)
}

// ask sends one request and checks that the version which it names is the one that answered.
func ask(ctx context.Context, store *modelstore.Store[counted], base float64) error {
	h, err := store.Acquire("text")
	if err != nil {
		return err
	}
	defer h.Release()
	s := swapText
	p, err := h.Model().Predict(ctx, inference.Input{Text: &s})
	if err != nil {
		return fmt.Errorf("%v: %w", h.Version(), err)
	}
	got, want := logitOf(p), base+swapShift*float64(h.Version().Number-1)
	if math.Abs(got-want) > swapShift/10 {
		return fmt.Errorf("%v answered with logit %.4f, its own is %.4f: another version's answer", h.Version(), got, want)
	}
	return nil
}

func logit(t *testing.T, p inference.Prediction) float64 {
	t.Helper()
	if len(p.Classes) != 2 {
		t.Fatalf("got %d classes, want 2", len(p.Classes))
	}
	return logitOf(p)
}

// logitOf is the logit of label 0, which Shift is added to, over that of label 1.
func logitOf(p inference.Prediction) float64 {
	for _, c := range p.Classes {
		if c.Label == "negative" {
			return math.Log(c.Score / (1 - c.Score))
		}
	}
	return math.NaN()
}
