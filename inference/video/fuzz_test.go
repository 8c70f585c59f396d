package video

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
	"time"
)

func FuzzSniff(f *testing.F) {
	for _, seed := range []string{
		"", "GIF89a", "RIFF\x00\x00\x00\x00AVI LIST", "\x1a\x45\xdf\xa3", "\x00\x00\x00\x20ftypisom\x00\x00\x02\x00", "#EXTM3U\n",
		"\x00\x00\x00\x01mdat\x00\x00\x00\x00\x00\x00\x01\x00", "ffconcat version 1.0\n", "\x89PNG\r\n\x1a\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, err := sniff(data)
		if (kind == "") == (err == nil) {
			t.Errorf("%q and %v", kind, err)
		}
		for _, begin := range []string{"#EXTM3U", "ffconcat", "<", "v=0"} {
			if strings.HasPrefix(string(data), begin) && err == nil {
				t.Errorf("%q is taken for %s", begin, kind)
			}
		}
	})
}

// FuzzSpec sees that whatever a bundle's files say, what is made of it is small and has sizes that can be worked with.
func FuzzSpec(f *testing.F) {
	f.Add(`{"size": {"shortest_edge": 8}, "crop_size": 6, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}`, `{"num_frames": 4, "image_size": 6}`, 320, 240)
	f.Add(`{"size": [3, 4], "do_normalize": false, "offset": true}`, `{"vision_config": {"num_frames": 1}}`, 1, 1)
	f.Add(`{"size": 9, "crop_size": {"height": 9, "width": 3}, "resample": 3, "do_normalize": false}`, `{"num_frames": 2}`, 1, 50)
	f.Fuzz(func(t *testing.T, processorText, modelText string, width, height int) {
		var p processor
		var m model
		if json.Unmarshal([]byte(processorText), &p) != nil || json.Unmarshal([]byte(modelText), &m) != nil {
			return
		}
		s, err := newSpec(p, m)
		if err != nil || s.frames*s.width*s.height > 1<<16 || width < 1 || height < 1 || width > 200 || height > 200 {
			return
		}
		if whole, err := s.resized(width, height); err != nil || whole[0]*whole[1] > 1<<16 {
			return
		}
		s.sampling, s.layout = HF, TCHW
		if err := newCanvas(&s).place(frame{make([]byte, width*height*channels), width, height}, []int{0}); err != nil {
			t.Error(err)
		}
	})
}

func FuzzPacketReader(f *testing.F) {
	f.Add("#tb 0: 1/12800\n#codec_id 0: h264\n#dimensions 0: 320x240\n0, -1024, 0, 512, 5000, 0x1234, F=0x4, S=1\n0, 0, 0, 512, 40, 0x1\n")
	f.Add("#tb 0: 1/0\n0,,9223372036854775807,9223372036854775807,1,2\n")
	f.Fuzz(func(t *testing.T, text string) {
		var r packetReader
		for line := range strings.Lines(text) {
			if r.line(strings.TrimSuffix(line, "\n")) != nil {
				return
			}
		}
		if r.frames > strings.Count(text, "\n")+1 || r.length < 0 {
			t.Errorf("%d frames, %v", r.frames, r.length)
		}
	})
}

// FuzzImage sees that a frame that a caller sends is refused, or has the size that was allowed.
func FuzzImage(f *testing.F) {
	const most = 1 << 10 // pixels
	picture := image.NewNRGBA(image.Rect(0, 0, 5, 3))
	var small, wide bytes.Buffer
	if err := errors.Join(png.Encode(&small, picture), jpeg.Encode(&wide, picture, nil)); err != nil {
		f.Fatal(err)
	}
	for _, file := range [][]byte{small.Bytes(), wide.Bytes(), small.Bytes()[:40], wide.Bytes()[:200], []byte("GIF89a"), []byte("\xff\xd8\xff"), []byte("\x89PNG\r\n\x1a\n")} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, err := decodeImage(ctx, file, most)
		if ctx.Err() != nil {
			t.Errorf("%d bytes take more than ten seconds", len(file))
		}
		if err != nil {
			if len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if got.width < 1 || got.height < 1 || got.width*got.height > most || len(got.rgb) != got.width*got.height*channels {
			t.Errorf("%d x %d pixels in %d bytes", got.width, got.height, len(got.rgb))
		}
	})
}
