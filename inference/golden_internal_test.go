package inference

import (
	"math"
	"testing"
	"time"
)

// What is taken of a line makes sense, and no line does harm.
func FuzzGolden(f *testing.F) {
	for _, line := range []string{
		`{"request": {"text": "ok"}, "scores": {"a": 0.25, "b": 0.75}, "tolerance": 0.0001}`,
		`{"request": {"text": "", "video": {"frames": {"images": ["aGVsbG8="]}}}, "scores": {"a": 1}, "tolerance": 0.02}`,
		`{"request": {"video": {"raw": {"rgb": "AAAA", "width": 1, "height": 1}}}, "scores": {}, "tolerance": 0.1}`,
		`{"request": {"video": {"clip": "AAAA"}}, "scores": {"a": 1e-5}, "tolerance": 1e-5}`,
		`{"request": {"text": "a", "text": "b"}, "scores": {"a": 1}, "tolerance": 0.1}`,
		`{"request": null, "scores": null, "tolerance": null}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		g, err := parseGolden(line)
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if !(g.tolerance > 0 && g.tolerance <= maxTolerance) {
			t.Errorf("tolerance %v", g.tolerance)
		}
		for label, s := range g.scores {
			if math.IsNaN(s) || s < -0.001 || s > 1.001 {
				t.Errorf("%q: score %v", label, s)
			}
		}
		if v := g.in.Video; v != nil && v.Raw != nil && (v.Encoded != nil || v.Images != nil) {
			t.Errorf("two clips in one: %+v", v)
		}
		if d := g.describe(); d == "" || len(d) > 300 {
			t.Errorf("described with %d bytes: %q", len(d), d)
		}
	})
}

// A comparison of as many labels as can be served takes hardly longer than to write them down, whether they are the right ones or not.
func TestLabelsOfAGoldenLineAreComparedInTime(t *testing.T) {
	began := time.Now()
	labels := plainLabels(maxClasses)
	right, wrong := goldenLine{scores: map[string]float64{}}, goldenLine{scores: map[string]float64{}}
	for _, l := range labels {
		right.scores[l], wrong.scores["not "+l] = 0, 0
	}
	written := time.Since(began)
	began = time.Now()
	if err := right.sameLabels(labels); err != nil {
		t.Error(err)
	}
	if err := wrong.sameLabels(labels); err == nil || len(err.Error()) > 2000 {
		t.Errorf("%.2000v", err)
	}
	if took := time.Since(began); took > 20*written+time.Second {
		t.Errorf("%v; to write them took %v", took, written)
	}
}

// A contract comes from a registry that anybody may write to.
func FuzzContract(f *testing.F) {
	for _, c := range []string{
		`{"kind": "text", "labels": ["a", "b"], "positive_label": "b", "threshold": 0.5, "inputs": {"input_ids": ["tensor(int64)", [null, null]]}, "max_length": 128}`,
		`{"frames": 16, "crop": [224, 224], "inputs": {"pixel_values": ["tensor(float)", [null, 16, 3, 224, 224]]}}`,
		`{"kind": null, "inputs": {"a": [null, null]}}`,
		`{"inputs": {"a": ["x", [9223372036854775808]]}}`,
	} {
		f.Add([]byte(c))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseContract(data)
		if err != nil && len(err.Error()) > 2000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
		if err != nil {
			return
		}
		for name, in := range c.inputs {
			if in.dtype == "" && len(in.dims) > 1<<20 {
				t.Errorf("%q: %v", name, in)
			}
		}
	})
}
