// Package command is what the commands that measure have in common.
package command

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"modelgate/inference/engine/ort"
)

// Main runs a command until it is done or a signal ends its context. Its error is told under its name, with status 1; a request for
// help is none.
func Main(name string, run func(ctx context.Context, args []string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Library is the absolute path of ONNX Runtime: what MODELGATE_ONNXRUNTIME names, or what `make onnxruntime` has fetched.
func Library() (string, error) {
	path, err := ort.FindLibrary(cmp.Or(os.Getenv("MODELGATE_ONNXRUNTIME"), filepath.Join(".cache", "onnxruntime", "lib")))
	if err != nil {
		return "", fmt.Errorf("%w: run `make onnxruntime` and start this from the checkout's root, or set MODELGATE_ONNXRUNTIME", err)
	}
	return filepath.Abs(path)
}
