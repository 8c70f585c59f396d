package main

import (
	"fmt"
	"os"
	"path/filepath"

	"modelgate/inference/engine/enginetest"
)

// What the video model takes of a clip, which is what VideoMAE does. Its graph is a small one: it is the decoding that is measured.
const (
	clipFrames = 16
	clipSide   = 224
)

func writeVideo(dir string) error {
	if err := (enginetest.VideoBundle{}).Write(dir); err != nil {
		return err
	}
	files := map[string]string{
		"config.json": fmt.Sprintf(`{"id2label": {"0": "negative", "1": "positive"}, "num_frames": %d, "image_size": %d}`, clipFrames, clipSide),
		"preprocessor_config.json": fmt.Sprintf(`{"image_processor_type": "VideoMAEImageProcessor", "do_resize": true, "size": {"shortest_edge": %[1]d},
 "do_center_crop": true, "crop_size": {"height": %[1]d, "width": %[1]d}, "do_rescale": true, "rescale_factor": 0.00392156862745098,
 "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}`, clipSide),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return enginetest.NewGraph().
		Input("pixel_values", enginetest.Float, "batch", clipFrames, 3, clipSide, clipSide).
		Init("colours", enginetest.Tensor{Shape: []int64{3, 2}, Data: []float32{-2, 2, 0, 0, 2, -2}}).
		Node("ReduceMean", []string{"pixel_values"}, []string{"means"}, enginetest.IntsAttr("axes", 1, 3, 4), enginetest.IntAttr("keepdims", 0)).
		Node("MatMul", []string{"means", "colours"}, []string{"logits"}).
		Output("logits", enginetest.Float, "batch", 2).
		WriteFile(filepath.Join(dir, "model.onnx"))
}
