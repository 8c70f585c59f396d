// Package enginetest is the suite that every engine passes, and builds the small graphs that tests and benchmarks need.
package enginetest

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Element types, with ONNX's numbers.
const (
	Float  = 1
	Int32  = 6
	Int64  = 7
	String = 8
	Bool   = 9
	Double = 11
)

// A Graph is an ONNX graph under construction. Its methods return it, so that calls chain.
type Graph struct {
	nodes, inits, inputs, outputs, between [][]byte
	functions                              [][]byte
	weights                                []weight
	domains                                map[string]int64
}

// NewGraph returns an empty graph of operator set 17, with ONNX-ML's set 3.
func NewGraph() *Graph { return &Graph{domains: map[string]int64{"": 17, "ai.onnx.ml": 3}} }

// Opset has the graph speak another version of ai.onnx's operators.
func (g *Graph) Opset(version int64) *Graph {
	g.domains[""] = version
	return g
}

// Input declares an input. A dimension is an int, or a string that names an open one.
func (g *Graph) Input(name string, elem int, dims ...any) *Graph {
	g.inputs = append(g.inputs, valueInfo(name, tensorType(elem, dims)))
	return g
}

// Output declares an output that is a tensor.
func (g *Graph) Output(name string, elem int, dims ...any) *Graph {
	g.outputs = append(g.outputs, valueInfo(name, tensorType(elem, dims)))
	return g
}

// Between declares a value between nodes, which needs no declaration.
func (g *Graph) Between(name string, elem int, dims ...any) *Graph {
	g.between = append(g.between, valueInfo(name, tensorType(elem, dims)))
	return g
}

// MapsOutput declares an output that is a sequence of maps from key to float, as ZipMap gives.
func (g *Graph) MapsOutput(name string, key int) *Graph {
	m := varint(nil, 1, uint64(key))
	m = message(m, 2, tensorType(Float, nil))
	g.outputs = append(g.outputs, valueInfo(name, message(nil, 4, message(nil, 1, message(nil, 5, m)))))
	return g
}

// Init adds a weight.
func (g *Graph) Init(name string, t Tensor) *Graph {
	g.inits = append(g.inits, t.encode(name))
	return g
}

// Node adds a node of ai.onnx.
func (g *Graph) Node(op string, inputs, outputs []string, attrs ...Attr) *Graph {
	return g.DomainNode("", op, inputs, outputs, attrs...)
}

// DomainNode adds a node of another domain.
func (g *Graph) DomainNode(domain, op string, inputs, outputs []string, attrs ...Attr) *Graph {
	var b []byte
	for _, s := range inputs {
		b = str(b, 1, s)
	}
	for _, s := range outputs {
		b = str(b, 2, s)
	}
	b = str(b, 4, op)
	for _, a := range attrs {
		b = message(b, 5, a.b)
	}
	if domain != "" {
		b = str(b, 7, domain)
	}
	g.nodes = append(g.nodes, b)
	return g
}

func (g *Graph) graphProto() []byte {
	var b []byte
	for _, n := range g.nodes {
		b = message(b, 1, n)
	}
	b = str(b, 2, "graph")
	for _, x := range g.inits {
		b = message(b, 5, x)
	}
	for _, x := range g.inputs {
		b = message(b, 11, x)
	}
	for _, x := range g.outputs {
		b = message(b, 12, x)
	}
	for _, x := range g.between {
		b = message(b, 13, x)
	}
	return b
}

// Bytes is the ONNX file.
func (g *Graph) Bytes() []byte {
	b := message(g.modelHead(), 7, g.graphProto())
	for _, f := range g.functions {
		b = message(b, 25, f)
	}
	return b
}

// Function defines a function of the file that gives out of in with body's nodes. attrs are the names of its attributes.
func (g *Graph) Function(domain, name string, in, out, attrs []string, body *Graph) *Graph {
	b := str(nil, 1, name)
	for i, names := range [][]string{in, out, attrs} {
		for _, s := range names {
			b = str(b, protowire.Number(4+i), s)
		}
	}
	for _, n := range body.nodes {
		b = message(b, 7, n)
	}
	b = message(b, 9, varint(str(nil, 1, ""), 2, uint64(g.domains[""])))
	g.functions = append(g.functions, str(b, 10, domain))
	return g
}

// modelHead is what comes before the graph.
func (g *Graph) modelHead() []byte {
	b := varint(nil, 1, 8)
	b = str(b, 2, "enginetest")
	for _, domain := range []string{"", "ai.onnx.ml"} {
		o := str(nil, 1, domain)
		o = varint(o, 2, uint64(g.domains[domain]))
		b = message(b, 8, o)
	}
	return b
}

// WriteFile writes the ONNX file to path.
func (g *Graph) WriteFile(path string) error { return os.WriteFile(path, g.Bytes(), 0o600) }

// An Attr is an attribute of a node.
type Attr struct{ b []byte }

func attr(name string, kind uint64) []byte { return varint(str(nil, 1, name), 20, kind) }

// IntAttr is an attribute that holds a whole number.
func IntAttr(name string, v int64) Attr {
	return Attr{varint(attr(name, 2), 3, uint64(v))}
}

// FloatAttr is an attribute that holds a number.
func FloatAttr(name string, v float32) Attr {
	b := protowire.AppendTag(attr(name, 1), 2, protowire.Fixed32Type)
	return Attr{protowire.AppendFixed32(b, math.Float32bits(v))}
}

// StringAttr is an attribute that holds a string.
func StringAttr(name, v string) Attr { return Attr{str(attr(name, 3), 4, v)} }

// StringsAttr is an attribute that holds strings.
func StringsAttr(name string, v ...string) Attr {
	b := attr(name, 8)
	for _, s := range v {
		b = str(b, 9, s)
	}
	return Attr{b}
}

// IntsAttr is an attribute that holds whole numbers.
func IntsAttr(name string, v ...int64) Attr {
	b := attr(name, 7)
	for _, n := range v {
		b = varint(b, 8, uint64(n))
	}
	return Attr{b}
}

// FloatsAttr is an attribute that holds numbers.
func FloatsAttr(name string, v ...float32) Attr {
	b := attr(name, 6)
	for _, f := range v {
		b = protowire.AppendTag(b, 7, protowire.Fixed32Type)
		b = protowire.AppendFixed32(b, math.Float32bits(f))
	}
	return Attr{b}
}

// TensorAttr is an attribute that holds a tensor.
func TensorAttr(name string, t Tensor) Attr { return Attr{message(attr(name, 4), 5, t.encode(""))} }

// GraphAttr is an attribute that holds a graph, such as a Loop's body.
func GraphAttr(name string, g *Graph) Attr { return Attr{message(attr(name, 5), 6, g.graphProto())} }

// Both is an attribute with the fields of both, those of b last.
func (a Attr) Both(b Attr) Attr { return Attr{slices.Concat(a.b, b.b)} }

// Refers has an attribute refer to one of its function's.
func (a Attr) Refers(to string) Attr { return Attr{str(slices.Clone(a.b), 21, to)} }

// A Tensor is a weight or a constant: of Data's type, or kept in a side file where External names one.
type Tensor struct {
	Shape    []int64
	Data     any // []float32, []int64, []bool or []string
	External string
}

// Raw is t's data as it lies in an external file.
func (t Tensor) Raw() []byte {
	var b []byte
	switch d := t.Data.(type) {
	case []float32:
		for _, f := range d {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
	case []int64:
		for _, n := range d {
			b = binary.LittleEndian.AppendUint64(b, uint64(n))
		}
	case []bool:
		for _, v := range d {
			b = append(b, map[bool]byte{true: 1}[v])
		}
	default:
		panic(fmt.Sprintf("enginetest: a tensor of %T", t.Data))
	}
	return b
}

func (t Tensor) encode(name string) []byte {
	var b []byte
	for _, d := range t.Shape {
		b = varint(b, 1, uint64(d))
	}
	switch t.Data.(type) {
	case []float32:
		b = varint(b, 2, Float)
	case []int64:
		b = varint(b, 2, Int64)
	case []bool:
		b = varint(b, 2, Bool)
	case []string:
		b = varint(b, 2, String)
	}
	if name != "" {
		b = str(b, 8, name)
	}
	if s, ok := t.Data.([]string); ok {
		for _, x := range s {
			b = str(b, 6, x)
		}
		return b
	}
	if t.External == "" {
		return message(b, 9, t.Raw())
	}
	b = message(b, 13, str(str(nil, 1, "location"), 2, t.External))
	return varint(b, 14, 1)
}

func valueInfo(name string, typ []byte) []byte { return message(str(nil, 1, name), 2, typ) }

func tensorType(elem int, dims []any) []byte {
	var shape []byte
	for _, d := range dims {
		switch d := d.(type) {
		case int:
			shape = message(shape, 1, varint(nil, 1, uint64(d)))
		case string:
			shape = message(shape, 1, str(nil, 2, d))
		}
	}
	t := varint(nil, 1, uint64(elem))
	return message(nil, 1, message(t, 2, shape))
}

func varint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func message(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

func str(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}
