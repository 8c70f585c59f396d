package onnxfile

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits, far above what real graphs need, so that a hostile file costs little.
const (
	maxNodes    = 1 << 20
	maxDims     = 64
	maxDepth    = 32 // graphs within graphs, types within types
	maxExternal = 1 << 16
	maxOps      = 4096 // different operators
	maxInits    = 1 << 20
)

// A parser collects a File. depth counts the graphs and types around the message being read.
type parser struct {
	f         File
	inits     map[string]bool // names of the main graph's initializers
	inputs    []Value
	ops       map[Op]bool
	external  map[string]bool
	functions map[Op]*function
	overloads int      // functions read, those of one name included
	main      function // the calls of the main graph
	hasGraph  bool
	depth     int

	mainGraph *graph
	graphs    []*graph // those that run: the main graph, functions, and what lies in their nodes
	kept      int      // bytes, about
	// entry, if set, is given each entry of the description of external data.
	entry func(key, value string) error
}

// fields calls each with every field of c's message. each must consume the field's value or report that it didn't, for it to be skipped.
func fields(c *cursor, each func(num protowire.Number, typ protowire.Type) (used bool, err error)) error {
	for {
		num, typ, ok, err := c.next()
		if err != nil || !ok {
			return err
		}
		used, err := each(num, typ)
		if err != nil {
			return err
		}
		if !used {
			if err := c.skip(typ); err != nil {
				return err
			}
		}
	}
}

// in reads the sub-message at c with read.
func (p *parser) in(c *cursor, read func(*cursor) error) (bool, error) {
	sub, err := c.message()
	if err != nil {
		return true, err
	}
	p.depth++
	if p.depth > maxDepth*4 {
		return true, sub.bad("it is nested too deeply")
	}
	err = read(sub)
	p.depth--
	return true, err
}

func newParser() *parser {
	return &parser{inits: map[string]bool{}, ops: map[Op]bool{}, external: map[string]bool{}, functions: map[Op]*function{},
		mainGraph: newGraph(nil)}
}

func (p *parser) parse(c *cursor) (*File, error) {
	if err := fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) { return p.model(c, num, typ) }); err != nil {
		return nil, err
	}
	if !p.hasGraph {
		return nil, fmt.Errorf("%w: it holds no graph", ErrFormat)
	}
	for _, v := range p.inputs {
		if !p.inits[v.Name] {
			p.f.Inputs = append(p.f.Inputs, v)
		}
	}
	if err := p.checkCalls(); err != nil {
		return nil, err
	}
	p.f.Functions = slices.AppendSeq(p.f.Functions, maps.Keys(p.functions))
	p.findDivisions()
	p.findLookups()
	return &p.f, nil
}

func (p *parser) model(c *cursor, num protowire.Number, typ protowire.Type) (bool, error) {
	switch {
	case num == 1 && typ == protowire.VarintType:
		v, err := c.varint()
		p.f.IRVersion = int64(v)
		return true, err
	case num == 2 && typ == protowire.BytesType:
		s, err := c.text()
		p.f.Producer = s
		return true, err
	case num == 7 && typ == protowire.BytesType:
		p.hasGraph = true
		p.graphs = append(p.graphs, p.mainGraph)
		return p.in(c, func(g *cursor) error { return p.graph(g, p.mainGraph, &p.main) })
	case num == 8 && typ == protowire.BytesType:
		return p.in(c, p.opset)
	case num == 20 && typ == protowire.BytesType: // training: two graphs
		return p.in(c, func(t *cursor) error {
			return fields(t, func(num protowire.Number, typ protowire.Type) (bool, error) {
				if typ != protowire.BytesType || num > 2 {
					return false, nil
				}
				return p.in(t, func(g *cursor) error { return p.graph(g, newGraph(nil), &p.main) })
			})
		})
	case num == 25 && typ == protowire.BytesType:
		return p.in(c, p.function)
	}
	return false, nil
}

func (p *parser) opset(c *cursor) error {
	var o Opset
	err := fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		switch {
		case num == 1 && typ == protowire.BytesType:
			o.Domain, err = c.text()
			return true, err
		case num == 2 && typ == protowire.VarintType:
			v, err := c.varint()
			o.Version = int64(v)
			return true, err
		}
		return false, nil
	})
	if len(p.f.Opsets) == maxValues {
		return c.bad("it imports too many sets of operators")
	}
	p.f.Opsets = append(p.f.Opsets, o)
	return err
}

// graph reads a graph into g; calls collects the operators that its nodes name. Only the main graph's inputs and outputs are told.
func (p *parser) graph(c *cursor, g *graph, calls *function) error {
	main := g == p.mainGraph
	return fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		if typ != protowire.BytesType {
			return false, nil
		}
		switch num {
		case 1:
			return p.in(c, func(n *cursor) error { return p.node(n, g, calls) })
		case 5:
			return p.in(c, func(t *cursor) error { return p.initializer(t, g, true) })
		case 11, 12, 13:
			return p.in(c, func(v *cursor) error { return p.value(v, g, main, num) })
		case 15:
			return p.in(c, func(s *cursor) error { return p.sparse(s, g) })
		}
		return false, nil
	})
}

// initializer reads one of g's weights. Of one that isn't dense only the name is known.
func (p *parser) initializer(c *cursor, g *graph, dense bool) error {
	name, t, err := p.tensor(c)
	if err != nil || name == "" {
		return err
	}
	if !dense {
		t = &constant{elem: t.elem}
	}
	if p.keep(name) {
		p.kept += 8 * (len(t.dims) + len(t.values))
		if g.inits[name] != nil {
			t = &constant{} // twice
		}
		g.inits[name] = t
	}
	if g != p.mainGraph {
		return nil
	}
	if len(p.inits) == maxInits {
		return c.bad("it has too many initializers")
	}
	p.inits[name] = true
	return nil
}

// sparse reads a sparse tensor, as a weight of g unless that is nil.
func (p *parser) sparse(c *cursor, g *graph) error {
	return fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		if typ != protowire.BytesType || num > 2 {
			return false, nil
		}
		return p.in(c, func(t *cursor) error {
			if num == 1 && g != nil {
				return p.initializer(t, g, false)
			}
			_, _, err := p.tensor(t)
			return err
		})
	})
}

func (p *parser) externalEntry(c *cursor) error {
	var key, value string
	err := fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		switch {
		case num == 1 && typ == protowire.BytesType:
			key, err = c.text()
			return true, err
		case num == 2 && typ == protowire.BytesType:
			value, err = c.text()
			return true, err
		}
		return false, nil
	})
	if err == nil && p.entry != nil {
		err = p.entry(key, value)
	}
	if err != nil || key != "location" || p.external[value] {
		return err
	}
	if len(p.external) == maxExternal {
		return c.bad("it refers to too many side files")
	}
	p.external[value] = true
	p.f.External = append(p.f.External, value)
	return nil
}

func (p *parser) node(c *cursor, g *graph, calls *function) error {
	if p.f.Nodes++; p.f.Nodes > maxNodes {
		return c.bad("it has more than a million nodes")
	}
	n := &node{}
	err := fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		switch {
		case typ != protowire.BytesType:
			return false, nil
		case num == 1:
			return true, c.name(&n.in)
		case num == 2:
			return true, c.name(&n.out)
		case num == 4:
			n.Type, err = c.text()
			return true, err
		case num == 7:
			n.Domain, err = c.text()
			return true, err
		case num == 5:
			return p.in(c, func(a *cursor) error { return p.attribute(a, g, n, calls) })
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if n.Domain == "ai.onnx" {
		n.Domain = ""
	}
	p.add(g, n)
	calls.call(n.Op, 1)
	if p.ops[n.Op] {
		return nil
	}
	if len(p.ops) == maxOps {
		return c.bad("it uses too many different operators")
	}
	p.ops[n.Op] = true
	p.f.Ops = append(p.f.Ops, n.Op)
	return nil
}

// name adds a name to a node's inputs or outputs.
func (c *cursor) name(to *[]string) error {
	s, err := c.text()
	if len(*to) == maxInits {
		return c.bad("a node has too many inputs or outputs")
	}
	*to = append(*to, s)
	return err
}
