package inference_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"modelgate/inference"
)

// What testdata/make.py wrote down.
type expected struct {
	Labels []string
	Texts  []string
	Scores [][]float64
}

func readExpected(t *testing.T, dir string) expected {
	t.Helper()
	var e expected
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// The scores of scikit-learn's own pipelines, in Python, are those of their ONNX graphs here, one by one and in batches.
func TestSklearnParity(t *testing.T) {
	for _, name := range []string{"sklearn-zipmap", "sklearn-tensor", "sklearn-numbers"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("testdata", name)
			want := readExpected(t, dir)
			m := openModel(t, dir, inference.Options{Workers: 1})
			if i := m.Info(); !slices.Equal(i.Labels, want.Labels) || i.Kind != "string" {
				t.Fatalf("%+v, want the labels %v", i, want.Labels)
			}
			check := func(i int) {
				p, err := m.Predict(t.Context(), input(want.Texts[i]))
				if err != nil {
					t.Errorf("%q: %v", want.Texts[i], err)
					return
				}
				for _, c := range p.Classes {
					if w := want.Scores[i][slices.Index(want.Labels, c.Label)]; math.Abs(c.Score-w) > 1e-5 {
						t.Errorf("%q: %s has %v, Python says %v", want.Texts[i], c.Label, c.Score, w)
					}
				}
			}
			for i := range want.Texts {
				check(i)
			}
			var wg sync.WaitGroup
			for i := range want.Texts {
				wg.Go(func() { check(i) })
			}
			wg.Wait()
		})
	}
}
