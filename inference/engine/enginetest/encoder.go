package enginetest

import (
	"fmt"
	"math"
)

// An Encoder is a text classifier in the form in which PyTorch exports Hugging Face's: embeddings, layers of attention and
// feed-forward, and a head on the first token. Its weights are random.
type Encoder struct {
	Vocab, Positions, Hidden, Layers, Heads, Inner, Classes int
	Seed                                                    uint64
}

// XLMRBase has the size of XLM-R base: 278 million weights, 1.1 GB.
func XLMRBase(seed uint64) Encoder {
	return Encoder{Vocab: 250002, Positions: 514, Hidden: 768, Layers: 12, Heads: 12, Inner: 3072, Classes: 2, Seed: seed}
}

// MiniLM has the size of a MiniLM of six layers: 23 million weights, 90 MB.
func MiniLM(seed uint64) Encoder {
	return Encoder{Vocab: 30522, Positions: 512, Hidden: 384, Layers: 6, Heads: 12, Inner: 1536, Classes: 2, Seed: seed}
}

// Graph takes input_ids and attention_mask (batch, length) and gives logits (batch, classes). WriteLarge writes it.
func (e Encoder) Graph() *Graph {
	b := &encoderBuilder{Graph: NewGraph(), e: e, seed: e.Seed * 1000}
	b.Input("input_ids", Int64, "batch", "length").Input("attention_mask", Int64, "batch", "length")
	b.constants()
	x := b.embeddings()
	for i := range e.Layers {
		x = b.layer(x, fmt.Sprintf("layer.%d.", i))
	}
	b.Node("Gather", []string{x, "zero"}, []string{"first"}, IntAttr("axis", 1))
	b.Node("Tanh", []string{b.linear("first", "head.dense", e.Hidden, e.Hidden)}, []string{"pooled"})
	b.Node("Identity", []string{b.linear("pooled", "head.out", e.Hidden, e.Classes)}, []string{"logits"})
	return b.Output("logits", Float, "batch", e.Classes)
}

type encoderBuilder struct {
	*Graph
	e    Encoder
	seed uint64
}

func (b *encoderBuilder) constants() {
	number := func(name string, v float32) { b.Init(name, Tensor{Shape: []int64{}, Data: []float32{v}}) }
	whole := func(name string, shape []int64, v ...int64) { b.Init(name, Tensor{Shape: shape, Data: v}) }
	number("one", 1)
	number("half", 0.5)
	number("root2", math.Sqrt2)
	number("minus", -10000)
	number("scale", float32(1/math.Sqrt(float64(b.e.Hidden/b.e.Heads))))
	whole("zero", []int64{}, 0)
	whole("step", []int64{}, 1)
	whole("middle", []int64{2}, 1, 2)
	whole("split", []int64{4}, 0, 0, int64(b.e.Heads), int64(b.e.Hidden/b.e.Heads))
	whole("join", []int64{3}, 0, 0, int64(b.e.Hidden))
}

// weight adds a weight and gives its name.
func (b *encoderBuilder) weight(name string, shape ...int) string {
	b.seed++
	scale := 1 / math.Sqrt(float64(shape[0]))
	if len(shape) == 1 || shape[0] > 100*b.e.Heads {
		scale = 0.05
	}
	dims := make([]int64, len(shape))
	for i, d := range shape {
		dims[i] = int64(d)
	}
	b.Weight(name, b.seed, float32(scale), dims...)
	return name
}

func (b *encoderBuilder) linear(x, name string, in, out int) string {
	b.Node("MatMul", []string{x, b.weight(name+".weight", in, out)}, []string{name + ".product"})
	b.Node("Add", []string{name + ".product", b.weight(name+".bias", out)}, []string{name})
	return name
}

func (b *encoderBuilder) norm(x, name string) string {
	ones := make([]float32, b.e.Hidden)
	for i := range ones {
		ones[i] = 1
	}
	b.Init(name+".scale", Tensor{Shape: []int64{int64(b.e.Hidden)}, Data: ones})
	b.Node("LayerNormalization", []string{x, name + ".scale", b.weight(name+".bias", b.e.Hidden)}, []string{name}, IntAttr("axis", -1))
	return name
}

func (b *encoderBuilder) embeddings() string {
	b.Node("Gather", []string{b.weight("words.weight", b.e.Vocab, b.e.Hidden), "input_ids"}, []string{"words"})
	b.Node("Shape", []string{"input_ids"}, []string{"shape"})
	b.Node("Gather", []string{"shape", "step"}, []string{"length"})
	b.Node("Range", []string{"zero", "length", "step"}, []string{"positions"})
	b.Node("Gather", []string{b.weight("places.weight", b.e.Positions, b.e.Hidden), "positions"}, []string{"places"})
	b.Node("Add", []string{"words", "places"}, []string{"embedded"})
	b.Node("Unsqueeze", []string{"attention_mask", "middle"}, []string{"mask4"})
	b.Node("Cast", []string{"mask4"}, []string{"mask"}, IntAttr("to", Float))
	b.Node("Sub", []string{"one", "mask"}, []string{"masked"})
	b.Node("Mul", []string{"masked", "minus"}, []string{"bias"})
	return b.norm("embedded", "embeddings")
}

func (b *encoderBuilder) layer(x, at string) string {
	heads := func(what string, perm ...int64) string {
		name := b.linear(x, at+what, b.e.Hidden, b.e.Hidden)
		b.Node("Reshape", []string{name, "split"}, []string{name + ".split"})
		b.Node("Transpose", []string{name + ".split"}, []string{name + ".heads"}, IntsAttr("perm", perm...))
		return name + ".heads"
	}
	q, k, v := heads("query", 0, 2, 1, 3), heads("key", 0, 2, 3, 1), heads("value", 0, 2, 1, 3)
	b.Node("MatMul", []string{q, k}, []string{at + "products"})
	b.Node("Mul", []string{at + "products", "scale"}, []string{at + "scaled"})
	b.Node("Add", []string{at + "scaled", "bias"}, []string{at + "scores"})
	b.Node("Softmax", []string{at + "scores"}, []string{at + "shares"}, IntAttr("axis", -1))
	b.Node("MatMul", []string{at + "shares", v}, []string{at + "context4"})
	b.Node("Transpose", []string{at + "context4"}, []string{at + "context"}, IntsAttr("perm", 0, 2, 1, 3))
	b.Node("Reshape", []string{at + "context", "join"}, []string{at + "joined"})
	b.Node("Add", []string{b.linear(at+"joined", at+"attention", b.e.Hidden, b.e.Hidden), x}, []string{at + "attended"})
	x = b.norm(at+"attended", at+"norm1")
	h := b.linear(x, at+"inner", b.e.Hidden, b.e.Inner)
	b.Node("Div", []string{h, "root2"}, []string{at + "erf.in"})
	b.Node("Erf", []string{at + "erf.in"}, []string{at + "erf"})
	b.Node("Add", []string{at + "erf", "one"}, []string{at + "erf1"})
	b.Node("Mul", []string{h, at + "erf1"}, []string{at + "gelu2"})
	b.Node("Mul", []string{at + "gelu2", "half"}, []string{at + "gelu"})
	b.Node("Add", []string{b.linear(at+"gelu", at+"outer", b.e.Inner, b.e.Hidden), x}, []string{at + "sum"})
	return b.norm(at+"sum", at+"norm2")
}
