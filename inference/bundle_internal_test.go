package inference

import (
	"os"
	"path/filepath"
	"testing"
)

// longestTold is how many bytes an error about a bundle may have: it goes into the ledger and to whoever asks for the history.
const longestTold = 2000

// FuzzBundle: whatever a bundle's small files say, the graph is a file in the bundle, the settings are within their ranges and the labels can be told
// apart; or the bundle is refused in few words.
func FuzzBundle(f *testing.F) {
	for _, s := range []struct{ config, settings, mlmodel string }{
		{`{"id2label": {"0": "negative", "1": "positive"}}`, "positive_label: positive\nthreshold: 0.5\nmax_length: 128\n", ""},
		{`{"num_labels": 3, "problem_type": "multi_label_classification"}`, "", "flavors:\n  onnx:\n    data: model.onnx\n    onnx_version: 1.19.0\n"},
		{`{"id2label": {"0": "a", "2": "b"}}`, "threshold: 1.5", "flavors:\n  onnx:\n    data: ../outside.onnx\n"},
		{`{"num_labels": -1}`, "threshold: .nan", "flavors:\n  onnx:\n    data: /etc/passwd\n"},
		{`{"num_labels": 100000000}`, "tresholds: 0.5", "flavors:\n  onnx:\n    data: \"data\"\n"},
		{`{"id2label": {"0": "a", "1": "a"}}`, "video_sampling: hf\nvideo_layout: CTHW\nvideo_rotation: apply", "flavors:\n  python_function: {}\n"},
		{"", "&a [*a]", "flavors:\n  onnx:\n"},
		{"null", "a: !!binary x", "\tflavors: onnx"},
	} {
		f.Add([]byte(s.config), []byte(s.settings), []byte(s.mlmodel))
	}
	dir := f.TempDir()
	write := func(t testing.TB, path string, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, path), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"data", "model"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			f.Fatal(err)
		}
		write(f, folder+"/model.onnx", nil)
	}
	write(f, "model.onnx", nil)
	f.Fuzz(func(t *testing.T, config, settings, mlmodel []byte) {
		write(t, configFile, config)
		write(t, settingsFile, settings)
		write(t, mlmodelFile, mlmodel)
		b, err := openBundle(dir)
		if err != nil {
			if len(err.Error())-len(dir) > longestTold {
				t.Errorf("an error of %d bytes: %.300v", len(err.Error()), err)
			}
			return
		}
		if path, err := filepath.Rel(dir, b.graph); err != nil || !filepath.IsLocal(path) || !isFile(b.graph) {
			t.Errorf("the graph is %s", b.graph)
		}
		s := b.settings
		if s.Threshold != nil && !(*s.Threshold >= 0 && *s.Threshold <= 1) || s.MaxLength < 0 {
			t.Errorf("%+v", s)
		}
		for _, classes := range []int{-1, 1, 2, 3} {
			labels, err := b.config.labels(classes)
			if err != nil {
				if len(err.Error()) > longestTold {
					t.Errorf("%d classes: an error of %d bytes: %.300v", classes, len(err.Error()), err)
				}
				continue
			}
			if len(labels) > maxClasses || classes > 0 && len(labels) != classes || distinct(labels) != nil {
				t.Errorf("%d classes, labels %.300q", classes, labels)
			}
		}
	})
}
