package onnxfile

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	maxKept   = 64 << 20 // bytes of nodes and names that are kept to be looked through
	maxValues = 4096     // inputs or outputs, and elements of a constant that are looked at
	maxTrail  = 64       // nodes between a value and where it comes from
)

// A graph is what is kept of a graph or a function to be looked through once all of it is read: weights come after what uses them.
type graph struct {
	outer  *graph // nil for the main graph and for functions
	inits  map[string]*constant
	inputs map[string]bool     // given from outside
	types  map[string]ElemType // as declared, of inputs and of values between nodes
	nodes  []*node
	made   map[string]*node // by output
}

// A node is one of a graph's. Of its attributes only those are kept that tell types, constants and tables.
type node struct {
	Op
	in, out []string
	axis    int64
	to      ElemType
	value   *constant
	hasAxis bool
	hasTo   bool
}

// A constant is a tensor that is part of the file.
type constant struct {
	elem   ElemType
	dims   []int64
	values []int64 // of a small tensor of integers that lies in the graph's file
	known  bool    // values are all there are
}

func newGraph(outer *graph) *graph {
	return &graph{outer: outer, inits: map[string]*constant{}, inputs: map[string]bool{}, types: map[string]ElemType{}, made: map[string]*node{}}
}

// keep counts what is kept. Once it is too much nothing more is, and nothing is said about the graph that hangs on it.
func (p *parser) keep(texts ...string) bool {
	p.kept += 64
	for _, s := range texts {
		p.kept += 32 + len(s)
	}
	return p.kept <= maxKept
}

func (p *parser) add(g *graph, n *node) {
	if !p.keep(slices.Concat(n.in, n.out)...) {
		return
	}
	g.nodes = append(g.nodes, n)
	for _, name := range n.out {
		g.made[name] = n
	}
}

// A source is where a value comes from: one of the two, or neither where that isn't known.
type source struct {
	at   *graph
	node *node
	init *constant
}

// find looks for a name where it is used, then in the graphs around.
func (g *graph) find(name string) source {
	if name == "" {
		return source{}
	}
	for ; g != nil; g = g.outer {
		n, c := g.made[name], g.inits[name]
		switch {
		case n != nil && c != nil, g.inputs[name] && (n != nil || c != nil && g.outer != nil):
			return source{} // two things of one name: the runtime would have to choose
		case n != nil:
			return source{at: g, node: n}
		case c != nil:
			return source{at: g, init: c}
		case g.inputs[name]:
			return source{}
		}
	}
	return source{}
}

// declared is the type that the file states for a name. The runtime refuses files that state a wrong one.
func (g *graph) declared(name string) ElemType {
	for ; g != nil; g = g.outer {
		if t := g.types[name]; t != 0 {
			return t
		}
		if g.made[name] != nil || g.inits[name] != nil || g.inputs[name] {
			return 0
		}
	}
	return 0
}

// tensor reads a tensor's name, type, dimensions, its values if they are few integers, and the location of its external data. It
// steps over other numbers.
func (p *parser) tensor(c *cursor) (name string, t *constant, err error) {
	t = &constant{}
	known, outside := true, false
	err = fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		switch {
		case num == 1:
			t.dims, err = c.integers(typ, t.dims, &known)
			return true, err
		case num == 2 && typ == protowire.VarintType:
			v, err := c.varint()
			t.elem = ElemType(min(v, 1<<20))
			return true, err
		case num == 5 || num == 7 || num == 11:
			t.values, err = c.integers(typ, t.values, &known)
			return true, err
		case num == 14 && typ == protowire.VarintType:
			v, err := c.varint()
			outside = v != 0
			return true, err
		case typ != protowire.BytesType:
			return false, nil
		case num == 8:
			name, err = c.text()
			return true, err
		case num == 9:
			return p.in(c, func(raw *cursor) error { return raw.numbers(t, &known) })
		case num == 13:
			outside = true
			return p.in(c, p.externalEntry)
		}
		return false, nil
	})
	for i, v := range t.values {
		t.values[i] = narrowed(v, t.elem)
	}
	t.known = known && !outside && slices.Contains(integers[:], t.elem) && int64(len(t.values)) == product(t.dims)
	return name, t, err
}

var integers = [...]ElemType{Uint8, Int8, Uint16, Int16, Int32, Int64, Uint32, Uint64}

// product is that of dimensions, or -1.
func product(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > maxValues {
			return -1
		}
		if n *= d; n > maxValues {
			return -1
		}
	}
	return n
}

// integers reads a field of integers, packed or one of many. all turns false where there are more than are kept.
func (c *cursor) integers(typ protowire.Type, have []int64, all *bool) ([]int64, error) {
	var sub *cursor
	switch typ {
	case protowire.VarintType:
		v, err := c.varint()
		return limited(append(have, int64(v)), all), err
	case protowire.BytesType:
		var err error
		if sub, err = c.message(); err != nil {
			return have, err
		}
	default:
		return have, c.skip(typ)
	}
	for sub.off < sub.end && *all {
		v, err := sub.varint()
		if err != nil {
			return have, err
		}
		have = limited(append(have, int64(v)), all)
	}
	return have, nil
}

func limited(v []int64, all *bool) []int64 {
	if len(v) > maxValues {
		*all = false
		return v[:0]
	}
	return v
}

// numbers reads the elements of raw data, if they are few. The type comes before them in every file that is written in order; where
// it doesn't, they aren't known.
func (c *cursor) numbers(t *constant, all *bool) error {
	size := sizes[t.elem]
	n := c.end - c.off
	if size == 0 || n > maxValues*size || n%size != 0 {
		*all = false
		return nil
	}
	for ; c.off < c.end; c.off += size {
		b, err := c.w.at(c.off, int(size))
		if err != nil {
			return err
		}
		if int64(len(b)) < size {
			return c.bad("a tensor is cut short")
		}
		t.values = append(t.values, integer(b, t.elem))
	}
	return nil
}

var sizes = map[ElemType]int64{Uint8: 1, Int8: 1, Uint16: 2, Int16: 2, Int32: 4, Uint32: 4, Int64: 8, Uint64: 8}

func integer(b []byte, t ElemType) int64 {
	var wide [8]byte
	copy(wide[:], b)
	return narrowed(int64(binary.LittleEndian.Uint64(wide[:])), t)
}

// narrowed is v as a number of type t has it.
func narrowed(v int64, t ElemType) int64 {
	switch t {
	case Uint8:
		return int64(uint8(v))
	case Int8:
		return int64(int8(v))
	case Uint16:
		return int64(uint16(v))
	case Int16:
		return int64(int16(v))
	case Int32:
		return int64(int32(v))
	case Uint32:
		return int64(uint32(v))
	}
	return v
}
