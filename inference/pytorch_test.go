package inference_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/video"
)

// pytorchReferences is what tools/parity/pytorch.py wrote: what PyTorch made of texts and clips, with transformers' own tokenizers and
// processors, by networks that were then exported to the bundles beside it.
type pytorchReferences struct {
	MadeWith map[string]string `json:"made_with"`
	Bundles  map[string][]pytorchReference
}

type pytorchReference struct {
	Text   *string
	Clip   string // of inference/video's test data; empty: none
	Scores map[string]float64
}

func (r pytorchReference) input(t *testing.T) inference.Input {
	t.Helper()
	in := inference.Input{Text: r.Text}
	if r.Clip != "" {
		data, err := os.ReadFile(filepath.Join("video", "testdata", "parity", r.Clip))
		if err != nil {
			t.Fatal(err)
		}
		in.Video = &video.Clip{Encoded: data}
	}
	return in
}

func readPyTorchReferences(t *testing.T) pytorchReferences {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "pytorch", "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r pytorchReferences
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// What is served is what was trained: from a text and an encoded clip to the scores of real architectures, all within 1e-4 of PyTorch.
// All examples are here at once, so that they share runs.
func TestScoresArePyTorchs(t *testing.T) {
	r := readPyTorchReferences(t)
	kinds := map[string]int{}
	for name, examples := range r.Bundles {
		t.Run(name, func(t *testing.T) {
			m := openModel(t, filepath.Join("testdata", "pytorch", name), inference.Options{Decoder: newDecoder(t), MaxWait: time.Minute})
			kinds[string(m.Info().Kind)]++
			var wg sync.WaitGroup
			differences := make([]float64, len(examples))
			for i, example := range examples {
				in := example.input(t)
				wg.Go(func() {
					p, err := m.Predict(t.Context(), in)
					if err != nil {
						t.Errorf("%s: %v", about(example), err)
						return
					}
					differences[i] = difference(t, p, example)
				})
			}
			wg.Wait()
			worst := 0.0
			for i, d := range differences {
				worst = max(worst, d)
				if d > 1e-4 {
					t.Errorf("%s: a score is off by %.2g", about(examples[i]), d)
				}
			}
			t.Logf("%d examples, worst difference %.1g", len(examples), worst)
		})
	}
	if kinds["tokens"] < 2 || kinds["video"] < 3 || kinds["fusion"] < 2 {
		t.Errorf("bundles by kind: %v", kinds)
	}
	t.Logf("references made with %v", r.MadeWith)
}

func about(r pytorchReference) string {
	text := "no text"
	if r.Text != nil {
		text = *r.Text
		if runes := []rune(text); len(runes) > 40 {
			text = string(runes[:40]) + "..."
		}
	}
	return text + " | " + r.Clip
}

// difference is the largest in any label's score.
func difference(t *testing.T, p inference.Prediction, want pytorchReference) float64 {
	if len(p.Classes) != len(want.Scores) {
		t.Errorf("%s: %d classes, PyTorch has %d", about(want), len(p.Classes), len(want.Scores))
	}
	worst := 0.0
	for _, c := range p.Classes {
		score, ok := want.Scores[c.Label]
		if !ok {
			t.Errorf("%s: PyTorch has no label %q", about(want), c.Label)
		}
		worst = max(worst, math.Abs(c.Score-score))
	}
	return worst
}
