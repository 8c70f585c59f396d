package onnxfile_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"modelgate/inference/engine/enginetest"
	"modelgate/inference/onnxfile"
)

func ints(elem []int64) enginetest.Tensor {
	return enginetest.Tensor{Shape: []int64{int64(len(elem))}, Data: elem}
}

// dividing is a graph with x of that type, divided by d, which prepare makes.
func dividing(elem int, prepare func(*enginetest.Graph)) *enginetest.Graph {
	g := enginetest.NewGraph().Input("x", elem, "n").Input("n", enginetest.Int64, "n")
	prepare(g)
	return g.Node("Div", []string{"x", "d"}, []string{"y"}).Output("y", elem, "n")
}

func divisorOf(v ...int64) func(*enginetest.Graph) {
	return func(g *enginetest.Graph) { g.Init("d", ints(v)) }
}

func TestDivisions(t *testing.T) {
	body := enginetest.NewGraph().Input("i", enginetest.Int64).Input("go_on", enginetest.Bool).Input("d", enginetest.Int64, "n").
		Init("d", ints([]int64{2})).Node("Div", []string{"d", "d"}, []string{"q"}).Node("Identity", []string{"go_on"}, []string{"go"}).
		Output("go", enginetest.Bool).Output("q", enginetest.Int64, "n")
	for name, c := range map[string]struct {
		graph *enginetest.Graph
		found bool
	}{
		"an input":             {dividing(enginetest.Int64, func(g *enginetest.Graph) { g.Input("d", enginetest.Int64, "n") }), true},
		"an input of int32":    {dividing(enginetest.Int32, func(g *enginetest.Graph) { g.Input("d", enginetest.Int32, "n") }), true},
		"an input of floats":   {dividing(enginetest.Float, func(g *enginetest.Graph) { g.Input("d", enginetest.Float, "n") }), false},
		"a constant":           {dividing(enginetest.Int64, divisorOf(2, 7, -2)), false},
		"a constant 0":         {dividing(enginetest.Int64, divisorOf(2, 0)), true},
		"a constant -1":        {dividing(enginetest.Int64, divisorOf(-1)), true},
		"too large a constant": {dividing(enginetest.Int64, divisorOf(slices.Repeat([]int64{3}, 5000)...)), true},
		"a constant elsewhere": {dividing(enginetest.Int64, func(g *enginetest.Graph) {
			g.Init("d", enginetest.Tensor{Shape: []int64{1}, Data: []int64{2}, External: "w"})
		}), true},
		"a node's constant": {dividing(enginetest.Int64, func(g *enginetest.Graph) {
			g.Node("Constant", nil, []string{"d"}, enginetest.TensorAttr("value", ints([]int64{3})))
		}), false},
		"a node's number":   {dividing(enginetest.Int64, func(g *enginetest.Graph) { g.Node("Constant", nil, []string{"d"}, enginetest.IntAttr("value_int", 3)) }), false},
		"a node's number 0": {dividing(enginetest.Int64, func(g *enginetest.Graph) { g.Node("Constant", nil, []string{"d"}, enginetest.IntAttr("value_int", 0)) }), true},
		"a node's numbers": {dividing(enginetest.Int64, func(g *enginetest.Graph) {
			g.Node("Constant", nil, []string{"d"}, enginetest.IntsAttr("value_ints", 3, -1))
		}), true},
		"a node's number, and a tensor of another name": {dividing(enginetest.Int64, func(g *enginetest.Graph) {
			g.Node("Constant", nil, []string{"d"}, enginetest.IntAttr("value_int", 0), enginetest.TensorAttr("__x", ints([]int64{5})))
		}), true},
		"a node's tensor, twice in an attribute": {dividing(enginetest.Int64, func(g *enginetest.Graph) {
			g.Node("Constant", nil, []string{"d"}, enginetest.TensorAttr("value", ints([]int64{0})).Both(enginetest.TensorAttr("value", ints([]int64{5}))))
		}), true},
		"a node's tensor, in two attributes": {dividing(enginetest.Int64, func(g *enginetest.Graph) {
			g.Node("Constant", nil, []string{"d"}, enginetest.TensorAttr("value", ints([]int64{0})), enginetest.TensorAttr("value", ints([]int64{5})))
		}), true},
		"a type that is named twice": {enginetest.NewGraph().Input("f", enginetest.Float, "n").
			Node("Cast", []string{"f"}, []string{"d"}, enginetest.IntAttr("to", enginetest.Int64), enginetest.IntAttr("to", enginetest.Float)).
			Node("Div", []string{"d", "d"}, []string{"y"}), true},
		"a type that the caller of a function says": {enginetest.NewGraph().Input("f", enginetest.Float, "n").
			DomainNode("own", "Half", []string{"f"}, []string{"y"}, enginetest.IntAttr("T", enginetest.Int64)).
			Function("own", "Half", []string{"a"}, []string{"b"}, []string{"T"}, enginetest.NewGraph().
				Node("Cast", []string{"a"}, []string{"c"}, enginetest.IntAttr("to", enginetest.Float).Refers("T")).
				Node("Div", []string{"c", "c"}, []string{"b"})), true},
		"floats in a function": {enginetest.NewGraph().Input("f", enginetest.Float, "n").
			DomainNode("own", "Half", []string{"f"}, []string{"y"}).
			Function("own", "Half", []string{"a"}, []string{"b"}, nil, enginetest.NewGraph().
				Node("Cast", []string{"a"}, []string{"c"}, enginetest.IntAttr("to", enginetest.Float)).
				Node("Div", []string{"c", "c"}, []string{"b"})), false},
		"under a function of the operator's name": {dividing(enginetest.Int64, divisorOf(0)).
			Function("", "Div", []string{"a", "b"}, []string{"c"}, nil, enginetest.NewGraph().Node("Add", []string{"a", "b"}, []string{"c"})), true},
		"a graph in two parts": {enginetest.NewGraph().Input("x", enginetest.Int64, "n").Input("if", enginetest.Bool).Init("d", ints([]int64{5})).
			Node("If", []string{"if"}, []string{"y"}, enginetest.GraphAttr("then_branch", enginetest.NewGraph().Init("d", ints([]int64{0}))).
				Both(enginetest.GraphAttr("then_branch", enginetest.NewGraph().Node("Div", []string{"x", "d"}, []string{"q"})))), true},
		"a constant, cast": {dividing(enginetest.Int32, func(g *enginetest.Graph) {
			g.Init("c", ints([]int64{3})).Node("Cast", []string{"c"}, []string{"d"}, enginetest.IntAttr("to", enginetest.Int32))
		}), false},
		"a constant, cast to -1": {dividing(enginetest.Int32, func(g *enginetest.Graph) {
			g.Init("c", ints([]int64{1<<32 - 1})).Node("Cast", []string{"c"}, []string{"d"}, enginetest.IntAttr("to", enginetest.Int32))
		}), true},
		"a constant, computed on": {dividing(enginetest.Int64, func(g *enginetest.Graph) {
			g.Init("c", ints([]int64{3})).Node("Sub", []string{"c", "c"}, []string{"d"})
		}), true},
		"a constant, in another form": {dividing(enginetest.Int64, func(g *enginetest.Graph) {
			g.Init("c", ints([]int64{3})).Init("shape", ints([]int64{1, 1})).Node("Reshape", []string{"c", "shape"}, []string{"d"})
		}), false},
		"floats without a type": {dividing(enginetest.Int64, func(*enginetest.Graph) {}).Input("f", enginetest.Float, "n").
			Node("Exp", []string{"f"}, []string{"e"}).Node("ReduceSum", []string{"e"}, []string{"s"}).Node("Div", []string{"e", "s"}, []string{"p"}).
			Init("d", ints([]int64{1})), false},
		"in a loop, over what it is given": {enginetest.NewGraph().Input("x", enginetest.Int64, "n").
			Node("Loop", []string{"", "", "x"}, []string{"y"}, enginetest.GraphAttr("body", body)).Output("y", enginetest.Int64, "n"), true},
	} {
		for _, op := range []string{"Div", "Mod"} {
			f, err := onnxfile.Read(write(t, bytes.ReplaceAll(c.graph.Bytes(), []byte("Div"), []byte(op))))
			if err != nil || (f.Division != "") != c.found {
				t.Errorf("%s, %s: found %q (%v), want one: %v", name, op, f.Division, err, c.found)
			}
		}
	}
}

// What real exports divide is harmless: a gateway without isolation serves them.
func TestRealGraphs(t *testing.T) {
	paths, err := filepath.Glob("../testdata/*/*.onnx")
	more, err2 := filepath.Glob("../testdata/pytorch/*/*.onnx")
	if paths = append(paths, more...); err != nil || err2 != nil || len(paths) < 8 {
		t.Fatal(paths, err, err2)
	}
	domains := []string{"", "ai.onnx.ml", "com.microsoft"}
	rows := map[string]int64{"bert": 812, "xlm-roberta": 812, "fusion": 812, "fusion-plain-names": 812}
	for _, path := range paths {
		f, err := onnxfile.Read(path)
		if err != nil || f.Division != "" || len(f.Undefined(domains...)) > 0 {
			t.Errorf("%s: %q, %v, %v", path, f.Division, f.Undefined(domains...), err)
			continue
		}
		for _, in := range f.Inputs {
			name := filepath.Base(filepath.Dir(path))
			switch want := rows[name]; {
			case (in.Name == "input_ids" || in.Name == "text_input_ids") && in.Rows != want:
				t.Errorf("%s: %s has %d rows, want %d", path, in.Name, in.Rows, want)
			case in.Name == "token_type_ids" && in.Rows != 2:
				t.Errorf("%s: token_type_ids has %d rows, want 2", path, in.Rows)
			}
		}
	}
}

func TestRows(t *testing.T) {
	table := func(rows, columns int64) enginetest.Tensor {
		return enginetest.Tensor{Shape: []int64{rows, columns}, Data: make([]float32, rows*columns)}
	}
	graph := func() *enginetest.Graph {
		return enginetest.NewGraph().Input("ids", enginetest.Int64, "n", "l").Init("t", table(9, 4)).Init("u", table(7, 4)).Output("y", enginetest.Float)
	}
	look := func(in ...string) []string { return in }
	for name, c := range map[string]struct {
		graph *enginetest.Graph
		want  int64
	}{
		"none":                    {graph(), 0},
		"one":                     {graph().Node("Gather", look("t", "ids"), look("y")), 9},
		"the smaller of two":      {graph().Node("Gather", look("t", "ids"), look("a")).Node("Gather", look("u", "ids"), look("b")), 7},
		"along another axis":      {graph().Node("Gather", look("t", "ids"), look("y"), enginetest.IntAttr("axis", 1)), 4},
		"after a cast":            {graph().Node("Cast", look("ids"), look("i"), enginetest.IntAttr("to", 6)).Node("Gather", look("t", "i"), look("y")), 9},
		"ids that are others now": {graph().Node("Add", look("ids", "ids"), look("i")).Node("Gather", look("t", "i"), look("y")), 0},
		"a table that is converted": {graph().Node("Cast", look("t"), look("h"), enginetest.IntAttr("to", 10)).
			Node("Gather", look("h", "ids"), look("y")), 9},
		"under functions of the operators' names": {graph().Node("Identity", look("ids"), look("i")).Node("Gather", look("t", "i"), look("y")).
			Function("", "Identity", look("a"), look("b"), nil, enginetest.NewGraph().Node("Neg", look("a"), look("b"))).
			Function("", "Gather", look("a", "b"), look("c"), nil, enginetest.NewGraph().Node("Add", look("a", "b"), look("c"))), 9},
		"a table that is computed": {graph().Node("Add", look("t", "u"), look("h")).Node("Gather", look("h", "ids"), look("y")), 0},
		"ONNX Runtime's own": {graph().Input("kinds", enginetest.Int64, "n", "l").
			DomainNode("com.microsoft", "EmbedLayerNormalization", look("ids", "kinds", "t", "u", "u"), look("y", "m")), 9},
	} {
		f, err := onnxfile.Read(write(t, c.graph.Bytes()))
		if err != nil || f.Inputs[0].Rows != c.want {
			t.Errorf("%s: %+v, %v, want %d rows", name, f.Inputs, err, c.want)
		}
	}
}
