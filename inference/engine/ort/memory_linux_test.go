package ort_test

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
)

// resident is how much memory the process holds, in MiB.
func resident(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() >> 20
}

// checkKeeps fails if work holds on to more memory each time. The heap and the race detector come and go by some tens of MiB, so the
// median of five times counts; what the tests below look for is a hundred and more.
func checkKeeps(t *testing.T, what string, work func()) {
	t.Helper()
	var grown []int
	for range 5 {
		debug.FreeOSMemory()
		before := resident(t)
		work()
		debug.FreeOSMemory()
		grown = append(grown, resident(t)-before)
	}
	slices.Sort(grown)
	if grown[2] > 40 {
		t.Errorf("%s, five times: %v MiB more", what, grown)
	}
}

// A closed graph's memory goes back to the system, and runs leave nothing behind, those that fail included.
func TestMemoryIsGivenBack(t *testing.T) {
	e := open(t)
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := enginetest.MLP(1024, 4096, 2, 1).WriteFile(path); err != nil { // 16 MiB of weights
		t.Fatal(err)
	}
	cycle := func(n int) {
		for range n {
			s, err := e.Open(t.Context(), path, engine.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Run(t.Context(), []engine.Tensor{{Shape: []int64{4, 1024}, Data: make([]float32, 4096)}}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	cycle(5)
	checkKeeps(t, "30 times open, run and close", func() { cycle(30) })

	maps := enginetest.Open(t, e, enginetest.NewGraph().Input("x", enginetest.Float, "n", 2).
		DomainNode("ai.onnx.ml", "ZipMap", []string{"x"}, []string{"z"}, enginetest.StringsAttr("classlabels_strings", "no", "yes")).
		MapsOutput("z", enginetest.String))
	texts := enginetest.Open(t, e, enginetest.NewGraph().Input("x", enginetest.String, "n").
		Node("Identity", []string{"x"}, []string{"y"}).Output("y", enginetest.String, "n"))
	ids := enginetest.Open(t, e, enginetest.LinearText(10, 2, 1, 0))
	long := strings.Repeat("x", 1<<10)
	run := func(n int) {
		for range n {
			_, err1 := maps.Run(t.Context(), []engine.Tensor{{Shape: []int64{16, 2}, Data: make([]float32, 32)}})
			_, err2 := texts.Run(t.Context(), []engine.Tensor{{Shape: []int64{2}, Data: []string{long, long}}})
			bad := engine.Tensor{Shape: []int64{1, 256}, Data: append(make([]int64, 255), 10)}
			_, err3 := ids.Run(t.Context(), []engine.Tensor{bad, bad})
			if err1 != nil || err2 != nil || err3 == nil {
				t.Fatal(err1, err2, err3)
			}
		}
	}
	checkKeeps(t, "5000 runs", func() { run(5000) })
}
