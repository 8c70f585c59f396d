package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	ort "github.com/yalue/onnxruntime_go"

	"modelgate/inference/engine"
	"modelgate/inference/onnxfile"
)

// A form is how a graph is taken from its file.
type form struct {
	level ort.GraphOptimizationLevel
	into  string // folder to write the optimized graph to; empty: it isn't written
	least int64  // bytes of the weights that go to the file beside it
}

const (
	// boundary is where kernels expect packed weights to begin. From elsewhere they crash, some with some shapes only.
	boundary = 64
	// least is the smallest weight that is mapped. ONNX Runtime packs those close together, so that they mostly, but not always, begin
	// at a boundary. leastAligned is the smallest that it puts on one.
	least        = 1 << 10
	leastAligned = 1<<20 + 1
)

var errUnaligned = fmt.Errorf("%w: packed weights would be where kernels can't use them", engine.ErrNoForm)

// Prepare opens the graph at path and writes it to dir as it is in memory after all optimizations, weights packed for the kernels
// that this processor has. Files that are there are overwritten. An error of the writing wraps engine.ErrGraph like one of the graph:
// where Open succeeds it was the writing.
func (e *Engine) Prepare(ctx context.Context, path, dir string, o engine.Options) (engine.Session, error) {
	f := form{level: ort.GraphOptimizationLevelEnableAll, into: dir, least: least}
	s, err := e.open(ctx, path, o.Threads, f)
	if err != nil {
		return nil, err
	}
	err = f.check()
	if errors.Is(err, errUnaligned) {
		if err := s.Close(); err != nil {
			return nil, err
		}
		f.least = leastAligned
		if s, err = e.open(ctx, path, o.Threads, f); err != nil {
			return nil, err
		}
		err = f.check()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare graph %s: %w", path, err), s.Close())
	}
	return s, nil
}

// write has the optimized graph written. Its file holds the small constants, that of the weights the rest, and once more those that
// kernels want in another order, so that none of them is copied at a load.
func (f form) write(o *ort.SessionOptions) error {
	if f.into == "" {
		return nil
	}
	return errors.Join(
		o.SetOptimizedModelFilePath(filepath.Join(f.into, engine.PreparedGraph)),
		o.AddSessionConfigEntry("session.optimized_model_external_initializers_file_name", engine.PreparedData),
		o.AddSessionConfigEntry("session.optimized_model_external_initializers_min_size_in_bytes", strconv.FormatInt(f.least, 10)),
		o.AddSessionConfigEntry("session.save_external_prepacked_constant_initializers", "1"),
	)
}

// check says whether what was written is whole, as it isn't on a full disk, and lies where kernels can use it.
func (f form) check() error {
	spans, err := onnxfile.Spans(filepath.Join(f.into, engine.PreparedGraph))
	if err != nil || len(spans) == 0 {
		return err
	}
	st, err := os.Stat(filepath.Join(f.into, engine.PreparedData))
	if err != nil {
		return err
	}
	for _, s := range spans {
		switch {
		case s.Offset > st.Size() || s.Length > st.Size()-s.Offset:
			return fmt.Errorf("%s has %d bytes, and should have some at %d", engine.PreparedData, st.Size(), s.Offset+s.Length)
		case s.Offset%boundary != 0:
			return errUnaligned
		}
	}
	return nil
}
