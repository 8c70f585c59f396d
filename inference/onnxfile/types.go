package onnxfile

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// value reads what g declares of an input (num 11), an output (12) or a value between nodes (13). tell says that g is the main graph,
// whose inputs and outputs are told.
func (p *parser) value(c *cursor, g *graph, tell bool, num protowire.Number) error {
	var v Value
	err := fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		switch {
		case num == 1 && typ == protowire.BytesType:
			v.Name, err = c.text()
			return true, err
		case num == 2 && typ == protowire.BytesType:
			return p.in(c, func(t *cursor) error { return p.typ(t, &v) })
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if p.keep(v.Name) {
		if v.Kind == Tensor && v.Elem != 0 {
			g.types[v.Name] = v.Elem
		}
		if num == 11 {
			g.inputs[v.Name] = true
		}
	}
	list := &p.inputs
	switch {
	case !tell || num == 13:
		return nil
	case num == 12:
		list = &p.f.Outputs
	}
	if len(*list) == maxValues {
		return c.bad("it has too many inputs or outputs")
	}
	*list = append(*list, v)
	return nil
}

// typ reads a type: a tensor's, a map's, or a sequence's.
func (p *parser) typ(c *cursor, v *Value) error {
	return fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		if typ != protowire.BytesType {
			return false, nil
		}
		switch num {
		case 1:
			v.Kind = Tensor
			return p.in(c, func(t *cursor) error { return p.tensorType(t, v) })
		case 4:
			return p.in(c, func(s *cursor) error { return p.sequenceType(s, v) })
		case 5:
			v.Kind = Map
			return p.in(c, func(m *cursor) error { return p.mapType(m, v) })
		case 7, 8, 9:
			v.Kind = Other
		}
		return false, nil
	})
}

func (p *parser) sequenceType(c *cursor, v *Value) error {
	var elem Value
	err := fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		if num != 1 || typ != protowire.BytesType {
			return false, nil
		}
		return p.in(c, func(t *cursor) error { return p.typ(t, &elem) })
	})
	v.Kind = Sequence
	if elem.Kind == Map {
		v.Kind, v.Elem, v.Key = SequenceOfMaps, elem.Elem, elem.Key
	}
	return err
}

func (p *parser) mapType(c *cursor, v *Value) error {
	var elem Value
	err := fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		switch {
		case num == 1 && typ == protowire.VarintType:
			k, err := c.varint()
			v.Key = ElemType(min(k, math.MaxInt32))
			return true, err
		case num == 2 && typ == protowire.BytesType:
			return p.in(c, func(t *cursor) error { return p.typ(t, &elem) })
		}
		return false, nil
	})
	v.Elem = elem.Elem
	return err
}

func (p *parser) tensorType(c *cursor, v *Value) error {
	return fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		switch {
		case num == 1 && typ == protowire.VarintType:
			e, err := c.varint()
			v.Elem = ElemType(min(e, math.MaxInt32))
			return true, err
		case num == 2 && typ == protowire.BytesType:
			v.Shape = []int64{}
			return p.in(c, func(s *cursor) error { return p.shape(s, v) })
		}
		return false, nil
	})
}

func (p *parser) shape(c *cursor, v *Value) error {
	return fields(c, func(num protowire.Number, typ protowire.Type) (bool, error) {
		if num != 1 || typ != protowire.BytesType {
			return false, nil
		}
		if len(v.Shape) == maxDims {
			return true, c.bad("a shape has too many dimensions")
		}
		v.Shape = append(v.Shape, -1)
		last := &v.Shape[len(v.Shape)-1]
		return p.in(c, func(d *cursor) error {
			return fields(d, func(num protowire.Number, typ protowire.Type) (bool, error) {
				if num != 1 || typ != protowire.VarintType {
					return false, nil
				}
				n, err := d.varint()
				if int64(n) >= 0 {
					*last = int64(n)
				}
				return true, err
			})
		})
	})
}
