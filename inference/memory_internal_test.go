package inference

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modelgate/inference/engine/enginetest"
)

// Weights count wherever they lie. What a location that isn't in the folder names doesn't.
func TestMemoryFor(t *testing.T) {
	dir := t.TempDir()
	graph := func(location string) string {
		path := filepath.Join(dir, "model.onnx")
		g := enginetest.NewGraph().Input("x", enginetest.Float, 2).
			Init("w", enginetest.Tensor{Shape: []int64{2}, Data: []float32{1, 2}, External: location}).
			Init("v", enginetest.Tensor{Shape: []int64{2}, Data: []float32{1, 2}, External: strings.TrimPrefix(location, "./")}).
			Node("Add", []string{"x", "w"}, []string{"y"}).Output("y", enginetest.Float, 2)
		if err := g.WriteFile(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.WriteFile(filepath.Join(dir, "weights"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	memoryFor := func(path string) int64 { return memoryFor(path, 1) }
	alone := memoryFor(graph(""))
	if alone < 1<<30 || alone > 1<<30+1<<16 {
		t.Errorf("a small graph gets %d bytes", alone)
	}
	if got := memoryFor(graph("weights")) - alone; got < 8<<20 || got > 8<<20+1<<16 {
		t.Errorf("a mebibyte of weights beside it adds %d bytes", got)
	}
	if got := memoryFor(graph("../" + filepath.Base(dir) + "/weights")); got > alone+1<<16 {
		t.Errorf("weights elsewhere add %d bytes", got-alone)
	}
	if got := memoryFor(graph("./weights")) - alone; got < 8<<20 || got > 8<<20+1<<16 {
		t.Errorf("a mebibyte of weights beside it by two names adds %d bytes", got)
	}
	if got := memoryFor(filepath.Join(dir, "absent")); got != 1<<30 {
		t.Errorf("no graph gets %d bytes", got)
	}
}

// What lies within the graph's file is read and copied, what lies beside it copied at most.
func TestLoadMemory(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int64) {
		t.Helper()
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := LoadMemory(dir); err == nil {
		t.Errorf("a folder without a graph needs %d bytes", n)
	}
	write("model.onnx", 1100<<20)
	n, err := LoadMemory(dir)
	if err != nil || n < 1800<<20 || n > 2200<<20 { // measured: 1.8 GB
		t.Errorf("a graph of 1.1 GiB needs %d MiB, %v", n>>20, err)
	}
	g := enginetest.NewGraph().Input("x", enginetest.Float, 2).
		Init("w", enginetest.Tensor{Shape: []int64{2}, Data: []float32{1, 2}, External: "weights"}).
		Node("Add", []string{"x", "w"}, []string{"y"}).Output("y", enginetest.Float, 2)
	if err := g.WriteFile(filepath.Join(dir, "model.onnx")); err != nil {
		t.Fatal(err)
	}
	write("weights", 1100<<20)
	if n, err := LoadMemory(dir); err != nil || n < 400<<20 || n > 1200<<20 {
		t.Errorf("a graph with 1.1 GiB beside it needs %d MiB, %v", n>>20, err)
	}
	if n := PreparedMemory(filepath.Join(dir, "model.onnx")); n < 100<<20 || n > 300<<20 { // measured: 37 MB without the process
		t.Errorf("in a prepared form it needs %d MiB", n>>20)
	}
}
