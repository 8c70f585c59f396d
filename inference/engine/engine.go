// Package engine is the seam between modelgate and whatever computes a graph: tensors in, tensors out.
package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// An Engine opens graphs. Opening may take seconds and allocate a model's weights.
type Engine interface {
	// Open loads the graph at path (an .onnx file whose external data, if any, lies beside it).
	// An error that wraps ErrGraph says that the graph itself is at fault, so that trying again is pointless.
	Open(ctx context.Context, path string, o Options) (Session, error)
}

// Options say how a graph is run. The zero Options are good.
type Options struct {
	Threads int // threads inside one Run; 0 means the engine's choice for this machine
	// Runs is how many Runs there will be at the same time; 0: the engine's choice. More of them may wait for one another.
	Runs int
	// Memory is how many bytes a process that computes the graph alone may take for itself, mapped files aside; 0: the engine's choice.
	// An engine that computes in this process has no use for it.
	Memory int64
	// Died and Restarted are called, if set, when a process that computes the graph alone has ended without being told to, and when
	// another is in its place. They must not block, nor use the session.
	Died      func(Cause)
	Restarted func()
	// Prepared says that the graph was written by this engine's Prepare. It is run as it is.
	Prepared bool
}

// A Preparer is an Engine that can write a graph in the form that it loads fastest.
type Preparer interface {
	// Prepare opens the graph at path, as Open does, and writes it to the folder dir as PreparedGraph and PreparedData: optimized for
	// this machine, with weights that needn't be copied to be used. Opened with Options.Prepared it gives the same numbers as the
	// session that is returned. What it writes is good only for this version of the engine and processors of this kind.
	Prepare(ctx context.Context, path, dir string, o Options) (Session, error)
}

// ErrNoForm says that there is no faster form of a graph, whenever it is asked for.
var ErrNoForm = errors.New("there is no prepared form")

// The files that Prepare writes.
const (
	PreparedGraph = "model.onnx"
	PreparedData  = "model.data" // the weights
)

// A Session is a loaded graph. All methods but Close are safe for concurrent use.
type Session interface {
	Inputs() []TensorSpec
	Outputs() []TensorSpec
	// Run computes the outputs, in the order of Outputs, from the inputs, in the order of Inputs. The leading dimension is the
	// batch. When ctx ends first, Run returns ctx's error soon, and the session stays usable. The inputs aren't kept.
	Run(ctx context.Context, inputs []Tensor) (outputs []Tensor, err error)
	// Close frees the graph. It waits for runs in progress; a later Run returns ErrClosed. Closing twice is harmless.
	Close() error
}

// A Candidate is a Session that computes only where nobody else wants to until it is told that its version serves.
type Candidate interface {
	Live(ctx context.Context) error
}

// A Process is a Session that computes in a process of its own.
type Process interface {
	PID() int // 0 while there is none
}

var (
	// ErrClosed says that the session was closed.
	ErrClosed = errors.New("the session is closed")
	// ErrGraph says that the graph can't be loaded or doesn't do what it declares.
	ErrGraph = errors.New("the graph can't be used")
	// ErrInput says that the inputs don't fit the graph: names, types or shapes.
	ErrInput = errors.New("the inputs don't fit the graph")
	// ErrCrashed says that the process that computes the graph ended during the run, and that the run may be why; mostly a
	// CrashError says more. The session stays usable. A run of several rows isn't tried again: who joined the rows runs them one
	// by one, so that only the one that is at fault fails.
	ErrCrashed = errors.New("the process that computes the graph ended")
)

// A Cause says why a process that computes a graph ended.
type Cause string

// The causes.
const (
	Crashed Cause = "crashed" // it ended by itself, or sent what made no sense
	Hung    Cause = "hung"    // it didn't do as it was told in time, or took too long to load, and was killed
	Killed  Cause = "killed"  // somebody else killed it, as the kernel does where memory runs out
)

// A CrashError is the error of a run during which the process that computes the graph ended. It wraps ErrCrashed and Err.
type CrashError struct {
	Cause Cause
	// Proven says that the run, of however many rows, is why: there was no other in the process, which ended by itself; or it was
	// cancelled, computed on, and had to be killed.
	Proven bool
	Err    error // the context's where the run was cancelled
}

func (e *CrashError) Error() string { return fmt.Sprintf("%v: %v", ErrCrashed, e.Err) }

func (e *CrashError) Unwrap() []error { return []error{ErrCrashed, e.Err} }

// DType is the type of a tensor's elements.
type DType int

// The element types that cross this seam.
const (
	Invalid DType = iota
	Float32
	Float64
	Int64
	Int32
	Uint8
	Bool
	String
)

var dtypeNames = [...]string{"invalid", "float32", "float64", "int64", "int32", "uint8", "bool", "string"}

func (t DType) String() string {
	if t < 0 || int(t) >= len(dtypeNames) {
		return fmt.Sprintf("dtype(%d)", int(t))
	}
	return dtypeNames[t]
}

// A TensorSpec is what a graph declares of an input or output.
type TensorSpec struct {
	Name  string
	Type  DType
	Shape []int64 // -1 where the graph leaves a dimension open
	// Map says that the output is a sequence of maps from label to number (skl2onnx's ZipMap); Run gives it as a Float32
	// tensor of shape (batch, labels) with Keys.
	Map bool
}

func (s TensorSpec) String() string { return fmt.Sprintf("%s %v%v", s.Name, s.Type, s.Shape) }

// A Tensor is a dense array in row-major order.
type Tensor struct {
	Shape []int64
	Data  any      // []float32, []float64, []int64, []int32, []uint8, []bool or []string, of Elements(Shape) elements
	Keys  []string // for a Map output: the labels of the columns
}

// Type is the type of t's elements.
func (t Tensor) Type() DType {
	switch t.Data.(type) {
	case []float32:
		return Float32
	case []float64:
		return Float64
	case []int64:
		return Int64
	case []int32:
		return Int32
	case []uint8:
		return Uint8
	case []bool:
		return Bool
	case []string:
		return String
	}
	return Invalid
}

// Elements is the product of the dimensions, or an error for a negative dimension or a product that overflows.
func Elements(shape []int64) (int, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		if d != 0 && n > math.MaxInt/d {
			return 0, fmt.Errorf("shape %v is too large", shape)
		}
		n *= d
	}
	return int(n), nil
}
