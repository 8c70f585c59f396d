package enginetest

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"modelgate/inference/engine"
)

// Run checks that the engines that open returns keep engine's promises.
func Run(t *testing.T, open func(testing.TB) engine.Engine) { RunBut(t, open) }

// RunBut is Run for an engine that doesn't know the operators of the named tests. What it does with them is for its own tests to say.
func RunBut(t *testing.T, open func(testing.TB) engine.Engine, names ...string) {
	tests := suite()
	for _, name := range names {
		if tests[name] == nil {
			t.Errorf("there is no test %q", name)
		}
		delete(tests, name)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func suite() map[string]func(*testing.T, engine.Engine) {
	return map[string]func(*testing.T, engine.Engine){
		"declares what the graph takes and gives": declares,
		"dynamic batch":                       dynamicBatch,
		"concurrent runs equal single runs":   concurrent,
		"cancelled run leaves session usable": cancelled,
		"ended context":                       ended,
		"wrong inputs":                        wrongInputs,
		"bad files":                           badFiles,
		"close during runs":                   closeDuringRuns,
		"NaN passes through":                  nanPasses,
		"id outside the table":                outsideTable,
		"external data":                       externalData,
		"external data refused":               externalRefused,
		"element types":                       elementTypes,
		"maps":                                maps,
		"nested functions":                    nestedFunctions,
		"unknown operators":                   unknownOperators,
	}
}

// Open writes g to a file and opens it with e. The session is closed when the test ends.
func Open(t testing.TB, e engine.Engine, g *Graph) engine.Session {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := g.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	s, err := e.Open(t.Context(), path, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func run(t testing.TB, s engine.Session, inputs ...engine.Tensor) []engine.Tensor {
	t.Helper()
	out, err := s.Run(t.Context(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// floats are t's numbers; none where it holds something else.
func floats(t engine.Tensor) []float32 {
	d, _ := t.Data.([]float32)
	return d
}

func row(seed uint64) engine.Tensor {
	return engine.Tensor{Shape: []int64{1, 16}, Data: Random(seed, 16)}
}

func declares(t *testing.T, e engine.Engine) {
	s := Open(t, e, LinearText(10, 3, 1, 0))
	in := []engine.TensorSpec{
		{Name: "input_ids", Type: engine.Int64, Shape: []int64{-1, -1}},
		{Name: "attention_mask", Type: engine.Int64, Shape: []int64{-1, -1}},
	}
	out := []engine.TensorSpec{{Name: "logits", Type: engine.Float32, Shape: []int64{-1, 3}}}
	if !reflect.DeepEqual(s.Inputs(), in) || !reflect.DeepEqual(s.Outputs(), out) {
		t.Errorf("declared %v -> %v, want %v -> %v", s.Inputs(), s.Outputs(), in, out)
	}
}

func dynamicBatch(t *testing.T, e engine.Engine) {
	s := Open(t, e, MLP(16, 8, 3, 1))
	var all []float32
	var want []float32
	for i := range uint64(5) {
		r := row(i)
		all = append(all, floats(r)...)
		want = append(want, floats(run(t, s, r)[0])...)
	}
	got := run(t, s, engine.Tensor{Shape: []int64{5, 16}, Data: all})[0]
	if !reflect.DeepEqual(got.Shape, []int64{5, 3}) {
		t.Fatalf("shape %v", got.Shape)
	}
	near(t, floats(got), want)
}

func near(t *testing.T, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d numbers, want %d", len(got), len(want))
	}
	for i := range got {
		if math.Abs(float64(got[i]-want[i])) > 1e-6 {
			t.Fatalf("number %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func concurrent(t *testing.T, e engine.Engine) {
	s := Open(t, e, MLP(16, 64, 3, 1))
	want := map[uint64][]float32{}
	for i := range uint64(8) {
		want[i] = floats(run(t, s, row(i))[0])
	}
	var wg sync.WaitGroup
	for i := range uint64(8) {
		wg.Go(func() {
			for range 50 {
				out, err := s.Run(t.Context(), []engine.Tensor{row(i)})
				if err != nil {
					t.Error(err)
					return
				}
				if got := floats(out[0]); !reflect.DeepEqual(got, want[i]) {
					t.Errorf("row %d gave %v, want %v", i, got, want[i])
					return
				}
			}
		})
	}
	wg.Wait()
}

func vector(v ...float32) engine.Tensor {
	return engine.Tensor{Shape: []int64{int64(len(v))}, Data: v}
}

func cancelled(t *testing.T, e engine.Engine) {
	s := Open(t, e, EndlessLoop())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Run(ctx, []engine.Tensor{vector(1)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the cancelled run returned %v", err)
	}
	if got := run(t, s, vector(-1, -2))[0].Data; !reflect.DeepEqual(got, []float32{-1, -2}) {
		t.Errorf("after the cancelled run: %v", got)
	}
}

func ended(t *testing.T, e engine.Engine) {
	s := Open(t, e, MLP(16, 8, 3, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Run(ctx, []engine.Tensor{row(1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := MLP(16, 8, 3, 1).WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(ctx, path, engine.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v", err)
	}
}

func wrongInputs(t *testing.T, e engine.Engine) {
	s := Open(t, e, MLP(16, 8, 3, 1))
	for name, in := range map[string][]engine.Tensor{
		"none":              nil,
		"two":               {row(1), row(2)},
		"other type":        {{Shape: []int64{1, 16}, Data: make([]int64, 16)}},
		"no data":           {{Shape: []int64{1, 16}}},
		"other rank":        {{Shape: []int64{16}, Data: make([]float32, 16)}},
		"other width":       {{Shape: []int64{1, 15}, Data: make([]float32, 15)}},
		"too few elements":  {{Shape: []int64{2, 16}, Data: make([]float32, 16)}},
		"negative":          {{Shape: []int64{-1, 16}, Data: make([]float32, 16)}},
		"overflow":          {{Shape: []int64{math.MaxInt64, 16}, Data: make([]float32, 16)}},
		"scalar":            {{Shape: nil, Data: make([]float32, 1)}},
		"too many elements": {{Shape: []int64{1, 16}, Data: make([]float32, 17)}},
	} {
		if _, err := s.Run(t.Context(), in); !errors.Is(err, engine.ErrInput) {
			t.Errorf("%s: %v, want ErrInput", name, err)
		}
	}
	run(t, s, row(1))
}

func badFiles(t *testing.T, e engine.Engine) {
	whole := MLP(16, 8, 3, 1).Bytes()
	broken := MLP(16, 8, 3, 1).Node("NoSuchOperator", []string{"y"}, []string{"z"}).Output("z", Float, "batch")
	for name, content := range map[string][]byte{
		"empty":            {},
		"garbage":          []byte("\x08\x07\xff\xff\xff garbage"),
		"HTML":             []byte("<!doctype html><html><body>404</body></html>"),
		"truncated":        whole[:len(whole)-20],
		"half":             whole[:len(whole)/2],
		"unknown operator": broken.Bytes(),
		"no outputs":       NewGraph().Input("x", Float, "n").Bytes(),
		"no inputs":        NewGraph().Init("c", vectorWeight()).Node("Identity", []string{"c"}, []string{"y"}).Output("y", Float, 2).Bytes(),
		"dangling input":   NewGraph().Input("x", Float, "n").Node("Relu", []string{"q"}, []string{"y"}).Output("y", Float, "n").Bytes(),
	} {
		path := filepath.Join(t.TempDir(), "model.onnx")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := e.Open(t.Context(), path, engine.Options{})
		if !errors.Is(err, engine.ErrGraph) {
			t.Errorf("%s: %v, want ErrGraph", name, err)
		}
		if s != nil {
			_ = s.Close()
		}
	}
	if _, err := e.Open(t.Context(), filepath.Join(t.TempDir(), "absent.onnx"), engine.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func vectorWeight() Tensor { return Tensor{Shape: []int64{2}, Data: []float32{1, 2}} }

func closeDuringRuns(t *testing.T, e engine.Engine) {
	s := Open(t, e, MLP(16, 512, 3, 1))
	var wg sync.WaitGroup
	first := make(chan struct{}, 8)
	for i := range uint64(8) {
		wg.Go(func() {
			for n := 0; ; n++ {
				_, err := s.Run(t.Context(), []engine.Tensor{row(i)})
				if n == 0 {
					first <- struct{}{}
				}
				if err == nil {
					continue
				}
				if !errors.Is(err, engine.ErrClosed) {
					t.Errorf("a run during Close: %v", err)
				}
				return
			}
		})
	}
	for range 8 {
		<-first
	}
	for range 2 {
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Run(t.Context(), []engine.Tensor{row(1)}); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("a run after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func nanPasses(t *testing.T, e engine.Engine) {
	s := Open(t, e, MLP(16, 8, 3, 1))
	in := make([]float32, 16)
	in[3] = float32(math.NaN())
	out := floats(run(t, s, engine.Tensor{Shape: []int64{1, 16}, Data: in})[0])
	if len(out) != 3 {
		t.Fatalf("%d numbers", len(out))
	}
	for _, v := range out {
		if !math.IsNaN(float64(v)) {
			t.Errorf("NaN became %v", v)
		}
	}
}

func ids(v ...int64) engine.Tensor {
	return engine.Tensor{Shape: []int64{1, int64(len(v))}, Data: v}
}

func outsideTable(t *testing.T, e engine.Engine) {
	s := Open(t, e, LinearText(10, 2, 1, 0))
	if out, err := s.Run(t.Context(), []engine.Tensor{ids(3, 10), ids(1, 1)}); err == nil {
		t.Errorf("an id outside the table gave %v", out)
	}
	run(t, s, ids(3, 9), ids(1, 1))
}
