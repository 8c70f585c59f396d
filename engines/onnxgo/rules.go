package onnxgo

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A rule says in which form an operator is computed: check gives the output's shape, or says what isn't supported.
type rule struct {
	least, most int // inputs
	check       func(*call) ([]int64, error)
}

// rules is the white list: the operators, in the forms, whose numbers TestOperators compares with ONNX Runtime's. onnx-go knows
// more, some of which it gets wrong.
func rules() map[string]rule {
	return map[string]rule{
		"Abs":                {1, 1, elementwise},
		"Add":                {2, 2, broadcast},
		"BatchNormalization": {5, 5, batchNormalization},
		"Concat":             {2, 16, concat},
		"Conv":               {2, 3, conv},
		"Div":                {2, 2, broadcast},
		"Dropout":            {1, 1, dropout},
		"Exp":                {1, 1, elementwise},
		"Flatten":            {1, 1, flatten},
		"Gemm":               {3, 3, gemm},
		"GlobalAveragePool":  {1, 1, globalAveragePool},
		"Identity":           {1, 1, elementwise},
		"LeakyRelu":          {1, 1, leakyRelu},
		"MatMul":             {2, 2, matMul},
		"MaxPool":            {1, 1, maxPool},
		"Mul":                {2, 2, broadcast},
		"Neg":                {1, 1, elementwise},
		"Relu":               {1, 1, elementwise},
		"Reshape":            {2, 2, reshape},
		"Sigmoid":            {1, 1, elementwise},
		"Softmax":            {1, 1, softmax},
		"Sqrt":               {1, 1, elementwise},
		"Sub":                {2, 2, broadcast},
		"Tanh":               {1, 1, elementwise},
		"Transpose":          {1, 1, transpose},
	}
}

// Operators are those that this engine computes.
func Operators() []string { return slices.Sorted(maps.Keys(rules())) }

func elementwise(c *call) ([]int64, error) { return c.in[0], nil }

func leakyRelu(c *call) ([]int64, error) { return c.in[0], c.number("alpha") }

func dropout(c *call) ([]int64, error) {
	err := c.number("ratio") // of training
	c.attrs = nil
	return c.in[0], errors.Join(err, c.must("seed", 0))
}

// broadcast: equal shapes, or of two matrices, or a weight against the channels of images. Weights are given the rank of the other side here:
// onnx-go guesses the axis by its length.
func broadcast(c *call) ([]int64, error) {
	a, b := c.in[0], c.in[1]
	if slices.Equal(a, b) {
		return a, nil
	}
	for i := range c.in {
		w, ok := c.constant(i)
		if other := c.in[1-i]; ok && len(w.shape) < len(other) {
			w.shape = append(slices.Repeat([]int64{1}, len(other)-len(w.shape)), w.shape...)
			c.in[i] = w.shape
			if len(other) == 4 {
				w.shape = w.shape[1:] // so that onnx-go sees that the batch is missing
			}
			c.replace(i, w)
		} else if ok && len(other) == 4 && len(w.shape) == 4 && w.shape[0] == 1 {
			w.shape = w.shape[1:]
			c.replace(i, w)
		}
	}
	out, err := joined(c.in[0], c.in[1])
	if err != nil {
		return nil, err
	}
	if slices.Equal(c.in[0], c.in[1]) || len(out) == 2 {
		return out, nil
	}
	_, left := c.constant(0)
	if len(out) != 4 || left {
		return nil, fmt.Errorf("shapes %v and %v together aren't supported", a, b)
	}
	return out, nil
}

// joined is the shape of two tensors of one rank, each repeated where it has length 1.
func joined(a, b []int64) ([]int64, error) {
	if len(a) != len(b) {
		return nil, fmt.Errorf("shapes %v and %v together aren't supported", a, b)
	}
	out := slices.Clone(a)
	for i := range out {
		if a[i] != b[i] && a[i] != 1 && b[i] != 1 {
			return nil, fmt.Errorf("shapes %v and %v don't go together", a, b)
		}
		out[i] = max(a[i], b[i])
	}
	return out, nil
}

func matMul(c *call) ([]int64, error) {
	a, b := c.in[0], c.in[1]
	if len(a) != 2 || len(b) != 2 || a[1] != b[0] {
		return nil, fmt.Errorf("%v times %v: only two matrices are supported", a, b)
	}
	return []int64{a[0], b[1]}, nil
}

func gemm(c *call) ([]int64, error) {
	transA, errA := c.whole("transA", 0)
	transB, errB := c.whole("transB", 0)
	if err := errors.Join(errA, errB, c.number("alpha"), c.number("beta")); err != nil {
		return nil, err
	}
	a, b := slices.Clone(c.in[0]), slices.Clone(c.in[1])
	if len(a) != 2 || len(b) != 2 {
		return nil, fmt.Errorf("%v times %v: only two matrices are supported", a, b)
	}
	if transA != 0 {
		slices.Reverse(a)
		c.set("transA", attr{kind: kindInt, i: 1})
	}
	if transB != 0 {
		slices.Reverse(b)
		c.set("transB", attr{kind: kindInt, i: 1})
	}
	if a[1] != b[0] {
		return nil, fmt.Errorf("%v times %v don't go together", a, b)
	}
	if s := c.in[2]; !slices.Equal(s, []int64{b[1]}) && !slices.Equal(s, []int64{1, b[1]}) {
		return nil, fmt.Errorf("a third input of shape %v: only one row, [%d], is supported", s, b[1])
	}
	return []int64{a[0], b[1]}, nil
}

// axis is an attribute that names an axis, counted from 0.
func (c *call) axis(usual int64, rank int) (int64, error) {
	v, err := c.whole("axis", usual)
	if v < 0 {
		v += int64(rank)
	}
	if err == nil && (v < 0 || v > int64(rank)) {
		err = fmt.Errorf("axis %d of %d", v, rank)
	}
	c.set("axis", attr{kind: kindInt, i: v})
	return v, err
}

// softmax: of the last axis of a matrix, which means the same in all sets of operators.
func softmax(c *call) ([]int64, error) {
	usual := int64(-1)
	if c.plan.g.opset < 13 {
		usual = 1
	}
	axis, err := c.axis(usual, len(c.in[0]))
	if err == nil && (len(c.in[0]) != 2 || axis != 1 || c.in[0][1] < 2) {
		err = fmt.Errorf("axis %d of shape %v: only the rows of a matrix of two columns or more are supported", axis, c.in[0])
	}
	return c.in[0], err
}

func concat(c *call) ([]int64, error) {
	out := slices.Clone(c.in[0])
	axis, err := c.axis(0, len(out))
	if err != nil || axis == int64(len(out)) || c.given["axis"].kind == 0 {
		return nil, errors.Join(err, fmt.Errorf("axis %d of shape %v isn't supported", axis, out))
	}
	for _, s := range c.in[1:] {
		if len(s) != len(out) {
			return nil, fmt.Errorf("shapes %v don't go together", c.in)
		}
		for i := range s {
			if int64(i) != axis && s[i] != out[i] {
				return nil, fmt.Errorf("shapes %v don't go together", c.in)
			}
		}
		out[axis] += s[axis]
	}
	return out, nil
}

func flatten(c *call) ([]int64, error) {
	axis, err := c.axis(1, len(c.in[0]))
	if err != nil {
		return nil, err
	}
	rows, err1 := elements(c.in[0][:axis])
	columns, err2 := elements(c.in[0][axis:])
	return []int64{int64(rows), int64(columns)}, errors.Join(err1, err2)
}

// reshape spells the shape out: onnx-go's own reading of 0 and -1 is wrong in places.
func reshape(c *call) ([]int64, error) {
	w, ok := c.plan.g.weights[c.inputs[1]]
	if !ok || w.ints == nil || len(w.shape) != 1 {
		return nil, errors.New("the shape isn't a constant list of int64")
	}
	if err := c.must("allowzero", 0); err != nil {
		return nil, err
	}
	n, err := elements(c.in[0])
	if err != nil {
		return nil, err
	}
	out, open, known := slices.Clone(w.ints), -1, int64(1)
	for i, d := range out {
		switch {
		case d == 0 && i < len(c.in[0]):
			out[i] = c.in[0][i]
		case d == -1 && open < 0:
			open = i
			continue
		case d < 1 || d > maxElements:
			return nil, fmt.Errorf("shape %v isn't supported", w.ints)
		}
		if known *= out[i]; known > maxElements {
			return nil, fmt.Errorf("shape %v is too large", w.ints)
		}
	}
	if open >= 0 {
		out[open] = int64(n) / max(known, 1)
		known *= out[open]
	}
	if known != int64(n) {
		return nil, fmt.Errorf("shape %v doesn't hold the %d elements of %v", w.ints, n, c.in[0])
	}
	c.replace(1, weight{shape: []int64{int64(len(out))}, ints: out})
	return out, nil
}

func transpose(c *call) ([]int64, error) {
	in := c.in[0]
	a, ok, err := c.attr("perm", kindInts)
	if err != nil {
		return nil, err
	}
	if !ok {
		a = attr{kind: kindInts}
		for i := range in {
			a.ints = append(a.ints, int64(len(in)-1-i))
		}
	}
	out := make([]int64, len(in))
	if len(a.ints) != len(in) {
		return nil, fmt.Errorf("perm %v of shape %v", a.ints, in)
	}
	for i, from := range a.ints {
		if from < 0 || from >= int64(len(in)) || slices.Contains(a.ints[:i], from) {
			return nil, fmt.Errorf("perm %v of shape %v", a.ints, in)
		}
		out[i] = in[from]
	}
	c.set("perm", a)
	return out, nil
}
