package inference

import (
	"context"
	"errors"
	"slices"

	"modelgate/inference/engine"
	"modelgate/inference/text"
)

// warmupText has enough different words for ids that aren't all alike.
const warmupText = "the quick brown fox jumps over the lazy dog, and nobody minds: xin chào thế giới 你好 🙂 12345"

const (
	longestWarmup = 512 // tokens, where a model has no maximum of its own
	batchedWarmup = 128 // tokens of the longest full batch: longer ones take seconds and memory, and hardly occur together
)

func (g *tokenGraph) sample(ctx context.Context) (Example, error) {
	return g.Encode(ctx, textInput("a"))
}

// warmups are single texts of the lengths that occur, and full batches of the shorter ones.
func (g *tokenGraph) warmups(ctx context.Context, maxBatch int) ([][]Example, error) {
	full, err := g.warmupExample(ctx)
	if err != nil {
		return nil, err
	}
	short, err := g.Encode(ctx, textInput("a"))
	if err != nil {
		return nil, err
	}
	longest := g.encoder.MaxLength()
	if longest == 0 {
		longest = longestWarmup
	}
	longest = min(longest, mostTokens)
	lengths := []int{g.size(short), g.size(full), 32, 128, longest}
	slices.Sort(lengths)
	var runs [][]Example
	for _, n := range slices.Compact(lengths) {
		if n > longest {
			break
		}
		ex := g.resized(full, n)
		runs = append(runs, []Example{ex})
		if maxBatch > 1 && n <= batchedWarmup {
			runs = append(runs, slices.Repeat([]Example{ex}, maxBatch))
		}
	}
	return runs, nil
}

// warmupExample is warmupText, or a single letter where that is longer than texts may be.
func (g *tokenGraph) warmupExample(ctx context.Context) (Example, error) {
	ex, err := g.Encode(ctx, textInput(warmupText))
	if errors.Is(err, text.ErrTooLong) {
		return g.Encode(ctx, textInput("a"))
	}
	return ex, err
}

func textInput(s string) Input { return Input{Text: &s} }

// resized repeats or cuts an example's tokens to n. The first and the last stay where they are: they may be the special ones around
// every text, by which some models judge.
func (g *tokenGraph) resized(ex Example, n int) Example {
	out := Example{Tensors: make([]engine.Tensor, len(ex.Tensors))}
	for i, t := range ex.Tensors {
		data, ok := t.Data.([]int64)
		if !ok {
			panic("inference: a token graph's example without token ids")
		}
		out.Tensors[i] = engine.Tensor{Shape: []int64{int64(n)}, Data: stretched(data, n)}
	}
	return out
}

func stretched(data []int64, n int) []int64 {
	if n < 2 || len(data) < 3 {
		return slices.Repeat(data, n/len(data)+1)[:n]
	}
	first, middle, last := data[0], data[1:len(data)-1], data[len(data)-1]
	out := make([]int64, 0, n)
	out = append(out, first)
	for len(out) < n-1 {
		out = append(out, middle[:min(len(middle), n-1-len(out))]...)
	}
	return append(out, last)
}

func (g *tokenGraph) strangers(ctx context.Context) ([]Example, error) {
	full, err := g.warmupExample(ctx)
	if err != nil {
		return nil, err
	}
	short, err := g.Encode(ctx, textInput("a"))
	if err != nil {
		return nil, err
	}
	return []Example{full, g.resized(short, g.size(full))}, nil
}

func (g *tokenGraph) paddable(ctx context.Context) ([]Example, error) {
	if !g.masked {
		return nil, nil
	}
	full, err := g.warmupExample(ctx)
	if err != nil {
		return nil, err
	}
	n := g.size(full)
	if n < 2 {
		return nil, nil
	}
	return []Example{g.resized(full, max(n-paddingStep+1, 1)), full}, nil
}
