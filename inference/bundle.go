package inference

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"modelgate/inference/onnxfile"
)

const (
	graphFile    = "model.onnx"
	configFile   = "config.json"
	settingsFile = "modelgate.yaml"
	mlmodelFile  = "MLmodel"
	maxSmallFile = 4 << 20 // bytes of a configuration file
)

// A bundle is a model's folder, read but for graph and tokenizer.
type bundle struct {
	dir        string
	graph      string // path of the graph
	home       string // folder of tokenizer.json and the files that belong to it
	configHome string // folder of config.json; mostly the same
	clipHome   string // folder of the video processor's file
	config     config
	settings   settings
	rows       map[string]int64 // of the tables that the graph looks up with the ids of an input
}

func openBundle(dir string) (*bundle, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, errors.New("it is not a folder: name the folder that holds model.onnx")
	}
	b := &bundle{dir: dir}
	if b.graph, err = findGraph(dir); err != nil {
		return nil, err
	}
	folders := []string{filepath.Dir(b.graph), filepath.Dir(filepath.Dir(b.graph)), dir}
	if folders[0] == filepath.Clean(dir) {
		folders = folders[:1]
	}
	b.home = firstWith(folders, "tokenizer.json", configFile)
	b.configHome = firstWith(append([]string{b.home}, folders...), configFile)
	b.clipHome = firstWith(append([]string{b.configHome}, folders...), "video_preprocessor_config.json", "preprocessor_config.json")
	if err := readConfig(filepath.Join(b.configHome, configFile), &b.config); err != nil {
		return nil, err
	}
	if f, err := onnxfile.Read(b.graph); err == nil { // else the engine says what is wrong with it
		b.rows = make(map[string]int64, len(f.Inputs))
		for _, in := range f.Inputs {
			b.rows[in.Name] = in.Rows
		}
	}
	return b, readSettings(filepath.Join(firstWith(folders, settingsFile), settingsFile), &b.settings)
}

// firstWith is the first folder that holds one of the files, looked for in the files' order; else the first folder.
func firstWith(folders []string, files ...string) string {
	for _, file := range files {
		for _, dir := range folders {
			if isFile(filepath.Join(dir, file)) {
				return dir
			}
		}
	}
	return folders[0]
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// findGraph looks where MLflow and Hugging Face put a graph: what MLmodel names, model.onnx, the only *.onnx; in dir, then in
// model/ and onnx/ below it.
func findGraph(dir string) (string, error) {
	for _, d := range []string{dir, filepath.Join(dir, "model"), filepath.Join(dir, "onnx")} {
		path, err := graphIn(d)
		if path != "" || err != nil {
			return path, err
		}
	}
	return "", missingGraph(dir)
}

func graphIn(dir string) (string, error) {
	if path, err := graphOfMLmodel(dir); path != "" || err != nil {
		return path, err
	}
	if path := filepath.Join(dir, graphFile); isFile(path) {
		return path, nil
	}
	found, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.onnx"))
	if err != nil {
		return "", err
	}
	if len(found) > 1 {
		return "", fmt.Errorf("there are %d graphs in %s and none is called %s: rename the one to serve", len(found), dir, graphFile)
	}
	if len(found) == 1 && isFile(found[0]) {
		return found[0], nil
	}
	return "", nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// graphOfMLmodel is the file that MLmodel's onnx flavor names, "" where dir has no MLmodel with that flavor.
func graphOfMLmodel(dir string) (string, error) {
	path := filepath.Join(dir, mlmodelFile)
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	name, ok := onnxFlavor(string(data))
	if !ok {
		return "", nil
	}
	if name == "" {
		name = graphFile
	}
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("%s names the graph %.200q, which lies outside of its folder", path, name)
	}
	graph := filepath.Join(dir, name)
	if st, err := os.Stat(graph); err == nil && st.IsDir() {
		graph = filepath.Join(graph, graphFile)
	}
	if !isFile(graph) {
		return "", fmt.Errorf("%s names the graph %.200q, which is missing", path, name)
	}
	return graph, nil
}

// onnxFlavor finds flavors.onnx.data in an MLmodel file; ok says that there is a flavor onnx. MLflow writes one key a line, and a
// general YAML parser would take minutes for a few hundred kilobytes of hostile brackets.
func onnxFlavor(mlmodel string) (data string, ok bool) {
	type level struct {
		indent int
		key    string
	}
	var path []level
	for line := range strings.Lines(mlmodel) {
		text := strings.TrimSpace(line)
		key, value, found := strings.Cut(text, ":")
		if !found || strings.HasPrefix(text, "#") {
			continue
		}
		indent := len(line) - len(strings.TrimLeft(line, " "))
		for len(path) > 0 && path[len(path)-1].indent >= indent {
			path = path[:len(path)-1]
		}
		path = append(path, level{indent, key})
		if len(path) < 2 || path[0].key != "flavors" || path[1].key != "onnx" {
			continue
		}
		ok = true
		if len(path) == 3 && key == "data" {
			data = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return data, ok
}

// readSmall reads a file of at most maxSmallFile bytes.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path) // reading it would fail as if the disk did
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSmallFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSmallFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, maxSmallFile>>20)
	}
	return data, nil
}
