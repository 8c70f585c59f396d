package worker_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
	"modelgate/inference/engine/worker"
)

// widest is a graph that computes next to nothing: what is left is what the boundary costs.
func widest() *enginetest.Graph {
	return enginetest.NewGraph().Input("x", enginetest.Float, "batch", "n").
		Node("ReduceMax", []string{"x"}, []string{"y"}, enginetest.IntsAttr("axes", 1), enginetest.IntAttr("keepdims", 0)).
		Output("y", enginetest.Float, "batch")
}

// blocks multiplies as much as a text model of six layers of 384 does for as many tokens as it is given.
func blocks() *enginetest.Graph {
	const width, hidden = 384, 1536
	g := enginetest.NewGraph().Input("ids", enginetest.Int64, "batch").
		Init("table", enginetest.Tensor{Shape: []int64{100, width}, Data: enginetest.Random(3, 100*width)}).
		Node("Gather", []string{"table", "ids"}, []string{"x"})
	last := "x"
	for i := range 9 {
		n := strconv.Itoa(i)
		g.Init("a"+n, enginetest.Tensor{Shape: []int64{width, hidden}, Data: enginetest.Random(1, width*hidden)}).
			Init("b"+n, enginetest.Tensor{Shape: []int64{hidden, width}, Data: enginetest.Random(2, width*hidden)}).
			Node("MatMul", []string{last, "a" + n}, []string{"h" + n}).
			Node("Tanh", []string{"h" + n}, []string{"t" + n}).
			Node("MatMul", []string{"t" + n, "b" + n}, []string{"m" + n}).
			Node("Tanh", []string{"m" + n}, []string{"o" + n})
		last = "o" + n
	}
	return g.Node("ReduceMax", []string{last}, []string{"y"}, enginetest.IntsAttr("axes", 1), enginetest.IntAttr("keepdims", 0)).
		Output("y", enginetest.Float, "batch")
}

// BenchmarkRun is a run in process and in a worker: of a graph that does nothing, with inputs of the sizes that texts, batches of
// texts, a clip and a batch of clips have, and of one that
// computes like a small text model, with a run a processor at the same time. cpu-us/op counts both processes.
func BenchmarkRun(b *testing.B) {
	none := func(t testing.TB) engine.Engine {
		e, err := ort.Open(ort.Options{LibraryPath: enginetest.Library(t)})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	floats := func(rows, n int64) engine.Tensor {
		return engine.Tensor{Shape: []int64{rows, n}, Data: make([]float32, rows*n)}
	}
	const clip = 16 * 3 * 224 * 224
	for _, c := range []struct {
		name   string
		graph  *enginetest.Graph
		in     engine.Tensor
		beside bool // a run a processor at the same time
	}{
		{"256B", widest(), floats(1, 64), false}, {"16KiB", widest(), floats(8, 512), false}, {"256KiB", widest(), floats(8, 8192), false},
		{"9.2MiB", widest(), floats(1, clip), false}, {"37MiB", widest(), floats(4, clip), false},
		{"text", blocks(), engine.Tensor{Shape: []int64{32}, Data: make([]int64, 32)}, true},
	} {
		b.Run("input="+c.name+"/isolation=none", func(b *testing.B) { benchmark(b, none(b), c.graph, c.in, c.beside) })
		b.Run("input="+c.name+"/isolation=process", func(b *testing.B) { benchmark(b, serving(b), c.graph, c.in, c.beside) })
	}
}

func benchmark(b *testing.B, e engine.Engine, g *enginetest.Graph, x engine.Tensor, beside bool) {
	s := enginetest.Open(b, e, g)
	if live, ok := s.(engine.Candidate); ok {
		if err := live.Live(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	in := []engine.Tensor{x}
	if _, err := s.Run(b.Context(), in); err != nil {
		b.Fatal(err)
	}
	before := processors(b, s)
	b.ResetTimer()
	if beside {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				run(b, s, in)
			}
		})
	} else {
		for range b.N {
			run(b, s, in)
		}
	}
	b.ReportMetric(float64((processors(b, s)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

func run(b *testing.B, s engine.Session, in []engine.Tensor) {
	if _, err := s.Run(b.Context(), in); err != nil {
		b.Error(err)
	}
}

// processors is for how long this process and the worker of s have run.
func processors(b *testing.B, s engine.Session) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, pid := range []int{os.Getpid(), worker.PID(s)} {
		var t unix.Timespec
		if pid != 0 {
			if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
				b.Fatal(err)
			}
		}
		sum += time.Duration(t.Nano())
	}
	return sum
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
