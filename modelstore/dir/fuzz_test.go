package dir_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"modelgate/modelstore/dir"
)

// FuzzMetrics: whatever metrics.json says, what is known of it is a number from 0 to 1, and what is told of it is short.
func FuzzMetrics(f *testing.F) {
	for _, s := range []string{`{"eval_f1": 0.81}`, `{"eval_f1": NaN}`, `{"eval_f1": "0.9"}`, `{"eval_f1": 1e999, "f1": 0.5}`, `{"f1": -0}`, `{"eval_f1": 0.5, "eval_f1": 2}`, `[]`, ""} {
		f.Add([]byte(s))
	}
	root := f.TempDir()
	folder := filepath.Join(root, "text", "1")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "model.onnx"), []byte("graph"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, metrics []byte) {
		if err := os.WriteFile(filepath.Join(folder, "metrics.json"), metrics, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := dir.New(dir.Options{Dir: root, MetricNames: []string{"eval_f1", "f1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		v, err := s.Latest(t.Context(), "text")
		if err != nil {
			t.Fatal(err)
		}
		f1, err := s.F1(t.Context(), v)
		switch {
		case err != nil:
			t.Fatal(err)
		case f1.Known && (math.IsNaN(f1.Value) || f1.Value < 0 || f1.Value > 1 || f1.Absent || f1.Metric == ""):
			t.Errorf("known: %+v", f1)
		case !f1.Known && (f1.Why == "" || f1.Value != 0 || len(f1.Why) > 300):
			t.Errorf("unknown: %+v", f1)
		}
	})
}
