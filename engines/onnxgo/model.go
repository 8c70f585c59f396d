package onnxgo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// A graph is what onnx-go is given of an ONNX file: nothing of it is passed on that wasn't understood here.
type graph struct {
	opset   int64 // of ai.onnx
	nodes   []*node
	weights map[string]weight
}

// A node is one operator.
type node struct {
	op, domain      string
	inputs, outputs []string
	attrs           map[string]attr
}

// An attr is an attribute's value. The others are empty.
type attr struct {
	kind uint64 // ONNX's AttributeProto.AttributeType
	i    int64
	f    float32
	s    string
	ints []int64
}

// The kinds of attributes that the operators here have.
const (
	kindFloat  = 1
	kindInt    = 2
	kindString = 3
	kindInts   = 7
)

// A weight is a constant tensor, of floats or of whole numbers.
type weight struct {
	shape  []int64
	floats []float32
	ints   []int64
}

var errFile = errors.New("not an ONNX file that can be read here")

// fields calls each with the number, the type and the bytes of every field of a message; a varint has its value in v.
func fields(b []byte, each func(num protowire.Number, v uint64, b []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errFile, protowire.ParseError(n))
		}
		b = b[n:]
		var v uint64
		var body []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			body, n = protowire.ConsumeBytes(b)
		case protowire.Fixed32Type:
			var bits uint32
			bits, n = protowire.ConsumeFixed32(b)
			v = uint64(bits)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", errFile, protowire.ParseError(n))
		}
		b = b[n:]
		if err := each(num, v, body); err != nil {
			return err
		}
	}
	return nil
}

// parse reads the nodes and weights of an ONNX file. Inputs and outputs are what package onnxfile reads.
func parse(file []byte) (*graph, error) {
	g := &graph{weights: map[string]weight{}}
	err := fields(file, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 7:
			return g.parseGraph(b)
		case 8:
			return g.parseOpset(b)
		}
		return nil
	})
	return g, err
}

func (g *graph) parseOpset(b []byte) error {
	domain, version := "", int64(0)
	err := fields(b, func(num protowire.Number, v uint64, b []byte) error {
		switch num {
		case 1:
			domain = string(b)
		case 2:
			version = int64(v)
		}
		return nil
	})
	if domain == "" || domain == "ai.onnx" {
		g.opset = version
	}
	return err
}

func (g *graph) parseGraph(b []byte) error {
	return fields(b, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			n, err := parseNode(b)
			g.nodes = append(g.nodes, n)
			return err
		case 5:
			name, w, err := parseWeight(b)
			g.weights[name] = w
			return err
		case 15:
			return errors.New("sparse weights aren't supported")
		}
		return nil
	})
}

func parseNode(b []byte) (*node, error) {
	n := &node{attrs: map[string]attr{}}
	err := fields(b, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			n.inputs = append(n.inputs, string(b))
		case 2:
			n.outputs = append(n.outputs, string(b))
		case 4:
			n.op = string(b)
		case 5:
			name, a, err := parseAttr(b)
			n.attrs[name] = a
			return err
		case 7:
			n.domain = string(b)
		}
		return nil
	})
	return n, err
}

func parseAttr(b []byte) (name string, a attr, err error) {
	err = fields(b, func(num protowire.Number, v uint64, b []byte) error {
		switch num {
		case 1:
			name = string(b)
		case 2:
			a.f = math.Float32frombits(uint32(v))
		case 3:
			a.i = int64(v)
		case 4:
			a.s = string(b)
		case 8:
			var err error
			a.ints, err = appendVarints(a.ints, v, b)
			return err
		case 20:
			a.kind = v
		}
		return nil
	})
	return name, a, err
}

// appendVarints adds one number, or many where they are packed.
func appendVarints(to []int64, v uint64, packed []byte) ([]int64, error) {
	if packed == nil {
		return append(to, int64(v)), nil
	}
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return nil, fmt.Errorf("%w: %w", errFile, protowire.ParseError(n))
		}
		to, packed = append(to, int64(v)), packed[n:]
	}
	return to, nil
}

// TensorProto.DataType.
const (
	typeFloat = 1
	typeInt64 = 7
)

func parseWeight(b []byte) (name string, w weight, err error) {
	w.shape = []int64{}
	var typ uint64
	var raw []byte
	var external bool
	err = fields(b, func(num protowire.Number, v uint64, b []byte) (err error) {
		switch num {
		case 1:
			w.shape, err = appendVarints(w.shape, v, b)
		case 2:
			typ = v
		case 3:
			err = errors.New("a weight in segments isn't supported")
		case 4:
			if b == nil {
				w.floats = append(w.floats, math.Float32frombits(uint32(v)))
			} else {
				w.floats = append(w.floats, rawFloats(b)...)
			}
		case 7:
			w.ints, err = appendVarints(w.ints, v, b)
		case 8:
			name = string(b)
		case 9:
			raw = b
		case 13, 14:
			external = external || num == 13 || v != 0
		}
		return err
	})
	switch {
	case err != nil:
		return name, w, err
	case external:
		return name, w, fmt.Errorf("weight %s lies in a side file, which isn't supported: put it into the .onnx file", name)
	case typ == typeFloat && raw != nil:
		w.floats = rawFloats(raw)
	case typ == typeInt64 && raw != nil:
		w.ints = rawInts(raw)
	case typ != typeFloat && typ != typeInt64:
		return name, w, fmt.Errorf("weight %s has elements of type %d: only float (1), and int64 (7) for shapes, are supported", name, typ)
	}
	n, err := elements(w.shape)
	if err != nil || n != max(len(w.floats), len(w.ints)) || len(w.floats) > 0 && len(w.ints) > 0 || len(raw)%4 != 0 {
		return name, w, fmt.Errorf("%w: weight %s of shape %v has %d elements", errFile, name, w.shape, max(len(w.floats), len(w.ints)))
	}
	return name, w, nil
}

func rawFloats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

func rawInts(b []byte) []int64 {
	out := make([]int64, len(b)/8)
	for i := range out {
		out[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return out
}
