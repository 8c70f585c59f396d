package onnxfile

import "fmt"

// passing are operators of ai.onnx whose first output has the type of their first input.
var passing = names("Abs", "Add", "AveragePool", "BatchNormalization", "Ceil", "Clip", "Concat", "Conv", "ConvTranspose", "CumSum", "Div", "Dropout",
	"Einsum", "Elu", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool",
	"HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "MatMul", "Max",
	"MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "Pad", "Pow", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax",
	"ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "ScatterElements",
	"ScatterND", "Sigmoid", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unsqueeze")

// moving are operators of ai.onnx that give no number that isn't in their first input.
var moving = names("Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")

func names(of ...string) map[string]bool {
	m := make(map[string]bool, len(of))
	for _, n := range of {
		m[n] = true
	}
	return m
}

// standard says whether op is surely the operator of that name in ai.onnx: a function of the file that has its name leaves doubt.
func (p *parser) standard(op Op, in map[string]bool) bool {
	return op.Domain == "" && in[op.Type] && p.functions[op] == nil
}

// findDivisions notes the first integer division whose divisor might be 0 or -1: either ends the process that computes it, -1
// where the other number is the least of its type.
func (p *parser) findDivisions() {
	if p.kept > maxKept {
		p.f.Division = "it has too many nodes to look through"
		return
	}
	for _, g := range p.graphs {
		for _, n := range g.nodes {
			if p.divides(g, n) {
				p.f.Division = describe(n)
				return
			}
		}
	}
}

func describe(n *node) string {
	const most = 80
	name := ""
	if len(n.out) > 0 {
		name = n.out[0]
	}
	if len(name) > most {
		name = name[:most] + "..."
	}
	return fmt.Sprintf("the %s that gives %q", n.Type, name)
}

// divides says whether n divides integers by what might be 0 or -1. Where a type isn't known it might be an integer. A function of
// the file that has the operator's name changes nothing: the runtime uses its own operator.
func (p *parser) divides(g *graph, n *node) bool {
	if n.Domain != "" || n.Type != "Div" && n.Type != "Mod" || len(n.in) != 2 || len(n.out) != 1 {
		return false // one that isn't what it should be isn't loaded
	}
	for _, name := range []string{n.in[0], n.in[1], n.out[0]} {
		if p.floats(g, name) {
			return false
		}
	}
	values, known := p.constant(g, n.in[1])
	if !known {
		return true
	}
	for _, v := range values {
		if v == 0 || v == -1 {
			return true
		}
	}
	return false
}

var floating = map[ElemType]bool{Float: true, Float16: true, Double: true, BFloat16: true}

// floats says whether a value is known to be of floating-point numbers.
func (p *parser) floats(g *graph, name string) bool {
	for range maxTrail {
		if t := g.declared(name); t != 0 {
			return floating[t]
		}
		s := g.find(name)
		switch {
		case s.init != nil:
			return floating[s.init.elem]
		case s.node == nil:
			return false
		case s.node.Domain != "" || p.functions[s.node.Op] != nil:
			return false
		}
		n, first := s.node, len(s.node.out) > 0 && s.node.out[0] == name
		switch {
		case n.Type == "Cast":
			return floating[n.to]
		case n.value != nil && (n.Type == "Constant" || n.Type == "ConstantOfShape"):
			return floating[n.value.elem]
		case n.Type == "Where" && len(n.in) == 3:
			g, name = s.at, n.in[1]
		case len(n.in) > 0 && passing[n.Type] && (first || n.Type == "Split"):
			g, name = s.at, n.in[0]
		default:
			return false
		}
	}
	return false
}

// constant is the numbers that a value of integers may have, if the file alone says them.
func (p *parser) constant(g *graph, name string) (values []int64, known bool) {
	var casts []ElemType // from the outside in
	for range maxTrail {
		s := g.find(name)
		c := s.init
		switch {
		case c == nil && s.node == nil:
			return nil, false
		case c == nil && p.standard(s.node.Op, constants) && s.node.value != nil:
			c = s.node.value
		}
		if c != nil {
			return cast(c, casts)
		}
		n := s.node
		switch {
		case len(n.in) == 0:
			return nil, false
		case p.standard(n.Op, casting):
			casts = append(casts, n.to)
		case !p.standard(n.Op, moving):
			return nil, false
		}
		g, name = s.at, n.in[0]
	}
	return nil, false
}

var (
	constants = names("Constant", "ConstantOfShape")
	casting   = names("Cast")
)

func cast(c *constant, to []ElemType) ([]int64, bool) {
	values, known := c.values, c.known
	for i := len(to) - 1; i >= 0; i-- {
		known = known && sizes[to[i]] > 0
		next := make([]int64, len(values))
		for j, v := range values {
			next[j] = narrowed(v, to[i])
		}
		values = next
	}
	return values, known
}
