package onnxfile

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// An attribute is what is read of a node's attribute.
type attribute struct {
	name   string
	number *int64
	many   []int64
	all    bool // many are all there are
	floats bool
	tensor *constant
	body   *graph
	// vague says that the file doesn't tell the value by itself: the attribute refers to one of its function's, or a field that
	// stands once is there twice, of which a reader of protobuf takes the last, or both made one.
	vague bool
	seen  []protowire.Number
}

// attribute looks for tensors and graphs in a node's attribute, and for what says types and constants.
func (p *parser) attribute(c *cursor, g *graph, n *node, calls *function) error {
	a := attribute{all: true}
	err := fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		a.sees(num)
		switch {
		case num == 3 && typ == protowire.VarintType:
			v, err := c.varint()
			i := int64(v)
			a.number = &i
			return true, err
		case num == 8:
			a.many, err = c.integers(typ, a.many, &a.all)
			return true, err
		case num == 2 || num == 7:
			a.floats = true
			return false, nil
		case typ != protowire.BytesType:
			return false, nil
		}
		return p.part(c, g, &a, num, calls)
	})
	if err == nil {
		n.take(&a)
	}
	return err
}

// part reads a field of a that has a length.
func (p *parser) part(c *cursor, g *graph, a *attribute, num protowire.Number, calls *function) (used bool, err error) {
	switch num {
	case 1:
		a.name, err = c.text()
		return true, err
	case 21:
		of, err := c.text()
		a.vague = a.vague || of != ""
		return true, err
	case 5:
		return p.in(c, func(t *cursor) (err error) { _, a.tensor, err = p.tensor(t); return err })
	case 10:
		return p.in(c, func(t *cursor) error { _, _, err := p.tensor(t); return err })
	case 6, 11:
		sub := a.body
		if sub == nil || num == 11 {
			sub = newGraph(g)
			p.graphs = append(p.graphs, sub)
		}
		if num == 6 {
			a.body = sub // a second one adds to it
		}
		return p.in(c, func(b *cursor) error { return p.graph(b, sub, calls) })
	case 22, 23:
		return p.in(c, func(s *cursor) error { return p.sparse(s, nil) })
	}
	return false, nil
}

// sees notes which of the fields that stand once, and say what is looked for, are there.
func (a *attribute) sees(num protowire.Number) {
	if !slices.Contains([]protowire.Number{1, 3, 5, 6, 20}, num) {
		return
	}
	a.vague = a.vague || slices.Contains(a.seen, num)
	if len(a.seen) < 8 {
		a.seen = append(a.seen, num)
	}
}

// take keeps what a says of n. What the file doesn't tell, or tells twice, isn't known.
func (n *node) take(a *attribute) {
	switch a.name {
	case "axis":
		n.axis = -1
		if !a.vague && !n.hasAxis && a.number != nil {
			n.axis = *a.number
		}
		n.hasAxis = true
	case "to":
		n.to = 0
		if !a.vague && !n.hasTo && a.number != nil {
			n.to = ElemType(min(max(*a.number, 0), 1<<20))
		}
		n.hasTo = true
	case "value", "value_int", "value_ints", "value_float", "value_floats":
		if a.vague || n.value != nil {
			n.value = &constant{}
			return
		}
		n.value = a.constant()
	}
}

// constant is what an attribute of a Constant says; one that isn't known where it says something else.
func (a *attribute) constant() *constant {
	switch {
	case a.name == "value" && a.tensor != nil:
		return a.tensor
	case a.name == "value_int" && a.number != nil:
		return &constant{elem: Int64, values: []int64{*a.number}, known: true}
	case a.name == "value_ints":
		return &constant{elem: Int64, values: a.many, known: a.all}
	case a.floats && (a.name == "value_float" || a.name == "value_floats"):
		return &constant{elem: Float}
	}
	return &constant{}
}
