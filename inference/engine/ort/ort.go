// Package ort runs ONNX graphs with ONNX Runtime, in this process, on the CPU.
package ort

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"modelgate/inference/engine"
	"modelgate/inference/onnxfile"
)

// MinVersion is the oldest ONNX Runtime whose interface this package speaks.
const MinVersion = "1.24"

// Options configure an Engine.
type Options struct {
	LibraryPath string // libonnxruntime's file, as FindLibrary gives it
	Threads     int    // threads inside one Run where engine.Options don't say; 0 means 1
	// Isolated says that this process may end with a graph that it computes: graphs that can do so are refused otherwise.
	Isolated bool
}

// An Engine opens graphs with ONNX Runtime. It is safe for concurrent use.
//
// One thread a run is the default: runs are concurrent, and on a CPU several of them with one thread each get more done than one
// with several threads. Who serves little traffic and wants the shortest answer sets Threads to the number of cores.
type Engine struct {
	version  string
	threads  int
	isolated bool
}

// loaded is the one library of this process: ONNX Runtime can be initialized once, and it stays until the process ends.
var loaded struct {
	mu   sync.Mutex // guards path; held while the library is loaded, so that a second Open waits for the first
	path string
}

// Open loads ONNX Runtime from o.LibraryPath. The library is loaded once a process: a later Open shares it, and is refused if it
// asks for another file.
func Open(o Options) (*Engine, error) {
	if o.Threads < 0 {
		return nil, fmt.Errorf("threads is %d: must be 0 or more", o.Threads)
	}
	loaded.mu.Lock()
	defer loaded.mu.Unlock()
	if loaded.path == "" {
		if err := load(o.LibraryPath); err != nil {
			return nil, err
		}
		loaded.path = o.LibraryPath
	}
	if loaded.path != o.LibraryPath {
		return nil, fmt.Errorf("load ONNX Runtime from %s: this process has already loaded it from %s", o.LibraryPath, loaded.path)
	}
	return &Engine{version: ort.GetVersion(), threads: max(o.Threads, 1), isolated: o.Isolated}, nil
}

func load(path string) error {
	if path == "" {
		return errors.New("load ONNX Runtime: no path given")
	}
	ort.SetSharedLibraryPath(path)
	// Errors come back as values. Logged as well, they would be said twice and in another format, on standard error.
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		return fmt.Errorf("load ONNX Runtime from %s (version %s or newer is needed): %w", path, MinVersion, err)
	}
	if err := ort.DisableTelemetry(); err != nil {
		return fmt.Errorf("switch off ONNX Runtime's telemetry: %w", err)
	}
	return nil
}

// Version is ONNX Runtime's version, such as "1.24.4".
func (e *Engine) Version() string { return e.version }

// Open loads the graph at path. Loading can't be interrupted: ctx is looked at before it and after it.
func (e *Engine) Open(ctx context.Context, path string, o engine.Options) (engine.Session, error) {
	f := form{level: ort.GraphOptimizationLevelEnableAll}
	if o.Prepared {
		f.level = ort.GraphOptimizationLevelDisableAll
	}
	return e.open(ctx, path, o.Threads, f)
}

func (e *Engine) open(ctx context.Context, path string, threads int, f form) (engine.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The folder that external data is checked against must be the one that ONNX Runtime will look in.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, graphError(fmt.Errorf("open graph: %w", err))
	}
	file, err := onnxfile.Read(path)
	if err != nil {
		return nil, graphError(fmt.Errorf("open graph: %w", err))
	}
	if err := e.screen(file); err != nil {
		return nil, graphError(fmt.Errorf("open graph %s: %w", path, err))
	}
	if err := checkExternal(path, file.External); err != nil {
		return nil, graphError(fmt.Errorf("open graph %s: %w", path, err))
	}
	s, err := newSession(file)
	if err != nil {
		return nil, graphError(fmt.Errorf("open graph %s: %w", path, err))
	}
	if threads <= 0 {
		threads = e.threads
	}
	if err := s.load(path, threads, f); err != nil {
		return nil, graphError(fmt.Errorf("open graph %s: %w", path, err))
	}
	if err := ctx.Err(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// graphError marks err as the graph's fault, unless it says that a file couldn't be read, which may pass, or that the machine is
// at fault.
func graphError(err error) error {
	var pathErr *fs.PathError
	if errors.Is(err, errMachine) || errors.Is(err, errIsolation) {
		return err
	}
	if errors.As(err, &pathErr) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%w: %w", engine.ErrGraph, err)
}
