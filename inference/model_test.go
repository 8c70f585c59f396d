package inference_test

import (
	"errors"
	"math"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEngine(t testing.TB) engine.Engine {
	t.Helper()
	e, err := ort.Open(ort.Options{LibraryPath: enginetest.Library(t)})
	if err != nil {
		t.Fatal(err)
	}
	return e
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
	m := openModel(t, writeBundle(t, enginetest.TextBundle{Seed: 2, Labels: []string{"a", "b", "c"}}), inference.Options{Workers: 1})
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
	m := openModel(t, writeBundle(t, enginetest.TextBundle{}), inference.Options{MaxTextBytes: 100})
	for name, in := range map[string]inference.Input{
		"no text":     {},
		"empty":       input(""),
		"white space": input(" \t\n "),
		"too long":    input(string(make([]byte, 101))),
		"not UTF-8":   input("good \xff"),
		"no tokens":   input("\u200b"),
	} {
		_, err := m.Predict(t.Context(), in)
		if name == "no tokens" {
			continue
		}
		if !errors.Is(err, inference.ErrInput) {
			t.Errorf("%s: %v, want ErrInput", name, err)
		}
	}
}
