package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"modelgate/inference/video"
	"modelgate/inference/video/videotest"
)

// costs are what a large clip costs.
type costs struct {
	times        int
	ours, theirs []time.Duration // processor time: of 16 frames of 10 s, and of ffmpeg decoding the same to nothing
	ratio        []float64
	child        memory
	parent       int64 // by how much this process grew at most while a clip of 30 s was decoded
	whole        int64 // bytes that the clip's pixels have in all
	frames       int
	size         string
}

const vertical = "-f lavfi -i testsrc2=s=%s:r=30:d=%d -c:v libx264 -preset veryfast -pix_fmt yuv420p"

// measureCosts measures before there is a gateway, so that this process is as good as empty.
func measureCosts(ctx context.Context, s settings, dir string, w io.Writer) (c costs, err error) {
	if err := writeVideo(filepath.Join(dir, "bundle")); err != nil {
		return c, err
	}
	decoder, err := video.NewDecoder(video.DecoderOptions{FFmpeg: s.ffmpeg, Timeout: 5 * time.Minute}) //nolint:contextcheck // one short run of ffmpeg at the start
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, decoder.Close()) }()
	encoder, err := video.Open(filepath.Join(dir, "bundle"), video.Options{Decoder: decoder})
	if err != nil {
		return c, err
	}
	m := videotest.Maker{FFmpeg: s.ffmpeg, Dir: dir}
	short, err := m.Clip(ctx, "mp4", fmt.Sprintf(vertical, s.large, s.seconds/3))
	if err != nil {
		return c, err
	}
	c.size = s.large
	for range s.costs { // taking turns, so that a busy spell of the machine meets both
		if err := c.time(ctx, s.ffmpeg, encoder, short, filepath.Join(dir, "clip.mp4")); err != nil {
			return c, err
		}
		fmt.Fprintf(w, "16 frames: %v, ffmpeg alone: %v\n", c.ours[c.times-1], c.theirs[c.times-1])
	}
	long, err := m.Clip(ctx, "mp4", fmt.Sprintf(vertical, s.large, s.seconds))
	if err != nil {
		return c, err
	}
	return c, c.remember(ctx, encoder, long)
}

// time compares the processor time of the chosen frames with that of ffmpeg decoding the clip at path and throwing it away.
func (c *costs) time(ctx context.Context, ffmpeg string, e *video.Encoder, clip []byte, path string) error {
	start, err := processorTime()
	if err != nil {
		return err
	}
	if _, err := e.Encode(ctx, video.Clip{Encoded: clip}); err != nil {
		return err
	}
	middle, err := processorTime()
	if err != nil {
		return err
	}
	args := []string{"-nostdin", "-v", "error", "-threads", "1", "-i", path, "-map", "0:v:0", "-f", "null", "-"}
	if out, err := exec.CommandContext(ctx, ffmpeg, args...).CombinedOutput(); err != nil { //nolint:gosec // the arguments are ours
		return fmt.Errorf("ffmpeg: %w: %s", err, out)
	}
	end, err := processorTime()
	if err != nil {
		return err
	}
	c.times++
	c.ours, c.theirs = append(c.ours, middle-start), append(c.theirs, end-middle)
	c.ratio = append(c.ratio, float64(middle-start)/float64(end-middle))
	return nil
}

// processorTime is what this process and the children that it has waited for have used.
func processorTime() (total time.Duration, err error) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return 0, err
		}
		total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return total, nil
}

// remember measures memory while a clip is decoded.
func (c *costs) remember(ctx context.Context, e *video.Encoder, clip []byte) error {
	debug.FreeOSMemory()
	if err := resetPeak(); err != nil {
		return err
	}
	before := ownPeak()
	stop := watchChildren()
	t, err := e.Encode(ctx, video.Clip{Encoded: clip})
	c.child = stop()
	if err != nil {
		return err
	}
	c.parent, c.frames = ownPeak()-before, t.Frames
	var width, height int64
	_, err = fmt.Sscanf(c.size, "%dx%d", &width, &height)
	c.whole = int64(t.Frames) * width * height * 3
	return err
}

// budget is the bar for the processor time, as a multiple of ffmpeg's.
const budget = 1.35

func (c *costs) write(w io.Writer) {
	word := "within"
	if median(c.ratio) > budget {
		word = "NOT within"
	}
	fmt.Fprintf(w, `
## What a large clip costs

16 frames of a clip of 10 s, %s, h264, made ready for a model, with everything from the first look at the file to the tensor,
beside ffmpeg decoding the same clip on one thread and throwing it away. Processor time, median of %d.

| 16 frames ready | ffmpeg to nothing | ratio | smallest to largest |
|---:|---:|---:|---:|
| %v | %v | %.2f | %.2f to %.2f |

It is %s the budget of %.2f.

Memory for a clip of %d frames, %s (30 s), whose pixels are %s in all:

| ffmpeg, resident at most | ffmpeg, address space at most | this process grew by at most |
|---:|---:|---:|
| %s | %s | %s |
`, c.size, c.times, median(c.ours).Round(10*time.Millisecond), median(c.theirs).Round(10*time.Millisecond), median(c.ratio), least(c.ratio), most(c.ratio),
		word, budget, c.frames, c.size, mega(c.whole), mega(c.child.resident), mega(c.child.address), mega(c.parent))
}

func mega(bytes int64) string { return fmt.Sprintf("%d MB", (bytes+500_000)/1_000_000) }
