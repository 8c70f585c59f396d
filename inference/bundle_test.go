package inference_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
)

func writeFile(t testing.TB, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t testing.TB, dir, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		t.Fatal(err)
	}
}

const mlmodel = "flavors:\n  onnx:\n    data: DATA\n    onnx_version: 1.19.0\n  python_function:\n    loader_module: mlflow.onnx\nmodel_uuid: 1\n"

func TestLayouts(t *testing.T) {
	all := []string{"model.onnx", "tokenizer.json", "config.json", "tokenizer_config.json"}
	moveAll := func(t *testing.T, dir, to string) {
		for _, f := range all {
			rename(t, dir, f, filepath.Join(to, f))
		}
	}
	for name, change := range map[string]func(t *testing.T, dir string){
		"plain":                   func(*testing.T, string) {},
		"another name":            func(t *testing.T, dir string) { rename(t, dir, "model.onnx", "classifier.onnx") },
		"below model":             func(t *testing.T, dir string) { moveAll(t, dir, "model") },
		"graph alone below model": func(t *testing.T, dir string) { rename(t, dir, "model.onnx", "model/model.onnx") },
		"graph below onnx":        func(t *testing.T, dir string) { rename(t, dir, "model.onnx", "onnx/model.onnx") },
		"MLmodel": func(t *testing.T, dir string) {
			rename(t, dir, "model.onnx", "weights/net.onnx")
			writeFile(t, dir, "MLmodel", strings.Replace(mlmodel, "DATA", "weights/net.onnx", 1))
		},
		"MLmodel below model": func(t *testing.T, dir string) {
			moveAll(t, dir, "model")
			rename(t, dir, "model/model.onnx", "model/net.onnx")
			writeFile(t, dir, "model/other.onnx", "")
			writeFile(t, dir, "model/MLmodel", strings.Replace(mlmodel, "DATA", "net.onnx", 1))
		},
		"MLmodel of a folder": func(t *testing.T, dir string) {
			rename(t, dir, "model.onnx", "model.onnx.d/model.onnx")
			rename(t, dir, "model.onnx.d", "net")
			writeFile(t, dir, "MLmodel", strings.Replace(mlmodel, "DATA", "net", 1))
		},
		"MLmodel with quotes and more": func(t *testing.T, dir string) {
			rename(t, dir, "model.onnx", "a.onnx")
			writeFile(t, dir, "b.onnx", "")
			writeFile(t, dir, "MLmodel", "# data: b.onnx\nartifact_path: model\nflavors:\n  other:\n    data: b.onnx\n  onnx:\n    code: null\n    inner:\n      data: b.onnx\n"+
				"    data: 'a.onnx'\n    providers:\n    - CPUExecutionProvider\n  python_function:\n    data: b.onnx\nsignature:\n  inputs: '[{\"a\": 1}]'\n")
		},
		"MLmodel of brackets":  func(t *testing.T, dir string) { writeFile(t, dir, "MLmodel", strings.Repeat("[", 1<<20)) },
		"MLmodel without onnx": func(t *testing.T, dir string) { writeFile(t, dir, "MLmodel", "flavors:\n  transformers: {}\n") },
		"no config": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeBundle(t, enginetest.TextBundle{})
			change(t, dir)
			predict(t, openModel(t, dir, inference.Options{}), "good film")
		})
	}
}

func TestExternalData(t *testing.T) {
	dir := writeBundle(t, enginetest.TextBundle{})
	weights := enginetest.Tensor{Shape: []int64{30, 2}, Data: enginetest.Random(1, 60), External: "7e3f.data"}
	g := enginetest.NewGraph().Input("input_ids", enginetest.Int64, "b", "l").Init("w", weights).
		Init("one", enginetest.Tensor{Shape: []int64{1}, Data: []int64{1}}).
		Node("Gather", []string{"w", "input_ids"}, []string{"rows"}).
		Node("ReduceSum", []string{"rows", "one"}, []string{"logits"}, enginetest.IntAttr("keepdims", 0)).
		Output("logits", enginetest.Float, "b", 2)
	writeFile(t, dir, "model.onnx", string(g.Bytes()))
	if _, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{}); !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "7e3f.data") {
		t.Errorf("without its side file: %v", err)
	}
	writeFile(t, dir, "7e3f.data", string(weights.Raw()))
	predict(t, openModel(t, dir, inference.Options{}), "good film")
}

// Each says what the folder lacks, so that its publisher knows what to do.
func TestBadBundles(t *testing.T) {
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	instead := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			remove("model.onnx")(t, dir)
			writeFile(t, dir, name, "x")
		}
	}
	file := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { writeFile(t, dir, name, content) }
	}
	graph := func(g *enginetest.Graph) func(*testing.T, string) { return file("model.onnx", string(g.Bytes())) }
	identity := func(in string, elem int, dims ...any) *enginetest.Graph {
		return enginetest.NewGraph().Input(in, elem, dims...).
			Node("Identity", []string{in}, []string{"y"}).Output("y", elem, dims...)
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		says   []string
	}{
		"PyTorch safetensors": {instead("model.safetensors"), []string{"PyTorch checkpoint", "ONNX", "torch.onnx.export"}},
		"PyTorch bin":         {instead("pytorch_model.bin"), []string{"PyTorch checkpoint"}},
		"PyTorch deep":        {instead("data/model.pth"), []string{"PyTorch checkpoint", "data/model.pth"}},
		"pickle":              {instead("model.pkl"), []string{"pickle", "skl2onnx"}},
		"SavedModel":          {instead("saved_model.pb"), []string{"TensorFlow", "tf2onnx"}},
		"graph too deep": {func(t *testing.T, dir string) {
			rename(t, dir, "model.onnx", "artifacts/v1/model.onnx")
			writeFile(t, dir, "python_model.pkl", "x")
		}, []string{"artifacts/v1/model.onnx", "onnx/"}},
		"no graph": {remove("model.onnx"), []string{"model.onnx is missing"}},
		"two graphs": {func(t *testing.T, dir string) {
			rename(t, dir, "model.onnx", "a.onnx")
			writeFile(t, dir, "b.onnx", "")
		}, []string{"2 graphs", "model.onnx"}},
		"no tokenizer":               {remove("tokenizer.json"), []string{"tokenizer.json"}},
		"broken tokenizer":           {file("tokenizer.json", "{"), []string{"tokenizer.json"}},
		"broken config":              {file("config.json", "{"), []string{"config.json"}},
		"config of wrong types":      {file("config.json", `{"id2label": ["a", "b"]}`), []string{"config.json"}},
		"too many labels":            {file("config.json", `{"id2label": {"0": "a", "1": "b", "2": "c"}}`), []string{"2 classes", "3 labels"}},
		"labels with a gap":          {file("config.json", `{"id2label": {"0": "a", "2": "c"}}`), []string{"id2label", "none for 1"}},
		"labels twice":               {file("config.json", `{"id2label": {"0": "a", "1": "a"}}`), []string{`"a"`}},
		"regression":                 {file("config.json", `{"problem_type": "regression"}`), []string{"regression"}},
		"large config":               {file("config.json", strings.Repeat(" ", 5<<20)+"{}"), []string{"config.json", "4 MiB"}},
		"graph is HTML":              {file("model.onnx", "<!doctype html>"), []string{"model.onnx", "not an ONNX graph"}},
		"graph is a Git LFS pointer": {file("model.onnx", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"), []string{"model.onnx", "git lfs pull"}},
		"graph is empty":             {file("model.onnx", ""), []string{"not an ONNX graph"}},
		"unknown input":              {graph(identity("features", enginetest.Float, "b", 3)), []string{"features", "input_ids"}},
		"clips without frames":       {graph(identity("pixel_values", enginetest.Float, "b", 3)), []string{"pixel_values", "(batch, frames, channels, height, width)"}},
		"float ids":                  {graph(identity("input_ids", enginetest.Float, "b", "l")), []string{"input_ids", "int64"}},
		"fixed batch":                {graph(identity("input_ids", enginetest.Int64, 4, "l")), []string{"fixed batch"}},
		"no class scores":            {graph(identity("input_ids", enginetest.Int64, "b", "l")), []string{"logits"}},
		"MLmodel names nothing":      {file("MLmodel", strings.Replace(mlmodel, "DATA", "net.onnx", 1)), []string{"MLmodel", "net.onnx", "missing"}},
		"MLmodel leaves the folder":  {file("MLmodel", strings.Replace(mlmodel, "DATA", "../net.onnx", 1)), []string{"MLmodel", "outside"}},
		"settings: unknown key":      {file("modelgate.yaml", "\npositive_lable: negative\n"), []string{"modelgate.yaml", "line 2", "did you mean positive_label"}},
		"settings: strange key":      {file("modelgate.yaml", "threshold: 0.5\nqqq: 1\n"), []string{"line 2", "max_length"}},
		"settings: not in range":     {file("modelgate.yaml", "threshold: 1.5\n"), []string{"threshold", "1.5"}},
		"settings: NaN":              {file("modelgate.yaml", "threshold: .nan\n"), []string{"threshold"}},
		"settings: wrong type":       {file("modelgate.yaml", "threshold: high\n"), []string{"modelgate.yaml"}},
		"settings: a list":           {file("modelgate.yaml", "- a\n"), []string{"modelgate.yaml", "line 1"}},
		"settings: an anchor":        {file("modelgate.yaml", "positive_label: &a negative\n"), []string{"line 1", "plain value"}},
		"settings: a nested value":   {file("modelgate.yaml", "threshold:\n  high: 1\n"), []string{"line 1", "plain value"}},
		"settings: brackets":         {file("modelgate.yaml", strings.Repeat("[", 10000)), []string{"brackets"}},
		"settings: large":            {file("modelgate.yaml", strings.Repeat("#\n", 10000)), []string{"modelgate.yaml", "20000 bytes"}},
		"settings: key twice":        {file("modelgate.yaml", "threshold: 0.1\nthreshold: 0.9\n"), []string{"threshold"}},
		"settings: special tokens":   {file("modelgate.yaml", "special_tokens: maybe\n"), []string{"ids or text"}},
		"settings: unknown label":    {file("modelgate.yaml", "positive_label: harmful\n"), []string{"modelgate.yaml", "harmful", "negative, positive"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeBundle(t, enginetest.TextBundle{})
			c.change(t, dir)
			m, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{})
			if err == nil {
				_ = m.Close()
			}
			if !errors.Is(err, inference.ErrBundle) {
				t.Fatalf("%v, want ErrBundle", err)
			}
			for _, s := range append(c.says, dir) {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%v\ndoesn't say %q", err, s)
				}
			}
		})
	}
	for name, dir := range map[string]string{"empty": t.TempDir(), "absent": filepath.Join(t.TempDir(), "absent")} {
		if _, err := inference.Open(t.Context(), dir, newEngine(t), inference.Options{}); !errors.Is(err, inference.ErrBundle) {
			t.Errorf("%s folder: %v", name, err)
		}
	}
}

func TestSettings(t *testing.T) {
	dir := writeBundle(t, enginetest.TextBundle{})
	writeFile(t, dir, "modelgate.yaml", "# what decisions are about\npositive_label: negative\nthreshold: 0.25\nmax_length: 3\nspecial_tokens: text\n")
	i := openModel(t, dir, inference.Options{}).Info()
	if i.PositiveLabel != "negative" || i.Threshold != 0.25 || i.MaxLength != 3 {
		t.Errorf("the bundle's own: %+v", i)
	}
	limit := 0.75
	i = openModel(t, dir, inference.Options{PositiveLabel: "positive", Threshold: &limit, MaxLength: 5}).Info()
	if i.PositiveLabel != "positive" || i.Threshold != 0.75 || i.MaxLength != 5 {
		t.Errorf("overridden: %+v", i)
	}
	writeFile(t, dir, "modelgate.yaml", "# nothing said\n")
	if i := openModel(t, dir, inference.Options{}).Info(); i.PositiveLabel != "" {
		t.Errorf("nothing said: %+v", i)
	}
}

// The operator's own mistakes aren't the bundle's fault, and neither is a context that ended.
func TestNotTheBundlesFault(t *testing.T) {
	dir := writeBundle(t, enginetest.TextBundle{})
	nan := math.NaN()
	for name, o := range map[string]inference.Options{"threshold": {Threshold: &nan}, "workers": {Workers: -1}} {
		if _, err := inference.Open(t.Context(), dir, newEngine(t), o); err == nil || errors.Is(err, inference.ErrBundle) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := inference.Open(ctx, dir, newEngine(t), inference.Options{}); !errors.Is(err, context.Canceled) || errors.Is(err, inference.ErrBundle) {
		t.Errorf("ended context: %v", err)
	}
}
