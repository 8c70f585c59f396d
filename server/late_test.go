package server_test

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/inference/engine/enginetest"
	"modelgate/inference/video"
	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

func late() *server.Late {
	return &server.Late{Fusion: "fusion", Text: "text", Video: "video", TextWeight: 0.3, VideoWeight: 0.7, Threshold: 0.5}
}

// startLate starts a gateway with text and video 2, and no fusion yet.
func startLate(t *testing.T, change ...func(*config)) *gateway {
	t.Helper()
	d, err := video.NewDecoder(video.DecoderOptions{FFmpeg: enginetest.FFmpeg(t), Queue: 100})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return start(t, append([]func(*config){func(c *config) {
		c.decoder, c.lame = d, true
		c.options.Late = late()
		c.models = []modelstore.ModelConfig{{Name: "text"}, {Name: "video"}, {Name: "fusion"}}
		c.versions = append(c.versions, version{"video", 2, 0.9, enginetest.VideoBundle{}})
	}}, change...)...)
}

// awaitServing returns when models have a version.
func (g *gateway) awaitServing(models ...string) {
	g.t.Helper()
	for _, m := range models {
		g.await("models/"+m, serving)
	}
}

func redClip() *pb.Video {
	return rawClip(bytes.Repeat([]byte{255, 0, 0}, 4*4*4), 4, 4)
}

// scoreOf is what a model gives on its own.
func (g *gateway) scoreOf(model string, text *string, v *pb.Video) *pb.PredictResponse {
	g.t.Helper()
	resp, err := g.predict.Predict(g.t.Context(), &pb.PredictRequest{Model: model, Text: text, Video: v})
	must(g.t, err)
	return resp
}

func TestLateScore(t *testing.T) {
	g := startLate(t)
	g.awaitServing("text", "video")
	for _, words := range []string{"good", "bad film"} {
		text, clip := g.scoreOf("text", &words, nil), g.scoreOf("video", nil, redClip())
		req := &pb.PredictRequest{Model: "fusion", Text: &words, Video: redClip(), Id: "7", TopK: 1}
		for way, resp := range map[string]*pb.PredictResponse{"single": g.scoreOf("fusion", &words, redClip()), "batch": g.inBatch(req), "stream": g.inStream(req)} {
			want := 0.3*text.GetScore() + 0.7*clip.GetScore()
			if math.Abs(resp.GetScore()-want) > 1e-12 || resp.GetPath() != pb.Path_PATH_LATE_SCORE {
				t.Errorf("%s: %v, want the score %v of %v and %v", way, resp, want, text, clip)
			}
			if (resp.GetDecision() == pb.Decision_DECISION_AT_OR_ABOVE_THRESHOLD) != (want >= 0.5) || resp.GetThreshold() != 0.5 || resp.GetPositiveLabel() != "positive" {
				t.Errorf("%s: decided %v", way, resp)
			}
			if resp.GetModel() != "fusion" || resp.GetVersion() != "" || resp.GetDigest() != "" {
				t.Errorf("%s: it names one version: %v", way, resp)
			}
			checkParts(t, resp, part(text, 0.3), part(clip, 0.7))
		}
		if resp := g.inBatch(req); len(resp.GetClasses()) != 1 || resp.GetId() != "7" || resp.GetClasses()[0].GetLabel() != resp.GetLabel() {
			t.Errorf("top_k 1: %v", resp)
		}
	}
}

func part(p *pb.PredictResponse, weight float64) *pb.Part {
	return &pb.Part{Model: p.GetModel(), Version: p.GetVersion(), Digest: p.GetDigest(), Label: p.GetLabel(), Score: p.GetScore(),
		PositiveLabel: p.GetPositiveLabel(), Weight: weight}
}

func checkParts(t *testing.T, resp *pb.PredictResponse, want ...*pb.Part) {
	t.Helper()
	same := slices.EqualFunc(resp.GetParts(), want, func(a, b *pb.Part) bool { return a.String() == b.String() })
	if !same || want[0].GetVersion() == "" || len(want[0].GetDigest()) != 64 {
		t.Errorf("parts %v, want %v", resp.GetParts(), want)
	}
}

func (g *gateway) inBatch(req *pb.PredictRequest) *pb.PredictResponse {
	g.t.Helper()
	resp, err := g.predict.PredictBatch(g.t.Context(), &pb.PredictBatchRequest{Model: req.GetModel(), Requests: []*pb.PredictRequest{req}})
	must(g.t, err)
	return resp.GetResponses()[0].GetPrediction()
}

func (g *gateway) inStream(req *pb.PredictRequest) *pb.PredictResponse {
	g.t.Helper()
	stream, err := g.predict.PredictStream(g.t.Context())
	must(g.t, err)
	must(g.t, stream.Send(&pb.PredictStreamRequest{Request: req}))
	must(g.t, stream.CloseSend())
	resp, err := stream.Recv()
	must(g.t, err)
	return resp.GetPrediction()
}

// A score that equals the threshold is at or above it.
func TestLateScoreAtTheThreshold(t *testing.T) {
	g := startLate(t)
	g.awaitServing("text", "video")
	score := g.scoreOf("fusion", ptr("good"), redClip()).GetScore()
	for threshold, want := range map[float64]pb.Decision{score: pb.Decision_DECISION_AT_OR_ABOVE_THRESHOLD,
		math.Nextafter(score, 1): pb.Decision_DECISION_BELOW_THRESHOLD} {
		g := startLate(t, func(c *config) { c.options.Late.Threshold = threshold })
		g.awaitServing("text", "video")
		if resp := g.scoreOf("fusion", ptr("good"), redClip()); resp.GetScore() != score || resp.GetDecision() != want {
			t.Errorf("%v, threshold %v", resp, threshold)
		}
	}
}

// An empty text beside a clip is a text, as it is for a fusion. One that isn't there is missing.
func TestLateScoreOfAnEmptyText(t *testing.T) {
	g := startLate(t)
	g.awaitServing("text", "video")
	clip := g.scoreOf("video", nil, redClip())
	resp := g.scoreOf("fusion", ptr(""), redClip())
	if resp.GetPath() != pb.Path_PATH_LATE_SCORE || len(resp.GetParts()) != 2 || resp.GetScore() == clip.GetScore() {
		t.Errorf("%v", resp)
	}
	_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Text: ptr("")})
	checkStatus(t, err, codes.InvalidArgument, "the text is empty", "BAD_INPUT")
	_, err = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion"})
	checkStatus(t, err, codes.InvalidArgument, "neither is given", "BAD_INPUT")
}

// With one part missing there is the other's score, which decides only where that is configured; whether a fusion serves or not.
func TestFusionOfOnePart(t *testing.T) {
	for _, single := range []bool{false, true} {
		g := startLate(t, func(c *config) { c.options.Late.Single = single })
		g.awaitServing("text", "video")
		check := func(fusion string) {
			for _, c := range []struct {
				text  *string
				video *pb.Video
				model string
				path  pb.Path
				lacks string
			}{
				{ptr("good"), nil, "text", pb.Path_PATH_TEXT_ONLY, "a clip"},
				{nil, redClip(), "video", pb.Path_PATH_VIDEO_ONLY, "a text"},
			} {
				alone, resp := g.scoreOf(c.model, c.text, c.video), g.scoreOf("fusion", c.text, c.video)
				if resp.GetPath() != c.path || resp.GetScore() != alone.GetScore() || resp.GetModel() != c.model || resp.GetVersion() != alone.GetVersion() {
					t.Errorf("%s, single %v: %v, alone %v", fusion, single, resp, alone)
				}
				checkParts(t, resp, part(alone, 1))
				want, says := alone.GetDecision(), ""
				if !single {
					want, says = pb.Decision_DECISION_UNDECIDED, "fusion needs "+c.lacks
				}
				if resp.GetDecision() != want || (resp.GetReason() == "") != single || !strings.HasPrefix(resp.GetReason(), says) {
					t.Errorf("%s, single %v: %v", fusion, single, resp)
				}
			}
		}
		check("without a fusion")
		g.publish(version{"fusion", 1, 0.9, enginetest.VideoBundle{Fusion: true, Seed: 3}})
		err := g.updater.Refresh(t.Context(), "fusion")
		must(t, err)
		check("with a fusion")
		if resp := g.scoreOf("fusion", ptr("good"), redClip()); resp.GetPath() != pb.Path_PATH_FUSION || resp.GetVersion() != "1" || len(resp.GetParts()) != 0 || len(resp.GetDigest()) != 64 {
			t.Errorf("the fusion answers %v", resp)
		}
	}
}

// Where a part can't be had, that is an error: UNAVAILABLE for a model without a version, never another score.
func TestNoLateScore(t *testing.T) {
	g := startLate(t, func(c *config) { c.versions = []version{text(1, 0.8)} })
	g.awaitServing("text")
	_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Text: ptr("good"), Video: redClip()})
	checkStatus(t, err, codes.Unavailable, "video", "NOT_READY")
	_, err = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Video: redClip()})
	checkStatus(t, err, codes.Unavailable, "video", "NOT_READY")
	if resp := g.scoreOf("fusion", ptr("good"), nil); resp.GetPath() != pb.Path_PATH_TEXT_ONLY {
		t.Errorf("%v", resp)
	}
	g.publish(version{"fusion", 1, 0.9, enginetest.VideoBundle{Fusion: true, Seed: 3}})
	must(t, g.updater.Refresh(t.Context(), "fusion"))
	_, err = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Video: redClip()})
	checkStatus(t, err, codes.InvalidArgument, "no text is given", "BAD_INPUT")
	lacking := startLate(t, func(c *config) {
		c.models, c.versions = []modelstore.ModelConfig{{Name: "text"}, {Name: "fusion"}}, []version{text(1, 0.8)}
	})
	lacking.awaitServing("text")
	_, err = lacking.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Text: ptr("good")})
	checkStatus(t, err, codes.Unavailable, "fusion", "NOT_READY")
	off := startLate(t, func(c *config) { c.options.Late = nil })
	off.awaitServing("text", "video")
	_, err = off.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Text: ptr("good"), Video: redClip()})
	checkStatus(t, err, codes.Unavailable, "fusion", "NOT_READY")
}

// What goes wrong with a part is an error of the whole: a bad clip the caller's, a fault nobody's.
func TestFaultsBehindALateScore(t *testing.T) {
	g := startLate(t)
	g.awaitServing("text", "video")
	for _, in := range []*pb.PredictRequest{
		{Model: "fusion", Text: ptr("good"), Video: encoded([]byte("no clip"))},
		{Model: "fusion", Video: encoded([]byte("no clip"))},
	} {
		resp, err := g.predict.Predict(t.Context(), in)
		checkStatus(t, err, codes.InvalidArgument, "clip", "BAD_CLIP")
		if resp != nil {
			t.Errorf("there is a prediction: %v", resp)
		}
	}
	for _, f := range faults() {
		for name, req := range map[string]*pb.PredictRequest{"both": {Model: "fusion", Text: ptr("good"), Video: redClip()},
			"text": {Model: "fusion", Text: ptr("good")}, "clip": {Model: "fusion", Video: redClip()}} {
			g.engine.hook(f.before, f.after)
			resp, err := g.predict.Predict(t.Context(), req)
			g.engine.hook(nil, nil)
			if err := refused(resp, status.Code(err)); err != nil {
				t.Errorf("%s, %s: %v", f.name, name, err)
			}
		}
	}
}

// relabelled is a video bundle with labels of its own.
type relabelled struct{ enginetest.VideoBundle }

func (r relabelled) Write(dir string) error {
	if err := r.VideoBundle.Write(dir); err != nil {
		return err
	}
	const config = `{"id2label": {"0": "calm", "1": "flashing"}, "num_frames": 4, "image_size": 16}`
	return os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600)
}

// The late score speaks of the positive labels of both. Models that share their labels are averaged label by label.
func TestLabelsOfALateScore(t *testing.T) {
	for _, c := range []struct {
		name        string
		other       bool              // the video model has other labels
		positive    map[string]string // by model; "positive" where there is none
		called      string
		label, says string // of the late score: its positive label, or what the error says
		decides     bool
	}{
		{"the same", false, nil, "", "positive", "", true},
		{"different", true, map[string]string{"video": "flashing"}, "", "positive or flashing", "", true},
		{"different, with a name", true, map[string]string{"video": "flashing"}, "harmful", "harmful", "", true},
		{"the same, one of them positive", false, map[string]string{"video": ""}, "", "positive", "", true},
		{"the same, the other positive", false, map[string]string{"text": ""}, "", "positive", "", true},
		{"the same, none positive", false, map[string]string{"text": "", "video": ""}, "", "", "", false},
		{"the same, none positive but for the fusion", false, map[string]string{"text": "", "video": ""}, "positive", "positive", "", true},
		{"the same, another one for the fusion", false, nil, "negative", "negative", "", true},
		{"the same, with a name that is no label", false, nil, "harmful", "positive", "", true},
		{"different, one positive", true, map[string]string{"video": ""}, "", "", "models.video.positive_label", false},
		{"different, none positive", true, map[string]string{"text": "", "video": ""}, "", "", "different labels", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startLate(t, func(k *config) {
				k.positive, k.options.Late.PositiveLabel = c.positive, c.called
				if c.other {
					k.versions = []version{text(1, 0.8), {"video", 2, 0.9, relabelled{}}}
				}
			})
			g.awaitServing("text", "video")
			resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "fusion", Text: ptr("good"), Video: redClip()})
			if c.says != "" {
				checkStatus(t, err, codes.FailedPrecondition, c.says, "NO_LATE_SCORE")
				return
			}
			must(t, err)
			text, clip := g.scoreOf("text", ptr("good"), nil), g.scoreOf("video", nil, redClip())
			sum := 0.0
			for _, k := range resp.GetClasses() {
				sum += k.GetScore()
			}
			if math.Abs(sum-1) > 1e-6 || !slices.IsSortedFunc(resp.GetClasses(), func(a, b *pb.Class) int { return cmp.Compare(b.GetScore(), a.GetScore()) }) {
				t.Errorf("classes %v", resp.GetClasses())
			}
			if resp.GetPositiveLabel() != c.label || (resp.GetDecision() != pb.Decision_DECISION_UNDECIDED) != c.decides {
				t.Errorf("%v", resp)
			}
			of := func(p *pb.PredictResponse, label string) float64 {
				i := slices.IndexFunc(p.GetClasses(), func(k *pb.Class) bool { return k.GetLabel() == label })
				return p.GetClasses()[i].GetScore()
			}
			label, theirs := cmp.Or(c.label, "positive"), cmp.Or(c.label, "positive")
			if c.other {
				label, theirs = "positive", "flashing"
			}
			if got, want := of(resp, cmp.Or(c.label, label)), 0.3*of(text, label)+0.7*of(clip, theirs); math.Abs(got-want) > 1e-12 {
				t.Errorf("%v, want %v of %v and %v", resp, want, text, clip)
			}
		})
	}
}

func TestLateOptions(t *testing.T) {
	for name, change := range map[string]func(*server.Late){
		"no fusion":      func(l *server.Late) { l.Fusion = "" },
		"one model":      func(l *server.Late) { l.Video = "text" },
		"weights":        func(l *server.Late) { l.TextWeight = 0.4 },
		"below zero":     func(l *server.Late) { l.TextWeight, l.VideoWeight = -0.5, 1.5 },
		"not a number":   func(l *server.Late) { l.TextWeight = math.NaN() },
		"high threshold": func(l *server.Late) { l.Threshold = 1.5 },
	} {
		l := late()
		change(l)
		if s, err := server.New(server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Late: l}, nil, nil); err == nil || !strings.Contains(err.Error(), "late score") {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

// The phases of an answer are parts of the time that its caller waited, and the run is as long as the run was.
func TestTimings(t *testing.T) {
	g := startLate(t)
	g.awaitServing("text", "video")
	for name, req := range map[string]*pb.PredictRequest{
		"text": {Model: "text", Text: ptr("good")},
		"clip": {Model: "video", Video: encoded(clip(t, "mp4", "red", 10, "-c:v", "libx264", "-pix_fmt", "yuv420p"))},
		"late": {Model: "fusion", Text: ptr("good"), Video: redClip()},
	} {
		var ran time.Duration
		var mu sync.Mutex
		g.engine.hook(func(context.Context) error {
			began := time.Now()
			runtime.GC() // takes a while
			mu.Lock()
			ran = max(ran, time.Since(began))
			mu.Unlock()
			return nil
		}, nil)
		began := time.Now()
		resp, err := g.predict.Predict(t.Context(), req)
		waited := time.Since(began)
		g.engine.hook(nil, nil)
		must(t, err)
		got := resp.GetTimings()
		sum := got.GetDecodeSeconds() + got.GetQueueSeconds() + got.GetComputeSeconds()
		if got.GetDecodeSeconds() <= 0 || got.GetQueueSeconds() < 0 || got.GetComputeSeconds() < ran.Seconds() || req.GetModel() != "fusion" && sum > waited.Seconds() {
			t.Errorf("%s: %v in %v, the run took more than %v", name, got, waited, ran)
		}
	}
}
