package inference

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"modelgate/inference/engine"
	"modelgate/inference/text"
)

// A role says what an input of a token graph is given.
type role int

const (
	roleIDs role = iota
	roleMask
	roleTypes
)

// mostTokens bounds a text where nobody chose a maximum length, and the bundle has none or a larger one: the memory that an attention
// model takes grows with the square of the length. Such a text is refused, since cutting it would not be what training did.
const mostTokens = 8192

// maxFixed is the longest length that a graph may be fixed to: every text is padded to it.
const maxFixed = 1 << 16

var roles = map[string]role{"input_ids": roleIDs, "attention_mask": roleMask, "token_type_ids": roleTypes}

// A tokenGraph takes token ids and gives logits, as Hugging Face's sequence classifiers do.
type tokenGraph struct {
	encoder *text.Encoder
	inputs  []engine.TensorSpec
	roles   []role
	fixed   int  // length that the graph is fixed to; 0: any
	chosen  bool // the operator or the bundle's settings gave a max_length
	masked  bool
	head
}

func newTokenGraph(b *bundle, inputs, outputs []engine.TensorSpec, o Options) (*tokenGraph, error) {
	g := &tokenGraph{inputs: inputs}
	if err := g.takeInputs(); err != nil {
		return nil, fmt.Errorf("%s: %w", b.graph, err)
	}
	if err := g.takeOutput(b, outputs); err != nil {
		return nil, fmt.Errorf("%s: %w", b.graph, err)
	}
	length := o.MaxLength
	if length == 0 {
		length = b.settings.MaxLength
	}
	g.chosen = length != 0
	if length == 0 {
		length = g.fixed
	}
	enc, err := text.Open(b.home, g.textOptions(b, o, length))
	if err != nil {
		return nil, err
	}
	if g.fixed > 0 && (enc.MaxLength() == 0 || enc.MaxLength() > g.fixed) {
		return nil, errors.Join(fmt.Errorf("%s takes exactly %d tokens, the tokenizer may give up to %d: set max_length in %s", b.graph, g.fixed, enc.MaxLength(), settingsFile), enc.Close())
	}
	g.encoder = enc
	return g, nil
}

func (g *tokenGraph) textOptions(b *bundle, o Options, length int) text.Options {
	t := text.Options{
		MaxLength: length, MaxBytes: o.MaxTextBytes, SpecialAsText: o.SpecialAsText || b.settings.specialAsText(), Tokenizers: o.Tokenizers,
		ConfigDir: b.configHome,
	}
	for i, r := range g.roles {
		switch rows := b.rows[g.inputs[i].Name]; r {
		case roleIDs:
			t.Rows = rows
		case roleTypes:
			t.Types, t.TypeRows = true, rows
		case roleMask:
		}
	}
	return t
}

func (g *tokenGraph) takeInputs() error {
	seen := map[role]bool{}
	for _, spec := range g.inputs {
		r, ok := roles[strings.TrimPrefix(spec.Name, "text_")]
		switch {
		case !ok:
			return fmt.Errorf("input %s isn't known: a text graph takes input_ids, attention_mask and token_type_ids, or one string; a video graph takes pixel_values; a fusion graph both", spec)
		case seen[r]:
			return fmt.Errorf("input %s is there twice", spec.Name)
		case spec.Type != engine.Int64 && spec.Type != engine.Int32:
			return fmt.Errorf("input %s: int64 or int32 is needed", spec)
		case spec.Shape != nil && len(spec.Shape) != 2:
			return fmt.Errorf("input %s: the shape (batch, length) is needed", spec)
		case spec.Shape != nil && spec.Shape[0] > 1:
			return fmt.Errorf("input %s has a fixed batch of %d: export it with a dynamic batch dimension", spec, spec.Shape[0])
		}
		if spec.Shape != nil && spec.Shape[1] > maxFixed {
			return fmt.Errorf("input %s has a fixed length of %d: at most %d can be served", spec, spec.Shape[1], maxFixed)
		}
		if spec.Shape != nil && spec.Shape[1] > 0 {
			g.fixed = int(spec.Shape[1])
		}
		seen[r] = true
		g.roles = append(g.roles, r)
	}
	if !seen[roleIDs] {
		return errors.New("it has no input input_ids")
	}
	g.masked = seen[roleMask]
	if g.fixed > 0 && !g.masked {
		return fmt.Errorf("it takes exactly %d tokens and has no attention_mask: export it with a dynamic length", g.fixed)
	}
	return nil
}

func (g *tokenGraph) Encode(_ context.Context, in Input) (Example, error) {
	s, err := theText(in)
	if err != nil {
		return Example{}, err
	}
	if in.Beside {
		return g.beside(s)
	}
	tokens, err := g.tokens(s)
	if err != nil {
		return Example{}, err
	}
	if len(tokens.IDs) == 0 {
		return Example{}, errNoTokens
	}
	return g.example(tokens), nil
}

// beside encodes a text that a clip is judged beside. One without any token becomes one that is masked: that is what a batch's padding
// would give it.
func (g *tokenGraph) beside(s string) (Example, error) {
	t, err := g.tokens(s)
	switch {
	case err != nil:
		return Example{}, err
	case len(t.IDs) == 0 && !g.masked:
		return Example{}, errNoTokens
	case len(t.IDs) == 0:
		t = text.Tokens{IDs: []int64{g.encoder.PadID()}, Mask: []int64{0}, TypeIDs: []int64{g.encoder.PadTypeID()}}
	}
	return g.example(t), nil
}

var errNoTokens = fmt.Errorf("%w: the tokenizer finds nothing in this text that the model could judge", ErrInput)

func (g *tokenGraph) tokens(s string) (text.Tokens, error) {
	tokens, err := g.encoder.Encode(s)
	if errors.Is(err, text.ErrTooLong) || errors.Is(err, text.ErrInvalidUTF8) {
		return text.Tokens{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if n := len(tokens.IDs); err == nil && n > mostTokens && !g.chosen {
		return text.Tokens{}, fmt.Errorf("%w: %w: it gives %d tokens, the limit is %d where no max_length is set", ErrInput, text.ErrTooLong, n, mostTokens)
	}
	return tokens, err
}

// theText is the text of in. An empty one, or one of nothing but white space, has nothing to judge, unless a clip is judged beside
// it: it comes from a caller that lost its text, and any verdict on it would hide that.
func theText(in Input) (string, error) {
	switch {
	case in.Video != nil:
		return "", fmt.Errorf("%w: this model takes text only: leave the clip out", ErrInput)
	case in.Text == nil:
		return "", fmt.Errorf("%w: this model takes a text, and none is given", ErrInput)
	case strings.TrimSpace(*in.Text) == "" && !in.Beside:
		return "", fmt.Errorf("%w: the text is empty", ErrInput)
	}
	return *in.Text, nil
}

func (g *tokenGraph) example(t text.Tokens) Example {
	ex := Example{Tensors: make([]engine.Tensor, len(g.roles)), Notes: Notes{Truncated: t.Truncated}}
	for i, r := range g.roles {
		data := [...][]int64{roleIDs: t.IDs, roleMask: t.Mask, roleTypes: t.TypeIDs}[r]
		ex.Tensors[i] = engine.Tensor{Shape: []int64{int64(len(data))}, Data: data}
	}
	return ex
}

// stack pads the shorter examples where lengths differ, and where the graph is fixed to a length.
func (g *tokenGraph) stack(examples []Example) ([]engine.Tensor, error) {
	length := g.fixed
	for _, ex := range examples {
		length = max(length, g.size(ex))
	}
	out := make([]engine.Tensor, len(g.roles))
	for i, r := range g.roles {
		fill := [...]int64{roleIDs: g.encoder.PadID(), roleMask: 0, roleTypes: g.encoder.PadTypeID()}[r]
		data := make([]int64, 0, length*len(examples))
		for _, ex := range examples {
			row, ok := ex.Tensors[i].Data.([]int64)
			if !ok {
				return nil, fmt.Errorf("input %s: the example holds %v, not token ids", g.inputs[i].Name, ex.Tensors[i].Type())
			}
			padding := slices.Repeat([]int64{fill}, length-len(row))
			if g.encoder.PadLeft() {
				data = append(append(data, padding...), row...)
			} else {
				data = append(append(data, row...), padding...)
			}
		}
		out[i] = engine.Tensor{Shape: []int64{int64(len(examples)), int64(length)}, Data: data}
		if g.inputs[i].Type == engine.Int32 {
			narrow, err := toInt32(data)
			if err != nil {
				return nil, fmt.Errorf("input %s: %w", g.inputs[i].Name, err)
			}
			out[i].Data = narrow
		}
	}
	return out, nil
}

func toInt32(data []int64) ([]int32, error) {
	out := make([]int32, len(data))
	for i, v := range data {
		if v < math.MinInt32 || v > math.MaxInt32 {
			return nil, fmt.Errorf("%d doesn't fit int32", v)
		}
		out[i] = int32(v)
	}
	return out, nil
}

// size is the number of tokens.
func (g *tokenGraph) size(ex Example) int { return int(ex.Tensors[0].Shape[0]) }

func (g *tokenGraph) info() Info {
	return Info{Kind: KindTokens, Labels: g.labels, MaxLength: g.encoder.MaxLength(), MaxTextBytes: g.encoder.MaxBytes()}
}

func (g *tokenGraph) Close() error { return g.encoder.Close() }
