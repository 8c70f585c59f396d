package onnxgo

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A machine computes a graph of gorgonia, one operator after the other on the goroutine that calls it. Gorgonia's own machines start
// goroutines, whose panics would end the process, and let operators write over what they were given, weights included: the
// cause of wrong numbers in a second run. This one gives each operator copies, and stops between two of them when ended says so.
type machine struct {
	graph *gorgonia.ExprGraph
	ended func() error // what ctx.Err says
}

// Reset is part of gorgonia.VM.
func (*machine) Reset() {}

// Close is part of gorgonia.VM.
func (*machine) Close() error { return nil }

// RunAll computes every node.
func (m *machine) RunAll() error {
	sorted, err := gorgonia.Sort(m.graph)
	if err != nil {
		return err
	}
	for i := len(sorted) - 1; i >= 0; i-- { // roots come first
		if err := m.ended(); err != nil {
			return err
		}
		if err := m.compute(sorted[i]); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) compute(n *gorgonia.Node) error {
	if n.Value() != nil {
		return nil // an input, a weight or a constant
	}
	if n.Op() == nil {
		return fmt.Errorf("node %v has neither a value nor an operator", n.Name())
	}
	var in []gorgonia.Value
	for children := m.graph.From(n.ID()); children.Next(); {
		child, ok := children.Node().(*gorgonia.Node)
		if !ok || child.Value() == nil {
			return fmt.Errorf("an input of %v has no value", n.Op())
		}
		v, err := copyOf(child.Value())
		if err != nil {
			return fmt.Errorf("copy an input of %v: %w", n.Op(), err)
		}
		in = append(in, v)
	}
	v, err := n.Op().Do(in...)
	if err != nil {
		return fmt.Errorf("%v: %w", n.Op(), err)
	}
	if t, ok := v.(tensor.Tensor); ok && infinite(t.Data()) {
		return fmt.Errorf("%v: %w", n.Op(), errInfinite)
	}
	return gorgonia.UnsafeLet(n, v)
}

// copyOf copies a value, to where it starts at a multiple of 16 bytes if it is a plain tensor of floats: gonum sums four numbers at a
// time from such a place on, so that elsewhere the same numbers give another last bit.
func copyOf(v gorgonia.Value) (gorgonia.Value, error) {
	t, ok := v.(*tensor.Dense)
	if !ok {
		return gorgonia.CloneValue(v)
	}
	data, ok := t.Data().([]float32)
	if !ok || len(t.Shape()) == 0 || !slices.Equal(t.Strides(), t.Shape().CalcStrides()) || len(data) != t.Shape().TotalSize() {
		return gorgonia.CloneValue(v)
	}
	return tensor.New(tensor.WithShape(t.Shape().Clone()...), tensor.WithBacking(aligned(data))), nil
}

// aligned copies the numbers. Go's allocator places what has 32 bytes or more at multiples of 16.
func aligned(data []float32) []float32 {
	return append(make([]float32, 0, max(len(data), 8)), data...)
}

// errInfinite says that a number became infinite: what onnx-go makes of it (NaN, where ONNX says 0) isn't what ONNX Runtime does.
var errInfinite = errors.New("a number is infinite (or NaN, in a pooling), with which onnx-go computes wrongly")

func infinite(data any) bool {
	floats, _ := data.([]float32)
	for _, f := range floats {
		// The least float is what onnx-go takes for the largest of NaNs.
		if math.IsInf(float64(f), 0) || f == -math.MaxFloat32 {
			return true
		}
	}
	return false
}
