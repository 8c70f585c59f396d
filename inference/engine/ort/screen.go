package ort

import (
	"errors"
	"fmt"

	"modelgate/inference/onnxfile"
)

// errIsolation says that a graph isn't computed in this process. In one of its own it may be.
var errIsolation = errors.New("the graph may end the process that computes it")

// domains are the sets of operators that the official builds of ONNX Runtime have.
func domains() []string {
	return []string{"", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.experimental",
		"com.microsoft.nchwc", "com.ms.internal.nhwc", "org.pytorch.aten"}
}

// screen refuses, before ONNX Runtime sees it, what it can't compute and what would end this process.
func (e *Engine) screen(f *onnxfile.File) error {
	if ops := f.Undefined(domains()...); len(ops) > 0 {
		return fmt.Errorf("its operator %.100q of the domain %.100q is neither one of ONNX Runtime's nor a function of the file: export the model without "+
			"custom operators", ops[0].Type, ops[0].Domain)
	}
	if f.Division != "" && !e.isolated {
		return fmt.Errorf("%w: it divides integers by what might be 0 or -1 (%s); serve it with isolation: process, or divide by a constant", errIsolation, f.Division)
	}
	return nil
}
