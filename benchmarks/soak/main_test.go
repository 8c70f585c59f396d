package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"modelgate/inference/engine/enginetest"
)

// TestSoak is the short form of what `make soak` does: what is counted has to be right; how long anything takes is not a test's
// business.
func TestSoak(t *testing.T) {
	s := settings{library: enginetest.Library(t), program: filepath.Join(t.TempDir(), "modelgate"), requests: 20_000, swaps: 30, share: .6,
		phase: 500 * time.Millisecond, rounds: 1, pairs: 3, large: 4_000_000, encoder: enginetest.MiniLM, logLevel: "info"}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.program, "modelgate/cmd/modelgate").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	timings := []string{"p99", "goodput", "throughput", "memory"}
	for _, name := range partNames() {
		var log strings.Builder
		p, err := measure(t.Context(), s, name, filepath.Join(t.TempDir(), name), &log)
		if err != nil {
			t.Errorf("%s: %v after\n%s", name, err, log.String())
			continue
		}
		t.Logf("%s%s%s", log.String(), table(p.rows()), p.text())
		for _, r := range p.rows() {
			timing := false
			for _, word := range timings {
				timing = timing || strings.Contains(r.what, word)
			}
			if !timing && !r.met {
				t.Errorf("%s: %s, want %s", r.what, r.measured, r.bar)
			}
		}
	}
}
