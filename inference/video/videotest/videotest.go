// Package videotest makes clips with ffmpeg, good and hostile ones, for tests and benchmarks.
package videotest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Maker makes clips. Its FFmpeg is not boxed in: it reads nothing but what its callers write.
type Maker struct {
	FFmpeg string // path of the program
	Dir    string // an empty folder for what it writes
}

// Clip makes a clip: the arguments are all but the file, whose ending says the kind.
func (m Maker) Clip(ctx context.Context, ending, args string) ([]byte, error) {
	return m.run(ctx, ending, strings.Fields(args)...)
}

// Repeat makes a clip that shows another one, an mp4, over and over, without encoding it again.
func (m Maker) Repeat(ctx context.Context, ending string, clip []byte, times int) ([]byte, error) {
	path := filepath.Join(m.Dir, "once.mp4")
	if err := os.WriteFile(path, clip, 0o600); err != nil {
		return nil, err
	}
	return m.run(ctx, ending, "-stream_loop", fmt.Sprint(times-1), "-i", path, "-c", "copy")
}

func (m Maker) run(ctx context.Context, ending string, args ...string) ([]byte, error) {
	path := filepath.Join(m.Dir, "clip."+ending)
	args = append(append([]string{"-nostdin", "-v", "error", "-y"}, args...), path)
	cmd := exec.CommandContext(ctx, m.FFmpeg, args...) //nolint:gosec // the arguments are those of a test
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("ffmpeg %s: %w: %s", strings.Join(args, " "), err, said.Bytes())
	}
	return os.ReadFile(path)
}
