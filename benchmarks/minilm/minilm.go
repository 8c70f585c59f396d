// Package minilm writes a text model of MiniLM's size with random weights: what costs as much as a real one.
package minilm

import (
	"fmt"
	"path/filepath"
	"strings"

	"modelgate/inference/engine/enginetest"
)

// Sentence has the length of a usual one: 30 tokens.
func Sentence() string { return strings.Repeat("this was not a very good film ", 4) + "a sad day" }

// The shape of MiniLM: six layers of a small BERT.
const (
	Layers = 6
	Hidden = 384

	heads = 12
	inner = 4 * Hidden
)

// Write writes the bundle to dir, which it creates.
func Write(dir string) error {
	if err := (enginetest.TextBundle{}).Write(dir); err != nil {
		return err
	}
	vocabulary := len(enginetest.Words()) + 2
	b := &builder{Graph: enginetest.NewGraph()}
	b.Input("input_ids", enginetest.Int64, "batch", "length").Input("attention_mask", enginetest.Int64, "batch", "length")
	b.floats("words", 1, vocabulary, Hidden).constants()
	b.Node("Gather", []string{"words", "input_ids"}, []string{"embedded"})
	b.Node("Cast", []string{"attention_mask"}, []string{"mask"}, enginetest.IntAttr("to", enginetest.Float))
	b.Node("Unsqueeze", []string{"mask", "axes"}, []string{"mask4"})
	b.Node("Sub", []string{"mask4", "one"}, []string{"hides"})
	b.Node("Mul", []string{"hides", "much"}, []string{"hidden"})
	x := "embedded"
	for i := range Layers {
		x = b.layer(fmt.Sprintf("l%d_", i), x)
	}
	b.Node("Gather", []string{x, "zero"}, []string{"first"}, enginetest.IntAttr("axis", 1))
	b.floats("classes", 0.05, Hidden, 2)
	b.Node("MatMul", []string{"first", "classes"}, []string{"logits"}).Output("logits", enginetest.Float, "batch", 2)
	return b.WriteFile(filepath.Join(dir, "model.onnx"))
}

// A builder builds a transformer with random weights.
type builder struct {
	*enginetest.Graph
	seed uint64
}

// floats adds random weights between -scale and scale.
func (b *builder) floats(name string, scale float32, shape ...int) *builder {
	n, dims := 1, make([]int64, len(shape))
	for i, d := range shape {
		n, dims[i] = n*d, int64(d)
	}
	b.seed++
	data := enginetest.Random(b.seed, n)
	for i := range data {
		data[i] *= scale
	}
	b.Init(name, enginetest.Tensor{Shape: dims, Data: data})
	return b
}

// constants adds the numbers that all layers use.
func (b *builder) constants() {
	ones := make([]float32, Hidden)
	for i := range ones {
		ones[i] = 1
	}
	for name, t := range map[string]enginetest.Tensor{
		"axes":  {Shape: []int64{2}, Data: []int64{1, 2}},
		"zero":  {Data: []int64{0}},
		"one":   {Data: []float32{1}},
		"half":  {Data: []float32{0.5}},
		"much":  {Data: []float32{10000}},
		"root2": {Data: []float32{1.4142135}},
		"scale": {Data: []float32{0.17677669}}, // one over the root of a head's width
		"split": {Shape: []int64{4}, Data: []int64{0, 0, heads, Hidden / heads}},
		"join":  {Shape: []int64{3}, Data: []int64{0, 0, Hidden}},
		"ones":  {Shape: []int64{Hidden}, Data: ones},
	} {
		b.Init(name, t)
	}
}

// node adds a node with one output and gives its name.
func (b *builder) node(op, output string, inputs []string, attrs ...enginetest.Attr) string {
	b.Node(op, inputs, []string{output}, attrs...)
	return output
}

// linear adds x*w + b.
func (b *builder) linear(name, x string, in, out int) string {
	b.floats(name+"_w", 0.05, in, out).floats(name+"_b", 0.05, out)
	return b.node("Add", name, []string{b.node("MatMul", name+"_m", []string{x, name + "_w"}), name + "_b"})
}

// layer adds one layer: attention, then two linear ones with GELU between.
func (b *builder) layer(p, x string) string {
	head := func(name string, order ...int64) string {
		split := b.node("Reshape", p+name+"_s", []string{b.linear(p+name, x, Hidden, Hidden), "split"})
		return b.node("Transpose", p+name+"_t", []string{split}, enginetest.IntsAttr("perm", order...))
	}
	q, k, v := head("q", 0, 2, 1, 3), head("k", 0, 2, 3, 1), head("v", 0, 2, 1, 3)
	s := b.node("Mul", p+"qs", []string{b.node("MatMul", p+"qk", []string{q, k}), "scale"})
	s = b.node("Softmax", p+"soft", []string{b.node("Add", p+"masked", []string{s, "hidden"})})
	c := b.node("Transpose", p+"ct", []string{b.node("MatMul", p+"c", []string{s, v})}, enginetest.IntsAttr("perm", 0, 2, 1, 3))
	c = b.linear(p+"o", b.node("Reshape", p+"cj", []string{c, "join"}), Hidden, Hidden)
	x = b.node("LayerNormalization", p+"n1", []string{b.node("Add", p+"r1", []string{x, c}), "ones"})
	f := b.linear(p+"f", x, Hidden, inner)
	e := b.node("Erf", p+"erf", []string{b.node("Div", p+"d", []string{f, "root2"})})
	e = b.node("Mul", p+"g", []string{b.node("Mul", p+"h", []string{f, b.node("Add", p+"e1", []string{e, "one"})}), "half"})
	e = b.linear(p+"f2", e, inner, Hidden)
	return b.node("LayerNormalization", p+"n2", []string{b.node("Add", p+"r2", []string{x, e}), "ones"})
}
