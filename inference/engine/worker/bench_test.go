package worker_test

import (
	"fmt"
	"testing"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
)

// BenchmarkRun is what the boundary costs: graphs that compute next to nothing, in process and in a worker, with inputs of the sizes
// that texts, batches of texts, a clip and a batch of clips have.
func BenchmarkRun(b *testing.B) {
	engines := map[string]func(testing.TB) engine.Engine{"process": serving, "none": func(t testing.TB) engine.Engine {
		e, err := ort.Open(ort.Options{LibraryPath: enginetest.Library(t)})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}}
	sum := enginetest.NewGraph().Input("x", enginetest.Float, "batch", "n").
		Init("axis", enginetest.Tensor{Shape: []int64{1}, Data: []int64{1}}).
		Node("ReduceMax", []string{"x"}, []string{"y"}, enginetest.IntsAttr("axes", 1), enginetest.IntAttr("keepdims", 0)).
		Output("y", enginetest.Float, "batch")
	for _, isolation := range []string{"none", "process"} {
		for _, c := range []struct {
			name    string
			rows, n int64
		}{{"256B", 1, 64}, {"16KiB", 8, 512}, {"256KiB", 8, 8192}, {"9.2MiB", 1, 16 * 3 * 224 * 224}, {"37MiB", 4, 16 * 3 * 224 * 224}} {
			b.Run(fmt.Sprintf("size=%s/isolation=%s", c.name, isolation), func(b *testing.B) {
				s := enginetest.Open(b, engines[isolation](b), sum)
				if live, ok := s.(engine.Candidate); ok {
					if err := live.Live(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				in := []engine.Tensor{{Shape: []int64{c.rows, c.n}, Data: make([]float32, c.rows*c.n)}}
				for b.Loop() {
					if _, err := s.Run(b.Context(), in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkOpen is what a worker of its own adds to a load.
func BenchmarkOpen(b *testing.B) {
	e := serving(b)
	for b.Loop() {
		s := enginetest.Open(b, e, enginetest.MLP(16, 8, 3, 1))
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
