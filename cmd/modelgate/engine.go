package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"modelgate/cmd/modelgate/config"
	"modelgate/inference/engine"
	"modelgate/inference/engine/ort"
	"modelgate/inference/engine/worker"
)

// openEngine chooses the engine, here or in worker processes. This file is the only place that knows its name.
func openEngine(ctx context.Context, c *config.Loaded, log *slog.Logger) (engine.Engine, error) {
	if c.WorkerProgram != "" {
		return otherEngine(ctx, c.WorkerProgram, log)
	}
	if c.Isolation != "process" {
		path, err := findLibrary(c)
		if err != nil {
			return nil, err
		}
		return ort.Open(ort.Options{LibraryPath: path, Threads: c.Threads})
	}
	e, _, err := openWorkers(c, log)
	if err != nil {
		return nil, err
	}
	if err := e.Try(ctx); err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("isolation is process, and no process for a version can be started here: %w; mend that, or compute in the "+
			"gateway itself (isolation: none, MODELGATE_ISOLATION=none or --isolation none), which a bad graph can end then", err)
	}
	return e, ctx.Err()
}

// otherEngine is whatever engine a program has that is started as a worker in place of this one.
func otherEngine(ctx context.Context, program string, log *slog.Logger) (engine.Engine, error) {
	path, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	e, err := worker.New(worker.Options{Path: path, Args: []string{filepath.Base(path), "worker"}, Logger: log})
	if err != nil {
		return nil, err
	}
	if err := e.Try(ctx); err != nil {
		return nil, fmt.Errorf("%w (worker_program is %s: it must be a worker of this release of modelgate, such as modelgate-onnxgo)", err, program)
	}
	return e, nil
}

func findLibrary(c *config.Loaded) (string, error) {
	path, err := ort.FindLibrary(c.ONNXRuntime)
	if err != nil {
		return "", fmt.Errorf("%w (onnxruntime, MODELGATE_ONNXRUNTIME or --onnxruntime)", err)
	}
	return path, nil
}

// openWorkers makes what starts child processes, which load the library.
func openWorkers(c *config.Loaded, log *slog.Logger) (e *worker.Engine, library string, err error) {
	path, err := findLibrary(c)
	if err != nil {
		return nil, "", err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, "", fmt.Errorf("find this program, to start workers: %w", err)
	}
	// A test's binary is this program too, by the name that it is started with.
	e, err = worker.New(worker.Options{Path: exe, Args: []string{filepath.Base(os.Args[0]), "worker", path}, Logger: log,
		LoadTimeout: time.Duration(c.LoadTimeout), Grace: time.Duration(c.Worker.Grace)})
	return e, path, err
}

// workerCommand is what openEngine starts.
func workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker LIBRARY",
		Short:  "Compute one version for a gateway, which starts this itself",
		Hidden: true,
		Args:   args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return worker.Serve(worker.Host{
				Engine:    func() (engine.Engine, error) { return ort.Open(ort.Options{LibraryPath: args[0], Isolated: true}) },
				Libraries: []string{filepath.Dir(args[0])},
				Loaded:    ort.Trim,
				Job:       doTask,
			})
		},
	}
}
