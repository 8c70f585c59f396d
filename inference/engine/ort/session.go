package ort

import (
	"context"
	"errors"
	"fmt"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"modelgate/inference/engine"
	"modelgate/inference/onnxfile"
)

var errExternal = errors.New("the location isn't allowed")

// A session is a loaded graph.
type session struct {
	inputs, outputs []engine.TensorSpec
	native          *ort.DynamicAdvancedSession
	runs            engine.Runs
	gone            chan struct{} // closed when native is freed
}

// newSession describes the graph without loading it.
func newSession(f *onnxfile.File) (*session, error) {
	s := &session{gone: make(chan struct{})}
	for _, v := range f.Inputs {
		spec, err := specOf(v)
		if err != nil {
			return nil, fmt.Errorf("input %w", err)
		}
		if spec.Map {
			return nil, fmt.Errorf("input %s is a sequence of maps: only tensors can be given", spec.Name)
		}
		s.inputs = append(s.inputs, spec)
	}
	for _, v := range f.Outputs {
		spec, err := specOf(v)
		if err != nil {
			return nil, fmt.Errorf("output %w", err)
		}
		s.outputs = append(s.outputs, spec)
	}
	if len(s.inputs) == 0 || len(s.outputs) == 0 {
		return nil, fmt.Errorf("the graph has %d inputs and %d outputs: one of each is the least", len(s.inputs), len(s.outputs))
	}
	return s, nil
}

// load makes the native session. Threads never spin while they wait: spinning ones starve a second version's load and each other.
// No memory pattern is kept: it only serves inputs of one fixed shape, and texts have many lengths.
func (s *session) load(path string, threads int, f form) (err error) {
	defer func() { err = recovered(recover(), err) }()
	o, err := ort.NewSessionOptions()
	if err != nil {
		return err
	}
	defer func() { _ = o.Destroy() }()
	if err := errors.Join(
		o.SetIntraOpNumThreads(threads),
		o.SetInterOpNumThreads(1),
		o.SetExecutionMode(ort.ExecutionModeSequential),
		o.SetMemPattern(false),
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		o.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
		o.SetGraphOptimizationLevel(f.level),
		f.write(o),
	); err != nil {
		return err
	}
	s.native, err = ort.NewDynamicAdvancedSession(path, names(s.inputs), names(s.outputs), o)
	if err != nil {
		return loadError(oneLine(err.Error()))
	}
	return nil
}

// errMachine says that this machine lacks something that the graph needs.
var errMachine = errors.New("this machine lacks what the graph needs")

func loadError(message string) error {
	if strings.Contains(message, "Failed to construct locale") {
		return fmt.Errorf("%w: install the locale (apt-get install locales, then locale-gen), or convert the model with "+
			"the TfidfVectorizer option locale=\"C.UTF-8\": %s", errMachine, message)
	}
	return errors.New(message)
}

func names(specs []engine.TensorSpec) []string {
	out := make([]string, len(specs))
	for i, s := range specs {
		out[i] = s.Name
	}
	return out
}

func (s *session) Inputs() []engine.TensorSpec  { return s.inputs }
func (s *session) Outputs() []engine.TensorSpec { return s.outputs }

// Close waits for runs in progress, frees the graph and gives its memory back to the system.
func (s *session) Close() error {
	if !s.runs.Close() {
		<-s.gone
		return nil
	}
	defer close(s.gone)
	err := s.native.Destroy()
	trim()
	return err
}

// Run is safe for concurrent use.
func (s *session) Run(ctx context.Context, inputs []engine.Tensor) (outputs []engine.Tensor, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkInputs(s.inputs, inputs); err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrInput, err)
	}
	if err := s.runs.Begin(); err != nil {
		return nil, err
	}
	defer s.runs.End()
	defer func() { err = recovered(recover(), err) }()
	outputs, err = s.run(ctx, inputs)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return outputs, err
}

func (s *session) run(ctx context.Context, inputs []engine.Tensor) ([]engine.Tensor, error) {
	var in values
	defer in.destroy()
	for i, t := range inputs {
		if err := in.add(t); err != nil {
			return nil, fmt.Errorf("%w: input %s: %w", engine.ErrInput, s.inputs[i].Name, err)
		}
	}
	opts, err := ort.NewRunOptions()
	if err != nil {
		return nil, err
	}
	defer func() { _ = opts.Destroy() }()
	defer terminateWhenDone(ctx, opts)()

	out := values{list: make([]ort.Value, len(s.outputs))}
	defer out.destroy()
	if err := s.native.RunWithOptions(in.list, out.list, opts); err != nil {
		return nil, fmt.Errorf("%w: %s", engine.ErrGraph, oneLine(err.Error()))
	}
	results := make([]engine.Tensor, len(s.outputs))
	for i, v := range out.list {
		if results[i], err = fromValue(v); err != nil {
			return nil, fmt.Errorf("%w: output %s: %w", engine.ErrGraph, s.outputs[i].Name, err)
		}
	}
	return results, nil
}

// terminateWhenDone stops the run that uses opts when ctx ends. The returned func must be called before opts is destroyed: it
// waits for a termination that is under way.
func terminateWhenDone(ctx context.Context, opts *ort.RunOptions) func() {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = opts.Terminate() // fails only without memory; then the run ends by itself
	})
	return func() {
		if !stop() {
			<-fired
		}
	}
}

// recovered turns a panic in the binding into an error: a graph must not end the process.
func recovered(p any, err error) error {
	if p == nil {
		return err
	}
	return fmt.Errorf("%w: the binding panicked: %v", engine.ErrGraph, p)
}

// oneLine makes ONNX Runtime's message fit a log line.
func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}
