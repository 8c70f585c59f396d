package onnxgo

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// encode writes the graph as the ONNX file that onnx-go reads: inputs first, whose numbers are then those that SetInput takes; no
// declared shapes, which onnx-go reads wrongly where a dimension is open; weights that some node uses.
func encode(nodes []*node, weights map[string]weight, inputs, outputs []string) []byte {
	var g []byte
	for _, n := range nodes {
		g = message(g, 1, n.encode())
	}
	g = text(g, 2, "graph")
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		g = message(g, 5, weights[name].encode(name))
	}
	for _, name := range inputs {
		g = message(g, 11, text(nil, 1, name))
	}
	for _, name := range outputs {
		g = message(g, 12, text(nil, 1, name))
	}
	b := varint(nil, 1, 4)
	b = message(b, 7, g)
	return message(b, 8, varint(text(nil, 1, ""), 2, 9))
}

func (n *node) encode() []byte {
	var b []byte
	for _, s := range n.inputs {
		b = text(b, 1, s)
	}
	for _, s := range n.outputs {
		b = text(b, 2, s)
	}
	b = text(b, 4, n.op)
	for _, name := range slices.Sorted(maps.Keys(n.attrs)) {
		b = message(b, 5, n.attrs[name].encode(name))
	}
	return b
}

func (a attr) encode(name string) []byte {
	b := text(nil, 1, name)
	switch a.kind {
	case kindFloat:
		b = protowire.AppendTag(b, 2, protowire.Fixed32Type)
		b = protowire.AppendFixed32(b, math.Float32bits(a.f))
	case kindInt:
		b = varint(b, 3, uint64(a.i))
	case kindString:
		b = text(b, 4, a.s)
	case kindInts:
		for _, v := range a.ints {
			b = varint(b, 8, uint64(v))
		}
	}
	return varint(b, 20, a.kind)
}

func (w weight) encode(name string) []byte {
	var b, raw []byte
	for _, d := range w.shape {
		b = varint(b, 1, uint64(d))
	}
	typ := uint64(typeFloat)
	if w.ints != nil {
		typ = typeInt64
	}
	for _, v := range w.ints {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	for _, v := range w.floats {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	b = varint(b, 2, typ)
	b = text(b, 8, name)
	return message(b, 9, raw)
}

func varint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func message(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

func text(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}
