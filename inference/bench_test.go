package inference_test

import (
	"path/filepath"
	"testing"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/text"
)

const benchText = "i can't believe my flight is cancelled again, worst airline ever and nobody answers the phone"

// BenchmarkPredict is a prediction of the demo's bundle, beside what its graph and its tokenizer cost alone.
func BenchmarkPredict(b *testing.B) {
	dir := filepath.Join("..", "examples", "models", "text", "2")
	m, err := inference.Open(b.Context(), dir, newEngine(b), inference.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if err := m.WarmUp(b.Context()); err != nil {
		b.Fatal(err)
	}
	enc, err := text.Open(dir, text.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = enc.Close() }()
	session, err := newEngine(b).Open(b.Context(), filepath.Join(dir, "model.onnx"), engine.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	tokens, err := enc.Encode(benchText)
	if err != nil {
		b.Fatal(err)
	}
	shape := []int64{1, int64(len(tokens.IDs))}
	inputs := []engine.Tensor{{Shape: shape, Data: tokens.IDs}, {Shape: shape, Data: tokens.Mask}}
	for name, one := range map[string]func() error{
		"Predict": func() error { _, err := m.Predict(b.Context(), input(benchText)); return err },
		"Run":     func() error { _, err := session.Run(b.Context(), inputs); return err },
		"Encode":  func() error { _, err := enc.Encode(benchText); return err },
	} {
		b.Run(name+"/1", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := one(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/8", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(4) // times 2 cores
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := one(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
