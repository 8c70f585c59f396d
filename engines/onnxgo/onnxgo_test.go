package onnxgo_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"modelgate/engines/onnxgo"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
	"modelgate/inference/engine/worker"
)

// TestMain makes this program its own worker: started with an argument "worker" it is what cmd/modelgate-onnxgo is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		if err := worker.Serve(onnxgo.Host()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func here(testing.TB) engine.Engine { return onnxgo.Engine{} }

func inWorkers(t testing.TB) engine.Engine {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e, err := worker.New(worker.Options{Path: exe, Args: []string{"modelgate-onnxgo", "worker"}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func reference(t testing.TB) engine.Engine {
	t.Helper()
	e, err := ort.Open(ort.Options{LibraryPath: enginetest.Library(t)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The suite of all engines, but for the tests whose graphs TestRefused finds refused.
func TestEngine(t *testing.T) {
	for name, open := range map[string]func(testing.TB) engine.Engine{"here": here, "in workers": inWorkers} {
		t.Run(name, func(t *testing.T) {
			enginetest.RunBut(t, open, "declares what the graph takes and gives", "id outside the table", // Gather
				"cancelled run leaves session usable", // Loop
				"external data", "element types", "maps")
		})
	}
}

func refused(t *testing.T, e engine.Engine, g *enginetest.Graph, want ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := g.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	s, err := e.Open(t.Context(), path, engine.Options{})
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, engine.ErrGraph) {
		t.Fatalf("opened with %v, want ErrGraph", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q doesn't say %q", err, w)
		}
	}
}

func pool9() *enginetest.Graph {
	return enginetest.NewGraph().Input("x", enginetest.Float, "n", 2, 9, 9).
		Node("MaxPool", []string{"x"}, []string{"y"}, enginetest.IntsAttr("kernel_shape", 9, 9)).Output("y", enginetest.Float, "n", 2, 1, 1)
}

// What isn't on the white list, or not in this form, is refused at load, with the operator's name.
func TestRefused(t *testing.T) {
	image := func(op string, attrs ...enginetest.Attr) *enginetest.Graph {
		return enginetest.NewGraph().Input("x", enginetest.Float, "n", 2, 9, 9).
			Init("w", weight(3, 2, 3, 3)).
			Node(op, map[string][]string{"Conv": {"x", "w"}}[op], []string{"y"}, attrs...)
	}
	pool := func(attrs ...enginetest.Attr) *enginetest.Graph {
		return enginetest.NewGraph().Input("x", enginetest.Float, "n", 2, 9, 9).
			Node("MaxPool", []string{"x"}, []string{"y"}, append(attrs, enginetest.IntsAttr("kernel_shape", 2, 2))...).
			Output("y", enginetest.Float, "n", 2, "h", "w")
	}
	conv := func(attrs ...enginetest.Attr) *enginetest.Graph {
		return image("Conv", attrs...).Output("y", enginetest.Float, "n", 3, 9, 9)
	}
	matrix := func(op string, inputs []string, attrs ...enginetest.Attr) *enginetest.Graph {
		return enginetest.NewGraph().Input("x", enginetest.Float, "n", 4).Init("w", weight(4, 4)).Init("column", weight(4, 1)).
			Node(op, inputs, []string{"y"}, attrs...).Output("y", enginetest.Float, "n", 4)
	}
	for name, c := range map[string]struct {
		g    *enginetest.Graph
		want []string
	}{
		"a text model":          {enginetest.LinearText(10, 2, 1, 0), []string{"Gather"}},
		"a video model":         {enginetest.LinearVideo(0), []string{"ReduceMean"}},
		"a loop":                {enginetest.EndlessLoop(), []string{"ReduceMax"}},
		"another domain":        {enginetest.NewGraph().Input("x", enginetest.Float, "n", 2).DomainNode("ai.onnx.ml", "Relu", []string{"x"}, []string{"y"}).Output("y", enginetest.Float, "n", 2), []string{"ai.onnx.ml:Relu"}},
		"groups":                {conv(enginetest.IntAttr("group", 2)), []string{"Conv", "group"}},
		"pads that differ":      {conv(enginetest.IntsAttr("pads", 1, 0, 1, 0)), []string{"Conv", "pads [1 0 1 0]"}},
		"pads of one end":       {conv(enginetest.IntsAttr("pads", 1, 1, 0, 0)), []string{"Conv", "pads [1 1 0 0]"}},
		"automatic pads":        {conv(enginetest.StringAttr("auto_pad", "SAME_LOWER")), []string{"Conv", "auto_pad"}},
		"one stride":            {conv(enginetest.IntsAttr("strides", 1)), []string{"Conv", "strides"}},
		"unknown attribute":     {conv(enginetest.IntAttr("mystery", 1)), []string{"Conv", "mystery"}},
		"pads of a pooling":     {pool(enginetest.IntsAttr("pads", 1, 1, 1, 1)), []string{"MaxPool", "pads"}},
		"ceil mode":             {pool(enginetest.IntAttr("ceil_mode", 1)), []string{"MaxPool", "ceil_mode"}},
		"dilated pooling":       {pool(enginetest.IntsAttr("dilations", 2, 2)), []string{"MaxPool", "dilations"}},
		"one tensor twice":      {matrix("Add", []string{"x", "x"}), []string{"Add", "read twice"}},
		"left out":              {matrix("Add", []string{"x", ""}), []string{"Add", "left out"}},
		"no bias":               {matrix("Gemm", []string{"x", "w"}), []string{"Gemm", "2 inputs"}},
		"a column as bias":      {matrix("Gemm", []string{"x", "w", "column"}), []string{"Gemm", "third input"}},
		"softmax of one number": {enginetest.NewGraph().Input("x", enginetest.Float, "n", 1).Node("Softmax", []string{"x"}, []string{"y"}).Output("y", enginetest.Float, "n", 1), []string{"Softmax", "two columns"}},
		"pooling of all":        {pool9(), []string{"MaxPool", "smaller"}},
		"softmax of columns":    {matrix("Softmax", []string{"x"}, enginetest.IntAttr("axis", 0)), []string{"Softmax", "axis"}},
		"attribute's kind":      {matrix("Softmax", []string{"x"}, enginetest.FloatAttr("axis", 1)), []string{"Softmax", "axis", "kind"}},
		"old set":               {matrix("Relu", []string{"x"}).Opset(6), []string{"operator set 6"}},
		"new set":               {matrix("Relu", []string{"x"}).Opset(99), []string{"operator set 99"}},
		"open width":            {enginetest.NewGraph().Input("x", enginetest.Float, "n", "m").Node("Relu", []string{"x"}, []string{"y"}).Output("y", enginetest.Float, "n", "m"), []string{"first dimension"}},
		"whole numbers":         {enginetest.NewGraph().Input("x", enginetest.Int64, "n", 2).Node("Abs", []string{"x"}, []string{"y"}).Output("y", enginetest.Int64, "n", 2), []string{"floats"}},
		"side file":             {enginetest.NewGraph().Input("x", enginetest.Float, "n", 2).Init("w", enginetest.Tensor{Shape: []int64{2}, Data: []float32{1, 2}, External: "w.bin"}).Node("Add", []string{"x", "w"}, []string{"y"}).Output("y", enginetest.Float, "n", 2), []string{"side file"}},
		"undeclared output":     {enginetest.NewGraph().Input("x", enginetest.Float, "n", 2).Node("Relu", []string{"x"}, []string{"y"}).Output("z", enginetest.Float, "n", 2), []string{"output z"}},
		"another shape":         {enginetest.NewGraph().Input("x", enginetest.Float, "n", 2).Node("Relu", []string{"x"}, []string{"y"}).Output("y", enginetest.Float, "n", 3), []string{"declared"}},
		"huge":                  {enginetest.NewGraph().Input("x", enginetest.Float, "n", 1<<30).Node("Relu", []string{"x"}, []string{"y"}).Output("y", enginetest.Float, "n", 1<<30), []string{"too large"}},
		"backwards":             {enginetest.NewGraph().Input("x", enginetest.Float, "n", 2).Node("Relu", []string{"q"}, []string{"y"}).Node("Relu", []string{"x"}, []string{"q"}).Output("y", enginetest.Float, "n", 2), []string{"Relu", "no earlier"}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, here(t), c.g, c.want...) })
	}
	t.Run("in a worker", func(t *testing.T) { refused(t, inWorkers(t), enginetest.LinearText(10, 2, 1, 0), "Gather") })
}

// CNN takes images (batch, 3, side, side), side a multiple of 4, to 4 logits: two convolutions, with what small networks have between.
func cnn(side int, seed uint64) *enginetest.Graph {
	flat := 8 * (side / 4) * (side / 4)
	random := func(seed uint64, scale float32, shape ...int64) enginetest.Tensor {
		w := weight(shape...)
		data := enginetest.Random(seed, len(w.Data.([]float32)))
		for i := range data {
			data[i] *= scale
		}
		w.Data = data
		return w
	}
	positive := enginetest.Tensor{Shape: []int64{4}, Data: []float32{0.5, 1, 1.5, 2}}
	same := enginetest.IntsAttr("pads", 1, 1, 1, 1)
	pool := []enginetest.Attr{enginetest.IntsAttr("kernel_shape", 2, 2), enginetest.IntsAttr("strides", 2, 2)}
	return enginetest.NewGraph().Input("x", enginetest.Float, "batch", 3, side, side).
		Init("w1", random(seed, 0.3, 4, 3, 3, 3)).Init("b1", random(seed+1, 1, 4)).
		Init("scale", random(seed+2, 1, 4)).Init("shift", random(seed+3, 1, 4)).Init("mean", random(seed+4, 1, 4)).Init("variance", positive).
		Init("w2", random(seed+5, 0.3, 8, 4, 3, 3)).Init("b2", random(seed+6, 1, 8)).
		Init("w3", random(seed+7, 0.2, 4, int64(flat))).Init("b3", random(seed+8, 1, 4)).
		Node("Conv", []string{"x", "w1", "b1"}, []string{"c1"}, same).
		Node("BatchNormalization", []string{"c1", "scale", "shift", "mean", "variance"}, []string{"n1"}).
		Node("Relu", []string{"n1"}, []string{"r1"}).
		Node("MaxPool", []string{"r1"}, []string{"p1"}, pool...).
		Node("Conv", []string{"p1", "w2", "b2"}, []string{"c2"}, same).
		Node("Relu", []string{"c2"}, []string{"r2"}).
		Node("MaxPool", []string{"r2"}, []string{"p2"}, pool...).
		Node("Flatten", []string{"p2"}, []string{"flat"}).
		Node("Gemm", []string{"flat", "w3", "b3"}, []string{"logits"}, enginetest.IntAttr("transB", 1)).
		Output("logits", enginetest.Float, "batch", 4)
}

// A perceptron and a convolutional network: 1,000 runs, one after the other and many at once, of one row and of several. Each is
// near ONNX Runtime's answer, and bit by bit the first answer of this engine to the same input.
func TestThousandRuns(t *testing.T) {
	const questions, runs = 20, 500
	for name, c := range map[string]struct {
		g   *enginetest.Graph
		row []int64
	}{
		"MLP": {enginetest.MLP(16, 300, 3, 1), []int64{16}},
		"CNN": {cnn(12, 1), []int64{3, 12, 12}},
	} {
		t.Run(name, func(t *testing.T) {
			s, ref := enginetest.Open(t, inWorkers(t), c.g), enginetest.Open(t, reference(t), c.g)
			inputs, first := make([]engine.Tensor, questions), make([]engine.Tensor, questions)
			for i := range inputs {
				inputs[i] = random(uint64(i), append([]int64{1 + int64(i)%4}, c.row...)...)
			}
			worst := 0.0
			ask := func(i int) {
				got, want := answer(t, s, inputs[i]), answer(t, ref, inputs[i])
				worst = max(worst, compare(t, got, want))
				if first[i].Data == nil {
					first[i] = got
				}
				same(t, got, first[i])
			}
			for n := range runs {
				ask(n % questions)
			}
			var all sync.WaitGroup
			for k := range 10 {
				all.Go(func() {
					for n := range runs / 10 {
						i := (n*7 + k) % questions
						same(t, answer(t, s, inputs[i]), first[i])
					}
				})
			}
			all.Wait()
			t.Logf("%d runs; the largest difference from ONNX Runtime is %.2g", 2*runs, worst)
		})
	}
}

func weight(shape ...int64) enginetest.Tensor {
	t := random(99, shape...)
	return enginetest.Tensor{Shape: t.Shape, Data: t.Data}
}

func random(seed uint64, shape ...int64) engine.Tensor {
	n, err := engine.Elements(shape)
	if err != nil {
		panic(err)
	}
	return engine.Tensor{Shape: shape, Data: enginetest.Random(seed, n)}
}

func answer(t *testing.T, s engine.Session, in engine.Tensor) engine.Tensor {
	t.Helper()
	out, err := s.Run(t.Context(), []engine.Tensor{in})
	if err != nil {
		t.Errorf("input of shape %v: %v", in.Shape, err)
		return engine.Tensor{Data: []float32{}}
	}
	return out[0]
}

// tolerance: a float32 has 24 bits, and a sum of some hundred products in another order moves the last few: 1e-6 of the largest number
// in it. A bias added twice, or a wrong axis, is off by a hundredth at least.
const tolerance = 1e-5

// compare fails where two answers differ by more than the tolerance, and returns the largest difference.
func compare(t *testing.T, got, want engine.Tensor) (worst float64) {
	t.Helper()
	a, b := numbers(got), numbers(want)
	if fmt.Sprint(got.Shape) != fmt.Sprint(want.Shape) || len(a) != len(b) {
		t.Errorf("shape %v, want %v", got.Shape, want.Shape)
		return 0
	}
	scale := 1.0
	for _, v := range b {
		if v == v { // not NaN
			scale = max(scale, math.Abs(float64(v)))
		}
	}
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		if math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		d := math.Abs(x-y) / scale
		if !(d <= tolerance) {
			t.Errorf("number %d of shape %v is %v, ONNX Runtime says %v", i, got.Shape, x, y)
			return d
		}
		worst = max(worst, d)
	}
	return worst
}

func same(t *testing.T, got, want engine.Tensor) {
	t.Helper()
	a, b := numbers(got), numbers(want)
	if len(a) != len(b) {
		t.Errorf("%d numbers, not %d", len(a), len(b))
		return
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Errorf("number %d is %v, the first answer was %v", i, a[i], b[i])
			return
		}
	}
}

func numbers(t engine.Tensor) []float32 {
	d, _ := t.Data.([]float32)
	return d
}
