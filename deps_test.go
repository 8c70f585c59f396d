package modelgate_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "modelgate"

// goPackage is what `go list` tells of a package.
type goPackage struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
	Standard   bool
}

// modules are the folders of the modules that the rules are for: this one, and those of engines that it shall not depend on.
func modules() []string { return []string{".", "engines/onnxgo"} }

// packages lists the packages of the modules.
func packages(t *testing.T) []goPackage {
	t.Helper()
	var all []goPackage
	for _, dir := range modules() {
		all = append(all, packagesIn(t, dir)...)
	}
	return all
}

func packagesIn(t *testing.T, dir string) []goPackage {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "-C", dir, "list", "-json=ImportPath,Dir,Name,GoFiles,CgoFiles,Imports", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// A rule says what the packages below a folder may import of this module, and whether anything else but the standard library.
type rule struct {
	below  string   // "modelstore" is that package alone, "modelstore/..." is what lies below it
	may    []string // packages of this module; "x/..." allows what lies below x, and "..." everything
	others bool     // other modules
}

// rules: the first that fits a package is the one. A package that none fits is a failure, so that a new one has to be thought about.
func rules() []rule {
	return []rule{
		{"cmd/...", []string{"..."}, true},
		{"benchmarks/...", []string{"..."}, true},
		{"tools/...", []string{"..."}, true},
		{"examples", nil, false},
		{"faults", nil, false}, // tests, which may import anything
		{"server", []string{"server/...", "proto/...", "modelstore", "inference", "inference/batch", "inference/engine", "inference/text", "inference/video", "s3"}, true},
		{"server/...", []string{"server/...", "proto/..."}, true},
		{"s3", nil, true},
		{"s3/...", nil, false},
		{"modelstore", nil, false},
		{"modelstore/mlflow", []string{"modelstore", "s3"}, true},
		{"modelstore/...", []string{"modelstore"}, true},
		{"inference", []string{"inference/batch", "inference/engine", "inference/text", "inference/text/hf", "inference/video", "inference/onnxfile"}, true},
		{"inference/batch", nil, false},
		{"inference/engine", nil, false},
		{"inference/engine/worker/workertest", []string{"inference/engine", "inference/engine/enginetest", "inference/engine/ort", "inference/engine/worker"}, false},
		{"inference/engine/...", []string{"inference/engine", "inference/onnxfile"}, true},
		{"inference/text/hf", nil, false},
		{"inference/text", []string{"inference/engine", "inference/text/hf"}, true},
		{"inference/video", nil, true},
		{"inference/video/...", nil, true},
		{"inference/onnxfile", []string{"inference/engine"}, true},
		{"engines/...", []string{"engines/...", "inference/engine", "inference/engine/worker", "inference/onnxfile"}, true},
		{"clients/...", []string{"proto/..."}, true},
		{"proto/...", []string{"proto/..."}, true},
	}
}

// fits reports whether pattern names the package at path, both relative to the module.
func fits(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if top, ok := strings.CutSuffix(pattern, "/..."); ok {
		return strings.HasPrefix(path, top+"/")
	}
	return pattern == path
}

func TestWhoMayImportWhom(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if path == "" {
			continue // this test
		}
		i := slices.IndexFunc(rules(), func(r rule) bool { return fits(r.below, path) })
		if i < 0 {
			t.Errorf("%s: no rule says what it may import; add one here, and to docs/DESIGN.md", path)
			continue
		}
		r := rules()[i]
		for _, imported := range p.Imports {
			if why := r.forbids(imported); why != "" {
				t.Errorf("%s imports %s: %s", path, imported, why)
			}
		}
	}
}

// forbids says why a package under the rule may not import another, or nothing.
func (r rule) forbids(imported string) string {
	if inner, ok := strings.CutPrefix(imported, module+"/"); ok {
		if slices.ContainsFunc(r.may, func(pattern string) bool { return fits(pattern, inner) }) {
			return ""
		}
		return "of this module it may only import " + strings.Join(r.may, ", ") + " (or nothing, if that is empty)"
	}
	first, _, _ := strings.Cut(imported, "/")
	if strings.Contains(first, ".") && !r.others {
		return "it may only import the standard library"
	}
	return ""
}

// onlyIn are imports that one place has to itself: the wire's, the engine's, the command line's.
var onlyIn = map[string][]string{
	"google.golang.org/protobuf/encoding/protowire": {"inference/onnxfile", "inference/engine/enginetest", "server", "engines/onnxgo"},
	"google.golang.org/grpc":                        {"server", "server/...", "clients/...", "cmd/...", "benchmarks/...", "proto/...", "tools/..."},
	"google.golang.org/protobuf":                    {"server", "server/...", "clients/...", "cmd/...", "benchmarks/...", "proto/...", "tools/..."},
	"github.com/yalue/onnxruntime_go":               {"inference/engine/ort"},
	"github.com/owulveryck/onnx-go":                 {"engines/onnxgo"},
	"gorgonia.org":                                  {"engines/onnxgo"},
	"github.com/landlock-lsm/go-landlock":           {"inference/engine/worker"},
	"kernel.org/pub/linux/libs/security/libcap/psx": {"inference/engine/worker"},
	"github.com/minio/minio-go/v7":                  {"s3"},
	"github.com/spf13/cobra":                        {"cmd/...", "benchmarks/...", "tools/..."},
	"github.com/prometheus/client_golang":           {"server", "server/...", "cmd/...", "benchmarks/..."},
}

func TestForeignTypesStayInTheirPlace(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imported := range p.Imports {
			for foreign, places := range onlyIn {
				if imported != foreign && (!strings.HasPrefix(imported, foreign+"/") || onlyIn[imported] != nil) {
					continue
				}
				if !slices.ContainsFunc(places, func(place string) bool { return fits(place, path) }) {
					t.Errorf("%s imports %s, which only %s may", path, imported, strings.Join(places, ", "))
				}
			}
		}
	}
}

var oneSentence = regexp.MustCompile(`(?s)^(Package|Command) ([a-z0-9-]+) [^.]+\.`)

// Every package says in its first sentence what it does.
func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, module+"/proto/") || len(p.GoFiles)+len(p.CgoFiles) == 0 {
			continue // generated, or only tests
		}
		doc := packageDoc(t, p)
		m := oneSentence.FindStringSubmatch(doc)
		switch {
		case doc == "":
			t.Errorf("%s has no doc comment", p.ImportPath)
		case m == nil:
			t.Errorf("%s: its doc doesn't begin with a sentence like \"Package %s does y.\": %.80q", p.ImportPath, p.Name, doc)
		case p.Name != "main" && (m[1] != "Package" || m[2] != p.Name):
			t.Errorf("%s: its doc speaks of %s %s", p.ImportPath, m[1], m[2])
		case p.Name == "main" && m[1] != "Command":
			t.Errorf("%s: the doc of a program begins with \"Command\"", p.ImportPath)
		}
	}
}

func packageDoc(t *testing.T, p goPackage) string {
	t.Helper()
	doc := ""
	for _, name := range append(p.GoFiles, p.CgoFiles...) {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if text := f.Doc.Text(); text != "" {
			if doc != "" {
				t.Errorf("%s has two doc comments", p.ImportPath)
			}
			doc = text
		}
	}
	return doc
}
