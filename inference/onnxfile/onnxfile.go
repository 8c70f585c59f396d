// Package onnxfile reads what an ONNX file declares: inputs, outputs, operators and the side files it refers to.
package onnxfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// ErrFormat says that a file isn't an ONNX graph, or breaks the limits of this package.
var ErrFormat = errors.New("not an ONNX graph")

// A File is what an ONNX file declares. Weights aren't read.
type File struct {
	IRVersion int64
	Producer  string
	Opsets    []Opset
	Inputs    []Value // without those that only name an initializer
	Outputs   []Value
	Ops       []Op     // the operators that occur, subgraphs and functions included, each once, in order of appearance
	External  []string // locations of external data as written in the file, each once, in order of appearance
	Nodes     int      // nodes in all, subgraphs and functions included
	Functions []Op     // that the file defines itself, in no order
	// Division describes an integer division whose divisor isn't a constant of the file other than 0 and -1; empty: there is none.
	// Dividing by 0, or the least integer by -1, ends the process that computes it.
	Division string
}

// An Opset is a version of a set of operators. The empty domain is ai.onnx.
type Opset struct {
	Domain  string
	Version int64
}

// An Op names an operator. The empty domain is ai.onnx.
type Op struct{ Domain, Type string }

// Kind says what sort of value an input or output is.
type Kind int

// The kinds of values. Only the shape of a tensor is kept.
const (
	Unknown Kind = iota
	Tensor
	Sequence
	Map
	SequenceOfMaps // what skl2onnx's ZipMap gives
	Other          // sparse, optional or opaque
)

// ElemType is a tensor's element type, with the numbers of ONNX's TensorProto.DataType.
type ElemType int32

// The element types that callers tell apart.
const (
	Float   ElemType = 1
	Uint8   ElemType = 2
	Int32   ElemType = 6
	Int64   ElemType = 7
	String  ElemType = 8
	Bool    ElemType = 9
	Float16 ElemType = 10
	Double  ElemType = 11

	Int8     ElemType = 3
	Uint16   ElemType = 4
	Int16    ElemType = 5
	Uint32   ElemType = 12
	Uint64   ElemType = 13
	BFloat16 ElemType = 16
)

var elemNames = map[ElemType]string{
	Float: "float", Uint8: "uint8", Int8: "int8", Uint16: "uint16", Int16: "int16", Int32: "int32", Int64: "int64", String: "string",
	Bool: "bool", Float16: "float16", Double: "double", Uint32: "uint32", Uint64: "uint64", BFloat16: "bfloat16",
}

func (t ElemType) String() string {
	if s, ok := elemNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type %d", int32(t))
}

// A Value is an input or an output.
type Value struct {
	Name  string
	Kind  Kind
	Elem  ElemType // of a tensor; of a map or a sequence of maps: the values' type
	Key   ElemType // of a map or a sequence of maps: the keys' type
	Shape []int64  // of a tensor: -1 where a dimension is open; nil where even the rank is
	// Rows is how many rows the smallest table has that is looked up with the ids of this input, as far as the file shows it; 0: none.
	Rows int64
}

// Read reads the file at path. It reads only what it needs, whatever the file's size. Its errors wrap ErrFormat unless the file can't be read.
func Read(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrFormat, path)
	}
	g, err := Parse(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return g, nil
}

// Parse reads a graph of size bytes from r, as Read does.
func Parse(r io.ReaderAt, size int64) (*File, error) {
	f, err := newParser().parse(newCursor(r, size))
	if errors.Is(err, ErrFormat) && startsWith(r, "version https://git-lfs.") {
		return nil, fmt.Errorf("%w but a Git LFS pointer to one: get the file itself with git lfs pull", ErrFormat)
	}
	return f, err
}

func startsWith(r io.ReaderAt, s string) bool {
	head := make([]byte, len(s))
	n, _ := r.ReadAt(head, 0)
	return string(head[:n]) == s
}

// Uses reports whether the file uses an operator of domain, which is empty for ai.onnx.
func (f *File) Uses(domain string) bool {
	return slices.ContainsFunc(f.Ops, func(o Op) bool { return o.Domain == domain })
}

// Undefined lists the operators that neither the file defines, as functions, nor belong to one of domains.
func (f *File) Undefined(domains ...string) []Op {
	return slices.DeleteFunc(slices.Clone(f.Ops), func(o Op) bool {
		return slices.Contains(domains, o.Domain) || slices.Contains(f.Functions, o)
	})
}
