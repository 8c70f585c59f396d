package onnxgo_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"modelgate/engines/onnxgo"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
)

// A form is a graph around one operator, with input x.
type form struct {
	op, name string
	graph    *enginetest.Graph
	row      []int64
}

// forms are all forms of the operators on the white list.
func forms() []form {
	var all []form
	add := func(op, name string, g *enginetest.Graph, row ...int64) {
		all = append(all, form{op, name, g, row})
	}
	in := func(dims ...any) *enginetest.Graph {
		return enginetest.NewGraph().Input("x", enginetest.Float, append([]any{"batch"}, dims...)...)
	}
	x, y := []string{"x"}, []string{"y"}
	for _, op := range []string{"Abs", "Exp", "Identity", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh", "Dropout"} {
		add(op, "matrix", in(5).Node(op, x, y).Output("y", enginetest.Float, "batch", 5), 5)
		add(op, "one", in(1).Node(op, x, y).Output("y", enginetest.Float, "batch", 1), 1)
		add(op, "vector", in().Node(op, x, y).Output("y", enginetest.Float, "batch"))
		add(op, "image", in(2, 3, 4).Node(op, x, y).Output("y", enginetest.Float, "batch", 2, 3, 4), 2, 3, 4)
	}
	add("LeakyRelu", "usual", in(5).Node("LeakyRelu", x, y).Output("y", enginetest.Float, "batch", 5), 5)
	add("LeakyRelu", "alpha", in(5).Node("LeakyRelu", x, y, enginetest.FloatAttr("alpha", 0.3)).Output("y", enginetest.Float, "batch", 5), 5)
	// These write over what they read.
	add("LeakyRelu", "whose input is read again", in(5).Node("LeakyRelu", x, []string{"t"}).Node("Sub", []string{"x", "t"}, y).Output("y", enginetest.Float, "batch", 5), 5)
	add("BatchNormalization", "whose input is read again", in(2, 3, 4).Init("w", weight(2)).Init("v", enginetest.Tensor{Shape: []int64{2}, Data: []float32{0.5, 2}}).
		Init("b", weight(2)).Init("m", weight(2)).
		Node("BatchNormalization", []string{"x", "w", "b", "m", "v"}, []string{"t"}).Node("Sub", []string{"x", "t"}, y).Output("y", enginetest.Float, "batch", 2, 3, 4), 2, 3, 4)
	add("Gemm", "whose bias is read again", in(3).Init("w", weight(3, 3)).Init("b", weight(3)).
		Node("Gemm", []string{"x", "w", "b"}, []string{"t"}).Node("Gemm", []string{"t", "w", "b"}, y).Output("y", enginetest.Float, "batch", 3), 3)
	add("Dropout", "ratio", in(5).Opset(11).Node("Dropout", x, y, enginetest.FloatAttr("ratio", 0.3)).Output("y", enginetest.Float, "batch", 5), 5)
	for _, op := range []string{"Add", "Sub", "Mul", "Div"} {
		for _, s := range [][]int64{{3}, {1, 3}, {1}, {}, {1, 1}} {
			g := func() *enginetest.Graph { return in(3).Init("w", weight(s...)) }
			add(op, fmt.Sprintf("matrix with %v", s), g().Node(op, []string{"x", "w"}, y).Output("y", enginetest.Float, "batch", 3), 3)
			add(op, fmt.Sprintf("%v with matrix", s), g().Node(op, []string{"w", "x"}, y).Output("y", enginetest.Float, "batch", 3), 3)
		}
		for _, s := range [][]int64{{3, 1, 1}, {1, 3, 1, 1}, {3, 2, 4}, {1}, {}} {
			add(op, fmt.Sprintf("image with %v", s), in(3, 2, 4).Init("w", weight(s...)).Node(op, []string{"x", "w"}, y).Output("y", enginetest.Float, "batch", 3, 2, 4), 3, 2, 4)
		}
		add(op, "two matrices", in(3).Node("Tanh", x, []string{"t"}).Node(op, []string{"x", "t"}, y).Output("y", enginetest.Float, "batch", 3), 3)
		add(op, "matrix with column", in(3).Init("c", weight(3, 1)).Node("MatMul", []string{"x", "c"}, []string{"t"}).Node(op, []string{"x", "t"}, y).Output("y", enginetest.Float, "batch", 3), 3)
		add(op, "column with row", in(1).Init("w", weight(1, 4)).Node(op, []string{"x", "w"}, y).Output("y", enginetest.Float, "batch", 4), 1)
		add(op, "two images", in(3, 2, 2).Node("Tanh", x, []string{"t"}).Node(op, []string{"t", "x"}, y).Output("y", enginetest.Float, "batch", 3, 2, 2), 3, 2, 2)
		add(op, "one weight twice", in(3).Init("w", weight(3)).Node(op, []string{"x", "w"}, []string{"t"}).Node(op, []string{"w", "t"}, y).Output("y", enginetest.Float, "batch", 3), 3)
	}
	for _, k := range []int64{1, 5} {
		for _, n := range []int64{1, 4} {
			add("MatMul", fmt.Sprintf("%d %d", k, n), in(int(k)).Init("w", weight(k, n)).Node("MatMul", []string{"x", "w"}, y).Output("y", enginetest.Float, "batch", int(n)), k)
			for _, bias := range [][]int64{{n}, {1, n}} {
				g := func() *enginetest.Graph {
					return in(int(k)).Init("w", weight(k, n)).Init("t", weight(n, k)).Init("b", weight(bias...))
				}
				name := fmt.Sprintf("%d %d bias %v", k, n, bias)
				add("Gemm", name, g().Node("Gemm", []string{"x", "w", "b"}, y).Output("y", enginetest.Float, "batch", int(n)), k)
				add("Gemm", name+" turned", g().Node("Gemm", []string{"x", "t", "b"}, y, enginetest.IntAttr("transB", 1)).Output("y", enginetest.Float, "batch", int(n)), k)
				add("Gemm", name+" scaled", g().Node("Gemm", []string{"x", "w", "b"}, y, enginetest.FloatAttr("alpha", 0.5), enginetest.FloatAttr("beta", -2)).Output("y", enginetest.Float, "batch", int(n)), k)
			}
		}
	}
	add("MatMul", "weights first", enginetest.NewGraph().Input("x", enginetest.Float, 4, 3).Init("w", weight(2, 4)).Node("MatMul", []string{"w", "x"}, y).Output("y", enginetest.Float, 2, 3), 3)
	add("Gemm", "both turned", enginetest.NewGraph().Input("x", enginetest.Float, 4, 3).Init("w", weight(2, 4)).Init("b", weight(2)).
		Node("Gemm", []string{"x", "w", "b"}, y, enginetest.IntAttr("transA", 1), enginetest.IntAttr("transB", 1)).Output("y", enginetest.Float, 3, 2), 3)
	add("MatMul", "large", in(700).Init("w", weight(700, 300)).Node("MatMul", []string{"x", "w"}, y).Output("y", enginetest.Float, "batch", 300), 700)
	for _, n := range []int{2, 7} {
		add("Softmax", fmt.Sprint(n), in(n).Node("Softmax", x, y).Output("y", enginetest.Float, "batch", n), int64(n))
		add("Softmax", fmt.Sprint("old ", n), in(n).Opset(9).Node("Softmax", x, y).Output("y", enginetest.Float, "batch", n), int64(n))
		add("Softmax", fmt.Sprint("axis ", n), in(n).Node("Softmax", x, y, enginetest.IntAttr("axis", 1)).Output("y", enginetest.Float, "batch", n), int64(n))
	}
	all = append(all, shaping()...)
	return append(all, images()...)
}

// shaping are operators that move numbers.
func shaping() []form {
	var all []form
	add := func(op, name string, g *enginetest.Graph, row ...int64) {
		all = append(all, form{op, name, g, row})
	}
	in := func(dims ...any) *enginetest.Graph {
		return enginetest.NewGraph().Input("x", enginetest.Float, append([]any{"batch"}, dims...)...)
	}
	x, y := []string{"x"}, []string{"y"}
	for axis, out := range map[int64][]any{0: {1, "n"}, 1: {"batch", 24}, 2: {"b", 12}, -1: {"b", 4}, 4: {"b", 1}} {
		add("Flatten", fmt.Sprint(axis), in(2, 3, 4).Node("Flatten", x, y, enginetest.IntAttr("axis", axis)).Output("y", enginetest.Float, out...), 2, 3, 4)
	}
	add("Flatten", "usual", in(2, 3, 4).Node("Flatten", x, y).Output("y", enginetest.Float, "batch", 24), 2, 3, 4)
	for _, to := range [][]int64{{0, 12}, {-1, 12}, {0, -1}, {0, 3, 4}, {0, 2, 3, -1}, {-1}, {-1, 1}} {
		dims := []any{"n"}
		for _, d := range to[1:] {
			if d < 0 {
				d = 12
				if len(to) == 4 {
					d = 2
				}
			}
			dims = append(dims, int(d))
		}
		add("Reshape", fmt.Sprint(to), in(3, 4).Init("s", enginetest.Tensor{Shape: []int64{int64(len(to))}, Data: to}).
			Node("Relu", x, []string{"r"}).Node("Reshape", []string{"r", "s"}, []string{"t"}).Node("Neg", []string{"t"}, y).Output("y", enginetest.Float, dims...), 3, 4)
	}
	for _, perm := range [][]int64{{0, 2, 1}, {0, 1, 2}, {1, 0, 2}, {2, 1, 0}} {
		size := []any{"batch", 3, 4}
		dims := []any{size[perm[0]], size[perm[1]], size[perm[2]]}
		turn := func() *enginetest.Graph {
			return in(3, 4).Node("Transpose", x, []string{"t"}, enginetest.IntsAttr("perm", perm...))
		}
		if dims[0] != "batch" {
			continue
		}
		add("Transpose", fmt.Sprint(perm), turn().Node("Identity", []string{"t"}, y).Output("y", enginetest.Float, dims...), 3, 4)
		add("Transpose", fmt.Sprint(perm, " and on"), turn().Node("Flatten", []string{"t"}, []string{"f"}).Init("w", weight(12, 2)).
			Node("MatMul", []string{"f", "w"}, y).Output("y", enginetest.Float, "batch", 2), 3, 4)
	}
	add("Transpose", "matrix and product", enginetest.NewGraph().Input("x", enginetest.Float, "batch", 3).Init("w", weight(2, 3)).
		Node("Transpose", x, []string{"t"}).Node("MatMul", []string{"w", "t"}, []string{"m"}).Node("Transpose", []string{"m"}, y).Output("y", enginetest.Float, "batch", 2), 3)
	add("Concat", "columns", in(3).Init("w", weight(3, 2)).Node("MatMul", []string{"x", "w"}, []string{"t"}).Node("Neg", x, []string{"u"}).
		Node("Concat", []string{"x", "t", "u"}, y, enginetest.IntAttr("axis", 1)).Output("y", enginetest.Float, "batch", 8), 3)
	add("Concat", "last", in(2, 3).Node("Neg", x, []string{"t"}).
		Node("Concat", []string{"t", "x"}, y, enginetest.IntAttr("axis", -1)).Output("y", enginetest.Float, "batch", 2, 6), 2, 3)
	add("Concat", "channels", in(2, 3, 4).Node("Neg", x, []string{"t"}).
		Node("Concat", []string{"x", "t"}, y, enginetest.IntAttr("axis", 1)).Output("y", enginetest.Float, "batch", 4, 3, 4), 2, 3, 4)
	return all
}

// images are operators on images.
func images() []form {
	var all []form
	add := func(op, name string, g *enginetest.Graph, row ...int64) {
		all = append(all, form{op, name, g, row})
	}
	in := func(c, h, w int) *enginetest.Graph {
		return enginetest.NewGraph().Input("x", enginetest.Float, "batch", c, h, w)
	}
	x, y := []string{"x"}, []string{"y"}
	for _, c := range []struct{ kernel, strides, dilations, pads []int64 }{
		{[]int64{3, 3}, nil, nil, nil},
		{[]int64{1, 1}, nil, nil, nil},
		{[]int64{3, 3}, []int64{2, 2}, nil, []int64{1, 1, 1, 1}},
		{[]int64{2, 3}, []int64{1, 2}, nil, nil},
		{[]int64{3, 2}, []int64{2, 1}, nil, []int64{2, 2, 2, 2}},
		{[]int64{3, 3}, nil, []int64{2, 2}, []int64{1, 1, 1, 1}},
		{[]int64{2, 2}, []int64{3, 3}, []int64{2, 1}, nil},
		{[]int64{7, 9}, nil, nil, nil},
	} {
		var attrs []enginetest.Attr
		for name, v := range map[string][]int64{"strides": c.strides, "dilations": c.dilations, "pads": c.pads} {
			if v != nil {
				attrs = append(attrs, enginetest.IntsAttr(name, v...))
			}
		}
		name := fmt.Sprintf("kernel %v strides %v dilations %v pads %v", c.kernel, c.strides, c.dilations, c.pads)
		g := func() *enginetest.Graph {
			return in(2, 7, 9).Init("w", weight(3, 2, c.kernel[0], c.kernel[1])).Init("b", weight(3))
		}
		add("Conv", name, g().Node("Conv", []string{"x", "w"}, y, attrs...).Output("y", enginetest.Float, "batch", 3, "h", "w"), 2, 7, 9)
		add("Conv", name+" bias", g().Node("Conv", []string{"x", "w", "b"}, y, append(attrs, enginetest.IntsAttr("kernel_shape", c.kernel...), enginetest.IntAttr("group", 1))...).
			Output("y", enginetest.Float, "batch", 3, "h", "w"), 2, 7, 9)
	}
	add("Conv", "one channel", in(1, 5, 5).Init("w", weight(1, 1, 3, 3)).Init("b", weight(1)).Node("Conv", []string{"x", "w", "b"}, y).Output("y", enginetest.Float, "batch", 1, 3, 3), 1, 5, 5)
	for _, c := range []struct{ kernel, strides []int64 }{
		{[]int64{2, 2}, nil}, {[]int64{2, 2}, []int64{2, 2}}, {[]int64{3, 3}, []int64{2, 2}}, {[]int64{3, 2}, []int64{1, 2}}, {[]int64{6, 8}, nil}, {[]int64{1, 1}, nil}, {[]int64{2, 2}, []int64{3, 3}},
	} {
		attrs := []enginetest.Attr{enginetest.IntsAttr("kernel_shape", c.kernel...), enginetest.IntsAttr("dilations", 1, 1), enginetest.StringAttr("auto_pad", "NOTSET")}
		if c.strides != nil {
			attrs = append(attrs, enginetest.IntsAttr("strides", c.strides...))
		}
		add("MaxPool", fmt.Sprintf("kernel %v strides %v", c.kernel, c.strides), in(2, 7, 9).Node("MaxPool", x, y, attrs...).Output("y", enginetest.Float, "batch", 2, "h", "w"), 2, 7, 9)
	}
	add("GlobalAveragePool", "usual", in(2, 7, 9).Node("GlobalAveragePool", x, y).Output("y", enginetest.Float, "batch", 2, 1, 1), 2, 7, 9)
	add("GlobalAveragePool", "and on", in(2, 7, 9).Node("GlobalAveragePool", x, []string{"t"}).Node("Flatten", []string{"t"}, y).Output("y", enginetest.Float, "batch", 2), 2, 7, 9)
	for name, attrs := range map[string][]enginetest.Attr{"usual": nil, "epsilon": {enginetest.FloatAttr("epsilon", 0.1), enginetest.FloatAttr("momentum", 0.5)}} {
		add("BatchNormalization", name, in(2, 3, 4).Init("s", weight(2)).Init("b", weight(2)).Init("m", weight(2)).
			Init("v", enginetest.Tensor{Shape: []int64{2}, Data: []float32{0.5, 2}}).
			Node("BatchNormalization", []string{"x", "s", "b", "m", "v"}, y, attrs...).Output("y", enginetest.Float, "batch", 2, 3, 4), 2, 3, 4)
	}
	return all
}

// huge asks both about large numbers, or NaN. That something became infinite is an answer too.
func huge(t *testing.T, ours, theirs engine.Session, in engine.Tensor) {
	t.Helper()
	out, err := ours.Run(t.Context(), []engine.Tensor{in})
	if err != nil && strings.Contains(err.Error(), "infinite") {
		return
	}
	if err != nil {
		t.Errorf("large numbers: %v", err)
		return
	}
	compare(t, out[0], answer(t, theirs, in))
}

// Every operator on the white list, in every form, for several sizes of a batch, gives twice what ONNX Runtime gives. The sizes
// include those of other dimensions, by which onnx-go could mistake them.
func TestOperators(t *testing.T) {
	ref := reference(t)
	var seen []string
	worst := map[string]float64{}
	for _, f := range forms() {
		seen = append(seen, f.op)
		t.Run(f.op+"/"+f.name, func(t *testing.T) {
			ours, theirs := enginetest.Open(t, here(t), f.graph), enginetest.Open(t, ref, f.graph)
			for _, batch := range []int64{1, 2, 3, 4, 8} {
				if fixed := ours.Inputs()[0].Shape[0]; fixed > 0 && fixed != batch {
					continue
				}
				in := random(uint64(batch), append([]int64{batch}, f.row...)...)
				for i, v := range numbers(in) {
					numbers(in)[i] = 5 * v
				}
				want := answer(t, theirs, in)
				got := answer(t, ours, in)
				worst[f.op] = max(worst[f.op], compare(t, got, want))
				same(t, answer(t, ours, in), got)
				for i, v := range numbers(in) {
					numbers(in)[i] = 100 * v
				}
				huge(t, ours, theirs, in)
				numbers(in)[batch/2] = float32(math.NaN())
				huge(t, ours, theirs, in)
			}
		})
	}
	for _, op := range onnxgo.Operators() {
		if !slices.Contains(seen, op) {
			t.Errorf("%s is on the white list, but no form of it is compared", op)
		}
	}
	t.Logf("the largest differences: %v", worst)
}

// Several inputs and outputs keep their order. One output is read inside the graph, one is another's copy, and one is an input.
func TestInputsAndOutputs(t *testing.T) {
	g := enginetest.NewGraph().Input("a", enginetest.Float, "n", 3).Input("b", enginetest.Float, "n", 3).Input("unread", enginetest.Float, "n", 2).
		Init("w", weight(3)).
		Node("Sub", []string{"b", "a"}, []string{"difference"}).Node("Mul", []string{"difference", "w"}, []string{"y"}).Node("Identity", []string{"y"}, []string{"copy"}).
		Node("Neg", []string{"a"}, []string{"dead end"}).
		Output("copy", enginetest.Float, "n", 3).Output("difference", enginetest.Float, "n", 3).Output("y", enginetest.Float, "n", 3).Output("b", enginetest.Float, "n", 3)
	in := []engine.Tensor{random(1, 4, 3), random(2, 4, 3), random(3, 4, 2)}
	got, err := enginetest.Open(t, here(t), g).Run(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want, err := enginetest.Open(t, reference(t), g).Run(t.Context(), in)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d outputs, want %d (%v)", len(got), len(want), err)
	}
	for i := range got {
		compare(t, got[i], want[i])
	}
	if fmt.Sprint(got[0].Data) == fmt.Sprint(got[1].Data) {
		t.Error("two outputs are the same: their order says nothing")
	}
}

// The last bit of a sum doesn't depend on where its numbers lie in memory: tensors as small as these begin anywhere.
func TestSameBits(t *testing.T) {
	g := enginetest.NewGraph().Input("x", enginetest.Float, "batch", 5).Init("w", weight(1, 5)).Init("b", weight(1)).
		Node("Gemm", []string{"x", "w", "b"}, []string{"y"}, enginetest.IntAttr("transB", 1)).Output("y", enginetest.Float, "batch", 1)
	s := enginetest.Open(t, here(t), g)
	for batch := range int64(4) {
		in := random(uint64(batch), batch+1, 5)
		first := answer(t, s, in)
		for range 200 {
			same(t, answer(t, s, in), first)
		}
	}
}
