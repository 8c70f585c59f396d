package video_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"modelgate/inference/video"
)

func TestOpen(t *testing.T) {
	const processor = `"size": {"shortest_edge": 8}, "crop_size": {"height": 6, "width": 8}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]`
	for name, c := range map[string]struct {
		config, processor, file string
		options                 video.Options
		shape                   []int64
	}{
		"frames of config.json":        {config: `{"num_frames": 4}`, processor: processor, shape: []int64{4, 3, 6, 8}},
		"frames of the processor":      {config: `{}`, processor: processor + `, "num_frames": 5`, shape: []int64{5, 3, 6, 8}},
		"config.json stands above":     {config: `{"num_frames": 4}`, processor: processor + `, "num_frames": 5`, shape: []int64{4, 3, 6, 8}},
		"frames of a part":             {config: `{"vision_config": {"num_frames": 6}}`, processor: processor, shape: []int64{6, 3, 6, 8}},
		"frames of the caller":         {config: `{"num_frames": 4}`, processor: processor, options: video.Options{Frames: 2}, shape: []int64{2, 3, 6, 8}},
		"colours first":                {config: `{"num_frames": 4}`, processor: processor, options: video.Options{Layout: video.CTHW}, shape: []int64{3, 4, 6, 8}},
		"video's own file":             {config: `{"num_frames": 4}`, processor: processor, file: "video_preprocessor_config.json", shape: []int64{4, 3, 6, 8}},
		"sizes as numbers":             {config: `{"num_frames": 1, "image_size": 7}`, processor: `"size": 8, "crop_size": 7, "do_normalize": false`, shape: []int64{1, 3, 7, 7}},
		"sizes as a pair":              {config: `{"num_frames": 1, "image_size": [6, 8]}`, processor: processor, shape: []int64{1, 3, 6, 8}},
		"without a crop":               {config: `{"num_frames": 1}`, processor: `"size": {"height": 6, "width": 9}, "do_normalize": false`, shape: []int64{1, 3, 6, 9}},
		"with a crop that is not done": {config: `{"num_frames": 1}`, processor: `"size": {"height": 6, "width": 9}, "crop_size": 4, "do_center_crop": false, "do_normalize": false`, shape: []int64{1, 3, 6, 9}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.file == "" {
				c.file = "preprocessor_config.json"
			}
			c.options.Decoder = newDecoder(t, video.DecoderOptions{})
			e := open(t, map[string]string{"config.json": c.config, c.file: "{" + c.processor + "}"}, c.options)
			got, err := e.Encode(t.Context(), video.Clip{Raw: &video.Raw{RGB: make([]byte, 3*16*12*3), Width: 16, Height: 12}})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(e.Shape(), c.shape) || !slices.Equal(got.Shape, c.shape) || got.Frames != 3 {
				t.Errorf("shape %v, tensor %v of %d frames; want %v", e.Shape(), got.Shape, got.Frames, c.shape)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{})
	good := videoMAE()["preprocessor_config.json"]
	swap := func(old, with string) string { return strings.Replace(good, old, with, 1) }
	for name, c := range map[string]struct {
		config, processor string
		options           video.Options
		says              string
	}{
		"no frames":         {config: `{}`, processor: good, says: "num_frames"},
		"too many frames":   {config: `{"num_frames": 100000}`, processor: good, says: "num_frames is 100000"},
		"no frames at all":  {config: `{"num_frames": -1}`, processor: good, says: "num_frames is -1"},
		"another size":      {config: `{"num_frames": 16, "image_size": 256}`, processor: good, says: "256 x 256"},
		"no JSON":           {config: `{"num_frames": 16}`, processor: "{", says: "preprocessor_config.json"},
		"config.json isn't": {config: `[`, processor: good, says: "config.json"},
		"no size":           {config: `{"num_frames": 16}`, processor: "{}", says: "size is missing"},
		"no resize":         {config: `{"num_frames": 16}`, processor: swap(`"do_resize": true`, `"do_resize": false`), says: "do_resize"},
		"lanczos":           {config: `{"num_frames": 16}`, processor: swap(`"resample": 2`, `"resample": 1`), says: "resample is 1"},
		"longest edge":      {config: `{"num_frames": 16}`, processor: swap(`"shortest_edge": 224`, `"shortest_edge": 224, "longest_edge": 300`), says: "longest_edge"},
		"huge":              {config: `{"num_frames": 16}`, processor: swap(`"shortest_edge": 224`, `"shortest_edge": 100000`), says: "100000"},
		"crop beyond":       {config: `{"num_frames": 16}`, processor: swap(`"shortest_edge": 224`, `"shortest_edge": 200`), says: "border"},
		"no mean":           {config: `{"num_frames": 16}`, processor: swap(`[0.485, 0.456, 0.406]`, `null`), says: "image_mean"},
		"two means":         {config: `{"num_frames": 16}`, processor: swap(`[0.485, 0.456, 0.406]`, `[0.5, 0.5]`), says: "image_mean"},
		"no deviation":      {config: `{"num_frames": 16}`, processor: swap(`[0.229, 0.224, 0.225]`, `[0, 0, 0]`), says: "image_std"},
		"no factor":         {config: `{"num_frames": 16}`, processor: swap(`0.00392156862745098`, `0`), says: "rescale_factor"},
		"sampling":          {config: `{"num_frames": 16}`, processor: good, options: video.Options{Sampling: "random"}, says: `"random"`},
		"layout":            {config: `{"num_frames": 16}`, processor: good, options: video.Options{Layout: "THWC"}, says: `"THWC"`},
		"number of frames":  {config: `{"num_frames": 16}`, processor: good, options: video.Options{Frames: -1}, says: "-1 frames"},
		"large file":        {config: `{"num_frames": 16}`, processor: strings.Repeat(" ", 2<<20), says: "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.Decoder = d
			_, err := video.Open(bundle(t, map[string]string{"config.json": c.config, "preprocessor_config.json": c.processor}), c.options)
			mustBe(t, err, video.ErrConfig)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error is %q; want it to say %q", err, c.says)
			}
		})
	}
	_, err := video.Open(t.TempDir(), video.Options{Decoder: d})
	mustBe(t, err, video.ErrConfig)
}

// TestIndices holds the frames chosen against numpy's: numpy.linspace(0, n-1, k).astype(int) and numpy.arange(k) * n // k.
func TestIndices(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{})
	for name, c := range map[string]struct {
		sampling video.Sampling
		n        int
		want     []int
	}{
		"linspace, 100":   {video.Linspace, 100, []int{0, 14, 28, 42, 56, 70, 84, 99}},
		"linspace, 8":     {video.Linspace, 8, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		"linspace, 3":     {video.Linspace, 3, []int{0, 0, 0, 0, 1, 1, 1, 2}},
		"linspace, 1":     {video.Linspace, 1, []int{0, 0, 0, 0, 0, 0, 0, 0}},
		"transformers'":   {video.HF, 100, []int{0, 12, 25, 37, 50, 62, 75, 87}},
		"transformers' 3": {video.HF, 3, []int{0, 0, 0, 1, 1, 1, 2, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, map[string]string{"preprocessor_config.json": `{"size": {"height": 1, "width": 1}, "do_rescale": false, "do_normalize": false}`},
				video.Options{Decoder: d, Frames: 8, Sampling: c.sampling})
			raw := &video.Raw{Width: 1, Height: 1}
			for i := range c.n {
				raw.RGB = append(raw.RGB, byte(i), byte(i), byte(i))
			}
			got, err := e.Encode(t.Context(), video.Clip{Raw: raw})
			if err != nil {
				t.Fatal(err)
			}
			var chosen []int
			for i := 0; i < len(got.Data); i += 3 {
				chosen = append(chosen, int(got.Data[i]))
			}
			if !slices.Equal(chosen, c.want) || got.Repeated != (c.n < 8) {
				t.Errorf("frames %v, repeated %v; want %v", chosen, got.Repeated, c.want)
			}
		})
	}
}

// TestLayouts sees that both layouts hold the same pixels.
func TestLayouts(t *testing.T) {
	d := newDecoder(t, video.DecoderOptions{})
	data, err := os.ReadFile(filepath.Join("testdata", "parity", "few.mp4"))
	if err != nil {
		t.Fatal(err)
	}
	tensors := map[video.Layout]video.Tensor{}
	for _, layout := range []video.Layout{video.TCHW, video.CTHW} {
		tensors[layout], err = open(t, videoMAE(), video.Options{Decoder: d, Layout: layout}).Encode(t.Context(), video.Clip{Encoded: data})
		if err != nil {
			t.Fatal(err)
		}
	}
	const plane = 224 * 224
	for frame := range 16 {
		for c := range 3 {
			one, other := (frame*3+c)*plane, (c*16+frame)*plane
			if !slices.Equal(tensors[video.TCHW].Data[one:one+plane], tensors[video.CTHW].Data[other:other+plane]) {
				t.Fatalf("frame %d, colour %d differs", frame, c)
			}
		}
	}
}
