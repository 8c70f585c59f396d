package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"modelgate/inference/engine/enginetest"
)

// The program measures everything and writes its section; how long anything takes is not a test's business.
func TestRunWritesItsSection(t *testing.T) {
	s := settings{library: enginetest.Library(t), ffmpeg: enginetest.FFmpeg(t), page: filepath.Join(t.TempDir(), "RESULTS.md"),
		rounds: 1, phase: 500 * time.Millisecond, share: 0.3, senders: 2, costs: 1, seconds: 3, large: "270x480", slowest: time.Second}
	if err := os.WriteFile(s.page, []byte("# Others\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	if err := run(t.Context(), s, &log); err != nil {
		t.Fatalf("%v after\n%s", err, log.String())
	}
	page, err := os.ReadFile(s.page)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"# Others", "What a large clip costs", "budget of 1.35", "clip of 90 frames", "beside good clips", "Every hostile file was refused"} {
		if !strings.Contains(string(page), part) {
			t.Errorf("the page doesn't say %q:\n%s", part, page)
		}
	}
	if strings.Contains(string(page), " 0 MB resident") {
		t.Errorf("no child was seen:\n%s", page)
	}
}
