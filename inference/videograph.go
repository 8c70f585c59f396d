package inference

import (
	"context"
	"fmt"
	"slices"

	"modelgate/inference/engine"
)

// A videoGraph takes the pixels of a clip and gives logits, as Hugging Face's video classifiers do.
type videoGraph struct {
	*pixels
	input engine.TensorSpec
	head
}

func newVideoGraph(b *bundle, input engine.TensorSpec, outputs []engine.TensorSpec, o Options) (*videoGraph, error) {
	p, err := newPixels(b, input, o)
	if err != nil {
		return nil, err
	}
	g := &videoGraph{pixels: p, input: input}
	if err := g.takeOutput(b, outputs); err != nil {
		return nil, fmt.Errorf("%s: %w", b.graph, err)
	}
	return g, nil
}

func (g *videoGraph) Encode(ctx context.Context, in Input) (Example, error) {
	switch {
	case in.Text != nil:
		return Example{}, fmt.Errorf("%w: this model takes a clip only: leave the text out", ErrInput)
	case in.Video == nil:
		return Example{}, fmt.Errorf("%w: this model takes a clip, and none is given", ErrInput)
	}
	clip, notes, err := g.encode(ctx, *in.Video)
	if err != nil {
		return Example{}, err
	}
	return Example{Tensors: []engine.Tensor{clip}, Notes: notes}, nil
}

func (g *videoGraph) stack(examples []Example) ([]engine.Tensor, error) {
	clips := make([]engine.Tensor, len(examples))
	for i, ex := range examples {
		clips[i] = ex.Tensors[0]
	}
	t, err := g.pixels.stack(g.input.Name, clips)
	return []engine.Tensor{t}, err
}

// size is the same for all: every clip becomes a tensor of one shape.
func (g *videoGraph) size(Example) int { return 1 }

func (g *videoGraph) noise(seed uint64) Example {
	return Example{Tensors: []engine.Tensor{g.random(seed)}}
}

func (g *videoGraph) sample(context.Context) (Example, error) { return g.noise(1), nil }

func (g *videoGraph) warmups(_ context.Context, maxBatch int) ([][]Example, error) {
	one := []Example{g.noise(2)}
	if maxBatch == 1 {
		return [][]Example{one}, nil
	}
	return [][]Example{one, slices.Repeat(one, maxBatch)}, nil
}

func (g *videoGraph) strangers(context.Context) ([]Example, error) {
	return []Example{g.noise(3), g.noise(4)}, nil
}

func (g *videoGraph) paddable(context.Context) ([]Example, error) { return nil, nil }

func (g *videoGraph) info() Info {
	return Info{Kind: KindVideo, Labels: g.labels, Clip: g.shape, Choice: g.choice()}
}

func (g *videoGraph) Close() error { return nil }
