package onnxgo

import (
	"context"
	"fmt"

	onnx "github.com/owulveryck/onnx-go"
	"github.com/owulveryck/onnx-go/backend/x/gorgonnx"
	"gorgonia.org/tensor"

	"modelgate/inference/engine"
)

// library is onnx-go, of which one call may be under way in a process: it counts names in a package variable.
// Who has put something in has the turn.
var library = make(chan struct{}, 1)

// compute decodes the file and computes its outputs for these inputs. Nothing of an earlier call is used again: a second run of a
// decoded graph gives wrong numbers. A panic of the library is an error.
func compute(ctx context.Context, file []byte, inputs []engine.Tensor, shapes [][]int64) (out []engine.Tensor, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("onnx-go panicked: %v", p)
		}
	}()
	backend := gorgonnx.NewGraph()
	model := onnx.NewModel(backend)
	if err := model.UnmarshalBinary(file); err != nil {
		return nil, fmt.Errorf("decode the graph: %w", err)
	}
	for i, t := range inputs {
		data, _ := t.Data.([]float32)
		if err := model.SetInput(i, dense(t.Shape, aligned(data))); err != nil {
			return nil, fmt.Errorf("set input %d: %w", i, err)
		}
	}
	if err := backend.PopulateExprgraph(); err != nil {
		return nil, fmt.Errorf("build the graph: %w", err)
	}
	nodes, err := backend.GetExprGraph()
	if err != nil {
		return nil, fmt.Errorf("build the graph: %w", err)
	}
	backend.SetVM(&machine{nodes, ctx.Err})
	if err := backend.Run(); err != nil {
		return nil, err
	}
	results, err := model.GetOutputTensors()
	if err != nil {
		return nil, err
	}
	if len(results) != len(shapes) {
		return nil, fmt.Errorf("%d outputs, not %d", len(results), len(shapes))
	}
	for i, shape := range shapes {
		t, err := copied(results[i], shape)
		if err != nil {
			return nil, fmt.Errorf("output %d: %w", i, err)
		}
		out = append(out, t)
	}
	return out, nil
}

func dense(shape []int64, data []float32) tensor.Tensor {
	dims := make([]int, len(shape))
	for i, d := range shape {
		dims[i] = int(d)
	}
	return tensor.New(tensor.WithShape(dims...), tensor.WithBacking(data))
}

// copied is a result as it crosses the seam. It must have the shape that the plan says: else something was computed otherwise.
func copied(r tensor.Tensor, shape []int64) (engine.Tensor, error) {
	if r == nil {
		return engine.Tensor{}, fmt.Errorf("it wasn't computed")
	}
	data, ok := r.Data().([]float32)
	if f, one := r.Data().(float32); one {
		data, ok = []float32{f}, true
	}
	n, err := elements(shape)
	if err != nil || !ok || n != len(data) {
		return engine.Tensor{}, fmt.Errorf("it is %v of shape %v, not float32 of shape %v", r.Dtype(), r.Shape(), shape)
	}
	return engine.Tensor{Shape: append([]int64(nil), shape...), Data: append([]float32(nil), data...)}, nil
}
