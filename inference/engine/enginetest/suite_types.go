package enginetest

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"modelgate/inference/engine"
)

// external is y = x + w, with w in a side file at location.
func external(location string) *Graph {
	return NewGraph().
		Input("x", Float, "batch", 4).
		Init("w", Tensor{Shape: []int64{4}, Data: []float32{1, 2, 3, 4}, External: location}).
		Node("Add", []string{"x", "w"}, []string{"y"}).
		Output("y", Float, "batch", 4)
}

func externalFile(t *testing.T, dir, location string) string {
	t.Helper()
	path := filepath.Join(dir, "model.onnx")
	if err := external(location).WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeWeights(t *testing.T, path string) {
	t.Helper()
	raw := Tensor{Shape: []int64{4}, Data: []float32{1, 2, 3, 4}}.Raw()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func externalData(t *testing.T, e engine.Engine) {
	for _, location := range []string{"weights.data", "sub/weights.data"} {
		dir := t.TempDir()
		writeWeights(t, filepath.Join(dir, location))
		s, err := e.Open(t.Context(), externalFile(t, dir, location), engine.Options{})
		if err != nil {
			t.Fatalf("%s: %v", location, err)
		}
		x := engine.Tensor{Shape: []int64{1, 4}, Data: []float32{10, 20, 30, 40}}
		if got := run(t, s, x)[0].Data; !reflect.DeepEqual(got, []float32{11, 22, 33, 44}) {
			t.Errorf("%s: %v", location, got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func externalRefused(t *testing.T, e engine.Engine) {
	link := func(link func(string, string) error) func(*testing.T, string) string {
		return func(t *testing.T, dir string) string {
			other := filepath.Join(t.TempDir(), "secret")
			writeWeights(t, other)
			if err := link(other, filepath.Join(dir, "weights.data")); err != nil {
				t.Fatal(err)
			}
			return "weights.data"
		}
	}
	for name, prepare := range map[string]func(*testing.T, string) string{
		"absent":        func(*testing.T, string) string { return "weights.data" },
		"symbolic link": link(os.Symlink),
		"hard link":     link(os.Link),
		"absolute": func(t *testing.T, dir string) string {
			writeWeights(t, filepath.Join(dir, "weights.data"))
			return filepath.Join(dir, "weights.data")
		},
		"parent": func(t *testing.T, dir string) string {
			writeWeights(t, filepath.Join(dir, "..", "weights.data"))
			return "../weights.data"
		},
		"parent by a detour": func(t *testing.T, dir string) string {
			writeWeights(t, filepath.Join(dir, "weights.data"))
			return "sub/../weights.data"
		},
		"folder": func(t *testing.T, dir string) string {
			if err := os.Mkdir(filepath.Join(dir, "weights.data"), 0o750); err != nil {
				t.Fatal(err)
			}
			return "weights.data"
		},
		"linked folder": func(t *testing.T, dir string) string {
			other := t.TempDir()
			writeWeights(t, filepath.Join(other, "weights.data"))
			if err := os.Symlink(other, filepath.Join(dir, "sub")); err != nil {
				t.Fatal(err)
			}
			return "sub/weights.data"
		},
		"address in memory": func(t *testing.T, dir string) string {
			writeWeights(t, filepath.Join(dir, "*", "_ORT_MEM_ADDR_", "*"))
			return "*/_ORT_MEM_ADDR_/*"
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "bundle")
			if err := os.Mkdir(dir, 0o750); err != nil {
				t.Fatal(err)
			}
			location := prepare(t, dir)
			s, err := e.Open(t.Context(), externalFile(t, dir, location), engine.Options{})
			if !errors.Is(err, engine.ErrGraph) {
				t.Errorf("%v, want ErrGraph", err)
			}
			if s != nil {
				_ = s.Close()
			}
		})
	}
}

func elementTypes(t *testing.T, e engine.Engine) {
	for name, c := range map[string]struct {
		elem int
		in   engine.Tensor
	}{
		"float32": {Float, engine.Tensor{Shape: []int64{2}, Data: []float32{1.5, -2}}},
		"float64": {Double, engine.Tensor{Shape: []int64{2}, Data: []float64{1.5, -2}}},
		"int64":   {Int64, engine.Tensor{Shape: []int64{2}, Data: []int64{1 << 40, -2}}},
		"int32":   {Int32, engine.Tensor{Shape: []int64{2}, Data: []int32{1 << 30, -2}}},
		"bool":    {Bool, engine.Tensor{Shape: []int64{2}, Data: []bool{true, false}}},
		"string":  {String, engine.Tensor{Shape: []int64{3}, Data: []string{"", "xin chào 🌸", "b"}}},
		"empty":   {Float, engine.Tensor{Shape: []int64{0}, Data: []float32{}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Open(t, e, NewGraph().Input("x", c.elem, "n").Node("Identity", []string{"x"}, []string{"y"}).Output("y", c.elem, "n"))
			got := run(t, s, c.in)[0]
			if !reflect.DeepEqual(got, c.in) {
				t.Errorf("%v became %v", c.in, got)
			}
		})
	}
	s := Open(t, e, NewGraph().Input("x", String, "n").Node("Identity", []string{"x"}, []string{"y"}).Output("y", String, "n"))
	if _, err := s.Run(t.Context(), []engine.Tensor{{Shape: []int64{1}, Data: []string{"a\x00b"}}}); !errors.Is(err, engine.ErrInput) {
		t.Errorf("a string with NUL: %v, want ErrInput", err)
	}
}

func maps(t *testing.T, e engine.Engine) {
	for name, c := range map[string]struct {
		key  int
		attr Attr
		want []string
	}{
		"text labels":   {String, StringsAttr("classlabels_strings", "no", "yes"), []string{"no", "yes"}},
		"number labels": {Int64, IntsAttr("classlabels_int64s", 3, 7), []string{"3", "7"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Open(t, e, NewGraph().Input("x", Float, "n", 2).
				DomainNode("ai.onnx.ml", "ZipMap", []string{"x"}, []string{"z"}, c.attr).MapsOutput("z", c.key))
			spec := s.Outputs()[0]
			if !spec.Map || spec.Type != engine.Float32 {
				t.Errorf("declared %+v", spec)
			}
			want := engine.Tensor{Shape: []int64{3, 2}, Data: []float32{1, 2, 3, 4, 5, 6}, Keys: c.want}
			if got := run(t, s, engine.Tensor{Shape: []int64{3, 2}, Data: want.Data})[0]; !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// nestedFunctions opens a file of two kilobytes that would expand to 2^26 nodes.
func nestedFunctions(t *testing.T, e engine.Engine) {
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, NestedFunctions(), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := e.Open(t.Context(), path, engine.Options{}); !errors.Is(err, engine.ErrGraph) {
		t.Errorf("%v, want ErrGraph", err)
	}
	if took := time.Since(began); took > 5*time.Second { // inlined it would take hours
		t.Errorf("refused after %v", took)
	}
}

// unknownOperators opens graphs with operators that no engine has. The error names them, so that who exported the graph finds them.
func unknownOperators(t *testing.T, e engine.Engine) {
	body := NewGraph().DomainNode("com.acme", "Frobnicate", []string{"x"}, []string{"z"}).Output("z", Float, "n")
	for name, g := range map[string]*Graph{
		"another domain": NewGraph().Input("x", Float, "n").DomainNode("com.acme", "Frobnicate", []string{"x"}, []string{"y"}).Output("y", Float, "n"),
		"a known domain": NewGraph().Input("x", Float, "n").Node("Frobnicate", []string{"x"}, []string{"y"}).Output("y", Float, "n"),
		"in a branch": NewGraph().Input("x", Float, "n").Input("c", Bool).
			Node("If", []string{"c"}, []string{"y"}, GraphAttr("then_branch", body), GraphAttr("else_branch", body)).Output("y", Float, "n"),
	} {
		path := filepath.Join(t.TempDir(), "model.onnx")
		if err := g.WriteFile(path); err != nil {
			t.Fatal(err)
		}
		s, err := e.Open(t.Context(), path, engine.Options{})
		if !errors.Is(err, engine.ErrGraph) || !strings.Contains(err.Error(), "Frobnicate") {
			t.Errorf("%s: %v", name, err)
		}
		if s != nil {
			_ = s.Close()
		}
	}
}
