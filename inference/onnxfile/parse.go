package onnxfile

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits, far above what real graphs need, so that a hostile file costs little.
const (
	maxNodes    = 1 << 20
	maxValues   = 4096 // inputs or outputs
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

func parse(c *cursor) (*File, error) {
	p := &parser{inits: map[string]bool{}, ops: map[Op]bool{}, external: map[string]bool{}, functions: map[Op]*function{}}
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
	p.f.Functions = len(p.functions)
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
		return p.in(c, func(g *cursor) error { return p.graph(g, true, &p.main) })
	case num == 8 && typ == protowire.BytesType:
		return p.in(c, p.opset)
	case num == 20 && typ == protowire.BytesType: // training: two graphs
		return p.in(c, func(t *cursor) error {
			return fields(t, func(num protowire.Number, typ protowire.Type) (bool, error) {
				if typ != protowire.BytesType || num > 2 {
					return false, nil
				}
				return p.in(t, func(g *cursor) error { return p.graph(g, false, &p.main) })
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

// graph reads a graph; calls collects the operators that its nodes name. Only the main graph's inputs and outputs are kept.
func (p *parser) graph(c *cursor, main bool, calls *function) error {
	return fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		if typ != protowire.BytesType {
			return false, nil
		}
		switch num {
		case 1:
			return p.in(c, func(n *cursor) error { return p.node(n, calls) })
		case 5:
			return p.in(c, func(t *cursor) error { return p.initializer(t, main) })
		case 11, 12:
			if !main {
				return false, nil
			}
			return p.in(c, func(v *cursor) error { return p.value(v, num == 12) })
		case 15:
			return p.in(c, func(s *cursor) error { return p.sparse(s, main) })
		}
		return false, nil
	})
}

func (p *parser) initializer(c *cursor, main bool) error {
	name, err := p.tensor(c)
	if err != nil || !main || name == "" {
		return err
	}
	if len(p.inits) == maxInits {
		return c.bad("it has too many initializers")
	}
	p.inits[name] = true
	return nil
}

func (p *parser) sparse(c *cursor, main bool) error {
	return fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		if typ != protowire.BytesType || num > 2 {
			return false, nil
		}
		return p.in(c, func(t *cursor) error { return p.initializer(t, main && num == 1) })
	})
}

// tensor reads a tensor's name and the location of its external data, and steps over its numbers.
func (p *parser) tensor(c *cursor) (name string, err error) {
	err = fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		switch {
		case typ != protowire.BytesType:
			return false, nil
		case num == 8:
			name, err = c.text()
			return true, err
		case num == 13:
			return p.in(c, p.externalEntry)
		}
		return false, nil
	})
	return name, err
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

func (p *parser) node(c *cursor, calls *function) error {
	if p.f.Nodes++; p.f.Nodes > maxNodes {
		return c.bad("it has more than a million nodes")
	}
	var op Op
	err := fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		switch {
		case typ != protowire.BytesType:
			return false, nil
		case num == 4:
			op.Type, err = c.text()
			return true, err
		case num == 7:
			op.Domain, err = c.text()
			return true, err
		case num == 5:
			return p.in(c, func(a *cursor) error { return p.attribute(a, calls) })
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if op.Domain == "ai.onnx" {
		op.Domain = ""
	}
	calls.call(op, 1)
	if p.ops[op] {
		return nil
	}
	if len(p.ops) == maxOps {
		return c.bad("it uses too many different operators")
	}
	p.ops[op] = true
	p.f.Ops = append(p.f.Ops, op)
	return nil
}

// attribute looks for tensors and graphs in a node's attribute.
func (p *parser) attribute(c *cursor, calls *function) error {
	return fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		if typ != protowire.BytesType {
			return false, nil
		}
		switch num {
		case 5, 10:
			return p.in(c, func(t *cursor) error { _, err := p.tensor(t); return err })
		case 6, 11:
			return p.in(c, func(g *cursor) error { return p.graph(g, false, calls) })
		case 22, 23:
			return p.in(c, func(s *cursor) error { return p.sparse(s, false) })
		}
		return false, nil
	})
}
