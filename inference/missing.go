package inference

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// foreign says what other model files are, and how to publish such a model as ONNX.
var foreign = []struct{ pattern, what, remedy string }{
	{"*.safetensors", "a PyTorch checkpoint", remedyTorch},
	{"pytorch_model*.bin", "a PyTorch checkpoint", remedyTorch},
	{"*.pt", "a PyTorch checkpoint", remedyTorch},
	{"*.pth", "a PyTorch checkpoint", remedyTorch},
	{"*.ckpt", "a PyTorch checkpoint", remedyTorch},
	{"saved_model.pb", "a TensorFlow SavedModel", remedyTF},
	{"tf_model.h5", "a TensorFlow checkpoint", remedyTF},
	{"*.keras", "a Keras model", remedyTF},
	{"*.pkl", "a pickle, and loading it would run whatever code it holds", remedySklearn},
	{"*.pickle", "a pickle, and loading it would run whatever code it holds", remedySklearn},
	{"*.joblib", "a pickle, and loading it would run whatever code it holds", remedySklearn},
}

const (
	remedyTorch   = "torch.onnx.export(model, ..., dynamo=True, dynamic_shapes=...), with tokenizer.json and config.json beside it"
	remedyTF      = "python -m tf2onnx.convert --saved-model FOLDER --output model.onnx, with tokenizer.json and config.json beside it"
	remedySklearn = "skl2onnx.to_onnx (scikit-learn), or torch.onnx.export (PyTorch)"
)

// missingGraph says what dir holds instead of a graph, and what to do.
func missingGraph(dir string) error {
	var names []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.Count(strings.TrimPrefix(path, dir), string(filepath.Separator)) > 2, len(names) > 1000:
			return fs.SkipDir
		case !e.IsDir():
			names = append(names, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("the folder is empty: it needs model.onnx, tokenizer.json and config.json")
	}
	for _, name := range names {
		if filepath.Ext(name) == ".onnx" {
			rel, _ := filepath.Rel(dir, name)
			return fmt.Errorf("%s is missing; there is %s, which is not where a graph is looked for: in the folder itself, in model/ and in onnx/", graphFile, rel)
		}
	}
	for _, f := range foreign {
		for _, name := range names {
			if ok, _ := filepath.Match(f.pattern, filepath.Base(name)); ok {
				rel, _ := filepath.Rel(dir, name)
				return fmt.Errorf("%s is missing; %s is %s; publish it as ONNX with %s", graphFile, rel, f.what, f.remedy)
			}
		}
	}
	return fmt.Errorf("%s is missing: the folder has %d files and no graph", graphFile, len(names))
}
