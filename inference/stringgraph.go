package inference

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"modelgate/inference/engine"
	"modelgate/inference/text"
)

// A stringGraph takes the text itself and gives probabilities, as scikit-learn pipelines do that skl2onnx converted.
type stringGraph struct {
	input    engine.TensorSpec
	output   int
	spec     engine.TensorSpec // of the output
	maxBytes int
	config   config
	labels   []string
	keys     []string // of a map output, in the labels' order
}

func newStringGraph(b *bundle, session engine.Session, o Options) (*stringGraph, error) {
	g := &stringGraph{input: session.Inputs()[0], maxBytes: o.MaxTextBytes, config: b.config}
	if g.maxBytes == 0 {
		g.maxBytes = text.DefaultMaxBytes
	}
	if s := g.input.Shape; s != nil && (len(s) == 0 || len(s) > 2 || s[0] > 1 || len(s) == 2 && s[1] > 1) {
		return nil, fmt.Errorf("%s: input %s: the shape (batch) or (batch, 1) is needed", b.graph, g.input)
	}
	if err := g.takeOutput(session.Outputs()); err != nil {
		return nil, fmt.Errorf("%s: %w", b.graph, err)
	}
	if g.spec.Map {
		return g, nil
	}
	classes := -1
	if len(g.spec.Shape) == 2 {
		classes = int(g.spec.Shape[1])
	}
	var err error
	g.labels, err = b.config.labels(classes)
	return g, err
}

// takeOutput finds the probabilities: a map from label to probability, else the output with skl2onnx's name, else the only floats.
func (g *stringGraph) takeOutput(outputs []engine.TensorSpec) error {
	var maps, named, floats []int
	for i, s := range outputs {
		switch {
		case s.Map:
			maps = append(maps, i)
		case s.Type != engine.Float32 && s.Type != engine.Float64:
		case s.Name == "probabilities" || s.Name == "output_probability":
			named = append(named, i)
		default:
			floats = append(floats, i)
		}
	}
	for _, found := range [][]int{maps, named, floats} {
		if len(found) == 1 {
			g.output, g.spec = found[0], outputs[found[0]]
			return nil
		}
	}
	return fmt.Errorf("none of its outputs %v is clearly the probabilities: name the one of shape (batch, classes) probabilities", outputs)
}

func (g *stringGraph) Encode(_ context.Context, in Input) (Example, error) {
	s, err := theText(in)
	switch {
	case err != nil:
		return Example{}, err
	case len(s) > g.maxBytes:
		return Example{}, fmt.Errorf("%w: %w: it has %d bytes, the limit is %d", ErrInput, text.ErrTooLong, len(s), g.maxBytes)
	case !utf8.ValidString(s):
		return Example{}, fmt.Errorf("%w: %w", ErrInput, text.ErrInvalidUTF8)
	case strings.IndexByte(s, 0) >= 0:
		return Example{}, fmt.Errorf("%w: the text holds a NUL character, at which this model's graph would end it", ErrInput)
	}
	return Example{Tensors: []engine.Tensor{{Data: []string{s}}}}, nil
}

func (g *stringGraph) stack(examples []Example) ([]engine.Tensor, error) {
	data := make([]string, len(examples))
	for i, ex := range examples {
		s, ok := ex.Tensors[0].Data.([]string)
		if !ok || len(s) != 1 {
			return nil, fmt.Errorf("input %s: the example holds %v, not one string", g.input.Name, ex.Tensors[0].Type())
		}
		data[i] = s[0]
	}
	shape := []int64{int64(len(data))}
	if len(g.input.Shape) == 2 {
		shape = append(shape, 1)
	}
	return []engine.Tensor{{Shape: shape, Data: data}}, nil
}

func (g *stringGraph) scores(outputs []engine.Tensor, n int) ([][]float64, error) {
	t, err := tableOf(g.spec.Name, outputs[g.output], n)
	if err != nil {
		return nil, err
	}
	if g.labels == nil {
		// The first run, which nothing else runs beside, tells the labels.
		if err := g.learnLabels(outputs[g.output].Keys, t.columns); err != nil {
			return nil, err
		}
	}
	if g.spec.Map && !slices.Equal(outputs[g.output].Keys, g.keys) {
		return nil, fmt.Errorf("output %s has the labels %v, the first run had %v", g.spec.Name, outputs[g.output].Keys, g.keys)
	}
	if t.columns != len(g.labels) {
		return nil, fmt.Errorf("output %s has %d classes, there are %d labels", g.spec.Name, t.columns, len(g.labels))
	}
	rows, err := probabilities(t)
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", g.spec.Name, err)
	}
	return rows, nil
}

// learnLabels takes a map's keys as labels. Keys that are numbers are looked up in config.json, where it has names for them.
func (g *stringGraph) learnLabels(keys []string, columns int) error {
	if !g.spec.Map {
		g.labels = plainLabels(columns)
		return nil
	}
	g.keys = keys
	labels := make([]string, len(keys))
	for i, key := range keys {
		labels[i] = key
		if name, ok := g.config.ID2Label[key]; ok {
			labels[i] = name
		}
		if !utf8.ValidString(labels[i]) {
			return fmt.Errorf("the label %q is not valid UTF-8", labels[i])
		}
	}
	if len(labels) == 0 {
		return errors.New("the map of labels is empty")
	}
	g.labels = labels
	return distinct(labels)
}

// size is the same for all: strings aren't padded.
func (g *stringGraph) size(Example) int { return 1 }

func (g *stringGraph) sample(ctx context.Context) (Example, error) {
	return g.Encode(ctx, textInput("a"))
}

func (g *stringGraph) warmups(ctx context.Context, maxBatch int) ([][]Example, error) {
	var runs [][]Example
	for _, s := range []string{"a", warmupText, strings.Repeat(warmupText+" ", 10)} {
		ex, err := g.Encode(ctx, textInput(s))
		if errors.Is(err, text.ErrTooLong) {
			continue
		}
		if err != nil {
			return nil, err
		}
		runs = append(runs, []Example{ex}, slices.Repeat([]Example{ex}, maxBatch))
	}
	return runs, nil
}

func (g *stringGraph) strangers(context.Context) ([]Example, error) { return nil, nil }

func (g *stringGraph) paddable(context.Context) ([]Example, error) { return nil, nil }

func (g *stringGraph) info() Info {
	return Info{Kind: KindString, Labels: g.labels, MaxTextBytes: g.maxBytes}
}

func (g *stringGraph) Close() error { return nil }
