package inference_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
)

func compare(t *testing.T, active, candidate string, o inference.Options) (slowdown float64, err error) {
	t.Helper()
	before, after, err := openModel(t, candidate, o).Compare(t.Context(), openModel(t, active, inference.Options{}))
	if before == 0 || after == 0 {
		return 0, err
	}
	return after.Seconds() / before.Seconds(), err
}

func TestLabelsThatCallersKnow(t *testing.T) {
	labels := func(l ...string) string { return writeBundle(t, enginetest.TextBundle{Labels: l}) }
	clips := filepath.Join(t.TempDir(), "clips")
	if err := (enginetest.VideoBundle{}).Write(clips); err != nil {
		t.Fatal(err)
	}
	positive := func(label string) string {
		dir := labels("no", "yes")
		writeFile(t, dir, "modelgate.yaml", "positive_label: "+label+"\n")
		return dir
	}
	for name, c := range map[string]struct {
		active, candidate string
		says              string // empty: it may serve
	}{
		"the same":                 {labels("no", "yes"), labels("no", "yes"), ""},
		"another order":            {labels("no", "yes"), labels("yes", "no"), ""},
		"another label":            {labels("no", "yes"), labels("no", "maybe"), `its labels are ["maybe" "no"], those of the version that serves are ["no" "yes"]`},
		"a label more":             {labels("no", "yes"), labels("no", "yes", "maybe"), "its labels are"},
		"a label less":             {labels("no", "yes", "maybe"), labels("no", "yes"), "its labels are"},
		"another positive label":   {positive("no"), positive("yes"), `its positive label is "yes", that of the version that serves is "no"`},
		"no positive label":        {positive("no"), labels("no", "yes"), `its positive label is ""`},
		"another kind":             {labels("no", "yes"), clips, "it is of the kind video, the version that serves is of the kind tokens"},
		"a string in place of ids": {labels("ham", "spam"), filepath.Join("testdata", "sklearn-zipmap"), "its labels are"},
	} {
		t.Run(name, func(t *testing.T) {
			o := inference.Options{Decoder: newDecoder(t)}
			slowdown, err := compare(t, c.active, c.candidate, o)
			switch {
			case c.says == "" && (err != nil || slowdown <= 0):
				t.Errorf("slowdown %v, %v", slowdown, err)
			case c.says != "" && (!errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "allow_label_change")):
				t.Errorf("got %v, want a refusal that says %q and what to do", err, c.says)
			}
			o.AllowLabelChange = true
			if _, err := compare(t, c.active, c.candidate, o); err != nil {
				t.Errorf("allowed: %v", err)
			}
		})
	}
}

// slow is a tail of a graph that multiplies matrices for a while, and changes nothing.
func slow(g *enginetest.Graph, from, to string) {
	const n = 700
	g.Init("slow0", enginetest.Tensor{Shape: []int64{n, n}, Data: enginetest.Random(1, n*n)}).
		Init("none", enginetest.Tensor{Shape: []int64{}, Data: []float32{0}}).
		Node("ReduceMax", []string{from}, []string{"top"}, enginetest.IntAttr("keepdims", 0)).
		Node("Mul", []string{"slow0", "top"}, []string{"slow1"}).
		Node("MatMul", []string{"slow1", "slow1"}, []string{"slow2"}).
		Node("MatMul", []string{"slow2", "slow1"}, []string{"slow3"}).
		Node("Tanh", []string{"slow3"}, []string{"slow4"}).
		Node("ReduceMax", []string{"slow4"}, []string{"slow5"}, enginetest.IntAttr("keepdims", 0)).
		Node("Mul", []string{"slow5", "none"}, []string{"nothing"}).
		Node("Add", []string{from, "nothing"}, []string{to})
}

func TestSlowdown(t *testing.T) {
	quick, late := shapeBundle(t, shape{}, nil), shapeBundle(t, shape{tail: slow}, nil)
	if slowdown, err := compare(t, quick, late, inference.Options{}); err != nil || slowdown < 5 {
		t.Errorf("without a limit: %v, %v", slowdown, err)
	}
	slowdown, err := compare(t, quick, late, inference.Options{MaxSlowdown: 3})
	if !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "at most 3 is allowed (models.*.max_slowdown)") || slowdown < 3 {
		t.Errorf("above the limit: %v, %v", slowdown, err)
	}
	if slowdown, err := compare(t, late, quick, inference.Options{MaxSlowdown: 1}); err != nil || slowdown > 1 {
		t.Errorf("faster: %v, %v", slowdown, err)
	}
	if slowdown, err := compare(t, quick, quick, inference.Options{MaxSlowdown: 3}); err != nil || slowdown <= 0 {
		t.Errorf("as fast: %v, %v", slowdown, err)
	}
}
