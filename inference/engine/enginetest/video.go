package enginetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// FFmpeg is the path of the program that makes and decodes clips: the machine's, or the one that tools/setup-ffmpeg.sh fetched.
func FFmpeg(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("ffmpeg"); err == nil {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		path := filepath.Join(dir, ".cache", "ffmpeg", "ffmpeg")
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no ffmpeg: `make ffmpeg` installs it")
		}
		dir = filepath.Dir(dir)
	}
}

// What a VideoBundle takes of a clip.
const (
	ClipFrames = 4
	ClipSide   = 16
)

// LinearVideo is a video classifier: pixel_values (batch, frames, channels, height, width) to logits (batch, 2). Red counts for
// class 1 and blue for class 0; shift is added to class 0.
func LinearVideo(shift float32) *Graph {
	return NewGraph().pixels("pixel_values", shift).
		Node("Identity", []string{"video_logits"}, []string{"logits"}).
		Output("logits", Float, "batch", 2)
}

// LinearFusion adds to the logits of LinearVideo those of a LinearText over vocab words. The inputs have the names of a fusion
// graph, with the clip between those of the text.
func LinearFusion(vocab int, seed uint64, shift float32) *Graph {
	return NewGraph().
		Input("text_input_ids", Int64, "batch", "length").
		pixels("video_pixel_values", shift).
		Input("text_attention_mask", Int64, "batch", "length").
		Init("words", Tensor{Shape: []int64{int64(vocab), 2}, Data: Random(seed, vocab*2)}).
		Init("last", Tensor{Shape: []int64{1}, Data: []int64{-1}}).
		Init("middle", Tensor{Shape: []int64{1}, Data: []int64{1}}).
		Node("Gather", []string{"words", "text_input_ids"}, []string{"rows"}).
		Node("Cast", []string{"text_attention_mask"}, []string{"mask"}, IntAttr("to", Float)).
		Node("Unsqueeze", []string{"mask", "last"}, []string{"mask3"}).
		Node("Mul", []string{"rows", "mask3"}, []string{"masked"}).
		Node("ReduceSum", []string{"masked", "middle"}, []string{"sum"}, IntAttr("keepdims", 0)).
		Node("Add", []string{"sum", "video_logits"}, []string{"logits"}).
		Output("logits", Float, "batch", 2)
}

// pixels adds an input for clips, and video_logits out of the mean of each colour.
func (g *Graph) pixels(name string, shift float32) *Graph {
	return g.Input(name, Float, "batch", ClipFrames, 3, ClipSide, ClipSide).
		Init("colours", Tensor{Shape: []int64{3, 2}, Data: []float32{-2, 2, 0, 0, 2, -2}}).
		Init("shift", Tensor{Shape: []int64{2}, Data: []float32{shift, 0}}).
		Node("ReduceMean", []string{name}, []string{"means"}, IntsAttr("axes", 1, 3, 4), IntAttr("keepdims", 0)).
		Node("MatMul", []string{"means", "colours"}, []string{"coloured"}).
		Node("Add", []string{"coloured", "shift"}, []string{"video_logits"})
}

// A VideoBundle is a small video classifier as a folder, with the labels of a TextBundle: a red clip is positive, a blue one
// negative.
type VideoBundle struct {
	Fusion bool // takes a text too, with the tokenizer of a TextBundle
	Seed   uint64
	Shift  float32 // added to the logit of label 0
}

// Write makes the bundle in dir, which it creates.
func (b VideoBundle) Write(dir string) error {
	if err := (TextBundle{}).Write(dir); err != nil {
		return err
	}
	graph := LinearFusion(len(Words())+2, b.Seed, b.Shift)
	if !b.Fusion {
		graph = LinearVideo(b.Shift)
		for _, name := range []string{"tokenizer.json", "tokenizer_config.json"} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	files := map[string]string{
		"config.json": fmt.Sprintf(`{"id2label": {"0": "negative", "1": "positive"}, "problem_type": "single_label_classification", "pad_token_id": 0,
 "num_frames": %d, "image_size": %d}`, ClipFrames, ClipSide),
		"preprocessor_config.json": fmt.Sprintf(`{"image_processor_type": "VideoMAEImageProcessor", "do_resize": true, "size": {"shortest_edge": %[1]d},
 "do_center_crop": true, "crop_size": {"height": %[1]d, "width": %[1]d}, "do_rescale": true, "rescale_factor": 0.00392156862745098,
 "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}`, ClipSide),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return graph.WriteFile(filepath.Join(dir, "model.onnx"))
}
