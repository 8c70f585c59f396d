package inference

import (
	"cmp"
	"os"
	"path/filepath"
	"runtime"

	"modelgate/inference/onnxfile"
)

const (
	// runMemory is what a process may take for each run at a time, besides weights: for what long texts and clips leave between nodes, and
	// for its threads.
	runMemory = 1 << 30
	// idleMemory is what a process has that computes a graph without weights.
	idleMemory = 64 << 20
)

// LoadMemory estimates how much memory loading the bundle in dir takes at its peak, in bytes: on the high side. A tokenizer isn't counted, which
// versions of a model mostly share.
func LoadMemory(dir string) (int64, error) {
	graph, err := findGraph(dir)
	if err != nil {
		return 0, err
	}
	within, beside := weightsOf(graph)
	// The runtime reads a file whole, and copies its weights into the order in which it multiplies. Files beside are mapped.
	return idleMemory + within/4*7 + beside, nil
}

// PreparedMemory is LoadMemory for the prepared form of a graph, at path: its weights are used where they are mapped, but for a few small ones.
func PreparedMemory(path string) int64 {
	within, beside := weightsOf(path)
	return idleMemory + within/4*7 + beside/8
}

// MostMemory bounds what a process may take that serves the bundle in dir with so many workers, in bytes; 0: as many as there are
// processors. It is 0 where there is no graph.
func MostMemory(dir string, workers int) int64 {
	graph, err := findGraph(dir)
	if err != nil {
		return 0
	}
	return memoryFor(graph, cmp.Or(workers, runtime.GOMAXPROCS(0)))
}

// memoryFor bounds what a process that computes the graph at path in so many runs at a time may take, in bytes: generously, so that only
// what would take a machine's memory away meets it.
func memoryFor(path string, runs int) int64 {
	within, beside := weightsOf(path)
	return runMemory*int64(max(1, runs)) + 4*2*(within+beside)
}

// weightsOf is the size of a graph's file, and of the files beside it that it names, each counted once.
func weightsOf(path string) (within, beside int64) {
	within = sizeOf(path)
	f, err := onnxfile.Read(path)
	if err != nil {
		return within, 0 // the engine says what is wrong with it
	}
	seen := map[string]bool{}
	for _, name := range f.External {
		name = filepath.Clean(name)
		if filepath.IsLocal(name) && !seen[name] {
			beside += sizeOf(filepath.Join(filepath.Dir(path), name))
		}
		seen[name] = true
	}
	return within, beside
}

func sizeOf(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}
