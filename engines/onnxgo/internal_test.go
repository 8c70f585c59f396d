package onnxgo

import (
	"strings"
	"testing"

	"modelgate/inference/engine"
)

// A panic of the library is an error, and the next call works.
func TestPanicIsAnError(t *testing.T) {
	squeeze := &node{op: "Squeeze", inputs: []string{"x"}, outputs: []string{"y"}, attrs: map[string]attr{"axes": {kind: kindInts, ints: []int64{9}}}}
	relu := &node{op: "Relu", inputs: []string{"x"}, outputs: []string{"y"}}
	in := []engine.Tensor{{Shape: []int64{1, 2}, Data: []float32{-1, 2}}}
	for range 3 {
		_, err := compute(t.Context(), encode([]*node{squeeze}, nil, []string{"x"}, []string{"y"}), in, [][]int64{{1, 2}})
		if err == nil || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("an axis that isn't there: %v, want a panic as an error", err)
		}
		out, err := compute(t.Context(), encode([]*node{relu}, nil, []string{"x"}, []string{"y"}), in, [][]int64{{1, 2}})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := out[0].Data.([]float32); got[0] != 0 || got[1] != 2 {
			t.Errorf("after a panic: %v", got)
		}
	}
}

// What the library gives in another shape than the plan says is an error, not an answer.
func TestAnswerOfAnotherShape(t *testing.T) {
	relu := &node{op: "Relu", inputs: []string{"x"}, outputs: []string{"y"}}
	in := []engine.Tensor{{Shape: []int64{1, 2}, Data: []float32{-1, 2}}}
	if out, err := compute(t.Context(), encode([]*node{relu}, nil, []string{"x"}, []string{"y"}), in, [][]int64{{1, 3}}); err == nil {
		t.Errorf("got %v", out)
	}
}
