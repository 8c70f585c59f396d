package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/inference/engine/enginetest"
	"modelgate/inference/video"
	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
)

// startClips starts a gateway with a video and a fusion model, for which red is positive and blue negative.
func startClips(t testing.TB, change ...func(*config)) *gateway {
	t.Helper()
	return startClipsWith(t, video.DecoderOptions{FFmpeg: enginetest.FFmpeg(t), Queue: 100}, change...)
}

// startClipsWith has its own decoder, whose events become metrics.

func startClipsWith(t testing.TB, o video.DecoderOptions, change ...func(*config)) *gateway {
	t.Helper()
	var g *gateway
	started := make(chan struct{})
	o.Observe = func(e video.Event) {
		<-started
		g.metrics.Clip(e)
	}
	d, err := video.NewDecoder(o)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	defer close(started)
	g = start(t, append([]func(*config){func(c *config) {
		c.decoder = d
		c.models = []modelstore.ModelConfig{{Name: "text"}, {Name: "video"}, {Name: "fusion"}}
		c.versions = append(c.versions, version{"video", 1, 0.9, enginetest.VideoBundle{}}, version{"fusion", 1, 0.9, enginetest.VideoBundle{Fusion: true, Seed: 3}})
	}}, change...)...)
	return g
}

// clip makes a clip of one colour with ffmpeg; the ending says the kind.
func clip(t testing.TB, ending, colour string, frames int, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clip."+ending)
	all := []string{"-nostdin", "-v", "error", "-f", "lavfi", "-i", "color=" + colour + ":s=64x48:r=10", "-frames:v", fmt.Sprint(frames)}
	out, err := exec.CommandContext(t.Context(), enginetest.FFmpeg(t), append(append(all, args...), path)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, out)
	}
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

func encoded(data []byte) *pb.Video { return &pb.Video{Source: &pb.Video_Clip{Clip: data}} }

func rawClip(rgb []byte, width, height int32) *pb.Video {
	return &pb.Video{Source: &pb.Video_Raw{Raw: &pb.RawFrames{Rgb: rgb, Width: width, Height: height}}}
}

func frames(images ...[]byte) *pb.Video {
	return &pb.Video{Source: &pb.Video_Frames{Frames: &pb.Frames{Images: images}}}
}

func jpegOf(t testing.TB, c color.RGBA) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 40, 30))
	for i := range m.Pix {
		m.Pix[i] = []byte{c.R, c.G, c.B, c.A}[i%4]
	}
	var b bytes.Buffer
	must(t, jpeg.Encode(&b, m, nil))
	return b.Bytes()
}

func TestPredictClips(t *testing.T) {
	g := startClips(t)
	blue := jpegOf(t, color.RGBA{0, 0, 255, 255})
	for name, c := range map[string]struct {
		video    *pb.Video
		label    string
		repeated bool
	}{
		"mp4":        {encoded(clip(t, "mp4", "red", 10, "-c:v", "libx264", "-pix_fmt", "yuv420p")), "positive", false},
		"webm":       {encoded(clip(t, "webm", "blue", 8, "-c:v", "libvpx")), "negative", false},
		"gif":        {encoded(clip(t, "gif", "red", 6)), "positive", false},
		"short":      {encoded(clip(t, "mp4", "blue", 2, "-c:v", "libx264", "-pix_fmt", "yuv420p")), "negative", true},
		"images":     {frames(blue, blue, blue, blue), "negative", false},
		"one image":  {frames(blue), "negative", true},
		"raw frames": {rawClip(bytes.Repeat([]byte{255, 0, 0}, 5*20*10), 20, 10), "positive", false},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "video", Video: c.video})
			must(t, err)
			want := pb.Decision_DECISION_AT_OR_ABOVE_THRESHOLD
			if c.label == "negative" {
				want = pb.Decision_DECISION_BELOW_THRESHOLD
			}
			if resp.GetLabel() != c.label || resp.GetDecision() != want || resp.GetFramesRepeated() != c.repeated || resp.GetVersion() != "1" {
				t.Errorf("%v", resp)
			}
			both, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Text: ptr(""), Video: c.video})
			must(t, err)
			if both.GetLabel() != c.label || both.GetScore() != resp.GetScore() {
				t.Errorf("an empty text moves the score: %v, alone %v", both, resp)
			}
			both, err = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Text: ptr("good"), Video: c.video})
			must(t, err)
			if both.GetScore() == resp.GetScore() || both.GetFramesRepeated() != c.repeated {
				t.Errorf("a text doesn't move the score: %v, alone %v", both, resp)
			}
		})
	}
}

func TestPredictClipsOverREST(t *testing.T) {
	g := startClips(t)
	data := clip(t, "mp4", "red", 2, "-c:v", "libx264", "-pix_fmt", "yuv420p")
	b64 := base64.StdEncoding.EncodeToString(data)
	for name, c := range map[string]struct{ model, body string }{
		"video":  {"video", `{"video":{"clip":"` + b64 + `"}}`},
		"fusion": {"fusion", `{"text":"","video":{"clip":"` + b64 + `"}}`},
	} {
		a := g.call(http.MethodPost, "/v1/models/"+c.model+":predict", c.body)
		if a.code != http.StatusOK || a.json["label"] != "positive" || a.json["decision"] != "DECISION_AT_OR_ABOVE_THRESHOLD" || a.json["frames_repeated"] != true {
			t.Errorf("%s: %d %s", name, a.code, a.raw)
		}
	}
}

// Bad clips are errors over both ways, and never a verdict.
func TestBadClips(t *testing.T) {
	g := startClips(t)
	mp4 := clip(t, "mp4", "red", 20, "-c:v", "libx264", "-pix_fmt", "yuv420p")
	good := rawClip(make([]byte, 12), 2, 2)
	audio := filepath.Join(t.TempDir(), "a.mp4")
	out, err := exec.CommandContext(t.Context(), enginetest.FFmpeg(t), "-nostdin", "-v", "error", "-f", "lavfi", "-i", "sine=d=1", audio).CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, out)
	}
	sound, err := os.ReadFile(audio)
	must(t, err)
	for _, c := range []struct {
		name, model string
		text        *string
		video       *pb.Video
		says        string
		reason      string
	}{
		{"no clip", "video", nil, nil, "takes a clip, and none is given", "BAD_INPUT"},
		{"a text", "video", ptr("good"), nil, "takes a clip only", "BAD_INPUT"},
		{"a text and a clip", "video", ptr("good"), good, "takes a clip only", "BAD_INPUT"},
		{"a clip for a text model", "text", nil, good, "takes text only", "BAD_INPUT"},
		{"text alone", "fusion", ptr("good"), nil, "no clip is given", "BAD_INPUT"},
		{"clip alone", "fusion", nil, good, "no text is given", "BAD_INPUT"},
		{"no source", "video", nil, &pb.Video{}, "exactly one", "BAD_CLIP"},
		{"empty clip", "video", nil, encoded(nil), "empty", "BAD_CLIP"},
		{"text as clip", "video", nil, encoded([]byte("hello, world")), "text/plain", "BAD_CLIP"},
		{"playlist", "video", nil, encoded([]byte("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")), "text/plain", "BAD_CLIP"},
		{"head of a clip", "video", nil, encoded(mp4[:200]), "can't decode", "BAD_CLIP"},
		{"head of a clip with a text", "fusion", ptr("good"), encoded(mp4[:200]), "can't decode", "BAD_CLIP"},
		{"sound only", "video", nil, encoded(sound), "", "BAD_CLIP"},
		{"no images", "video", nil, frames(), "no frames", "BAD_CLIP"},
		{"images that are none", "video", nil, frames([]byte("x")), "image 0", "BAD_CLIP"},
		{"raw without a size", "video", nil, rawClip(make([]byte, 12), 0, 0), "0 x 0", "BAD_CLIP"},
		{"raw of a negative size", "video", nil, rawClip(make([]byte, 12), -2, -2), "-2 x -2", "BAD_CLIP"},
		{"raw of half a frame", "video", nil, rawClip(make([]byte, 13), 2, 2), "no whole number", "BAD_CLIP"},
		{"raw of a vast frame", "video", nil, rawClip(make([]byte, 12), 1<<30, 1<<30), "", "BAD_CLIP"},
		{"raw without frames", "video", nil, rawClip(nil, 2, 2), "no frames", "BAD_CLIP"},
		{"a reference", "video", nil, &pb.Video{Source: &pb.Video_Uri{Uri: "s3://bucket/key"}}, "references are not configured", "NO_REFERENCES"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := &pb.PredictRequest{Model: c.model, Text: c.text, Video: c.video}
			resp, err := g.predict.Predict(t.Context(), req)
			if resp != nil {
				t.Errorf("there is a prediction: %v", resp)
			}
			checkStatus(t, err, codes.InvalidArgument, c.says, c.reason)
			if err != nil && strings.Contains(err.Error(), g.dir) {
				t.Errorf("it names a path of ours: %v", err)
			}
			checkAnswer(t, g.call(http.MethodPost, "/v1/models/"+c.model+":predict", bodyOf(t, req)),
				bad{code: codes.InvalidArgument, http: 400, says: c.says, reason: c.reason})
		})
	}
	// The models still answer.
	resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "video", Video: encoded(mp4)})
	if err != nil || resp.GetLabel() != "positive" {
		t.Errorf("%v %v", resp, err)
	}
}

// bodyOf is req as a caller without our library writes it.
func bodyOf(t testing.TB, req *pb.PredictRequest) string {
	t.Helper()
	body := map[string]any{}
	if req.Text != nil {
		body["text"] = req.GetText()
	}
	if v := req.GetVideo(); v != nil {
		clip := map[string]any{}
		switch source := v.GetSource().(type) {
		case *pb.Video_Clip:
			clip["clip"] = append([]byte{}, source.Clip...)
		case *pb.Video_Frames:
			clip["frames"] = map[string]any{"images": append([][]byte{}, source.Frames.GetImages()...)}
		case *pb.Video_Raw:
			clip["raw"] = map[string]any{"rgb": source.Raw.GetRgb(), "width": source.Raw.GetWidth(), "height": source.Raw.GetHeight()}
		case *pb.Video_Uri:
			clip["uri"] = source.Uri
		}
		body["video"] = clip
	}
	b, err := json.Marshal(body)
	must(t, err)
	return string(b)
}

// A batch and a stream take clips as well; what is wrong with one is no one else's.
func TestBatchOfClips(t *testing.T) {
	g := startClips(t)
	red, blue := rawClip(bytes.Repeat([]byte{255, 0, 0}, 4*4*4), 4, 4), rawClip(bytes.Repeat([]byte{0, 0, 255}, 4*4*4), 4, 4)
	req := &pb.PredictBatchRequest{Model: "video"}
	for i := range 30 {
		req.Requests = append(req.Requests, &pb.PredictRequest{Id: fmt.Sprint(i), Video: []*pb.Video{red, blue, encoded([]byte("x"))}[i%3]})
	}
	resp, err := g.predict.PredictBatch(t.Context(), req)
	must(t, err)
	for i, item := range resp.GetResponses() {
		want := []string{"positive", "negative", ""}[i%3]
		if got := item.GetPrediction().GetLabel(); got != want || (want == "") != (item.GetError() != nil) {
			t.Errorf("%d: %v", i, item)
		}
	}
}

// What fails behind a good clip is an error that blames nobody, and never a verdict.
func TestFaultsBehindClips(t *testing.T) {
	g := startClips(t)
	red := rawClip(bytes.Repeat([]byte{255, 0, 0}, 4*4*4), 4, 4)
	for _, f := range faults() {
		for model, text := range map[string]*string{"video": nil, "fusion": ptr("good")} {
			g.engine.hook(f.before, f.after)
			resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: model, Text: text, Video: red})
			g.engine.hook(nil, nil)
			if err := refused(resp, status.Code(err)); err != nil {
				t.Errorf("%s, %s: %v", f.name, model, err)
			}
		}
	}
}
