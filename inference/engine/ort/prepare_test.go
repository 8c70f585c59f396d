package ort_test

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
)

// prepared writes g, prepares it and opens both forms.
func prepared(t *testing.T, g *enginetest.Graph) (original, fast engine.Session, dir string) {
	t.Helper()
	e := open(t)
	p, ok := e.(engine.Preparer)
	if !ok {
		t.Fatal("it can't prepare")
	}
	path, dir := filepath.Join(t.TempDir(), "graph.onnx"), t.TempDir()
	if err := g.WriteLarge(path, false); err != nil {
		t.Fatal(err)
	}
	original, err := p.Prepare(t.Context(), path, dir, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = original.Close() })
	fast, err = e.Open(t.Context(), filepath.Join(dir, engine.PreparedGraph), engine.Options{Prepared: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fast.Close() })
	return original, fast, dir
}

// The two forms of a graph give the same bits, and declare the same.
func TestPreparedFormIsTheSame(t *testing.T) {
	tokens := func(n int) []engine.Tensor {
		ids, mask := make([]int64, n), make([]int64, n)
		for i := range ids {
			ids[i], mask[i] = int64(i*7%90), 1
		}
		shape := []int64{1, int64(n)}
		return []engine.Tensor{{Shape: shape, Data: ids}, {Shape: shape, Data: mask}}
	}
	small := enginetest.Encoder{Vocab: 100, Positions: 64, Hidden: 96, Layers: 2, Heads: 4, Inner: 192, Classes: 3, Seed: 1}
	for name, c := range map[string]struct {
		graph  *enginetest.Graph
		inputs []engine.Tensor
	}{
		"encoder":     {small.Graph(), tokens(17)},
		"linear text": {enginetest.LinearText(100, 2, 1, 0), tokens(5)},
		// Its second weight has 3600 bytes, which is no multiple of 64: what is packed after it would be out of place.
		"perceptron": {enginetest.MLP(64, 300, 3, 1), []engine.Tensor{{Shape: []int64{2, 64}, Data: enginetest.Random(3, 128)}}},
	} {
		t.Run(name, func(t *testing.T) {
			original, fast, dir := prepared(t, c.graph)
			if !reflect.DeepEqual(original.Inputs(), fast.Inputs()) || !reflect.DeepEqual(original.Outputs(), fast.Outputs()) {
				t.Errorf("declared %v -> %v, and %v -> %v", original.Inputs(), original.Outputs(), fast.Inputs(), fast.Outputs())
			}
			a, err := original.Run(t.Context(), c.inputs)
			if err != nil {
				t.Fatal(err)
			}
			b, err := fast.Run(t.Context(), c.inputs)
			if err != nil {
				t.Fatal(err)
			}
			for i := range a {
				x, y := a[i].Data.([]float32), b[i].Data.([]float32) //nolint:forcetypeassert // a test
				for j := range x {
					if math.Float32bits(x[j]) != math.Float32bits(y[j]) || len(x) != len(y) {
						t.Fatalf("output %d: %v and %v", i, x, y)
					}
				}
			}
			list, err := os.ReadDir(dir)
			if err != nil || len(list) > 2 {
				t.Errorf("it wrote %v, %v", list, err)
			}
		})
	}
}
