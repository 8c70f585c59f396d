package video

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A box runs ffmpeg where it can do little: no network, an empty folder that it can't write to, no environment, no more memory,
// time and files than it needs, and nobody's rights, as far as the machine allows.
type box struct {
	ffmpeg string
	dir    string // empty, and nobody may write to it
	limits string // what the shell does before it becomes ffmpeg
	walls  walls
	queue  *queue
}

// shell is every Linux's. It sets the limits: they must stand before ffmpeg's first instruction, and Go can't set them there.
const shell = "/bin/sh"

func newBox(o DecoderOptions) (*box, error) {
	path, err := findFFmpeg(o.FFmpeg)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "modelgate-video-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o555); err != nil { //nolint:gosec // the child may be another user, and must be able to be there
		return nil, errors.Join(err, os.Remove(dir))
	}
	b := &box{ffmpeg: path, dir: dir, queue: &queue{log: o.Logger}}
	cpu := int64(o.Timeout/time.Second) + 1
	b.limits = fmt.Sprintf(`ulimit -c 0 && ulimit -f 0 && ulimit -n 32 && ulimit -t %d && ulimit -v %d && exec "$0" "$@"`, cpu, o.MaxMemory>>10)
	var failures []error
	for _, w := range allWalls() {
		b.walls = w
		version, err := b.version()
		if err == nil {
			level := slog.LevelInfo
			if w.flags == 0 {
				level = slog.LevelWarn // worth a look: the machine could do better
			}
			o.Logger.Log(context.Background(), level, "ffmpeg decodes clips", "path", path, "version", version, "isolation", w.name)
			return b, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", w.name, err))
	}
	return nil, errors.Join(fmt.Errorf("%s doesn't run: %w", path, errors.Join(failures...)), b.close())
}

func (b *box) close() error { return os.Remove(b.dir) }

// findFFmpeg looks on the PATH, then in .cache/ffmpeg of the folder we are in and those above it.
func findFFmpeg(path string) (string, error) {
	if path != "" {
		return filepath.Abs(path)
	}
	if found, err := exec.LookPath("ffmpeg"); err == nil {
		return filepath.Abs(found)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		found := filepath.Join(dir, ".cache", "ffmpeg", "ffmpeg")
		if st, err := os.Stat(found); err == nil && st.Mode().IsRegular() {
			return found, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("there is no ffmpeg, which decodes clips: install it (Debian: apt-get install ffmpeg), run tools/setup-ffmpeg.sh, or set its path")
		}
		dir = filepath.Dir(dir)
	}
}

// version sees that ffmpeg runs inside the box.
func (b *box) version() (version string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err = b.run(ctx, []string{"-version"}, nil, func(out io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(out, 256))
		version, _, _ = strings.Cut(string(data), "\n")
		return err
	})
	if err == nil && !strings.HasPrefix(version, "ffmpeg") {
		err = fmt.Errorf("it says %q", version)
	}
	return version, err
}

// run runs ffmpeg with the clip as descriptor 3 and gives its output to read while it runs. When ctx ends or read fails, the
// child and all it may have started are killed. Its errors wrap ErrClip where ffmpeg refuses the clip.
func (b *box) run(ctx context.Context, args []string, clip *os.File, read func(io.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The kernel kills the child when the thread that started it ends, so the thread has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, shell, append([]string{"-c", b.limits, b.ffmpeg}, args...)...) //nolint:gosec // the arguments are ours
	cmd.Dir, cmd.Env, cmd.SysProcAttr = b.dir, []string{}, b.walls.attributes()
	waited := unknownWait
	cmd.Cancel = func() error {
		waited = processorWait(cmd.Process.Pid) // its threads must be there still
		return killGroup(cmd.Process.Pid)
	}
	cmd.WaitDelay = time.Second
	said := &head{}
	cmd.Stderr = said
	if clip != nil {
		cmd.ExtraFiles = []*os.File{clip}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start ffmpeg: %w", err)
	}
	started := time.Now()
	leave := b.queue.join(cmd.Process.Pid)
	readErr := read(out)
	if readErr == nil {
		_, readErr = io.Copy(io.Discard, out)
	} else if !errors.Is(readErr, errFewer) {
		_ = killGroup(cmd.Process.Pid) // it may have ended by itself
	}
	leave()
	waitErr := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && starved(cmd.ProcessState, time.Since(started), waited):
		return errStarved
	case ctx.Err() != nil:
		return ctx.Err()
	case readErr != nil && !errors.Is(readErr, errFewer):
		return readErr
	case errors.As(waitErr, &exit) && isMachines(exit):
		return fmt.Errorf("ffmpeg ended with %w: %q", waitErr, said.String())
	case errors.As(waitErr, &exit):
		return fmt.Errorf("%w: ffmpeg can't decode it: %s", ErrClip, said.reason(exit))
	case waitErr != nil:
		return fmt.Errorf("wait for ffmpeg: %w", waitErr)
	}
	return readErr
}

// head keeps the beginning of what is written to it.
type head struct{ bytes.Buffer }

const maxHead = 4 << 10

func (h *head) Write(p []byte) (int, error) {
	if room := maxHead - h.Len(); room > 0 {
		h.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// reason is what ffmpeg said first, without addresses and control characters, or how it ended.
func (h *head) reason(exit *exec.ExitError) string {
	if strings.Contains(h.String(), "matches no streams") {
		return "it holds no video"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(h.String()), "\n")
	line = strings.ReplaceAll(line, clipFD, "the clip")
	for strings.HasPrefix(line, "[") { // [mov @ 0x55d0a8]
		_, after, ok := strings.Cut(line, "] ")
		if !ok {
			break
		}
		line = after
	}
	if line == "" {
		return exit.String()
	}
	return strconv.QuoteToASCII(line[:min(len(line), 200)])
}

// isMachines says whether the machine, not the clip, ended ffmpeg: it couldn't be started, or somebody killed it.
func isMachines(exit *exec.ExitError) bool {
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && (status.Signaled() && status.Signal() == syscall.SIGKILL || status.ExitStatus() == 126 || status.ExitStatus() == 127)
}
