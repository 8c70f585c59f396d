package inference

import (
	"fmt"
	"slices"

	"modelgate/inference/engine"
)

// A head reads the scores of the classes from a graph that gives logits, as Hugging Face's classifiers do.
type head struct {
	output  int // index of the logits
	name    string
	sigmoid bool // each class for itself
	scored  bool // the output is scores already, not logits
	labels  []string
}

// scoreNames are what outputs are called that hold probabilities. To turn these into probabilities again would give wrong ones.
var scoreNames = [...]string{"probabilities", "probs", "output_probability"}

// takeOutput finds the logits: the output of that name, else the only one that can be.
func (h *head) takeOutput(b *bundle, outputs []engine.TensorSpec) error {
	var found []int
	for i, s := range outputs {
		if s.Map || s.Type != engine.Float32 && s.Type != engine.Float64 || len(s.Shape) > 2 {
			continue
		}
		if s.Name == "logits" {
			found = []int{i}
			break
		}
		found = append(found, i)
	}
	if len(found) != 1 {
		return fmt.Errorf("it has %d outputs that may be class scores, of %v: name one of shape (batch, classes) logits", len(found), outputs)
	}
	h.output = found[0]
	spec := outputs[h.output]
	h.name, h.scored = spec.Name, slices.Contains(scoreNames[:], spec.Name)
	classes := -1
	if n := len(spec.Shape); n == 1 {
		classes = 1
	} else if n == 2 {
		classes = int(spec.Shape[1])
	}
	var err error
	if h.labels, err = b.config.labels(classes); err != nil {
		return err
	}
	switch b.config.ProblemType {
	case "multi_label_classification":
		h.sigmoid = true
	case "", "single_label_classification":
	default:
		return fmt.Errorf("%s says problem_type %q: single_label_classification and multi_label_classification can be served", configFile, b.config.ProblemType)
	}
	return nil
}

// scores follows Hugging Face: softmax over the classes of a single_label_classification, sigmoid for each class of a
// multi_label_classification; a single logit is always a sigmoid. An output that is called probabilities is taken as it is.
func (h *head) scores(outputs []engine.Tensor, n int) ([][]float64, error) {
	t, err := tableOf(h.name, outputs[h.output], n)
	if err != nil {
		return nil, err
	}
	if h.labels == nil {
		// The first run, which nothing else runs beside, counts the classes of a graph that doesn't declare them.
		h.labels = plainLabels(t.columns)
	}
	if t.columns != len(h.labels) {
		return nil, fmt.Errorf("output %s has %d classes, %s has %d labels", h.name, t.columns, configFile, len(h.labels))
	}
	if h.scored {
		rows, err := probabilities(t)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w; if it holds logits, name it logits", h.name, err)
		}
		return rows, nil
	}
	if h.sigmoid || t.columns == 1 {
		return t.each(sigmoid), nil
	}
	return t.each(softmax), nil
}
