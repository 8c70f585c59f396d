// Package workertest has a package's tests compute as a gateway does by default: on Linux in worker processes, of which the test's own
// binary is the program.
package workertest

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
	"modelgate/inference/engine/worker"
)

// BeWorker is called first in TestMain: where Engine started this process as a worker, it is one and never returns.
func BeWorker() {
	if len(os.Args) != 3 || os.Args[1] != "worker" {
		return
	}
	library := os.Args[2]
	err := worker.Serve(worker.Host{
		Engine:    func() (engine.Engine, error) { return ort.Open(ort.Options{LibraryPath: library, Isolated: true}) },
		Libraries: []string{filepath.Dir(library)},
		Loaded:    ort.Trim,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Isolated says whether Engine's graphs compute in processes of their own: MODELGATE_ISOLATION, or else what is the default here.
func Isolated() bool {
	isolation := os.Getenv("MODELGATE_ISOLATION")
	return isolation == "process" || isolation == "" && runtime.GOOS == "linux"
}

// Engine is ONNX Runtime, in processes of its own where Isolated says so.
func Engine(t testing.TB, log *slog.Logger) engine.Engine {
	t.Helper()
	library := enginetest.Library(t)
	var e engine.Engine
	var err error
	if Isolated() {
		exe, exeErr := os.Executable()
		if exeErr != nil {
			t.Fatal(exeErr)
		}
		e, err = worker.New(worker.Options{Path: exe, Args: []string{"modelgate", "worker", library}, Logger: log})
	} else {
		e, err = ort.Open(ort.Options{LibraryPath: library})
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}
