package inference_test

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/video"
)

func newDecoder(t testing.TB) *video.Decoder {
	t.Helper()
	d, err := video.NewDecoder(video.DecoderOptions{FFmpeg: enginetest.FFmpeg(t), Queue: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// openClipModel opens a video or fusion model whose positive clips are red.
func openClipModel(t testing.TB, b enginetest.VideoBundle, o inference.Options) *inference.Model {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	if o.Decoder == nil {
		o.Decoder = newDecoder(t)
	}
	o.PositiveLabel = "positive"
	return openModel(t, dir, o)
}

var (
	red  = color.RGBA{255, 0, 0, 255}
	blue = color.RGBA{0, 0, 255, 255}
)

// plain is a clip of frames of one colour, as bare pixels.
func plain(c color.RGBA, frames int) *video.Clip {
	const width, height = 20, 18
	return &video.Clip{Raw: &video.Raw{Width: width, Height: height, RGB: bytes.Repeat([]byte{c.R, c.G, c.B}, frames*width*height)}}
}

// pictures are the same frames as PNG files.
func pictures(t testing.TB, c color.RGBA, frames int) *video.Clip {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 20, 18))
	for i := range m.Pix {
		m.Pix[i] = []byte{c.R, c.G, c.B, c.A}[i%4]
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	clip := &video.Clip{}
	for range frames {
		clip.Images = append(clip.Images, b.Bytes())
	}
	return clip
}

func TestVideo(t *testing.T) {
	m := openClipModel(t, enginetest.VideoBundle{}, inference.Options{})
	if i := m.Info(); i.Kind != "video" || len(i.Clip) != 4 || i.MaxTextBytes != 0 {
		t.Errorf("%+v", i)
	}
	for name, c := range map[string]struct {
		clip     *video.Clip
		decision inference.Decision
		logit    float64 // of positive, less that of negative
		repeated bool
	}{
		"red":      {plain(red, 4), inference.AtOrAboveThreshold, 8, false},
		"blue":     {plain(blue, 9), inference.BelowThreshold, -8, false},
		"short":    {plain(red, 1), inference.AtOrAboveThreshold, 8, true},
		"pictures": {pictures(t, blue, 3), inference.BelowThreshold, -8, true},
	} {
		p, err := m.Predict(t.Context(), inference.Input{Video: c.clip})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		positive := p.Classes[0].Score
		if p.Classes[0].Label != "positive" {
			positive = p.Classes[1].Score
		}
		if want := 1 / (1 + math.Exp(-c.logit)); p.Decision != c.decision || p.FramesRepeated != c.repeated || math.Abs(positive-want) > 1e-6 {
			t.Errorf("%s: %+v, want %v", name, p, want)
		}
	}
}

func TestFusion(t *testing.T) {
	m := openClipModel(t, enginetest.VideoBundle{Fusion: true, Seed: 3}, inference.Options{Workers: 1, MaxWait: time.Minute})
	if i := m.Info(); i.Kind != "fusion" || len(i.Clip) != 4 || i.MaxLength != 64 {
		t.Errorf("%+v", i)
	}
	texts := []string{"", " ", "good", "this film was very very good", "bad day"}
	for _, clip := range []*video.Clip{plain(red, 4), plain(color.RGBA{90, 0, 80, 255}, 6)} {
		want := make([]inference.Prediction, len(texts))
		for i, s := range texts {
			p, err := m.Predict(t.Context(), inference.Input{Text: &s, Video: clip})
			if err != nil {
				t.Fatalf("%q: %v", s, err)
			}
			want[i] = p
		}
		if want[0].Score != want[1].Score || want[2].Score == want[3].Score {
			t.Errorf("%+v", want)
		}
		var wg sync.WaitGroup
		for i, s := range texts {
			for range 20 {
				wg.Go(func() {
					p, err := m.Predict(t.Context(), inference.Input{Text: &s, Video: clip})
					if err != nil || p.Label != want[i].Label || math.Abs(p.Score-want[i].Score) > 1e-6 {
						t.Errorf("%q: %v, %+v among others, %+v alone", s, err, p, want[i])
					}
				})
			}
		}
		wg.Wait()
	}
}

func TestBadClip(t *testing.T) {
	decoder := newDecoder(t)
	clips := openClipModel(t, enginetest.VideoBundle{}, inference.Options{Decoder: decoder})
	both := openClipModel(t, enginetest.VideoBundle{Fusion: true}, inference.Options{Decoder: decoder})
	texts := openModel(t, writeBundle(t, enginetest.TextBundle{}), inference.Options{})
	word, long := "good", strings.Repeat("a", 70_000)
	for name, c := range map[string]struct {
		m    *inference.Model
		in   inference.Input
		says string
	}{
		"text model, clip":         {texts, inference.Input{Video: plain(red, 4)}, "takes text only"},
		"text model, both":         {texts, inference.Input{Text: &word, Video: plain(red, 4)}, "takes text only"},
		"video model, nothing":     {clips, inference.Input{}, "takes a clip, and none is given"},
		"video model, text":        {clips, inference.Input{Text: &word}, "takes a clip only"},
		"video model, both":        {clips, inference.Input{Text: &word, Video: plain(red, 4)}, "takes a clip only"},
		"fusion model, nothing":    {both, inference.Input{}, "neither is given"},
		"fusion model, no clip":    {both, inference.Input{Text: &word}, "no clip is given"},
		"fusion model, no text":    {both, inference.Input{Video: plain(red, 4)}, "no text is given"},
		"fusion model, long text":  {both, inference.Input{Text: &long, Video: plain(red, 4)}, "too long"},
		"no form":                  {clips, inference.Input{Video: &video.Clip{}}, "exactly one"},
		"empty clip":               {clips, inference.Input{Video: &video.Clip{Encoded: []byte{}}}, "empty"},
		"no frames":                {clips, inference.Input{Video: plain(red, 0)}, "no frames"},
		"not a clip":               {clips, inference.Input{Video: &video.Clip{Encoded: []byte("hello, world")}}, "text/plain"},
		"fusion model, not a clip": {both, inference.Input{Text: &word, Video: &video.Clip{Encoded: []byte("hello, world")}}, "text/plain"},
		"not an image":             {clips, inference.Input{Video: &video.Clip{Images: [][]byte{[]byte("x")}}}, "image 0"},
		"half a frame":             {clips, inference.Input{Video: &video.Clip{Raw: &video.Raw{RGB: make([]byte, 11), Width: 2, Height: 2}}}, "no whole number"},
	} {
		p, err := c.m.Predict(t.Context(), c.in)
		if !errors.Is(err, inference.ErrInput) || !strings.Contains(err.Error(), c.says) || p.Classes != nil {
			t.Errorf("%s: %v, %+v", name, err, p)
		}
	}
}

func TestBadVideoBundles(t *testing.T) {
	decoder := newDecoder(t)
	for name, c := range map[string]struct {
		bundle enginetest.VideoBundle
		edit   func(dir string) error
		says   string
	}{
		"no processor": {enginetest.VideoBundle{}, func(dir string) error { return os.Remove(filepath.Join(dir, "preprocessor_config.json")) }, "preprocessor_config.json"},
		"another number of frames": {enginetest.VideoBundle{}, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"num_frames": 8, "image_size": 16}`), 0o600)
		}, "don't belong together"},
		"other labels": {enginetest.VideoBundle{}, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"num_frames": 4, "num_labels": 3}`), 0o600)
		}, "3 labels"},
		"sampling": {enginetest.VideoBundle{}, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "modelgate.yaml"), []byte("video_sampling: all"), 0o600)
		}, "sampling"},
		"rotation": {enginetest.VideoBundle{}, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "modelgate.yaml"), []byte("video_rotation: right"), 0o600)
		}, "ignore or apply"},
		"no tokenizer": {enginetest.VideoBundle{Fusion: true}, func(dir string) error { return os.Remove(filepath.Join(dir, "tokenizer.json")) }, "tokenizer.json"},
	} {
		dir := filepath.Join(t.TempDir(), "bundle")
		if err := errors.Join(c.bundle.Write(dir), c.edit(dir)); err != nil {
			t.Fatal(err)
		}
		m, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{Decoder: decoder})
		if !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if m != nil {
			t.Error(m.Close())
		}
	}
}

// Without ffmpeg the machine is at fault, not the bundle: it isn't to go into quarantine.
func TestNoDecoder(t *testing.T) {
	for _, b := range []enginetest.VideoBundle{{}, {Fusion: true}} {
		dir := filepath.Join(t.TempDir(), "bundle")
		if err := b.Write(dir); err != nil {
			t.Fatal(err)
		}
		_, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{})
		if err == nil || errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "apt-get install ffmpeg") {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

// A closed decoder answers like a closed model.
func TestClosedDecoder(t *testing.T) {
	d, err := video.NewDecoder(video.DecoderOptions{FFmpeg: enginetest.FFmpeg(t)})
	if err != nil {
		t.Fatal(err)
	}
	m := openClipModel(t, enginetest.VideoBundle{}, inference.Options{Decoder: d})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Predict(t.Context(), inference.Input{Video: plain(red, 4)}); !errors.Is(err, inference.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// A graph that has its channels before its frames gets them so, declared or set.
func TestChannelsFirst(t *testing.T) {
	for name, c := range map[string]struct {
		dims     []any
		settings string
	}{
		"declared": {[]any{"batch", 3, 4, 16, 16}, "video_sampling: hf\n"},
		"set":      {[]any{"batch", "channels", "frames", "height", "width"}, "video_layout: CTHW\n"},
	} {
		dir := filepath.Join(t.TempDir(), "bundle")
		graph := enginetest.NewGraph().Input("pixel_values", enginetest.Float, c.dims...).
			Init("colours", enginetest.Tensor{Shape: []int64{3, 2}, Data: []float32{-2, 2, 0, 0, 2, -2}}).
			Node("ReduceMean", []string{"pixel_values"}, []string{"means"}, enginetest.IntsAttr("axes", 2, 3, 4), enginetest.IntAttr("keepdims", 0)).
			Node("MatMul", []string{"means", "colours"}, []string{"logits"}).
			Output("logits", enginetest.Float, "batch", 2)
		if err := errors.Join(enginetest.VideoBundle{}.Write(dir), graph.WriteFile(filepath.Join(dir, "model.onnx")),
			os.WriteFile(filepath.Join(dir, "modelgate.yaml"), []byte(c.settings), 0o600)); err != nil {
			t.Fatal(err)
		}
		m := openModel(t, dir, inference.Options{Decoder: newDecoder(t)})
		p, err := m.Predict(t.Context(), inference.Input{Video: plain(blue, 4)})
		if err != nil || p.Label != "negative" || math.Abs(p.Score-1/(1+math.Exp(-8))) > 1e-6 {
			t.Errorf("%s: %v, %+v", name, err, p)
		}
	}
}
