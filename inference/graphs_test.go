package inference_test

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"testing"

	"modelgate/inference"
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

// zero makes all logits equal.
func zero(g *enginetest.Graph, from, to string) {
	g.Init("zero", enginetest.Tensor{Shape: []int64{1}, Data: []float32{0}}).Node("Mul", []string{from, "zero"}, []string{to})
}

func TestEqualScoresKeepTheModelsOrder(t *testing.T) {
	p := predict(t, openModel(t, shapeBundle(t, shape{tail: zero}, nil), inference.Options{PositiveLabel: "positive"}), "good")
	want := []inference.Class{{Label: "negative", Score: 0.5}, {Label: "positive", Score: 0.5}}
	if !slices.Equal(p.Classes, want) || p.Label != "negative" || p.Decision != inference.AtOrAboveThreshold {
		t.Errorf("%+v", p)
	}
}
