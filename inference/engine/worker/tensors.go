package worker

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"unsafe"

	"modelgate/inference/engine"
)

// The description of a tensor: type (1 byte), number of dimensions (1), number of keys (4), bytes of elements (8), the dimensions
// (8 each), the keys. A key, and an element that is a string, is its length (4) and its bytes. Before all comes their number (2).
const (
	maxTensors = 1024
	maxRank    = 64
)

var elementSizes = map[engine.DType]uint64{
	engine.Float32: 4, engine.Float64: 8, engine.Int64: 8, engine.Int32: 4, engine.Uint8: 1, engine.Bool: 1,
}

// encodeTensors gives the descriptions of ts and, uncopied, their elements. Its errors say that ts aren't tensors.
func encodeTensors(ts []engine.Tensor) ([]byte, net.Buffers, error) {
	if len(ts) > maxTensors {
		return nil, nil, fmt.Errorf("%d tensors: the limit is %d", len(ts), maxTensors)
	}
	meta := binary.LittleEndian.AppendUint16(nil, uint16(len(ts)))
	data := make(net.Buffers, 0, len(ts)+1) // one more: what goes before them
	for i, t := range ts {
		raw, n := elementsOf(t.Data)
		want, err := engine.Elements(t.Shape)
		switch {
		case t.Type() == engine.Invalid:
			return nil, nil, fmt.Errorf("tensor %d holds %T", i, t.Data)
		case err != nil:
			return nil, nil, fmt.Errorf("tensor %d: %w", i, err)
		case n != want:
			return nil, nil, fmt.Errorf("tensor %d: shape %v needs %d elements, %d are given", i, t.Shape, want, n)
		case len(t.Shape) > maxRank:
			return nil, nil, fmt.Errorf("tensor %d has %d dimensions: the limit is %d", i, len(t.Shape), maxRank)
		}
		meta = append(meta, byte(t.Type()), byte(len(t.Shape)))
		meta = binary.LittleEndian.AppendUint32(meta, uint32(len(t.Keys)))
		meta = binary.LittleEndian.AppendUint64(meta, uint64(len(raw)))
		for _, d := range t.Shape {
			meta = binary.LittleEndian.AppendUint64(meta, uint64(d))
		}
		meta = append(meta, encodeStrings(t.Keys)...)
		if len(raw) > 0 {
			data = append(data, raw)
		}
	}
	return meta, data, nil
}

// elementsOf is data as it crosses, and how many elements that is.
func elementsOf(data any) ([]byte, int) {
	switch d := data.(type) {
	case []float32:
		return bytesOf(d), len(d)
	case []float64:
		return bytesOf(d), len(d)
	case []int64:
		return bytesOf(d), len(d)
	case []int32:
		return bytesOf(d), len(d)
	case []uint8:
		return d, len(d)
	case []bool:
		return bytesOf(d), len(d)
	case []string:
		return encodeStrings(d), len(d)
	}
	return nil, 0
}

// bytesOf is d's memory.
func bytesOf[T any](d []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(d))), len(d)*int(unsafe.Sizeof(one)))
}

func encodeStrings(d []string) []byte {
	var b []byte
	for _, s := range d {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

// decodeTensors reads the tensors that meta describes. Their elements, size bytes in all, come from r, straight into their place.
func decodeTensors(meta []byte, size uint64, r io.Reader) ([]engine.Tensor, error) {
	m := &reading{b: meta}
	count := int(m.uint(2))
	if m.bad || count > maxTensors {
		return nil, fmt.Errorf("%w: %d tensors in %d bytes, the limit is %d", errProtocol, count, len(meta), maxTensors)
	}
	ts := make([]engine.Tensor, 0, min(count, len(meta)/14))
	for range count {
		t, bytes := decodeDescription(m)
		if m.bad || bytes > size {
			return nil, fmt.Errorf("%w: a description of tensors that isn't one", errProtocol)
		}
		size -= bytes
		n, err := engine.Elements(t.Shape)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errProtocol, err)
		}
		typ := engine.DType(m.typ)
		if each, ok := elementSizes[typ]; ok && (bytes%each != 0 || bytes/each != uint64(n)) || typ == engine.String && bytes/4 < uint64(n) {
			return nil, fmt.Errorf("%w: %d bytes for %d elements of %v", errProtocol, bytes, n, typ)
		}
		if t.Data, err = readElements(typ, n, bytes, r); err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	if len(m.b) > 0 || size > 0 {
		return nil, fmt.Errorf("%w: more bytes than its tensors have", errProtocol)
	}
	return ts, nil
}

// decodeDescription reads one description. m.bad says that there was none.
func decodeDescription(m *reading) (t engine.Tensor, bytes uint64) {
	m.typ = uint8(m.uint(1))
	rank, keys := m.uint(1), m.uint(4)
	bytes = m.uint(8)
	if rank > maxRank || keys > uint64(len(m.b)/4) || engine.DType(m.typ) > engine.String || m.typ == 0 {
		m.bad = true
		return t, 0
	}
	t.Shape = make([]int64, rank)
	for i := range t.Shape {
		t.Shape[i] = int64(m.uint(8))
	}
	if keys > 0 {
		t.Keys = m.strings(int(keys))
	}
	return t, bytes
}

func readElements(typ engine.DType, n int, size uint64, r io.Reader) (any, error) {
	switch typ {
	case engine.Float32:
		return readNumbers[float32](n, r)
	case engine.Float64:
		return readNumbers[float64](n, r)
	case engine.Int64:
		return readNumbers[int64](n, r)
	case engine.Int32:
		return readNumbers[int32](n, r)
	case engine.Uint8:
		return readNumbers[uint8](n, r)
	case engine.Bool:
		return readBools(n, r)
	}
	b, err := readNumbers[uint8](int(size), r)
	if err != nil {
		return nil, err
	}
	s := &reading{b: b}
	texts := s.strings(n)
	if s.bad || len(s.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes that aren't %d strings", errProtocol, size, n)
	}
	return texts, nil
}

func readNumbers[T any](n int, r io.Reader) ([]T, error) {
	d := make([]T, n)
	_, err := io.ReadFull(r, bytesOf(d))
	return d, err
}

// readBools reads bytes: one that is neither 0 nor 1 is no bool, and must not become one.
func readBools(n int, r io.Reader) ([]bool, error) {
	b, err := readNumbers[uint8](n, r)
	if err != nil {
		return nil, err
	}
	d := make([]bool, n)
	for i, v := range b {
		if v > 1 {
			return nil, fmt.Errorf("%w: a bool of %d", errProtocol, v)
		}
		d[i] = v == 1
	}
	return d, nil
}

// A reading takes numbers and strings off b. When b is too short it is bad, and gives zeros.
type reading struct {
	b   []byte
	typ uint8 // of the description that was read last
	bad bool
}

func (r *reading) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reading) uint(size uint64) uint64 {
	var b [8]byte
	copy(b[:], r.take(size))
	return binary.LittleEndian.Uint64(b[:])
}

func (r *reading) strings(n int) []string {
	d := make([]string, 0, min(n, len(r.b)/4))
	for range n {
		if r.bad {
			return nil
		}
		d = append(d, string(r.take(r.uint(4))))
	}
	return d
}
