package inference_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/worker/workertest"
)

func TestMain(m *testing.M) {
	workertest.BeWorker()
	goleak.VerifyTestMain(m)
}

func newEngine(t testing.TB) engine.Engine {
	t.Helper()
	return workertest.Engine(t, slog.New(slog.DiscardHandler))
}

func writeBundle(t testing.TB, b enginetest.TextBundle) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openModel(t testing.TB, dir string, o inference.Options) *inference.Model {
	t.Helper()
	m, err := inference.Open(t.Context(), dir, newEngine(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := m.WarmUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

func input(s string) inference.Input { return inference.Input{Text: &s} }

func predict(t testing.TB, m *inference.Model, s string) inference.Prediction {
	t.Helper()
	p, err := m.Predict(t.Context(), input(s))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return p
}

func TestPredict(t *testing.T) {
	m := openModel(t, writeBundle(t, enginetest.TextBundle{Seed: 1}), inference.Options{})
	p := predict(t, m, "this film was good")
	if len(p.Classes) != 2 || p.Label != p.Classes[0].Label || p.Score != p.Classes[0].Score || p.Classes[0].Score < p.Classes[1].Score {
		t.Errorf("%+v", p)
	}
	if sum := p.Classes[0].Score + p.Classes[1].Score; math.Abs(sum-1) > 1e-12 {
		t.Errorf("the scores sum to %v", sum)
	}
	if p.Decision != inference.Undecided || p.PositiveLabel != "" || p.Threshold != 0 || p.Truncated {
		t.Errorf("%+v", p)
	}
}

// Many callers at once get what each gets alone, although lengths differ and rows share runs.
func TestBatchedEqualsAlone(t *testing.T) {
	m := openModel(t, writeBundle(t, enginetest.TextBundle{Seed: 2, Labels: []string{"a", "b", "c"}}), inference.Options{Workers: 1, MaxWait: time.Minute})
	texts := []string{"good", "good film", "this film was very very good", "bad day", "awful", "not happy that day", "xyzzy"}
	want := make([]inference.Prediction, len(texts))
	for i, s := range texts {
		want[i] = predict(t, m, s)
	}
	var wg sync.WaitGroup
	for i, s := range texts {
		for range 4 {
			wg.Go(func() {
				for range 50 {
					p, err := m.Predict(t.Context(), input(s))
					if err != nil {
						t.Error(err)
						return
					}
					for j, c := range p.Classes {
						if w := want[i].Classes[j]; w.Label != c.Label || math.Abs(w.Score-c.Score) > 1e-6 {
							t.Errorf("%q: %v together, %v alone", s, p.Classes, want[i].Classes)
							return
						}
					}
				}
			})
		}
	}
	wg.Wait()
}

func TestBadInput(t *testing.T) {
	tokens := openModel(t, writeBundle(t, enginetest.TextBundle{}), inference.Options{MaxTextBytes: 100})
	strings := openModel(t, filepath.Join("testdata", "sklearn-zipmap"), inference.Options{MaxTextBytes: 100})
	for name, c := range map[string]struct {
		m  *inference.Model
		in inference.Input
	}{
		"no text":                    {tokens, inference.Input{}},
		"empty":                      {tokens, input("")},
		"white space":                {tokens, input(" \t\n\u00a0")},
		"too long":                   {tokens, input(string(make([]byte, 101)))},
		"not UTF-8":                  {tokens, input("good \xff")},
		"string graph: no text":      {strings, inference.Input{}},
		"string graph: empty":        {strings, input("")},
		"string graph: white space":  {strings, input("  ")},
		"string graph: too long":     {strings, input(string(make([]byte, 101)))},
		"string graph: not UTF-8":    {strings, input("good \xff")},
		"string graph: NUL":          {strings, input("good\x00bad")},
		"string graph: NUL at start": {strings, input("\x00")},
	} {
		if p, err := c.m.Predict(t.Context(), c.in); !errors.Is(err, inference.ErrInput) {
			t.Errorf("%s: %+v, %v, want ErrInput", name, p, err)
		}
	}
}

func TestDecision(t *testing.T) {
	dir := writeBundle(t, enginetest.TextBundle{Seed: 5})
	half, zero, one := 0.5, 0.0, 1.0
	plain := predict(t, openModel(t, dir, inference.Options{}), "good film")
	score := map[string]float64{plain.Classes[0].Label: plain.Classes[0].Score, plain.Classes[1].Label: plain.Classes[1].Score}
	exact := score["negative"]
	above := math.Nextafter(exact, 2)
	for name, c := range map[string]struct {
		label     string
		threshold *float64
		want      inference.Decision
		used      float64
	}{
		"no positive label":      {"", &half, inference.Undecided, 0},
		"zero":                   {"negative", &zero, inference.AtOrAboveThreshold, 0},
		"one":                    {"negative", &one, inference.BelowThreshold, 1},
		"equal is at or above":   {"negative", &exact, inference.AtOrAboveThreshold, exact},
		"a hair above the score": {"negative", &above, inference.BelowThreshold, above},
	} {
		p := predict(t, openModel(t, dir, inference.Options{PositiveLabel: c.label, Threshold: c.threshold}), "good film")
		if p.Decision != c.want || p.Threshold != c.used || p.PositiveLabel != c.label {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if p := predict(t, openModel(t, dir, inference.Options{PositiveLabel: "positive"}), "good film"); p.Threshold != 0.5 || p.Decision == inference.Undecided {
		t.Errorf("default threshold: %+v", p)
	}
}

func TestTruncated(t *testing.T) {
	m := openModel(t, writeBundle(t, enginetest.TextBundle{}), inference.Options{MaxLength: 4})
	if p := predict(t, m, "good good good good"); p.Truncated {
		t.Error("four words of four are truncated")
	}
	if p := predict(t, m, "good good good good bad"); !p.Truncated {
		t.Error("five words of four aren't truncated")
	}
	if i := m.Info(); i.MaxLength != 4 || i.Kind != "tokens" || len(i.Inputs) != 2 {
		t.Errorf("%+v", i)
	}
}

// Whatever Close meets, a request is answered or told that the model is closed: those that the batcher holds still need the session.
func TestCloseDuringPredicts(t *testing.T) {
	for round := range 20 {
		m, err := inference.Open(t.Context(), writeBundle(t, enginetest.TextBundle{Seed: 3}), newEngine(t), inference.Options{Workers: 1 + round%2, MaxBatch: 1 + 7*(round%2)})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		answered := make(chan struct{}, 32)
		for range 32 {
			wg.Go(func() {
				for n := 0; ; n++ {
					_, err := m.Predict(t.Context(), input("this film was good"))
					if n == 0 {
						answered <- struct{}{}
					}
					if errors.Is(err, inference.ErrClosed) {
						return
					}
					if err != nil {
						t.Errorf("round %d: %v", round, err)
						return
					}
				}
			})
		}
		for range 32 {
			<-answered
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

func TestCancelledPredict(t *testing.T) {
	m := openModel(t, writeBundle(t, enginetest.TextBundle{}), inference.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Predict(ctx, input("good")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	predict(t, m, "good")
}

func TestObserved(t *testing.T) {
	var seen atomic.Int64
	m := openModel(t, writeBundle(t, enginetest.TextBundle{}), inference.Options{Observed: func(n int, waits []time.Duration) {
		if len(waits) == n {
			seen.Add(int64(n))
		}
	}})
	for range 3 {
		predict(t, m, "good")
	}
	if seen.Load() != 3 {
		t.Errorf("%d inputs were observed, not 3", seen.Load())
	}
}
