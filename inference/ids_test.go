package inference_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
)

// typed is a text graph that looks up token ids in a table of words rows and type ids in one of kinds rows.
func typed(words, kinds int) *enginetest.Graph {
	table := func(rows int, seed uint64) enginetest.Tensor {
		return enginetest.Tensor{Shape: []int64{int64(rows), 2}, Data: enginetest.Random(seed, rows*2)}
	}
	return enginetest.NewGraph().
		Input("input_ids", enginetest.Int64, "batch", "length").Input("token_type_ids", enginetest.Int64, "batch", "length").
		Init("words", table(words, 1)).Init("kinds", table(kinds, 2)).
		Init("middle", enginetest.Tensor{Shape: []int64{1}, Data: []int64{1}}).
		Node("Gather", []string{"words", "input_ids"}, []string{"w"}).
		Node("Cast", []string{"token_type_ids"}, []string{"types"}, enginetest.IntAttr("to", enginetest.Int32)).
		Node("Gather", []string{"kinds", "types"}, []string{"k"}).
		Node("Add", []string{"w", "k"}, []string{"sum"}).
		Node("ReduceSum", []string{"sum", "middle"}, []string{"logits"}, enginetest.IntAttr("keepdims", 0)).
		Output("logits", enginetest.Float, "batch", 2)
}

// around has the tokenizer put the token [UNK] with that type before each text, and give the text another.
func around(before, text string) string {
	return `"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[UNK]", "type_id": ` + before + `}},
  {"Sequence": {"id": "A", "type_id": ` + text + `}}], "pair": [], "special_tokens": {"[UNK]": {"id": "[UNK]", "ids": [1], "tokens": ["[UNK]"]}}}`
}

// An id without weights would fail the whole run that it is in, and one below zero would give what lies at the table's end, in silence.
// A bundle whose tokenizer may give one isn't served, whatever its config.json leaves out.
func TestIDsWithoutWeights(t *testing.T) {
	words := len(enginetest.Words()) + 2
	for name, c := range map[string]struct {
		words, kinds int
		post         string
		config       string // in place of the pad_token_id
		says         string // empty: it serves
	}{
		"all in the tables":              {words, 2, around("0", "1"), "", ""},
		"a table that ends before them":  {words - 1, 2, around("0", "1"), "", "model has weights for 21 tokens (the graph's table)"},
		"a larger vocabulary in config":  {words - 1, 2, around("0", "1"), `"vocab_size": 100`, "21 tokens (the graph's table)"},
		"a smaller vocabulary in config": {words, 2, around("0", "1"), `"vocab_size": 21`, "vocab_size in config.json"},
		"a token's type":                 {words, 1, around("1", "0"), "", "id 1, the model has 1 (the graph's table)"},
		"a text's type":                  {words, 2, around("0", "2"), "", "id 2, the model has 2 (the graph's table)"},
		"a type by config":               {words, 9, around("0", "2"), `"type_vocab_size": 2`, "id 2, the model has 2 (type_vocab_size in config.json)"},
		"models without types ignore it": {words, 2, around("0", "1"), `"type_vocab_size": 0`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeBundle(t, enginetest.TextBundle{})
			if err := typed(c.words, c.kinds).WriteFile(filepath.Join(dir, "model.onnx")); err != nil {
				t.Fatal(err)
			}
			edit(t, dir, "tokenizer.json", `"post_processor": null`, c.post)
			if c.config != "" {
				edit(t, dir, "config.json", `"pad_token_id": 0`, c.config)
			}
			m, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{})
			if c.says != "" {
				if !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want a refusal that says %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = m.Close() }()
			if err := m.WarmUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			predict(t, m, "good very not") // "not" has the last id
		})
	}
}

func TestPaddingWithoutWeights(t *testing.T) {
	dir := writeBundle(t, enginetest.TextBundle{})
	if err := typed(30, 2).WriteFile(filepath.Join(dir, "model.onnx")); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, "tokenizer_config.json", `"padding_side"`, `"pad_token_type_id": -1, "padding_side"`)
	if _, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{}); !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "padding's type id") {
		t.Errorf("%v", err)
	}
}

// edit replaces text in a bundle's file, where it must be.
func edit(t testing.TB, dir, name, from, to string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || !strings.Contains(string(b), from) {
		t.Fatalf("%s holds no %q: %v", name, from, err)
	}
	writeFile(t, dir, name, strings.Replace(string(b), from, to, 1))
}
