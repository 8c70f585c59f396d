package enginetest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// A weight is numbers that are made when they are written: graphs of a gigabyte never lie in memory.
type weight struct {
	name  string
	shape []int64
	seed  uint64
	scale float32
}

// Weight adds a weight of random numbers in [-scale, scale) that depend only on seed. WriteLarge writes it.
func (g *Graph) Weight(name string, seed uint64, scale float32, shape ...int64) *Graph {
	g.weights = append(g.weights, weight{name, shape, seed, scale})
	return g
}

func (w weight) bytes() int64 {
	n := int64(4)
	for _, d := range w.shape {
		n *= d
	}
	return n
}

func (w weight) write(to io.Writer) error {
	r := rand.New(rand.NewPCG(w.seed, 2))
	var b [8]byte
	for left := w.bytes(); left > 0; left -= 8 {
		u := r.Uint64()
		binary.LittleEndian.PutUint32(b[:], math.Float32bits(w.scale*(float32(u>>40)/(1<<23)-1)))
		binary.LittleEndian.PutUint32(b[4:], math.Float32bits(w.scale*(float32(u&0xffffff)/(1<<23)-1)))
		if _, err := to.Write(b[:min(left, 8)]); err != nil {
			return err
		}
	}
	return nil
}

// head is the description of the weight; location is the file beside the graph where it begins at offset, or empty.
func (w weight) head(location string, offset int64) []byte {
	var b []byte
	for _, d := range w.shape {
		b = varint(b, 1, uint64(d))
	}
	b = str(varint(b, 2, Float), 8, w.name)
	if location == "" {
		return b
	}
	for _, e := range [][2]string{{"location", location}, {"offset", strconv.FormatInt(offset, 10)}, {"length", strconv.FormatInt(w.bytes(), 10)}} {
		b = message(b, 13, str(str(nil, 1, e[0]), 2, e[1]))
	}
	return varint(b, 14, 1)
}

// WriteLarge writes the graph to path, its Weights included: within the file, or, if external, beside it in path + ".data", as PyTorch
// does.
func (g *Graph) WriteLarge(path string, external bool) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(f, 1<<20)
	defer func() { err = errors.Join(err, out.Flush(), f.Close()) }()
	if external {
		return g.writeExternal(out, path+".data")
	}
	rest := g.graphProto()
	size := len(rest)
	for _, w := range g.weights {
		size += len(w.frame())
		size += int(w.bytes())
	}
	model := protowire.AppendTag(g.modelHead(), 7, protowire.BytesType)
	if _, err := out.Write(append(protowire.AppendVarint(model, uint64(size)), rest...)); err != nil {
		return err
	}
	for _, w := range g.weights {
		if _, err := out.Write(w.frame()); err != nil {
			return err
		}
		if err := w.write(out); err != nil {
			return err
		}
	}
	return nil
}

// frame is all of the weight within a graph, but its numbers, which follow.
func (w weight) frame() []byte {
	head := w.head("", 0)
	head = protowire.AppendVarint(protowire.AppendTag(head, 9, protowire.BytesType), uint64(w.bytes()))
	b := protowire.AppendTag(nil, 5, protowire.BytesType)
	return append(protowire.AppendVarint(b, uint64(len(head))+uint64(w.bytes())), head...)
}

func (g *Graph) writeExternal(out io.Writer, data string) (err error) {
	f, err := os.Create(data)
	if err != nil {
		return err
	}
	side := bufio.NewWriterSize(f, 1<<20)
	defer func() { err = errors.Join(err, side.Flush(), f.Close()) }()
	graph, offset := g.graphProto(), int64(0)
	for _, w := range g.weights {
		graph = message(graph, 5, w.head(filepath.Base(data), offset))
		if err := w.write(side); err != nil {
			return err
		}
		offset += w.bytes()
	}
	_, err = out.Write(message(g.modelHead(), 7, graph))
	return err
}
