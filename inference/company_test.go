package inference_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
)

// A watcher is an engine that sees the inputs of every run of the sessions it opens.
type watcher struct {
	engine.Engine
	see func(inputs []engine.Tensor)
}

type watched struct {
	engine.Session
	see func(inputs []engine.Tensor)
}

func (w watcher) Open(ctx context.Context, path string, o engine.Options) (engine.Session, error) {
	s, err := w.Engine.Open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	return watched{s, w.see}, nil
}

func (w watched) Run(ctx context.Context, inputs []engine.Tensor) ([]engine.Tensor, error) {
	w.see(inputs)
	return w.Session.Run(ctx, inputs)
}

// A row's scores don't depend on its company: where a graph minds its mask, rows of nearly one length are padded and share a run;
// where it doesn't, only rows of exactly one length do.
func TestCompanyDoesntMatter(t *testing.T) {
	var texts []string
	for _, from := range []int{0, 7} {
		var text strings.Builder
		for i := range 24 {
			fmt.Fprintf(&text, "%s ", enginetest.Words()[(from+i)%len(enginetest.Words())])
			texts = append(texts, text.String())
		}
	}
	for name, c := range map[string]struct {
		shape shape
		left  bool
		pads  bool
		alone bool // rows never share a run
	}{
		"minds its mask":        {shape{}, false, true, false},
		"minds it, padded left": {shape{}, true, true, false},
		"int32":                 {shape{elem: enginetest.Int32}, false, true, false},
		"ignores its mask":      {shape{deaf: true}, false, false, false},
		"has no mask":           {shape{unmasked: true}, false, false, false},
		"quantizes by range":    {shape{tail: quantized}, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			var padded, shared, wrongSide atomic.Bool
			see := func(inputs []engine.Tensor) {
				mask := inputs[len(inputs)-1]
				rows, length := int(mask.Shape[0]), int(mask.Shape[1])
				shared.CompareAndSwap(false, rows > 1)
				for i := range rows {
					first, last := at(mask, i*length), at(mask, i*length+length-1)
					padded.CompareAndSwap(false, first == 0 || last == 0)
					wrongSide.CompareAndSwap(false, c.left && last == 0 || !c.left && first == 0)
				}
			}
			side := map[bool]string{true: "left", false: "right"}[c.left]
			dir := shapeBundle(t, c.shape, map[string]string{
				"tokenizer_config.json": `{"model_max_length": 64, "pad_token": "[PAD]", "padding_side": "` + side + `"}`,
			})
			m, err := inference.Open(t.Context(), dir, watcher{newEngine(t), see}, inference.Options{Workers: 1, MaxWait: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = m.Close() }()
			if err := m.WarmUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			padded.Store(false)
			shared.Store(false)
			alone := map[string][]float64{}
			for _, s := range texts {
				alone[s] = scoresOf(predict(t, m, s), "negative", "positive")
				if want := softmax(logits(s)); !c.alone && !close6(alone[s], want) {
					t.Errorf("%q: %v, want %v", s, alone[s], want)
				}
			}
			done := func() bool { return c.alone || shared.Load() && (padded.Load() || !c.pads) }
			for round := 0; !done() || round < 8; round++ {
				var wg sync.WaitGroup
				for _, s := range slices.Concat(texts, texts) {
					wg.Go(func() {
						p, err := m.Predict(t.Context(), input(s))
						if err != nil {
							t.Error(err)
						} else if got, want := scoresOf(p, "negative", "positive"), alone[s]; !close6(got, want) {
							t.Errorf("%q: %v, want %v", s, got, want)
						}
					})
				}
				wg.Wait()
			}
			if padded.Load() != c.pads && !c.shape.unmasked {
				t.Errorf("padded: %v, want %v", padded.Load(), c.pads)
			}
			if shared.Load() == c.alone {
				t.Errorf("shared: %v", shared.Load())
			}
			if wrongSide.Load() && !c.shape.unmasked {
				t.Error("padded on the wrong side")
			}
		})
	}
}

// quantized rounds as graphs do that quantize_dynamic made: with a step that depends on the largest number of all rows.
func quantized(g *enginetest.Graph, from, to string) {
	g.Node("DynamicQuantizeLinear", []string{from}, []string{"q", "step", "zero"}).
		Node("DequantizeLinear", []string{"q", "step", "zero"}, []string{to})
}

func at(t engine.Tensor, i int) int64 {
	if d, ok := t.Data.([]int32); ok {
		return int64(d[i])
	}
	d, _ := t.Data.([]int64)
	return d[i]
}
