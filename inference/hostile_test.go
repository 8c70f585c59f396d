package inference_test

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
)

// A number in a bundle's files must not make us allocate more than the machine has: that ends the process, whatever is recovered.
func TestLengthsThatNoMachineHas(t *testing.T) {
	t.Run("fixed by the graph", func(t *testing.T) {
		for name, settings := range map[string]string{"alone": "", "with a short max_length": "max_length: 16\n"} {
			dir := shapeBundle(t, shape{length: 1 << 40}, map[string]string{"modelgate.yaml": settings})
			_, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{})
			if !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "1099511627776") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("said by the tokenizer", func(t *testing.T) {
		dir := shapeBundle(t, shape{}, map[string]string{"tokenizer_config.json": `{"model_max_length": 2000000000}`})
		began := time.Now()
		if m := openModel(t, dir, inference.Options{}); m.Info().MaxLength != 2000000000 {
			t.Errorf("%+v", m.Info())
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("the warm-up took %v", took)
		}
	})
}

// A bundle without a useful maximum length doesn't hand the machine's memory to whoever sends a long text.
func TestTokensAreBounded(t *testing.T) {
	long := strings.Repeat("good ", 9000)
	for name, c := range map[string]struct {
		settings string
		ok       bool
	}{"nobody chose a length": {"", false}, "somebody did": {"max_length: 10000\n", true}} {
		t.Run(name, func(t *testing.T) {
			dir := shapeBundle(t, shape{}, map[string]string{"tokenizer_config.json": `{"model_max_length": 2000000000}`, "modelgate.yaml": c.settings})
			_, err := openModel(t, dir, inference.Options{}).Predict(t.Context(), input(long))
			switch {
			case c.ok && err != nil:
				t.Error(err)
			case !c.ok && (!errors.Is(err, inference.ErrInput) || !strings.Contains(err.Error(), "it gives 9000 tokens, the limit is 8192")):
				t.Errorf("got %v, want a refusal that gives the numbers", err)
			}
		})
	}
}

// tokenizer.json and config.json needn't lie together. A config.json that nobody reads gives wrong names and wrong scores.
func TestConfigApartFromTokenizer(t *testing.T) {
	const config = `{"id2label": {"0": "no", "1": "yes"}, "problem_type": "multi_label_classification", "vocab_size": 5}`
	for name, apart := range map[string]string{"tokenizer beside the graph": "config.json", "config beside the graph": "tokenizer.json"} {
		dir := shapeBundle(t, shape{}, map[string]string{"config.json": strings.Replace(config, "5", "30", 1)})
		for _, f := range []string{"model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json"} {
			stays := f == apart || apart == "tokenizer.json" && f == "tokenizer_config.json"
			if !stays {
				rename(t, dir, f, filepath.Join("model", f))
			}
		}
		if got, want := scoresOf(predict(t, openModel(t, dir, inference.Options{}), "good film"), "no", "yes"), sigmoid(logits("good film")); !close6(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		at := dir
		if apart != "config.json" {
			at = filepath.Join(dir, "model")
		}
		writeFile(t, at, "config.json", config)
		if _, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{}); !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "vocab_size") {
			t.Errorf("%s: the tokenizer wasn't compared with config.json: %v", name, err)
		}
	}
}

// An output that says that it holds probabilities is not turned into probabilities again.
func TestGraphThatGivesProbabilities(t *testing.T) {
	softmaxed := func(g *enginetest.Graph, from, to string) { g.Node("Softmax", []string{from}, []string{to}) }
	for _, output := range []string{"probabilities", "probs", "output_probability"} {
		m := openModel(t, shapeBundle(t, shape{output: output, tail: softmaxed}, nil), inference.Options{})
		if got, want := scoresOf(predict(t, m, "good film"), "negative", "positive"), softmax(logits("good film")); !close6(got, want) {
			t.Errorf("%s: %v, want %v", output, got, want)
		}
	}
	if _, err := inference.Open(t.Context(), shapeBundle(t, shape{output: "probabilities", tail: times100}, nil), newEngine(t), inference.Options{}); !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "probabilities") {
		t.Errorf("probabilities out of [0, 1]: %v", err)
	}
}

func times100(g *enginetest.Graph, from, to string) {
	g.Init("hundred", enginetest.Tensor{Shape: []int64{1}, Data: []float32{100}}).Node("Mul", []string{from, "hundred"}, []string{to})
}

// Some models judge by the token that ends every text, as BART does. The warm-up's texts end like real ones.
func TestGraphThatNeedsTheLastToken(t *testing.T) {
	const end = 3
	s := shape{tail: func(g *enginetest.Graph, _, to string) {
		g.Init("end", enginetest.Tensor{Shape: []int64{1}, Data: []int64{end}}).
			Init("flat", enginetest.Tensor{Shape: []int64{1}, Data: []int64{-1}}).
			Init("table", enginetest.Tensor{Shape: []int64{2}, Data: []int64{-1, shapeClasses}}).
			Node("Equal", []string{"input_ids", "end"}, []string{"ends"}).
			Node("Reshape", []string{"ends", "flat"}, []string{"which"}).
			Node("Reshape", []string{"rows", "table"}, []string{"all"}).
			Node("Compress", []string{"all", "which"}, []string{to}, enginetest.IntAttr("axis", 0))
	}}
	dir := shapeBundle(t, s, map[string]string{"tokenizer.json": `{"version": "1.0", "pre_tokenizer": {"type": "Whitespace"},
 "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
  "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
  "special_tokens": {"<s>": {"id": "<s>", "ids": [2], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [3], "tokens": ["</s>"]}}},
 "model": {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1, "<s>": 2, "</s>": 3, "good": 4}, "unk_token": "[UNK]"}}`})
	w := weights()[end*shapeClasses:]
	want := softmax([]float64{float64(w[0]), float64(w[1])})
	if got := scoresOf(predict(t, openModel(t, dir, inference.Options{}), "good"), "negative", "positive"); !close6(got, want) || math.IsNaN(got[0]) {
		t.Errorf("%v, want %v", got, want)
	}
}
