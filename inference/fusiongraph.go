package inference

import (
	"context"
	"fmt"
	"slices"

	"modelgate/inference/engine"
)

// A fusionGraph takes a text and a clip together and gives logits. Each part is encoded as by the model of that part alone.
type fusionGraph struct {
	*tokenGraph
	clip     *pixels
	clipName string
	at       int // index of the clip among the inputs; the text's have the others, in their order
}

func newFusionGraph(b *bundle, inputs []engine.TensorSpec, at int, outputs []engine.TensorSpec, o Options) (*fusionGraph, error) {
	clip, err := newPixels(b, inputs[at], o)
	if err != nil {
		return nil, err
	}
	tokens, err := newTokenGraph(b, slices.Concat(inputs[:at], inputs[at+1:]), outputs, o)
	if err != nil {
		return nil, err
	}
	return &fusionGraph{tokenGraph: tokens, clip: clip, at: at, clipName: inputs[at].Name}, nil
}

// Encode takes an empty text too: a clip may have no words. One that isn't there is missing.
func (g *fusionGraph) Encode(ctx context.Context, in Input) (Example, error) {
	switch {
	case in.Text == nil && in.Video == nil:
		return Example{}, fmt.Errorf("%w: this model takes a text and a clip, and neither is given", ErrInput)
	case in.Text == nil:
		return Example{}, fmt.Errorf("%w: this model takes a text and a clip, and no text is given: an empty one is enough", ErrInput)
	case in.Video == nil:
		return Example{}, fmt.Errorf("%w: this model takes a text and a clip, and no clip is given", ErrInput)
	}
	words, err := g.beside(*in.Text)
	if err != nil {
		return Example{}, err
	}
	clip, notes, err := g.clip.encode(ctx, *in.Video)
	if err != nil {
		return Example{}, err
	}
	notes.Truncated = words.Notes.Truncated
	return Example{Tensors: g.join(words.Tensors, clip), Notes: notes}, nil
}

// join puts the clip where the graph has it among its inputs.
func (g *fusionGraph) join(words []engine.Tensor, clip engine.Tensor) []engine.Tensor {
	return slices.Insert(slices.Clone(words), g.at, clip)
}

// split undoes join.
func (g *fusionGraph) split(ex Example) (words Example, clip engine.Tensor) {
	return Example{Tensors: slices.Concat(ex.Tensors[:g.at], ex.Tensors[g.at+1:])}, ex.Tensors[g.at]
}

func (g *fusionGraph) stack(examples []Example) ([]engine.Tensor, error) {
	words, clips := make([]Example, len(examples)), make([]engine.Tensor, len(examples))
	for i, ex := range examples {
		words[i], clips[i] = g.split(ex)
	}
	tokens, err := g.tokenGraph.stack(words)
	if err != nil {
		return nil, err
	}
	pixels, err := g.clip.stack(g.clipName, clips)
	return g.join(tokens, pixels), err
}

// size is the number of tokens: all clips have one shape.
func (g *fusionGraph) size(ex Example) int {
	words, _ := g.split(ex)
	return g.tokenGraph.size(words)
}

// with gives each text a clip of noise, from one seed on.
func (g *fusionGraph) with(words []Example, seed uint64) []Example {
	out := make([]Example, len(words))
	for i, ex := range words {
		out[i] = Example{Tensors: g.join(ex.Tensors, g.clip.random(seed+uint64(i)))}
	}
	return out
}

func (g *fusionGraph) sample(ctx context.Context) (Example, error) {
	words, err := g.tokenGraph.sample(ctx)
	if err != nil {
		return Example{}, err
	}
	return g.with([]Example{words}, 1)[0], nil
}

// warmups are the text's single runs and one full batch: a clip costs more than any text.
func (g *fusionGraph) warmups(ctx context.Context, maxBatch int) ([][]Example, error) {
	runs, err := g.tokenGraph.warmups(ctx, 1)
	if err != nil {
		return nil, err
	}
	for i, run := range runs {
		runs[i] = g.with(run, 2)
	}
	if maxBatch > 1 && len(runs) > 0 {
		runs = append(runs, slices.Repeat(runs[0], maxBatch))
	}
	return runs, nil
}

func (g *fusionGraph) strangers(ctx context.Context) ([]Example, error) {
	pair, err := g.tokenGraph.strangers(ctx)
	return g.with(pair, 3), err
}

func (g *fusionGraph) paddable(ctx context.Context) ([]Example, error) {
	pair, err := g.tokenGraph.paddable(ctx)
	if err != nil || pair == nil {
		return nil, err
	}
	return g.with(pair, 5), nil
}

func (g *fusionGraph) info() Info {
	i := g.tokenGraph.info()
	i.Kind, i.Clip, i.Choice = KindFusion, g.clip.shape, g.clip.choice()
	return i
}
