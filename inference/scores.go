package inference

import (
	"fmt"
	"math"

	"modelgate/inference/engine"
)

// A table is the rows of a graph's output in float64.
type table struct {
	rows, columns int
	data          []float64
}

func (t table) row(i int) []float64 { return t.data[i*t.columns : (i+1)*t.columns] }

// tableOf reads an output of n rows. A single column may lack its dimension. NaN and infinities are errors: never a verdict.
func tableOf(name string, t engine.Tensor, n int) (table, error) {
	shape := t.Shape
	if len(shape) == 1 {
		shape = []int64{shape[0], 1}
	}
	if len(shape) != 2 || shape[0] != int64(n) || shape[1] < 1 {
		return table{}, fmt.Errorf("output %s has shape %v for %d inputs: one row of class scores each is needed", name, t.Shape, n)
	}
	out := table{rows: n, columns: int(shape[1])}
	switch d := t.Data.(type) {
	case []float64:
		out.data = d
	case []float32:
		out.data = make([]float64, len(d))
		for i, v := range d {
			out.data[i] = float64(v)
		}
	default:
		return table{}, fmt.Errorf("output %s holds %v: class scores are floats", name, t.Type())
	}
	if len(out.data) != n*out.columns {
		return table{}, fmt.Errorf("output %s has %d numbers for shape %v", name, len(out.data), t.Shape)
	}
	for i, v := range out.data {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return table{}, fmt.Errorf("output %s has %v in row %d", name, v, i/out.columns)
		}
	}
	return out, nil
}

func (t table) each(f func(row []float64) []float64) [][]float64 {
	out := make([][]float64, t.rows)
	for i := range out {
		out[i] = f(t.row(i))
	}
	return out
}

// softmax gives each class its share; the shares sum to 1.
func softmax(logits []float64) []float64 {
	top := math.Inf(-1)
	for _, v := range logits {
		top = math.Max(top, v)
	}
	out := make([]float64, len(logits))
	var sum float64
	for i, v := range logits {
		out[i] = math.Exp(v - top)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

// sigmoid scores each class for itself.
func sigmoid(logits []float64) []float64 {
	out := make([]float64, len(logits))
	for i, v := range logits {
		out[i] = 1 / (1 + math.Exp(-v))
	}
	return out
}

// probabilities takes numbers that are scores already, and allows for rounding at the ends of [0, 1].
func probabilities(t table) ([][]float64, error) {
	const slack = 1e-4
	for _, v := range t.data {
		if v < -slack || v > 1+slack {
			return nil, fmt.Errorf("a score is %v: probabilities in [0, 1] are needed", v)
		}
	}
	return t.each(func(row []float64) []float64 {
		out := make([]float64, len(row))
		for i, v := range row {
			out[i] = min(max(v, 0), 1)
		}
		return out
	}), nil
}
