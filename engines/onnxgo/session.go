package onnxgo

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"modelgate/inference/engine"
)

// A session is a graph. It holds the file's nodes and weights; what onnx-go makes of them lives for one run.
type session struct {
	g               *graph
	inputs, outputs []engine.TensorSpec
	work            sync.WaitGroup // the runs in the library

	mu     sync.Mutex // guards closed; never held during a run
	closed bool
}

func (s *session) Inputs() []engine.TensorSpec  { return s.inputs }
func (s *session) Outputs() []engine.TensorSpec { return s.outputs }

// Run computes when its turn comes: one run at a time in a process. When ctx ends it returns at once, and the library ends
// what it is at after the operator in progress.
func (s *session) Run(ctx context.Context, inputs []engine.Tensor) ([]engine.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkInputs(s.inputs, inputs); err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrInput, err)
	}
	if !s.begin() {
		return nil, engine.ErrClosed
	}
	type answer struct {
		out []engine.Tensor
		err error
	}
	answered := make(chan answer, 1)
	// A run that was given up still reads its inputs, which are the caller's again.
	own := make([]engine.Tensor, len(inputs))
	for i, t := range inputs {
		data, _ := t.Data.([]float32)
		own[i] = engine.Tensor{Shape: slices.Clone(t.Shape), Data: slices.Clone(data)}
	}
	go func() {
		defer s.work.Done()
		select {
		case library <- struct{}{}:
		case <-ctx.Done():
			answered <- answer{err: ctx.Err()}
			return
		}
		defer func() { <-library }()
		out, err := s.run(ctx, own)
		answered <- answer{out, err}
	}()
	select {
	case a := <-answered:
		if a.err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return a.out, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run computes with the turn of the library taken.
func (s *session) run(ctx context.Context, inputs []engine.Tensor) ([]engine.Tensor, error) {
	shapes := map[string][]int64{}
	for i, t := range inputs {
		shapes[s.inputs[i].Name] = t.Shape
	}
	p, err := newPlan(s.g, shapes, names(s.outputs))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrGraph, err)
	}
	want := make([][]int64, len(s.outputs))
	for i, o := range s.outputs {
		want[i] = p.shapes[o.Name]
	}
	out, err := compute(ctx, p.encode(names(s.inputs), names(s.outputs)), inputs, want)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrGraph, err)
	}
	return out, nil
}

func (s *session) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Add(1)
	}
	return !s.closed
}

// Close waits for the runs in progress, those that were given up too.
func (s *session) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.work.Wait()
	return nil
}

func names(specs []engine.TensorSpec) []string {
	out := make([]string, len(specs))
	for i, s := range specs {
		out[i] = s.Name
	}
	return out
}

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
	data, ok := t.Data.([]float32)
	if !ok {
		return fmt.Errorf("elements are %v, the graph takes %v", t.Type(), spec.Type)
	}
	if len(t.Shape) != len(spec.Shape) {
		return fmt.Errorf("shape %v given, the graph takes %v", t.Shape, spec.Shape)
	}
	for i, d := range spec.Shape {
		if d >= 0 && d != t.Shape[i] {
			return fmt.Errorf("shape %v given, the graph takes %v", t.Shape, spec.Shape)
		}
	}
	n, err := elements(t.Shape)
	switch {
	case err != nil:
		return err
	case n != len(data):
		return fmt.Errorf("shape %v needs %d elements, %d are given", t.Shape, n, len(data))
	case n == 0:
		return fmt.Errorf("shape %v: an empty batch isn't supported", t.Shape)
	case infinite(data):
		return errInfinite
	}
	return nil
}
