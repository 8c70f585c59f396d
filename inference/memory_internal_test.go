package inference

import (
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
