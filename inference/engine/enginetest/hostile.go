package enginetest

import (
	"math"
	"slices"
	"strconv"
)

// A Harm adds nodes to a graph that do harm where when holds a 1 and none where it holds 0. when is a tensor of whole numbers with
// three dimensions; what is returned is one of floats that can be added to it, and is 0 where no harm was done.
type Harm func(g *Graph, when string) (nothing string)

// Where a Trap does its harm, beside the ids of words.
const (
	AtLoad = -2 // in the parts that an engine computes when it loads the graph, if it does
	Always = -1 // on every text
)

// Trap is a LinearText of two classes with a harm in it, done to texts with the word of the id at.
func Trap(vocab int, seed uint64, shift float32, at int, harm Harm) *Graph {
	g := LinearText(vocab, 2, seed, shift)
	g.outputs = nil
	g.nodes = g.nodes[:len(g.nodes)-1] // that which gives the logits
	g.Init("both", Tensor{Shape: []int64{2}, Data: []int64{0, 1}}).Init("none", Tensor{Shape: []int64{1}, Data: []float32{0}})
	if at == AtLoad {
		g.Init("when", Tensor{Shape: []int64{1, 1, 1}, Data: []int64{1}})
	} else {
		table := make([]int64, vocab)
		for i := range table {
			if i == at || at == Always {
				table[i] = 1
			}
		}
		g.Init("table", Tensor{Shape: []int64{int64(vocab), 1}, Data: table}).Node("Gather", []string{"table", "input_ids"}, []string{"when"})
	}
	return g.Node("Add", []string{"masked", harm(g, "when")}, []string{"harmed"}).
		Node("ReduceSum", []string{"harmed", "middle"}, []string{"total"}, IntAttr("keepdims", 0)).
		Node("Add", []string{"total", "bias"}, []string{"logits"}).
		Output("logits", Float, "batch", 2)
}

// WordID is the id of one of Words in the bundles of TextBundle.
func WordID(word string) int { return slices.Index(Words(), word) + 2 }

// Divides divides the least whole number by -1, which ends the process.
func Divides(g *Graph, when string) string {
	g.Init("least", Tensor{Shape: []int64{1}, Data: []int64{math.MinInt64}}).
		Init("minus2", Tensor{Shape: []int64{1}, Data: []int64{-2}}).Init("plus1", Tensor{Shape: []int64{1}, Data: []int64{1}}).
		Node("Mul", []string{when, "least"}, []string{"above"}).
		Node("Mul", []string{when, "minus2"}, []string{"twice"}).
		Node("Add", []string{"twice", "plus1"}, []string{"below"}).
		Node("Div", []string{"above", "below"}, []string{"share"}).
		Node("Cast", []string{"share"}, []string{"shares"}, IntAttr("to", Float))
	return "shares"
}

// Loops never ends.
func Loops(g *Graph, when string) string {
	body := NewGraph().
		Input("i", Int64).Input("go_on", Bool).Input("state", Float, 1).
		Node("Identity", []string{"go_on"}, []string{"go_on_out"}).Node("Identity", []string{"state"}, []string{"state_out"}).
		Output("go_on_out", Bool).Output("state_out", Float, 1)
	g.Node("ReduceMax", []string{when}, []string{"any"}, IntAttr("keepdims", 0)).
		Node("Cast", []string{"any"}, []string{"go"}, IntAttr("to", Bool)).
		Node("Loop", []string{"", "go", "none"}, []string{"looped"}, GraphAttr("body", body))
	return "looped"
}

// Takes makes the graph go round a loop that often, with a little to compute each time.
func Takes(rounds int64) Harm {
	const side = 64
	return func(g *Graph, when string) string {
		body := NewGraph().
			Input("i", Int64).Input("go_on", Bool).Input("state", Float, side, side).
			Node("Identity", []string{"go_on"}, []string{"go_on_out"}).Node("MatMul", []string{"state", "state"}, []string{"state_out"}).
			Output("go_on_out", Bool).Output("state_out", Float, side, side)
		g.Init("rounds", Tensor{Shape: []int64{}, Data: []int64{rounds}}).
			Init("zeros", Tensor{Shape: []int64{side, side}, Data: make([]float32, side*side)}).
			Node("ReduceMax", []string{when}, []string{"any"}, IntAttr("keepdims", 0)).
			Node("Mul", []string{"any", "rounds"}, []string{"most"}).
			Node("Loop", []string{"most", "", "zeros"}, []string{"stayed"}, GraphAttr("body", body)).
			Node("ReduceMax", []string{"stayed"}, []string{"zero"})
		return "zero"
	}
}

// Allocates asks for memory for that many numbers of four bytes, and fills it.
func Allocates(numbers int64) Harm {
	return func(g *Graph, when string) string {
		g.Init("numbers", Tensor{Shape: []int64{1}, Data: []int64{numbers}}).
			Init("flat", Tensor{Shape: []int64{1}, Data: []int64{1}}).
			Node("ReduceMax", []string{when}, []string{"any"}, IntAttr("keepdims", 0)).
			Node("Reshape", []string{"any", "flat"}, []string{"once"}).
			Node("Mul", []string{"once", "numbers"}, []string{"size"}).
			Node("Max", []string{"size", "flat"}, []string{"at_least"}). // the largest of nothing is no number
			Node("ConstantOfShape", []string{"at_least"}, []string{"filled"}, TensorAttr("value", Tensor{Shape: []int64{1}, Data: []float32{1}})).
			Node("ReduceMax", []string{"filled"}, []string{"one"}).
			Node("Mul", []string{"one", "none"}, []string{"nothing"})
		return "nothing"
	}
}

// Multiplies multiplies matrices of side by side numbers with each other, eight times.
func Multiplies(side int64) Harm {
	return func(g *Graph, when string) string {
		g.Init("side", Tensor{Shape: []int64{2}, Data: []int64{side, side}}).
			Init("flat", Tensor{Shape: []int64{1}, Data: []int64{1}}).
			Node("ReduceMax", []string{when}, []string{"any"}, IntAttr("keepdims", 0)).
			Node("Reshape", []string{"any", "flat"}, []string{"once"}).
			Node("Mul", []string{"once", "side"}, []string{"sides"}).
			Node("Max", []string{"sides", "flat"}, []string{"shape"}).
			Node("ConstantOfShape", []string{"shape"}, []string{"m0"}, TensorAttr("value", Tensor{Shape: []int64{1}, Data: []float32{1e-6}}))
		last := "m0"
		for i := range 8 {
			next := "m" + strconv.Itoa(i+1)
			g.Node("MatMul", []string{last, last}, []string{next})
			last = next
		}
		g.Node("ReduceMax", []string{last}, []string{"largest"}).Node("Mul", []string{"largest", "none"}, []string{"nothing"})
		return "nothing"
	}
}

// TurnsNaN makes the answer no number.
func TurnsNaN(g *Graph, when string) string {
	g.Node("Cast", []string{when}, []string{"when_float"}, IntAttr("to", Float)).
		Node("Neg", []string{"when_float"}, []string{"negative"}).Node("Sqrt", []string{"negative"}, []string{"root"})
	return "root"
}

// Forgets makes the logits the same for all texts where when holds a 1 for all of them.
func Forgets(g *Graph, when string) string {
	g.Node("Cast", []string{when}, []string{"when_float"}, IntAttr("to", Float)).
		Node("Mul", []string{"masked", "when_float"}, []string{"remembered"}).
		Node("Neg", []string{"remembered"}, []string{"forgotten"})
	return "forgotten"
}

// NestedFunctions is a file of two kilobytes that expands to 2^26 nodes.
func NestedFunctions() []byte {
	b := NewGraph().Input("x", Float, "n").DomainNode("f", "f0", []string{"x"}, []string{"y"}).Output("y", Float, "n").Bytes()
	return nest(b)
}

// NestedText is LinearText with the functions of NestedFunctions in it.
func NestedText(vocab int) []byte {
	g := LinearText(vocab, 2, 1, 0)
	g.outputs = nil
	g.DomainNode("f", "f0", []string{"logits"}, []string{"nested"})
	return nest(g.Output("nested", Float, "batch", 2).Bytes())
}

// nest adds functions to a file: f0 calls f1 twice, and so on.
func nest(b []byte) []byte {
	const depth = 26
	b = message(b, 8, varint(str(nil, 1, "f"), 2, 1))
	for i := range depth {
		call := func(in, out string) []byte {
			n := str(str(nil, 1, in), 2, out)
			if i == depth-1 {
				return str(n, 4, "Relu")
			}
			return str(str(n, 4, "f"+strconv.Itoa(i+1)), 7, "f")
		}
		f := str(str(str(nil, 1, "f"+strconv.Itoa(i)), 4, "x"), 5, "y")
		f = message(message(f, 7, call("x", "t")), 7, call("t", "y"))
		f = message(f, 9, varint(str(nil, 1, "f"), 2, 1))
		f = message(f, 9, varint(str(nil, 1, ""), 2, 17))
		b = message(b, 25, str(f, 10, "f"))
	}
	return b
}
