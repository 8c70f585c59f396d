package main

import (
	"os"
	"testing"
)

// This machine's own files are read, too.
func TestFreeMemoryHere(t *testing.T) {
	r, ok := freeMemory(os.DirFS("/"))
	if !ok || r.free <= 0 || r.free > r.limit {
		t.Errorf("%+v, %v", r, ok)
	}
	taken, err := takenBelow(os.DirFS("/"), os.Getpid())
	if err != nil || taken < 1<<20 || taken > r.limit {
		t.Errorf("%d bytes taken here, %v", taken, err)
	}
}
