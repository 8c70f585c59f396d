package video_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"modelgate/inference/video"
)

// script is a program in ffmpeg's place, which anybody may run.
func script(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "ffmpeg")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBox looks around from inside.
func TestBox(t *testing.T) {
	t.Setenv("MODELGATE_SECRET", "in the environment")
	path := script(t, `echo "ffmpeg memory=$(ulimit -v) time=$(ulimit -t) file=$(ulimit -f) secret=$MODELGATE_SECRET here=$(echo *) wrote=$( (: >x) 2>/dev/null && echo yes) net=$(n=0; while read -r line; do n=$((n+1)); done </proc/net/dev; echo $n)"`)
	var log bytes.Buffer
	newDecoder(t, video.DecoderOptions{FFmpeg: path, MaxMemory: 300 << 20, Timeout: 7 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if want := "memory=307200 time=8 file=0 secret= here=* wrote= net="; !strings.Contains(log.String(), want) {
		t.Errorf("the box looks like %s; want %s", log.String(), want)
	}
	// Two lines of headings and the loopback: what a network of its own begins with.
	if strings.Contains(log.String(), "without network") && !strings.Contains(log.String(), "net=3") {
		t.Errorf("the box has more of a network than it says: %s", log.String())
	}
	t.Log(log.String())
}

// hanging is a program in ffmpeg's place that does nothing for ever, and has started another one that does the same.
func hanging(t *testing.T, mark string) string {
	t.Helper()
	return script(t, `[ "$1" = -version ] && echo ffmpeg version 0 && exit; /bin/sleep `+mark+` & /bin/sleep `+mark)
}

// TestDeadline sees that nothing of a hanging ffmpeg stays, neither it nor what it started, when its caller leaves or has no time left.
func TestDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		mark string
		want error
		ask  func(*testing.T, *video.Encoder, func() bool) error
	}{
		"leaves": {"98765.4321", context.Canceled, leaveWhen},
		"late":   {"98765.4322", context.DeadlineExceeded, lateAfter},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := video.NewDecoder(video.DecoderOptions{FFmpeg: hanging(t, c.mark)})
			if err != nil {
				t.Fatal(err)
			}
			err = c.ask(t, open(t, videoMAE(), video.Options{Decoder: d}), func() bool { return running(t, c.mark) == 2 })
			mustBe(t, err, c.want)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			await(t, "the end of ffmpeg", func() bool { return running(t, c.mark) == 0 }) // the kernel takes a moment to clear it away
		})
	}
}

// leaveWhen asks, and leaves when something is so.
func leaveWhen(t *testing.T, e *video.Encoder, is func() bool) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := e.Encode(ctx, video.Clip{Encoded: []byte("GIF89a")})
		done <- err
	}()
	await(t, "two programs that hang", is)
	cancel()
	return <-done
}

// lateAfter asks with so much time that something is so before it is over.
func lateAfter(t *testing.T, e *video.Encoder, is func() bool) error {
	t.Helper()
	for limit := 500 * time.Millisecond; ; limit *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		seen := make(chan bool)
		go func() {
			was := false
			for ctx.Err() == nil && !was {
				was = is()
				runtime.Gosched()
			}
			seen <- was
		}()
		_, err := e.Encode(ctx, video.Clip{Encoded: []byte("GIF89a")})
		cancel()
		if was := <-seen; was || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// running counts processes that have an argument.
func running(t *testing.T, argument string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	n := 0
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err == nil && strings.HasSuffix(string(line), "sleep\x00"+argument+"\x00") {
			n++
		}
	}
	return n
}

// priority is a program in ffmpeg's place that waits until its policy of scheduling is the given one, by running or by sleeping.
// The 41st word of the file that it reads is the policy.
func priority(t *testing.T, policy, wait string) string {
	t.Helper()
	return script(t, `[ "$1" = -version ] && echo ffmpeg version 0 && exit
		policy() { read -r line </proc/self/stat; set -- $line; shift 40; echo $1; }
		until [ "$(policy)" = `+policy+` ]; do `+wait+`; done; echo policy is `+policy+` >&2; exit 1`)
}

// TestPriority sees that ffmpeg runs only when nobody else wants to (5), and that one which doesn't come to run at all is raised (3).
func TestPriority(t *testing.T) {
	for policy, wait := range map[string]string{"5": ":", "3": "/bin/sleep 0.1"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, video.DecoderOptions{FFmpeg: priority(t, policy, wait)})})
			_, err := e.Encode(t.Context(), video.Clip{Encoded: clip(t, "gif", "-f lavfi -i testsrc2=s=64x64:r=5:d=1")})
			if os.Geteuid() != 0 && policy == "3" { // it can't be raised itself, but those after it begin raised
				mustBe(t, err, video.ErrBusy)
				_, err = e.Encode(t.Context(), video.Clip{Encoded: clip(t, "gif", "-f lavfi -i testsrc2=s=64x64:r=5:d=1")})
			}
			mustBe(t, err, video.ErrClip)
			if !strings.Contains(err.Error(), "policy is "+policy) {
				t.Error(err)
			}
		})
	}
}

// occupy keeps every processor busy until stop is called.
func occupy() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var spinning sync.WaitGroup
	for range runtime.NumCPU() {
		spinning.Go(func() {
			for ctx.Err() == nil {
			}
		})
	}
	return func() {
		cancel()
		spinning.Wait()
	}
}

// TestStarved sees that a clip isn't to blame when the machine has no time for it, and is when ffmpeg only sleeps.
func TestStarved(t *testing.T) {
	encode := func(t *testing.T, command string, busy func() func()) error {
		path := script(t, `[ "$1" = -version ] && echo ffmpeg version 0 && exit; `+command)
		e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, video.DecoderOptions{FFmpeg: path, Timeout: time.Second})})
		defer busy()()
		_, err := e.Encode(t.Context(), video.Clip{Encoded: []byte("GIF89a")})
		if !strings.Contains(err.Error(), "1s") {
			t.Errorf("%v: it doesn't say how long it may take", err)
		}
		return err
	}
	t.Run("others run", func(t *testing.T) {
		if err := encode(t, "while :; do :; done", occupy); !errors.Is(err, video.ErrBusy) || errors.Is(err, video.ErrClip) {
			t.Error(err)
		}
	})
	t.Run("sleeps", func(t *testing.T) {
		err := video.ErrBusy
		for range 10 { // where the machine is so busy that it doesn't come to sleep
			if !errors.Is(err, video.ErrBusy) {
				break
			}
			err = encode(t, "exec /bin/sleep 100", func() func() { return func() {} })
		}
		mustBe(t, err, video.ErrClip)
	})
}

func TestNoFFmpeg(t *testing.T) {
	for name, path := range map[string]string{
		"no file":     filepath.Join(t.TempDir(), "ffmpeg"),
		"not ffmpeg":  script(t, "echo hello"),
		"fails":       script(t, "exit 3"),
		"not allowed": "/etc/hostname",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := video.NewDecoder(video.DecoderOptions{FFmpeg: path}); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("error is %v; want one that names the file", err)
			}
		})
	}
}

// TestMemory sees that a clip is never in memory as a whole: 100 frames of it would be 622 MB.
func TestMemory(t *testing.T) {
	data := clip(t, "mp4", "-f lavfi -i testsrc2=s=1080x1920:r=25:d=4 -c:v libx264 -preset ultrafast -pix_fmt yuv420p")
	d := newDecoder(t, video.DecoderOptions{MaxMemory: 512 << 20})
	e := open(t, videoMAE(), video.Options{Decoder: d})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := e.Encode(t.Context(), video.Clip{Encoded: data})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; got.Frames != 100 || used > 32<<20 {
		t.Errorf("%d frames took %d MiB", got.Frames, used>>20)
	}
}
