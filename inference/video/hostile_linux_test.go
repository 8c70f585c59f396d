package video_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"modelgate/inference/video"
	"modelgate/inference/video/videotest"
)

func TestHostileFiles(t *testing.T) {
	b := layBait(t)
	d := newDecoder(t, video.DecoderOptions{Timeout: 10 * time.Second})
	e := open(t, videoMAE(), video.Options{Decoder: d})
	files, err := videotest.Maker{FFmpeg: findFFmpeg(t), Dir: t.TempDir()}.Hostile(t.Context(), b.canary, b.address)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			got, err := e.Encode(t.Context(), video.Clip{Encoded: data})
			b.mustBeUntouched(t)
			if err == nil {
				t.Fatalf("it was decoded: %d frames", got.Frames)
			}
			mustBe(t, err, video.ErrClip)
			if text := err.Error(); len(text) > 400 || strings.ContainsAny(text, "\n\x1b") || strings.Contains(text, "/proc/") || strings.Contains(text, "0x7f") {
				t.Errorf("the message isn't fit for a person: %q", text)
			}
			if took := time.Since(start); took > 11*time.Second {
				t.Errorf("it took %v", took)
			}
			t.Log(err)
		})
	}
}

// TestSlowClip sees that a clip which is slow to decode, and nothing else, is given up in time.
func TestSlowClip(t *testing.T) {
	data, err := videotest.Maker{FFmpeg: findFFmpeg(t), Dir: t.TempDir()}.Slow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, video.DecoderOptions{Timeout: 2 * time.Second})})
	start := time.Now()
	_, err = e.Encode(t.Context(), video.Clip{Encoded: data})
	// On a machine that is busy otherwise it isn't the clip that is to blame.
	if !errors.Is(err, video.ErrClip) && !errors.Is(err, video.ErrBusy) {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(start); took > 10*time.Second || !strings.Contains(err.Error(), "2s") {
		t.Errorf("it took %v: %v", took, err)
	}
}

func TestLimits(t *testing.T) {
	data := clip(t, "mp4", "-f lavfi -i testsrc2=s=160x120:r=25:d=2 -c:v libx264 -pix_fmt yuv420p")
	pixels := make([]byte, 160*120*3)
	for name, c := range map[string]struct {
		o    video.DecoderOptions
		clip video.Clip
	}{
		"bytes":                {video.DecoderOptions{MaxClipBytes: 1000}, video.Clip{Encoded: data}},
		"pixels":               {video.DecoderOptions{MaxPixels: 160*120 - 1}, video.Clip{Encoded: data}},
		"frames":               {video.DecoderOptions{MaxFrames: 49}, video.Clip{Encoded: data}},
		"duration":             {video.DecoderOptions{MaxDuration: 1900 * time.Millisecond}, video.Clip{Encoded: data}},
		"time":                 {video.DecoderOptions{Timeout: time.Microsecond}, video.Clip{Encoded: data}},
		"memory":               {video.DecoderOptions{MaxPixels: 1 << 28, MaxMemory: 400 << 20}, video.Clip{Encoded: clip(t, "mp4", "-f lavfi -i color=s=8192x8192:r=1:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p")}},
		"raw, pixels":          {video.DecoderOptions{MaxPixels: 160*120 - 1}, video.Clip{Raw: &video.Raw{RGB: pixels, Width: 160, Height: 120}}},
		"raw, size overflows":  {video.DecoderOptions{}, video.Clip{Raw: &video.Raw{RGB: pixels, Width: 1 << 40, Height: 1 << 40}}},
		"raw, no whole frames": {video.DecoderOptions{}, video.Clip{Raw: &video.Raw{RGB: pixels[1:], Width: 160, Height: 120}}},
		"raw, no size":         {video.DecoderOptions{}, video.Clip{Raw: &video.Raw{RGB: pixels}}},
		"raw, no frames":       {video.DecoderOptions{}, video.Clip{Raw: &video.Raw{Width: 160, Height: 120}}},
		"no frames":            {video.DecoderOptions{}, video.Clip{Images: [][]byte{}}},
		"images, frames":       {video.DecoderOptions{MaxFrames: 1}, video.Clip{Images: [][]byte{{1}, {2}}}},
		"image of no kind":     {video.DecoderOptions{}, video.Clip{Images: [][]byte{[]byte("hello")}}},
		"nothing":              {video.DecoderOptions{}, video.Clip{}},
		"two forms":            {video.DecoderOptions{}, video.Clip{Encoded: data, Images: [][]byte{{1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, c.o)})
			_, err := e.Encode(t.Context(), c.clip)
			mustBe(t, err, video.ErrClip)
			t.Log(err)
		})
	}
}

// TestTruncatedImages sees that half an image isn't taken for a whole one.
func TestTruncatedImages(t *testing.T) {
	e := open(t, videoMAE(), video.Options{Decoder: newDecoder(t, video.DecoderOptions{})})
	for _, name := range []string{"420.jpg", "420-progressive.jpg", "rgb.png"} {
		data, err := os.ReadFile(filepath.Join("testdata", "parity", name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Encode(t.Context(), video.Clip{Images: [][]byte{data[:len(data)*2/3]}})
		mustBe(t, err, video.ErrClip)
		if want := fmt.Sprint("image ", 0); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want it to say which image", name, err)
		}
	}
}

// TestManyPasses sees that a JPEG with a million passes over its pixels takes no longer than a clip may.
func TestManyPasses(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "parity", "420-progressive.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.Index(data, []byte{0xff, 0xda})
	length := bytes.Index(data[begin+2:], []byte{0xff, 0xc4}) + 2 // the next pass begins with its tables
	pass := data[begin : begin+length]
	bomb := slices.Concat(data[:begin], bytes.Repeat(pass, 60<<20/len(pass)), data[begin+length:])
	d := newDecoder(t, video.DecoderOptions{Timeout: 200 * time.Millisecond})
	e := open(t, videoMAE(), video.Options{Decoder: d})
	start := time.Now()
	_, err = e.Encode(t.Context(), video.Clip{Images: [][]byte{bomb}})
	mustBe(t, err, video.ErrClip)
	if took := time.Since(start); took > 5*time.Second || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("it took %v: %v", took, err)
	}
}
