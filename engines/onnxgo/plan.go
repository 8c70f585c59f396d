package onnxgo

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// maxElements bounds every tensor, so that a small file can't ask for much: graphs for this engine are small.
const maxElements = 1 << 26

// The operator sets whose meaning the rules know.
const (
	minOpset = 7
	maxOpset = 22
)

func elements(shape []int64) (int, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d > maxElements || n*d > maxElements {
			return 0, fmt.Errorf("a tensor of shape %v is too large: %d elements are the limit", shape, maxElements)
		}
		n *= d
	}
	return int(n), nil
}

// A plan is a graph made ready for inputs of certain shapes: each operator checked, spelled out, and its output's shape known.
type plan struct {
	g       *graph
	nodes   []*node
	weights map[string]weight // those that the nodes use
	shapes  map[string][]int64
}

// newPlan checks the graph for inputs of these shapes. Its error names the operator that isn't known here, or whose form isn't.
func newPlan(g *graph, inputs map[string][]int64, outputs []string) (*plan, error) {
	if g.opset < minOpset || g.opset > maxOpset {
		return nil, fmt.Errorf("operator set %d: %d to %d are supported", g.opset, minOpset, maxOpset)
	}
	p := &plan{g: g, weights: map[string]weight{}, shapes: maps.Clone(inputs)}
	for name, w := range g.weights {
		if _, twice := p.shapes[name]; twice {
			return nil, fmt.Errorf("%s is both an input and a weight", name)
		}
		p.shapes[name] = w.shape
	}
	for i, n := range g.nodes {
		if err := p.add(n); err != nil {
			return nil, fmt.Errorf("operator %s (node %d of %d): %w", n.op, i+1, len(g.nodes), err)
		}
	}
	for _, name := range outputs {
		if p.shapes[name] == nil {
			return nil, fmt.Errorf("output %s comes from no operator", name)
		}
		// What onnx-go gives back is what nobody else reads.
		p.use(name)
		p.nodes = append(p.nodes, &node{op: "Identity", inputs: []string{name}, outputs: []string{outputName(name)}})
	}
	return p, nil
}

// outputName is what an output is called in the file that onnx-go reads. No name of the graph's own has a NUL in it.
func outputName(name string) string { return name + "\x00out" }

// encode is the file for onnx-go.
func (p *plan) encode(inputs, outputs []string) []byte {
	named := make([]string, len(outputs))
	for i, name := range outputs {
		named[i] = outputName(name)
	}
	return encode(p.nodes, p.weights, inputs, named)
}

// add checks a node and adds what onnx-go shall compute for it.
func (p *plan) add(n *node) error {
	rule, ok := rules()[n.op]
	if n.domain != "" && n.domain != "ai.onnx" {
		return fmt.Errorf("domain %s isn't supported", n.domain)
	}
	if !ok {
		return fmt.Errorf("it isn't supported; what is: %v", Operators())
	}
	if err := p.checkNames(n); err != nil {
		return err
	}
	c := &call{plan: p, node: &node{op: n.op, inputs: slices.Clone(n.inputs), outputs: n.outputs, attrs: maps.Clone(n.attrs)}, given: n.attrs}
	for _, name := range n.inputs {
		c.in = append(c.in, p.shapes[name])
	}
	if len(n.inputs) < rule.least || len(n.inputs) > rule.most {
		return fmt.Errorf("%d inputs, %d to %d are supported", len(n.inputs), rule.least, rule.most)
	}
	shape, err := rule.check(c)
	if err != nil {
		return err
	}
	for name := range c.given {
		if !c.known[name] {
			return fmt.Errorf("attribute %s isn't supported", name)
		}
	}
	if n, err := elements(shape); err != nil {
		return err
	} else if n == 0 {
		return fmt.Errorf("its output is empty (shape %v)", shape)
	}
	for _, name := range c.inputs {
		p.use(name)
	}
	p.shapes[n.outputs[0]] = shape
	p.nodes = append(p.nodes, c.node)
	return nil
}

// checkNames refuses what onnx-go gets wrong, whatever the operator.
func (p *plan) checkNames(n *node) error {
	if len(n.outputs) != 1 || n.outputs[0] == "" {
		return fmt.Errorf("%d outputs, one is supported", len(n.outputs))
	}
	if p.shapes[n.outputs[0]] != nil {
		return fmt.Errorf("%s is given twice", n.outputs[0])
	}
	for i, name := range n.inputs {
		if name == "" {
			return fmt.Errorf("input %d is left out, which isn't supported", i)
		}
		if p.shapes[name] == nil {
			return fmt.Errorf("input %s comes from no earlier operator", name)
		}
		if slices.Contains(n.inputs[:i], name) {
			return fmt.Errorf("%s is read twice: onnx-go would read it once", name)
		}
	}
	return nil
}

// use keeps a weight for the file.
func (p *plan) use(name string) {
	if w, ok := p.g.weights[name]; ok {
		p.weights[name] = w
	}
}

// A call is a node while it is checked. Rules change its node into a form that onnx-go computes rightly.
type call struct {
	*node
	plan  *plan
	given map[string]attr
	known map[string]bool // the attributes that were asked for
	in    [][]int64       // shapes of the inputs
}

// attr is an attribute of the kind, and whether it is there.
func (c *call) attr(name string, kind uint64) (attr, bool, error) {
	if c.known == nil {
		c.known = map[string]bool{}
	}
	c.known[name] = true
	a, ok := c.given[name]
	if ok && a.kind != kind {
		return a, ok, fmt.Errorf("attribute %s is of kind %d, not %d", name, a.kind, kind)
	}
	return a, ok, nil
}

// whole is a whole number among the attributes. It is taken out of the node.
func (c *call) whole(name string, usual int64) (int64, error) {
	a, ok, err := c.attr(name, kindInt)
	delete(c.attrs, name)
	if !ok || err != nil {
		return usual, err
	}
	return a.i, nil
}

// number is a number among the attributes.
func (c *call) number(name string) error {
	a, ok, err := c.attr(name, kindFloat)
	if ok && err == nil && (math.IsNaN(float64(a.f)) || math.IsInf(float64(a.f), 0)) {
		return fmt.Errorf("attribute %s is %v", name, a.f)
	}
	return err
}

// list is n whole numbers among the attributes, none below least. They are spelled out in the node.
func (c *call) list(name string, n int, usual, least int64) ([]int64, error) {
	a, ok, err := c.attr(name, kindInts)
	if err != nil {
		return nil, err
	}
	if !ok {
		a = attr{kind: kindInts, ints: slices.Repeat([]int64{usual}, n)}
	}
	for _, v := range a.ints {
		if v < least || v > 1<<16 {
			return nil, fmt.Errorf("attribute %s is %v", name, a.ints)
		}
	}
	if len(a.ints) != n {
		return nil, fmt.Errorf("attribute %s is %v: %d numbers are supported", name, a.ints, n)
	}
	c.set(name, a)
	return a.ints, nil
}

func (c *call) set(name string, a attr) {
	if c.attrs == nil {
		c.attrs = map[string]attr{}
	}
	c.attrs[name] = a
}

// must refuses a whole-number attribute that isn't what it usually is.
func (c *call) must(name string, usual int64) error {
	v, err := c.whole(name, usual)
	if err == nil && v != usual {
		err = fmt.Errorf("%s is %d, only %d is supported", name, v, usual)
	}
	return err
}

// replace has the node read a weight of its own in place of input i.
func (c *call) replace(i int, w weight) {
	name := c.outputs[0] + "\x00in" + strconv.Itoa(i)
	c.inputs[i] = name
	c.plan.weights[name] = w
}

// constant is input i, if it is a weight of floats.
func (c *call) constant(i int) (weight, bool) {
	w, ok := c.plan.g.weights[c.inputs[i]]
	return w, ok && w.ints == nil
}
