package enginetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Library is the path of ONNX Runtime's library for tests: MODELGATE_ONNXRUNTIME, or what `make onnxruntime` put below a folder above this one.
func Library(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("MODELGATE_ONNXRUNTIME"); path != "" {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		for _, name := range []string{"libonnxruntime.so", "libonnxruntime.dylib"} {
			path := filepath.Join(dir, ".cache", "onnxruntime", "lib", name)
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("ONNX Runtime isn't there: run `make onnxruntime`, or set MODELGATE_ONNXRUNTIME to the path of libonnxruntime")
	return ""
}

// LinearText is a text classifier: input_ids and attention_mask (batch, length) to logits (batch, classes), a masked sum of
// weights that seed gives, plus shift on class 0. Graphs that differ only in shift can be told apart by their answers.
func LinearText(vocab, classes int, seed uint64, shift float32) *Graph {
	bias := make([]float32, classes)
	bias[0] = shift
	return NewGraph().
		Input("input_ids", Int64, "batch", "length").
		Input("attention_mask", Int64, "batch", "length").
		Init("weights", Tensor{Shape: []int64{int64(vocab), int64(classes)}, Data: Random(seed, vocab*classes)}).
		Init("bias", Tensor{Shape: []int64{int64(classes)}, Data: bias}).
		Init("last", Tensor{Shape: []int64{1}, Data: []int64{-1}}).
		Init("middle", Tensor{Shape: []int64{1}, Data: []int64{1}}).
		Node("Gather", []string{"weights", "input_ids"}, []string{"rows"}).
		Node("Cast", []string{"attention_mask"}, []string{"mask"}, IntAttr("to", Float)).
		Node("Unsqueeze", []string{"mask", "last"}, []string{"mask3"}).
		Node("Mul", []string{"rows", "mask3"}, []string{"masked"}).
		Node("ReduceSum", []string{"masked", "middle"}, []string{"sum"}, IntAttr("keepdims", 0)).
		Node("Add", []string{"sum", "bias"}, []string{"logits"}).
		Output("logits", Float, "batch", classes)
}

// DeadlyText is a LinearText of two classes. Each of the words, by its id, ends the process that computes a text with it: in that text
// the smallest whole number is divided by -1, which the processor can't do. No words at all means every word.
func DeadlyText(vocab int, words ...int) *Graph {
	x, y := make([]int64, vocab), make([]int64, vocab)
	for i := range x {
		x[i], y[i] = 0, 1
		if len(words) == 0 || slices.Contains(words, i) {
			x[i], y[i] = math.MinInt64, -1
		}
	}
	column := func(v []int64) Tensor { return Tensor{Shape: []int64{int64(vocab), 1}, Data: v} }
	return NewGraph().
		Input("input_ids", Int64, "batch", "length").
		Input("attention_mask", Int64, "batch", "length").
		Init("weights", Tensor{Shape: []int64{int64(vocab), 2}, Data: Random(1, 2*vocab)}).
		Init("x", column(x)).Init("y", column(y)).
		Init("last", Tensor{Shape: []int64{1}, Data: []int64{-1}}).
		Init("middle", Tensor{Shape: []int64{1}, Data: []int64{1}}).
		Node("Gather", []string{"x", "input_ids"}, []string{"above"}).
		Node("Gather", []string{"y", "input_ids"}, []string{"below"}).
		Node("Div", []string{"above", "below"}, []string{"share"}).
		Node("Cast", []string{"share"}, []string{"shares"}, IntAttr("to", Float)).
		Node("Gather", []string{"weights", "input_ids"}, []string{"rows"}).
		Node("Cast", []string{"attention_mask"}, []string{"mask"}, IntAttr("to", Float)).
		Node("Unsqueeze", []string{"mask", "last"}, []string{"mask3"}).
		Node("Mul", []string{"rows", "mask3"}, []string{"masked"}).
		Node("Add", []string{"masked", "shares"}, []string{"shared"}).
		Node("ReduceSum", []string{"shared", "middle"}, []string{"logits"}, IntAttr("keepdims", 0)).
		Output("logits", Float, "batch", 2)
}

// MLP is a perceptron with one hidden layer: x (batch, in) to y (batch, out).
func MLP(in, hidden, out int, seed uint64) *Graph {
	return NewGraph().
		Input("x", Float, "batch", in).
		Init("w1", Tensor{Shape: []int64{int64(in), int64(hidden)}, Data: Random(seed, in*hidden)}).
		Init("w2", Tensor{Shape: []int64{int64(hidden), int64(out)}, Data: Random(seed+1, hidden*out)}).
		Node("MatMul", []string{"x", "w1"}, []string{"h"}).
		Node("Relu", []string{"h"}, []string{"r"}).
		Node("MatMul", []string{"r", "w2"}, []string{"y"}).
		Output("y", Float, "batch", out)
}

// EndlessLoop passes x (batch) through to y, in a loop that never ends where any x is positive.
func EndlessLoop() *Graph {
	body := NewGraph().
		Input("i", Int64).Input("go_on", Bool).Input("state", Float, "batch").
		Node("Identity", []string{"go_on"}, []string{"go_on_out"}).
		Node("Identity", []string{"state"}, []string{"state_out"}).
		Output("go_on_out", Bool).Output("state_out", Float, "batch")
	return NewGraph().
		Input("x", Float, "batch").
		Init("zero", Tensor{Shape: []int64{}, Data: []float32{0}}).
		Node("ReduceMax", []string{"x"}, []string{"max"}, IntAttr("keepdims", 0)).
		Node("Greater", []string{"max", "zero"}, []string{"go"}).
		Node("Loop", []string{"", "go", "x"}, []string{"y"}, GraphAttr("body", body)).
		Output("y", Float, "batch")
}

// Random gives n numbers in [-1, 1) that depend only on seed.
func Random(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]float32, n)
	for i := range out {
		out[i] = r.Float32()*2 - 1
	}
	return out
}

// Words are the words that a bundle of WriteTextBundle knows, in the order of their ids from 2 on.
func Words() []string {
	return strings.Fields("good bad great awful love hate nice ugly happy sad this that is was the a film day very not")
}

// A TextBundle is a small text classifier as a folder: a word-level tokenizer and a LinearText graph.
type TextBundle struct {
	Labels []string // default: negative, positive
	Seed   uint64
	Shift  float32 // added to the logit of label 0
	// Deadly are words of which each ends the process that computes a text with it: the graph is a DeadlyText then, without Shift.
	Deadly []string
}

// Write makes the bundle in dir, which it creates.
func (b TextBundle) Write(dir string) error {
	labels := b.Labels
	if labels == nil {
		labels = []string{"negative", "positive"}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	words := append([]string{"[PAD]", "[UNK]"}, Words()...)
	var vocab, names []string
	for i, w := range words {
		vocab = append(vocab, fmt.Sprintf("%q: %d", w, i))
	}
	for i, l := range labels {
		names = append(names, fmt.Sprintf("%q: %q", fmt.Sprint(i), l))
	}
	files := map[string]string{ //nolint:gosec // the tokens are those of a tokenizer
		"tokenizer.json": fmt.Sprintf(`{"version": "1.0", "truncation": null, "padding": null,
 "added_tokens": [{"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
  {"id": 1, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
 "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
 "model": {"type": "WordLevel", "vocab": {%s}, "unk_token": "[UNK]"}}`, strings.Join(vocab, ", ")),
		"tokenizer_config.json": `{"model_max_length": 64, "pad_token": "[PAD]", "unk_token": "[UNK]", "padding_side": "right"}`,
		"config.json":           fmt.Sprintf(`{"id2label": {%s}, "problem_type": "single_label_classification", "pad_token_id": 0}`, strings.Join(names, ", ")),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	graph := LinearText(len(words), len(labels), b.Seed, b.Shift)
	if b.Deadly != nil {
		var deadly []int
		for _, w := range b.Deadly {
			deadly = append(deadly, slices.Index(words, w))
		}
		graph = DeadlyText(len(words), deadly...)
	}
	return graph.WriteFile(filepath.Join(dir, "model.onnx"))
}
