// Package onnxgo runs small ONNX graphs with onnx-go, in Go alone: an engine beside ONNX Runtime, for graphs of a short list of operators.
package onnxgo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"modelgate/inference/engine"
	"modelgate/inference/engine/worker"
	"modelgate/inference/onnxfile"
)

// Host is what a worker process for this engine brings along: nothing but the engine.
func Host() worker.Host {
	return worker.Host{Engine: func() (engine.Engine, error) { return Engine{}, nil }}
}

// maxFile bounds the .onnx file. It is read whole, and decoded anew for every run.
const maxFile = 64 << 20

// An Engine opens graphs. It holds nothing, and is safe for concurrent use.
type Engine struct{}

// Open loads the graph at path. It refuses what onnx-go isn't known to compute as ONNX Runtime does, by the operator's name. Tensors
// are of float32, of known shapes; the first dimension may be open.
func (Engine) Open(ctx context.Context, path string, _ engine.Options) (engine.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := open(path)
	if err == nil {
		err = s.try(ctx)
	}
	var pathErr *fs.PathError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &pathErr) && !errors.Is(err, fs.ErrNotExist):
		return nil, err // it may pass
	case err != nil:
		return nil, fmt.Errorf("%w: onnx-go: open graph %s: %w", engine.ErrGraph, path, err)
	}
	return s, nil
}

func open(path string) (*session, error) {
	file, err := onnxfile.Read(path)
	if err != nil {
		return nil, err
	}
	for _, op := range file.Ops {
		if _, ok := rules()[op.Type]; !ok || op.Domain != "" {
			return nil, fmt.Errorf("operator %s isn't supported; what is: %v", opName(op), Operators())
		}
	}
	if len(file.External) > 0 {
		return nil, fmt.Errorf("its weights lie in a side file (%s), which isn't supported: put them into the .onnx file", file.External[0])
	}
	s := &session{}
	for _, v := range file.Inputs {
		spec, err := specOf(v)
		if err == nil && slices.Contains(spec.Shape[1:], -1) {
			err = fmt.Errorf("%s has shape %v: only the first dimension may be open", v.Name, v.Shape)
		}
		if err != nil {
			return nil, fmt.Errorf("input %w", err)
		}
		s.inputs = append(s.inputs, spec)
	}
	for _, v := range file.Outputs {
		spec, err := specOf(v)
		if err != nil {
			return nil, fmt.Errorf("output %w", err)
		}
		s.outputs = append(s.outputs, spec)
	}
	if len(s.inputs) == 0 || len(s.outputs) == 0 {
		return nil, fmt.Errorf("the graph has %d inputs and %d outputs: one of each is the least", len(s.inputs), len(s.outputs))
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("it has %d bytes, the limit is %d", st.Size(), maxFile)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s.g, err = parse(content)
	return s, err
}

func opName(op onnxfile.Op) string {
	if op.Domain == "" {
		return op.Type
	}
	return op.Domain + ":" + op.Type
}

// specOf says what a declared value is on our side of the seam.
func specOf(v onnxfile.Value) (engine.TensorSpec, error) {
	spec := engine.TensorSpec{Name: v.Name, Type: engine.Float32, Shape: v.Shape}
	switch {
	case v.Kind != onnxfile.Tensor || v.Elem != onnxfile.Float:
		return spec, fmt.Errorf("%s isn't a tensor of floats, which alone is supported", v.Name)
	case len(v.Shape) == 0:
		return spec, fmt.Errorf("%s has no declared shape with a batch dimension", v.Name)
	}
	return spec, nil
}

// try runs the graph once, on a batch of one: what onnx-go can't do at all is known before the version serves.
func (s *session) try(ctx context.Context) error {
	inputs := make([]engine.Tensor, len(s.inputs))
	for i, spec := range s.inputs {
		shape := slices.Clone(spec.Shape)
		if shape[0] < 0 {
			shape[0] = 1
		}
		n, err := elements(shape)
		if err != nil {
			return err
		}
		data := make([]float32, n)
		for i := range data {
			data[i] = 0.5 // a root or a quotient of nothing says little
		}
		inputs[i] = engine.Tensor{Shape: shape, Data: data}
	}
	out, err := s.Run(ctx, inputs)
	switch {
	case errors.Is(err, errInfinite):
		return nil // these numbers aren't the caller's
	case err != nil:
		return err
	}
	for i, spec := range s.outputs {
		for j, d := range spec.Shape {
			if len(out[i].Shape) != len(spec.Shape) || d >= 0 && d != out[i].Shape[j] {
				return fmt.Errorf("output %s has shape %v, declared is %v", spec.Name, out[i].Shape, spec.Shape)
			}
		}
	}
	return nil
}
