package ort

import (
	"fmt"
	"math"
	"runtime"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"modelgate/inference/engine"
	"modelgate/inference/onnxfile"
)

var elemTypes = map[onnxfile.ElemType]engine.DType{
	onnxfile.Float: engine.Float32, onnxfile.Double: engine.Float64, onnxfile.Int64: engine.Int64, onnxfile.Int32: engine.Int32,
	onnxfile.Uint8: engine.Uint8, onnxfile.Bool: engine.Bool, onnxfile.String: engine.String,
}

// specOf says what a declared value is on our side of the seam, or why it can't cross it.
func specOf(v onnxfile.Value) (engine.TensorSpec, error) {
	spec := engine.TensorSpec{Name: v.Name, Type: elemTypes[v.Elem], Shape: v.Shape}
	switch {
	case v.Kind == onnxfile.SequenceOfMaps && v.Elem == onnxfile.Float && (v.Key == onnxfile.Int64 || v.Key == onnxfile.String):
		spec.Map, spec.Shape = true, []int64{-1, -1}
	case v.Kind != onnxfile.Tensor:
		return spec, fmt.Errorf("%s is neither a tensor nor a sequence of maps from label to float", v.Name)
	case spec.Type == engine.Invalid:
		return spec, fmt.Errorf("%s has elements of %v, which aren't supported: cast them inside the graph", v.Name, v.Elem)
	case v.Shape != nil && len(v.Shape) == 0:
		return spec, fmt.Errorf("%s is a scalar: it needs a batch dimension", v.Name)
	}
	return spec, nil
}

// checkInputs refuses what ONNX Runtime would refuse, before any native memory is made, and in our words.
func checkInputs(specs []engine.TensorSpec, inputs []engine.Tensor) error {
	if len(inputs) != len(specs) {
		return fmt.Errorf("%d inputs given, the graph takes %d", len(inputs), len(specs))
	}
	for i, t := range inputs {
		if err := checkInput(specs[i], t); err != nil {
			return fmt.Errorf("input %s: %w", specs[i].Name, err)
		}
	}
	return nil
}

func checkInput(spec engine.TensorSpec, t engine.Tensor) error {
	if t.Type() != spec.Type {
		return fmt.Errorf("elements are %v, the graph takes %v", t.Type(), spec.Type)
	}
	n, err := engine.Elements(t.Shape)
	switch {
	case err != nil:
		return err
	case len(t.Shape) == 0:
		return fmt.Errorf("a scalar is given, a batch dimension is needed")
	case n != length(t.Data):
		return fmt.Errorf("shape %v needs %d elements, %d are given", t.Shape, n, length(t.Data))
	case spec.Shape == nil:
		return nil
	case len(spec.Shape) != len(t.Shape):
		return fmt.Errorf("shape %v given, the graph takes %v", t.Shape, spec.Shape)
	}
	for i, d := range spec.Shape {
		if d >= 0 && d != t.Shape[i] {
			return fmt.Errorf("shape %v given, the graph takes %v", t.Shape, spec.Shape)
		}
	}
	return nil
}

func length(data any) int {
	switch d := data.(type) {
	case []float32:
		return len(d)
	case []float64:
		return len(d)
	case []int64:
		return len(d)
	case []int32:
		return len(d)
	case []uint8:
		return len(d)
	case []bool:
		return len(d)
	case []string:
		return len(d)
	}
	return 0
}

// values are native values that are freed together. Numbers stay in Go memory, pinned for as long as ONNX Runtime points at them.
type values struct {
	list []ort.Value
	pins runtime.Pinner
}

func (v *values) destroy() {
	for _, x := range v.list {
		if x != nil {
			_ = x.Destroy()
		}
	}
	v.list = nil
	v.pins.Unpin()
}

func (v *values) add(t engine.Tensor) error {
	var x ort.Value
	var err error
	switch d := t.Data.(type) {
	case []float32:
		x, err = tensor(v, t.Shape, d)
	case []float64:
		x, err = tensor(v, t.Shape, d)
	case []int64:
		x, err = tensor(v, t.Shape, d)
	case []int32:
		x, err = tensor(v, t.Shape, d)
	case []uint8:
		x, err = tensor(v, t.Shape, d)
	case []bool:
		x, err = tensor(v, t.Shape, d)
	case []string:
		x, err = stringTensor(t.Shape, d)
	}
	if err != nil {
		return err
	}
	v.list = append(v.list, x)
	return nil
}

func tensor[T ort.TensorData](v *values, shape []int64, data []T) (ort.Value, error) {
	if len(data) > 0 {
		v.pins.Pin(&data[0])
	}
	x, err := ort.NewTensor(ort.Shape(shape), data)
	if err != nil {
		return nil, err // a typed nil must not become a Value
	}
	return x, nil
}

func stringTensor(shape []int64, data []string) (ort.Value, error) {
	for _, s := range data {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("a string holds a NUL character: ONNX Runtime would cut it there")
		}
	}
	x, err := ort.NewStringTensor(ort.Shape(shape))
	if err != nil {
		return nil, err
	}
	if err := x.SetContents(data); err != nil {
		_ = x.Destroy()
		return nil, err
	}
	return x, nil
}

// fromValue copies a native value. What it returns doesn't refer to native memory.
func fromValue(v ort.Value) (engine.Tensor, error) {
	switch x := v.(type) {
	case *ort.Tensor[float32]:
		return engine.Tensor{Shape: x.GetShape(), Data: x.GetData()}, nil
	case *ort.Tensor[float64]:
		return engine.Tensor{Shape: x.GetShape(), Data: x.GetData()}, nil
	case *ort.Tensor[int64]:
		return engine.Tensor{Shape: x.GetShape(), Data: x.GetData()}, nil
	case *ort.Tensor[int32]:
		return engine.Tensor{Shape: x.GetShape(), Data: x.GetData()}, nil
	case *ort.Tensor[uint8]:
		return engine.Tensor{Shape: x.GetShape(), Data: x.GetData()}, nil
	case *ort.Tensor[bool]:
		return engine.Tensor{Shape: x.GetShape(), Data: x.GetData()}, nil
	case *ort.StringTensor:
		data, err := x.GetContents()
		return engine.Tensor{Shape: x.GetShape(), Data: data}, err
	case *ort.Sequence:
		return fromMaps(x)
	}
	return engine.Tensor{}, fmt.Errorf("it has a type that isn't supported (%T)", v)
}

// fromMaps turns a sequence of maps into a table: one row a map, one column a label, in the order of the first map. A label that
// a row lacks makes the whole an error: rows of one graph have the same labels.
func fromMaps(s *ort.Sequence) (engine.Tensor, error) {
	rows, err := s.GetValues()
	if err != nil {
		return engine.Tensor{}, err
	}
	var keys []string
	var index map[string]int
	var data []float32
	for i, row := range rows {
		m, ok := row.(*ort.Map)
		if !ok {
			return engine.Tensor{}, fmt.Errorf("row %d is not a map", i)
		}
		k, v, err := mapRow(m)
		if err != nil {
			return engine.Tensor{}, fmt.Errorf("row %d: %w", i, err)
		}
		if i == 0 {
			keys, index = k, make(map[string]int, len(k))
			for j, key := range k {
				index[key] = j
			}
		}
		line := make([]float32, len(keys))
		for j := range line {
			line[j] = float32(math.NaN())
		}
		for j, key := range k {
			at, ok := index[key]
			if !ok || len(k) != len(keys) {
				return engine.Tensor{}, fmt.Errorf("row %d has other labels than row 0", i)
			}
			line[at] = v[j]
		}
		data = append(data, line...)
	}
	return engine.Tensor{Shape: []int64{int64(len(rows)), int64(len(keys))}, Data: data, Keys: keys}, nil
}

func mapRow(m *ort.Map) ([]string, []float32, error) {
	kv, vv, err := m.GetKeysAndValues()
	if err != nil {
		return nil, nil, err
	}
	var keys []string
	switch k := kv.(type) {
	case *ort.StringTensor:
		if keys, err = k.GetContents(); err != nil {
			return nil, nil, err
		}
	case *ort.Tensor[int64]:
		for _, n := range k.GetData() {
			keys = append(keys, fmt.Sprint(n))
		}
	default:
		return nil, nil, fmt.Errorf("labels of type %T aren't supported", kv)
	}
	v, ok := vv.(*ort.Tensor[float32])
	if !ok || len(v.GetData()) != len(keys) {
		return nil, nil, fmt.Errorf("its numbers aren't %d floats", len(keys))
	}
	return keys, v.GetData(), nil
}
