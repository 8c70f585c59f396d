package inference_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
)

// Graphs that misbehave are refused before they answer anybody: some when they are opened, the rest by the warm-up.
func TestMisbehavingGraphs(t *testing.T) {
	constant := func(name string, v float32) func(*enginetest.Graph) {
		return func(g *enginetest.Graph) {
			g.Init(name, enginetest.Tensor{Shape: []int64{1}, Data: []float32{v}})
		}
	}
	for name, c := range map[string]struct {
		shape shape
		says  string
	}{
		"always NaN": {shape{tail: func(g *enginetest.Graph, from, to string) {
			constant("nan", float32(math.NaN()))(g)
			g.Node("Add", []string{from, "nan"}, []string{to})
		}}, "NaN"},
		"infinite": {shape{tail: func(g *enginetest.Graph, from, to string) {
			constant("inf", float32(math.Inf(1)))(g)
			g.Node("Add", []string{from, "inf"}, []string{to})
		}}, "Inf"},
		"NaN for long texts": {shape{tail: func(g *enginetest.Graph, from, to string) {
			constant("limit", 31)(g)
			g.Init("axis", enginetest.Tensor{Shape: []int64{1}, Data: []int64{1}})
			g.Node("ReduceSum", []string{"m", "axis"}, []string{"count"}).
				Node("Sub", []string{"limit", "count"}, []string{"left"}).
				Node("Sqrt", []string{"left"}, []string{"root"}).
				Node("Add", []string{from, "root"}, []string{to})
		}}, "NaN"},
		"more classes than labels": {shape{declared: "c", tail: func(g *enginetest.Graph, from, to string) {
			g.Node("Concat", []string{from, from}, []string{to}, enginetest.IntAttr("axis", 1))
		}}, "4 classes"},
		"rows that depend on each other": {shape{tail: func(g *enginetest.Graph, from, to string) {
			g.Init("first", enginetest.Tensor{Shape: []int64{}, Data: []int64{0}})
			g.Node("CumSum", []string{from, "first"}, []string{to})
		}}, "other scores"},
		"fails for long texts": {shape{tail: func(g *enginetest.Graph, from, to string) {
			g.Init("short", enginetest.Tensor{Shape: []int64{1, 20, 1}, Data: make([]float32, 20)}).
				Node("Add", []string{"rows", "short"}, []string{"unused"}).
				Init("axis", enginetest.Tensor{Shape: []int64{2}, Data: []int64{0, 1}}).
				Node("ReduceSum", []string{"unused", "axis"}, []string{"total"}, enginetest.IntAttr("keepdims", 0)).
				Node("Add", []string{from, "total"}, []string{to})
		}}, "inputs of size"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := inference.Open(t.Context(), shapeBundle(t, c.shape, nil), newEngine(t), inference.Options{})
			if err == nil {
				err = m.WarmUp(t.Context())
				defer func() { _ = m.Close() }()
			}
			if !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want ErrBundle that says %q", err, c.says)
			}
		})
	}
}

// A graph that never comes to an end is refused too, whether in its first run or in a later one.
func TestEndlessGraphs(t *testing.T) {
	vocab := len(enginetest.Words()) + 2
	for name, at := range map[string]int{"first run": enginetest.Always, "warm-up": enginetest.WordID("the")} {
		t.Run(name, func(t *testing.T) {
			dir := writeBundle(t, enginetest.TextBundle{})
			writeFile(t, dir, "model.onnx", string(enginetest.Trap(vocab, 1, 0, at, enginetest.Loops).Bytes()))
			m, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{MaxWarmUp: time.Second})
			if (err == nil) != (name == "warm-up") {
				t.Fatalf("opened with %v", err)
			}
			if err == nil {
				defer func() { _ = m.Close() }()
				err = m.WarmUp(t.Context())
			}
			if !errors.Is(err, inference.ErrBundle) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "longer than is allowed") {
				t.Errorf("%v, want ErrBundle", err)
			}
		})
	}
}

// What came to an end when it was rehearsed, and doesn't now, isn't refused for good: a stopped machine does that too.
func TestRehearsedGraphIsSlow(t *testing.T) {
	dir := writeBundle(t, enginetest.TextBundle{})
	trap := enginetest.Trap(len(enginetest.Words())+2, 1, 0, enginetest.WordID("the"), enginetest.Loops)
	writeFile(t, dir, "model.onnx", string(trap.Bytes()))
	m, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{MaxWarmUp: time.Second, Rehearsal: &inference.Rehearsal{}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if err := m.WarmUp(t.Context()); err == nil || errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "longer than is allowed") {
		t.Errorf("%v, want one that may pass", err)
	}
}

// A graph that turns bad for one text must fail that text, not answer it, and not fail those beside it.
func TestNaNIsNoVerdict(t *testing.T) {
	s := shape{tail: func(g *enginetest.Graph, from, to string) {
		g.Init("limit", enginetest.Tensor{Shape: []int64{1}, Data: []float32{31}}).
			Init("axis", enginetest.Tensor{Shape: []int64{1}, Data: []int64{1}}).
			Node("ReduceSum", []string{"m", "axis"}, []string{"count"}).
			Node("Sub", []string{"limit", "count"}, []string{"left"}).
			Node("Sqrt", []string{"left"}, []string{"root"}).
			Node("Add", []string{from, "root"}, []string{to})
	}}
	m, err := inference.Open(t.Context(), shapeBundle(t, s, nil), newEngine(t), inference.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if p, err := m.Predict(t.Context(), input(strings.Repeat("good ", 40))); err == nil || !strings.Contains(err.Error(), "NaN") {
				t.Errorf("%+v, %v", p, err)
			}
		})
		wg.Go(func() {
			if _, err := m.Predict(t.Context(), input("good")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A tokenizer that finds nothing in a text gives no verdict on it; one that finds nothing in anything can't be served, and that is
// nobody's bad input.
func TestTokenizerThatFindsNothing(t *testing.T) {
	dir := shapeBundle(t, shape{}, map[string]string{
		"tokenizer.json":        `{"version": "1.0", "normalizer": {"type": "Replace", "pattern": {"Regex": "[^b]"}, "content": ""}, "pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "vocab": {"b": 2, "[UNK]": 1}, "unk_token": "[UNK]"}}`,
		"tokenizer_config.json": `{"model_max_length": 64}`,
	})
	_, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{})
	if !errors.Is(err, inference.ErrBundle) || errors.Is(err, inference.ErrInput) {
		t.Errorf("%v, want ErrBundle alone", err)
	}
	writeFile(t, dir, "tokenizer.json", `{"version": "1.0", "normalizer": {"type": "Replace", "pattern": {"Regex": "[^a]"}, "content": ""}, "pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "vocab": {"a": 2, "[UNK]": 1}, "unk_token": "[UNK]"}}`)
	m := openModel(t, dir, inference.Options{})
	predict(t, m, "banana")
	if p, err := m.Predict(t.Context(), input("xyz")); !errors.Is(err, inference.ErrInput) {
		t.Errorf("%+v, %v, want ErrInput", p, err)
	}
}
