package inference_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
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
			m := openModel(t, dir, inference.Options{Workers: 1, MaxWait: time.Minute})
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

// Labels are what callers get: one that isn't text could not be sent to any of them.
func TestLabelsThatArentText(t *testing.T) {
	dir := t.TempDir()
	g := enginetest.NewGraph().Input("text", enginetest.String, "n").
		Init("one", enginetest.Tensor{Shape: []int64{1, 2}, Data: []float32{0.25, 0.75}}).
		Node("Shape", []string{"text"}, []string{"n"}).
		Init("two", enginetest.Tensor{Shape: []int64{1}, Data: []int64{2}}).
		Node("Concat", []string{"n", "two"}, []string{"shape"}, enginetest.IntAttr("axis", 0)).
		Node("Expand", []string{"one", "shape"}, []string{"scores"}).
		DomainNode("ai.onnx.ml", "ZipMap", []string{"scores"}, []string{"z"}, enginetest.StringsAttr("classlabels_strings", "no", "ye\xff")).
		MapsOutput("z", enginetest.String)
	writeFile(t, dir, "model.onnx", string(g.Bytes()))
	m, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{})
	if err == nil {
		_ = m.Close()
	}
	if !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("%v", err)
	}
}
