package video_test

import (
	"syscall"
	"testing"
	"time"

	"modelgate/inference/video"
)

// processorTime is what this process and the children it has waited for have used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	total := time.Duration(0)
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return total
}

// BenchmarkEncode compares the processor time of 16 frames of a 10 s clip, 1080 x 1920, with that of ffmpeg decoding the clip
// and throwing it away.
func BenchmarkEncode(b *testing.B) {
	data := clip(b, "mp4", "-f lavfi -i testsrc2=s=1080x1920:r=30:d=10 -c:v libx264 -preset veryfast -pix_fmt yuv420p")
	path := writeTemp(b, "clip.mp4", data)
	e := open(b, videoMAE(), video.Options{Decoder: newDecoder(b, video.DecoderOptions{})})
	var ours, theirs time.Duration
	for b.Loop() {
		start := processorTime(b)
		if _, err := e.Encode(b.Context(), video.Clip{Encoded: data}); err != nil {
			b.Fatal(err)
		}
		middle := processorTime(b)
		ffmpeg(b, "-threads", "1", "-i", path, "-map", "0:v:0", "-f", "null", "-")
		ours, theirs = ours+middle-start, theirs+processorTime(b)-middle
	}
	b.ReportMetric(ours.Seconds()*1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "x-ffmpeg")
}
