package server_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/inference/engine/enginetest"
	"modelgate/inference/video"
	pb "modelgate/proto/modelgate/v1"
)

// waitForMetric returns when a series has a value.
func waitForMetric(t *testing.T, g *gateway, series, want string) {
	t.Helper()
	for late := time.Now().Add(time.Minute); metric(t, g, series) != want; {
		if time.Now().After(late) {
			t.Fatalf("%s is %q, want %q", series, metric(t, g, series), want)
		}
		runtime.Gosched()
	}
}

// gated is a program in ffmpeg's place that begins once a file is there.
func gated(t *testing.T) (path string, open func()) {
	t.Helper()
	dir := t.TempDir()
	path, gate := filepath.Join(dir, "ffmpeg"), filepath.Join(dir, "gate")
	text := "#!/bin/sh\n[ \"$1\" = -version ] || while ! [ -e " + gate + " ]; do /bin/sleep 0.01; done\nexec " + enginetest.FFmpeg(t) + " \"$@\"\n"
	must(t, os.WriteFile(path, []byte(text), 0o600))
	for _, d := range []string{filepath.Dir(dir), dir, path} {
		must(t, os.Chmod(d, 0o755))
	}
	return path, func() { must(t, os.WriteFile(gate, nil, 0o644)) }
}

// sleeping is a program in ffmpeg's place that never ends.
func sleeping(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "ffmpeg")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n[ \"$1\" = -version ] && echo ffmpeg version 0 && exit\nexec /bin/sleep 100000\n"), 0o600))
	for _, d := range []string{filepath.Dir(dir), dir, path} {
		must(t, os.Chmod(d, 0o755))
	}
	return path
}

func TestClipMetrics(t *testing.T) {
	ffmpeg, begin := gated(t)
	g := startClipsWith(t, video.DecoderOptions{FFmpeg: ffmpeg, Concurrent: 1, Queue: 10})
	red, blue := clip(t, "gif", "red", 6), clip(t, "gif", "blue", 6)
	codesOf := make(chan codes.Code, 10)
	ask := func(ctx context.Context, data []byte) {
		_, err := g.predict.Predict(ctx, &pb.PredictRequest{Model: "video", Video: encoded(data)})
		codesOf <- status.Code(err)
	}
	end := func(want codes.Code, n int) {
		t.Helper()
		for range n {
			if got := <-codesOf; got != want {
				t.Errorf("an answer is %v, want %v", got, want)
			}
		}
	}
	go ask(t.Context(), red)
	waitForMetric(t, g, "modelgate_clips_decoding", "1")
	go ask(t.Context(), red) // the same, which is decoded already
	waitForMetric(t, g, "modelgate_decodes_shared_total", "1")
	go ask(t.Context(), blue) // another, which waits
	leaving, leave := context.WithCancel(t.Context())
	go ask(leaving, append(blue, 0)) // another, whose caller doesn't wait
	waitForMetric(t, g, "modelgate_clips_waiting", "2")
	leave()
	end(codes.Canceled, 1)
	waitForMetric(t, g, "modelgate_clips_waiting", "1")
	begin()
	end(codes.OK, 3)
	go ask(t.Context(), []byte("this is no clip"))
	end(codes.InvalidArgument, 1)
	for series, want := range map[string]string{
		`modelgate_clips_waiting`:                                        "0",
		`modelgate_clips_decoding`:                                       "0",
		`modelgate_decodes_shared_total`:                                 "1",
		`modelgate_decode_queue_duration_seconds_count`:                  "4",
		`modelgate_decode_duration_seconds_count{outcome="ok"}`:          "2",
		`modelgate_decode_duration_seconds_count{outcome="bad_clip"}`:    "1",
		`modelgate_decode_duration_seconds_count{outcome="timeout"}`:     "0",
		`modelgate_decode_duration_seconds_count{outcome="cancelled"}`:   "0",
		`modelgate_decode_duration_seconds_count{outcome="error"}`:       "0",
		`modelgate_requests_total{code="OK",model="video",version="1"}`:  "3",
		`modelgate_decode_duration_seconds_bucket{outcome="ok",le="60"}`: "2",
	} {
		waitForMetric(t, g, series, want) // the event may come a moment after the answer
	}
}

func TestClipMetricsOfWhatIsGivenUp(t *testing.T) {
	g := startClipsWith(t, video.DecoderOptions{FFmpeg: sleeping(t), Concurrent: 1, Timeout: time.Second})
	data := clip(t, "gif", "red", 6)
	code, times := codes.ResourceExhausted, 0
	for ; code == codes.ResourceExhausted && times < 10; times++ { // as long as the machine is too busy for ffmpeg to come to sleep
		_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "video", Video: encoded(data)})
		code = status.Code(err)
	}
	if code != codes.InvalidArgument {
		t.Errorf("a clip that takes too long: %v", code)
	}
	waitForMetric(t, g, `modelgate_decode_duration_seconds_count{outcome="timeout"}`, strconv.Itoa(times))
	leaving, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := g.predict.Predict(leaving, &pb.PredictRequest{Model: "video", Video: encoded(data)})
		done <- err
	}()
	waitForMetric(t, g, "modelgate_clips_decoding", "1")
	leave()
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Errorf("a caller who left: %v", err)
	}
	waitForMetric(t, g, `modelgate_decode_duration_seconds_count{outcome="cancelled"}`, "1")
	waitForMetric(t, g, "modelgate_clips_decoding", "0")
}
