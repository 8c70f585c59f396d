package video_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// await returns when something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !is(); runtime.Gosched() {
		if time.Now().After(late) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func writeTemp(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sizeOf asks ffmpeg for the size of a clip's frames, as they are stored.
func sizeOf(t testing.TB, path string) (width, height int) {
	t.Helper()
	out := ffmpeg(t, "-i", path, "-map", "0:v:0", "-c", "copy", "-frames:v", "1", "-f", "framecrc", "-")
	_, after, _ := strings.Cut(string(out), "#dimensions 0: ")
	if _, err := fmt.Sscanf(after, "%dx%d", &width, &height); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return width, height
}
