package inference_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
)

// A shape is a variation of a linear token classifier.
type shape struct {
	prefix   string // of the inputs' names
	elem     int    // of the inputs; 0: int64
	batch    any    // nil: open
	length   any    // nil: open
	unmasked bool   // it has no attention_mask
	deaf     bool   // it has an attention_mask and ignores it
	types    bool   // it has token_type_ids, which it ignores
	output   string // default: logits
	column   bool   // one class, and no dimension for it
	tail     func(g *enginetest.Graph, from, to string)
	declared any // the classes that the output declares; nil: 2
}

const (
	shapeWords   = 30 // rows of the table: more than a TextBundle has words
	shapeClasses = 2
)

// weights are the table's, by id and class.
func weights() []float32 { return enginetest.Random(9, shapeWords*shapeClasses) }

func (s shape) graph() *enginetest.Graph {
	elem, output := cmp.Or(s.elem, enginetest.Int64), cmp.Or(s.output, "logits")
	batch, length := cmp.Or[any](s.batch, "b"), cmp.Or[any](s.length, "l")
	g := enginetest.NewGraph().Input(s.prefix+"input_ids", elem, batch, length)
	classes := shapeClasses
	if s.column {
		classes = 1
	}
	table := weights()[:shapeWords*classes]
	g.Init("w", enginetest.Tensor{Shape: []int64{shapeWords, int64(classes)}, Data: table}).
		Init("one", enginetest.Tensor{Shape: []int64{1}, Data: []int64{1}}).
		Init("two", enginetest.Tensor{Shape: []int64{1}, Data: []int64{2}}).
		Node("Gather", []string{"w", s.prefix + "input_ids"}, []string{"rows"})
	rows := "rows"
	if !s.unmasked {
		g.Input(s.prefix+"attention_mask", elem, batch, length)
	}
	if s.types {
		g.Input(s.prefix+"token_type_ids", elem, batch, length)
	}
	if !s.unmasked && !s.deaf {
		g.Node("Cast", []string{s.prefix + "attention_mask"}, []string{"m"}, enginetest.IntAttr("to", enginetest.Float)).
			Node("Unsqueeze", []string{"m", "two"}, []string{"m3"}).
			Node("Mul", []string{"rows", "m3"}, []string{"masked"})
		rows = "masked"
	}
	g.Node("ReduceSum", []string{rows, "one"}, []string{"sum"}, enginetest.IntAttr("keepdims", 0))
	switch {
	case s.tail != nil:
		s.tail(g, "sum", output)
	case s.column:
		g.Node("Squeeze", []string{"sum", "one"}, []string{output})
	default:
		g.Node("Identity", []string{"sum"}, []string{output})
	}
	if s.column {
		return g.Output(output, enginetest.Float, batch)
	}
	return g.Output(output, enginetest.Float, batch, cmp.Or[any](s.declared, shapeClasses))
}

// logits are what a shape's graph gives for a text, computed here.
func logits(text string) []float64 {
	out := make([]float64, shapeClasses)
	for _, w := range strings.Fields(text) {
		id := slices.Index(enginetest.Words(), w) + 2
		for c := range out {
			out[c] += float64(weights()[id*shapeClasses+c])
		}
	}
	return out
}

func softmax(l []float64) []float64 {
	a, b := math.Exp(l[0]), math.Exp(l[1])
	return []float64{a / (a + b), b / (a + b)}
}

func sigmoid(l []float64) []float64 {
	return []float64{1 / (1 + math.Exp(-l[0])), 1 / (1 + math.Exp(-l[1]))}
}

func shapeBundle(t testing.TB, s shape, files map[string]string) string {
	dir := writeBundle(t, enginetest.TextBundle{})
	writeFile(t, dir, "model.onnx", string(s.graph().Bytes()))
	for name, content := range files {
		writeFile(t, dir, name, content)
	}
	return dir
}

// scoresOf are a prediction's scores in the order of labels.
func scoresOf(p inference.Prediction, labels ...string) []float64 {
	out := make([]float64, len(labels))
	for i, l := range labels {
		out[i] = p.Classes[slices.IndexFunc(p.Classes, func(c inference.Class) bool { return c.Label == l })].Score
	}
	return out
}

func close6(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Abs(x-y) <= 1e-6 })
}

func TestGraphShapes(t *testing.T) {
	left := map[string]string{"tokenizer_config.json": `{"model_max_length": 64, "pad_token": "[PAD]", "padding_side": "left"}`}
	for name, c := range map[string]struct {
		shape shape
		files map[string]string
		want  func([]float64) []float64
	}{
		"usual":               {shape{}, nil, softmax},
		"fusion's names":      {shape{prefix: "text_"}, nil, softmax},
		"int32":               {shape{elem: enginetest.Int32}, nil, softmax},
		"with types":          {shape{types: true}, nil, softmax},
		"without a mask":      {shape{unmasked: true}, nil, softmax},
		"padded left":         {shape{}, left, softmax},
		"fixed length":        {shape{length: 16}, nil, softmax},
		"batch of one":        {shape{batch: 1}, nil, softmax},
		"another output name": {shape{output: "output_0"}, nil, softmax},
		"open classes":        {shape{declared: "c"}, nil, softmax},
		"multi-label": {shape{}, map[string]string{
			"config.json": `{"id2label": {"0": "negative", "1": "positive"}, "problem_type": "multi_label_classification"}`,
		}, sigmoid},
	} {
		t.Run(name, func(t *testing.T) {
			m := openModel(t, shapeBundle(t, c.shape, c.files), inference.Options{})
			for _, s := range []string{"good", "this film was not good", "bad bad bad bad bad bad sad day"} {
				got, want := scoresOf(predict(t, m, s), "negative", "positive"), c.want(logits(s))
				if !close6(got, want) {
					t.Errorf("%q: %v, want %v", s, got, want)
				}
			}
		})
	}
}

func TestOneLogit(t *testing.T) {
	m := openModel(t, shapeBundle(t, shape{column: true}, map[string]string{"config.json": `{"id2label": {"0": "harmful"}}`}), inference.Options{PositiveLabel: "harmful"})
	w := float64(weights()[2]) // the weight of id 2, which is the first word
	want := 1 / (1 + math.Exp(-w))
	p := predict(t, m, enginetest.Words()[0])
	if len(p.Classes) != 1 || math.Abs(p.Score-want) > 1e-6 || (p.Decision == inference.AtOrAboveThreshold) != (want >= 0.5) {
		t.Errorf("%+v, want the score %v", p, want)
	}
}

func TestUnnamedClasses(t *testing.T) {
	for name, config := range map[string]string{"nothing said": `{}`, "a number": `{"num_labels": 2}`} {
		m := openModel(t, shapeBundle(t, shape{}, map[string]string{"config.json": config}), inference.Options{})
		if got := m.Info().Labels; !slices.Equal(got, []string{"LABEL_0", "LABEL_1"}) {
			t.Errorf("%s: labels %v", name, got)
		}
	}
}

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
	var text strings.Builder
	var texts []string
	for i := range 24 {
		fmt.Fprintf(&text, "%s ", enginetest.Words()[i%len(enginetest.Words())])
		texts = append(texts, text.String())
	}
	for name, c := range map[string]struct {
		shape shape
		left  bool
		pads  bool
	}{
		"minds its mask":        {shape{}, false, true},
		"minds it, padded left": {shape{}, true, true},
		"int32":                 {shape{elem: enginetest.Int32}, false, true},
		"ignores its mask":      {shape{deaf: true}, false, false},
		"has no mask":           {shape{unmasked: true}, false, false},
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
			m, err := inference.Open(t.Context(), dir, watcher{newEngine(t), see}, inference.Options{Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = m.Close() }()
			if err := m.WarmUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			padded.Store(false)
			shared.Store(false)
			done := func() bool { return shared.Load() && (padded.Load() || !c.pads) }
			for round := 0; !done() || round < 8; round++ {
				var wg sync.WaitGroup
				for _, s := range slices.Concat(texts, texts) {
					wg.Go(func() {
						p, err := m.Predict(t.Context(), input(s))
						if err != nil {
							t.Error(err)
						} else if got, want := scoresOf(p, "negative", "positive"), softmax(logits(s)); !close6(got, want) {
							t.Errorf("%q: %v, want %v", s, got, want)
						}
					})
				}
				wg.Wait()
			}
			if padded.Load() != c.pads && !c.shape.unmasked {
				t.Errorf("padded: %v, want %v", padded.Load(), c.pads)
			}
			if wrongSide.Load() && !c.shape.unmasked {
				t.Error("padded on the wrong side")
			}
		})
	}
}

func at(t engine.Tensor, i int) int64 {
	if d, ok := t.Data.([]int32); ok {
		return int64(d[i])
	}
	d, _ := t.Data.([]int64)
	return d[i]
}

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
		}}, "texts of size"},
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
