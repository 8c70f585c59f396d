// Command modelgate-onnxgo is a worker for modelgate that computes small graphs with onnx-go in place of ONNX Runtime.
package main

import (
	"fmt"
	"os"

	"modelgate/engines/onnxgo"
	"modelgate/inference/engine/worker"
)

func main() {
	if err := worker.Serve(onnxgo.Host()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
