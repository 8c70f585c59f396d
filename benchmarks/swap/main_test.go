package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modelgate/inference/engine/enginetest"
)

// The program measures everything and writes its files; how long anything takes is not a test's business.
func TestRunWritesTableAndPlot(t *testing.T) {
	s := settings{library: enginetest.Library(t), out: t.TempDir(), runs: 1, readers: []int{0, 4}, publish: 20, swaps: 3}
	var log strings.Builder
	if err := run(t.Context(), s, &log); err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(filepath.Join(s.out, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"Acquire and Release", "| 4 | waits", "| 4 | predicts", "examples/models/text", "a graph with a large table", "| warm_up |", "| drain |"} {
		if !strings.Contains(string(table), part) {
			t.Errorf("RESULTS.md doesn't say %q:\n%s", part, table)
		}
	}
	svg, err := os.Open(filepath.Join(s.out, "swap.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = svg.Close() }()
	for d := xml.NewDecoder(svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("swap.svg is not well formed: %v", err)
		}
	}
}
