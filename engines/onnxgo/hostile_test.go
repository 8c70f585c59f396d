package onnxgo_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
)

// A run that takes long returns when its context ends, and so does one that waits for its turn. The session stays usable.
func TestCancelled(t *testing.T) {
	const n = 1000
	g := enginetest.NewGraph().Input("h0", enginetest.Float, "batch", n).Init("w", weight(n, n))
	names := []string{"h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8", "h9", "h10", "h11", "h12", "h13", "h14", "h15", "h16"}
	for i := 1; i < len(names); i++ {
		g.Node("MatMul", []string{names[i-1], "w"}, []string{"m" + names[i]}).Node("Tanh", []string{"m" + names[i]}, []string{names[i]})
	}
	s := enginetest.Open(t, here(t), g.Output("h16", enginetest.Float, "batch", n))
	first := answer(t, s, random(1, 1, n))
	long := random(1, 4000, n) // minutes
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	second := make(chan error, 1)
	go func() {
		_, err := s.Run(ctx, []engine.Tensor{long})
		second <- err
	}()
	if _, err := s.Run(ctx, []engine.Tensor{long}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a cancelled run: %v", err)
	}
	if err := <-second; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another cancelled run: %v", err)
	}
	same(t, answer(t, s, random(1, 1, n)), first)
}

// Whatever the file: it is refused, or opened and computed, and nothing else happens. A panic in the parser would be one in a worker.
func FuzzOpen(f *testing.F) {
	for _, g := range forms() {
		f.Add(g.graph.Bytes())
	}
	for _, g := range []*enginetest.Graph{cnn(12, 1), enginetest.MLP(16, 8, 3, 1), enginetest.LinearText(10, 2, 1, 0)} {
		b := g.Bytes()
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	path := filepath.Join(f.TempDir(), "model.onnx")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := here(t).Open(t.Context(), path, engine.Options{})
		if err != nil {
			if !errors.Is(err, engine.ErrGraph) {
				t.Errorf("%v, want ErrGraph", err)
			}
			return
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
