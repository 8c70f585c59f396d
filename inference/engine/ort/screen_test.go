package ort_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
)

// dividing divides x by y, both whole, under those declared types of what lies between. The smallest number by -1 would end this process.
func dividing(between func(*enginetest.Graph)) *enginetest.Graph {
	g := enginetest.NewGraph().Input("x", enginetest.Int64, "n").Input("y", enginetest.Int64, "n").
		Node("Identity", []string{"x"}, []string{"a"}).Node("Identity", []string{"y"}, []string{"b"}).
		Node("Div", []string{"a", "b"}, []string{"c"}).Node("Identity", []string{"c"}, []string{"q"}).Output("q", enginetest.Int64, "n")
	between(g)
	return g
}

func openGraph(t *testing.T, e engine.Engine, g *enginetest.Graph) (engine.Session, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := g.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	s, err := e.Open(t.Context(), path, engine.Options{})
	if s != nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

// A division that can end the process isn't computed in the gateway. It isn't the graph's fault: with isolation it serves.
func TestDivisionNeedsIsolation(t *testing.T) {
	g := dividing(func(*enginetest.Graph) {})
	_, err := openGraph(t, open(t), g)
	if err == nil || errors.Is(err, engine.ErrGraph) || !strings.Contains(err.Error(), "isolation: process") || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("%v", err)
	}
	isolated, err := ort.Open(ort.Options{LibraryPath: enginetest.Library(t), Isolated: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := openGraph(t, isolated, g)
	if err != nil {
		t.Fatal(err)
	}
	x := engine.Tensor{Shape: []int64{1}, Data: []int64{7}}
	if out, err := s.Run(t.Context(), []engine.Tensor{x, x}); err != nil || out[0].Data.([]int64)[0] != 1 { //nolint:forcetypeassert // it is what the graph declares
		t.Errorf("%v, %v", out, err)
	}
}

// Types that a file declares are believed, since ONNX Runtime refuses wrong ones: who says that whole numbers are floats gets nowhere.
func TestWrongTypesAreRefused(t *testing.T) {
	body := enginetest.NewGraph().Input("i", enginetest.Int64).Input("go_on", enginetest.Bool).Input("v", enginetest.Float, "n").
		Node("Div", []string{"v", "v"}, []string{"w"}).Node("Identity", []string{"go_on"}, []string{"go"}).
		Output("go", enginetest.Bool).Output("w", enginetest.Float, "n")
	for name, g := range map[string]*enginetest.Graph{
		"the number":   dividing(func(g *enginetest.Graph) { g.Between("a", enginetest.Float, "n") }),
		"the divisor":  dividing(func(g *enginetest.Graph) { g.Between("b", enginetest.Float, "n") }),
		"the quotient": dividing(func(g *enginetest.Graph) { g.Between("c", enginetest.Float, "n") }),
		"in a loop": enginetest.NewGraph().Input("x", enginetest.Int64, "n").
			Init("once", enginetest.Tensor{Shape: []int64{}, Data: []int64{1}}).
			Node("Loop", []string{"once", "", "x"}, []string{"y"}, enginetest.GraphAttr("body", body)).Output("y", enginetest.Int64, "n"),
	} {
		if _, err := openGraph(t, open(t), g); !errors.Is(err, engine.ErrGraph) {
			t.Errorf("%s: %v, want ErrGraph", name, err)
		}
	}
}
