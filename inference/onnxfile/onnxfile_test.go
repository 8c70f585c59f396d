package onnxfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"modelgate/inference/engine/enginetest"
	"modelgate/inference/onnxfile"
)

func write(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRead(t *testing.T) {
	f, err := onnxfile.Read(write(t, enginetest.LinearText(10, 3, 1, 0).Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	want := &onnxfile.File{
		IRVersion: 8, Producer: "enginetest",
		Opsets: []onnxfile.Opset{{Version: 17}, {Domain: "ai.onnx.ml", Version: 3}},
		Inputs: []onnxfile.Value{
			{Name: "input_ids", Kind: onnxfile.Tensor, Elem: onnxfile.Int64, Shape: []int64{-1, -1}, Rows: 10},
			{Name: "attention_mask", Kind: onnxfile.Tensor, Elem: onnxfile.Int64, Shape: []int64{-1, -1}},
		},
		Outputs: []onnxfile.Value{{Name: "logits", Kind: onnxfile.Tensor, Elem: onnxfile.Float, Shape: []int64{-1, 3}}},
		Ops:     []onnxfile.Op{{Type: "Gather"}, {Type: "Cast"}, {Type: "Unsqueeze"}, {Type: "Mul"}, {Type: "ReduceSum"}, {Type: "Add"}},
		Nodes:   6,
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
}

func TestReadDetails(t *testing.T) {
	t.Run("inputs that name a weight aren't inputs", func(t *testing.T) {
		g := enginetest.NewGraph().Input("x", enginetest.Float, "n").Input("w", enginetest.Float, 2).
			Init("w", enginetest.Tensor{Shape: []int64{2}, Data: []float32{1, 2}}).
			Node("Add", []string{"x", "w"}, []string{"y"}).Output("y", enginetest.Float, "n")
		f, err := onnxfile.Read(write(t, g.Bytes()))
		if err != nil || len(f.Inputs) != 1 || f.Inputs[0].Name != "x" {
			t.Errorf("%+v, %v", f, err)
		}
	})
	t.Run("sequence of maps", func(t *testing.T) {
		g := enginetest.NewGraph().Input("x", enginetest.Float, "n", 2).
			DomainNode("ai.onnx.ml", "ZipMap", []string{"x"}, []string{"z"}).MapsOutput("z", enginetest.String)
		f, err := onnxfile.Read(write(t, g.Bytes()))
		want := []onnxfile.Value{{Name: "z", Kind: onnxfile.SequenceOfMaps, Elem: onnxfile.Float, Key: onnxfile.String}}
		if err != nil || !reflect.DeepEqual(f.Outputs, want) || !f.Uses("ai.onnx.ml") {
			t.Errorf("%+v, %v", f, err)
		}
	})
	t.Run("operators inside a loop", func(t *testing.T) {
		f, err := onnxfile.Read(write(t, enginetest.EndlessLoop().Bytes()))
		if err != nil || !slices.Contains(f.Ops, onnxfile.Op{Type: "Identity"}) || f.Nodes != 5 {
			t.Errorf("%+v, %v", f, err)
		}
	})
	t.Run("external data anywhere", func(t *testing.T) {
		w := func(file string) enginetest.Tensor {
			return enginetest.Tensor{Shape: []int64{1}, Data: []float32{1}, External: file}
		}
		body := enginetest.NewGraph().Init("b", w("in a body")).
			Node("Constant", nil, []string{"c"}, enginetest.TensorAttr("value", w("in a constant")))
		g := enginetest.NewGraph().Input("x", enginetest.Float, "n").Init("a", w("in the graph")).Init("a2", w("in the graph")).
			Node("Loop", []string{"", "", "x"}, []string{"y"}, enginetest.GraphAttr("body", body)).Output("y", enginetest.Float, "n")
		f, err := onnxfile.Read(write(t, g.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(f.External)
		if want := []string{"in a body", "in a constant", "in the graph"}; !reflect.DeepEqual(f.External, want) {
			t.Errorf("found %q, want %q", f.External, want)
		}
	})
	t.Run("weights aren't read", func(t *testing.T) {
		// The largest field is 1 GB of a sparse file: reading it would be seen in the test's time and memory.
		path := filepath.Join(t.TempDir(), "large.onnx")
		const size = 1 << 30
		tensor := protowire.AppendTag(nil, 9, protowire.BytesType)
		tensor = protowire.AppendVarint(tensor, size)
		graph := protowire.AppendTag(nil, 5, protowire.BytesType)
		graph = protowire.AppendVarint(graph, uint64(len(tensor)+size))
		head := protowire.AppendTag(nil, 7, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(graph)+len(tensor)+size))
		head = append(append(head, graph...), tensor...)
		if err := os.WriteFile(path, head, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, int64(len(head)+size)); err != nil {
			t.Fatal(err)
		}
		if _, err := onnxfile.Read(path); err != nil {
			t.Error(err)
		}
	})
}

func TestRefused(t *testing.T) {
	whole := enginetest.MLP(4, 4, 2, 1).Bytes()
	nested := []byte{}
	for range 500 { // graphs inside attributes of nodes of graphs
		attr := protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), nested)
		node := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), attr)
		nested = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), node)
	}
	for name, content := range map[string][]byte{
		"name that isn't text": enginetest.NewGraph().Input("x\xff", enginetest.Float, "n").
			Node("Identity", []string{"x\xff"}, []string{"y"}).Output("y", enginetest.Float, "n").Bytes(),
		"empty":             {},
		"garbage":           []byte("garbage"),
		"HTML":              []byte("<!doctype html><html></html>"),
		"cut short":         whole[:len(whole)-1],
		"no graph":          {8, 8},
		"endless number":    bytes.Repeat([]byte{0xff}, 20),
		"group":             {7<<3 | 3, 7<<3 | 4},
		"field zero":        {0, 0},
		"length overflows":  append([]byte{7<<3 | 2}, protowire.AppendVarint(nil, 1<<63)...),
		"nested too deeply": protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), nested),
		"long name": protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType),
			protowire.AppendBytes(protowire.AppendTag(nil, 12, protowire.BytesType),
				protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), make([]byte, 1<<17)))),
	} {
		if f, err := onnxfile.Read(write(t, content)); !errors.Is(err, onnxfile.ErrFormat) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if _, err := onnxfile.Read(t.TempDir()); !errors.Is(err, onnxfile.ErrFormat) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := onnxfile.Read(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
}

// A function may be defined many times, as overloads. Each of them must cost no more than what it holds.
func TestOverloadsCostLittle(t *testing.T) {
	field := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	name := field(1, []byte("f"))
	file := field(7, nil)
	file = append(file, field(25, append(bytes.Repeat(field(7, field(4, []byte("Add"))), 1<<19), name...))...)
	file = append(file, bytes.Repeat(field(25, name), 1<<17)...)
	began := time.Now()
	if f, err := onnxfile.Parse(bytes.NewReader(file), int64(len(file))); !errors.Is(err, onnxfile.ErrFormat) {
		t.Errorf("%+v, %v", f, err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("%d bytes took %v", len(file), took)
	}
}

// Whatever the bytes are, Parse returns, with a graph or with ErrFormat.
func FuzzParse(f *testing.F) {
	f.Add(enginetest.LinearText(4, 2, 1, 0).Bytes())
	f.Add(enginetest.EndlessLoop().Bytes())
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, content []byte) {
		g, err := onnxfile.Parse(bytes.NewReader(content), int64(len(content)))
		if (g == nil) == (err == nil) {
			t.Errorf("%v and %v", g, err)
		}
		if err != nil && !errors.Is(err, onnxfile.ErrFormat) {
			t.Error(err)
		}
	})
}
