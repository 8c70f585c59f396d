package dir_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"modelgate/modelstore"
	"modelgate/modelstore/dir"
	"modelgate/modelstore/sourcetest"
)

func open(t *testing.T, o dir.Options) *dir.Source {
	t.Helper()
	s, err := dir.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// publish writes a version beside its place and renames it, as publishers should.
func publish(t *testing.T, top, model string, n int, files map[string][]byte) {
	t.Helper()
	tmp := filepath.Join(top, model, "tmp")
	for name, b := range files {
		write(t, filepath.Join(tmp, filepath.FromSlash(name)), b)
	}
	if err := os.Rename(tmp, filepath.Join(top, model, strconv.Itoa(n))); err != nil {
		t.Fatal(err)
	}
}

func latest(t *testing.T, s *dir.Source) modelstore.Version {
	t.Helper()
	v, err := s.Latest(t.Context(), "text")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSuite(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{New: func(t *testing.T) sourcetest.Subject {
		top, n := t.TempDir(), 0
		s := open(t, dir.Options{Dir: top})
		return sourcetest.Subject{Source: s, Model: "text", Publish: func(t *testing.T, files map[string][]byte, metrics map[string]float64) modelstore.Version {
			if metrics != nil {
				b, err := json.Marshal(metrics)
				if err != nil {
					t.Fatal(err)
				}
				files["metrics.json"] = b
			}
			n++
			publish(t, top, "text", n, files)
			vs, err := s.Versions(t.Context(), "text")
			if err != nil || len(vs) != n {
				t.Fatalf("%d versions, want %d: %v", len(vs), n, err)
			}
			return vs[0]
		}}
	}})
}

func TestOtherNamesAreIgnored(t *testing.T) {
	top := t.TempDir()
	s := open(t, dir.Options{Dir: top})
	for _, name := range []string{"tmp", ".partial", "01", "0", "-3", "+4", "5 ", "1e3", "v7", "99999999999999999999", "2"} {
		write(t, filepath.Join(top, "text", name, "model.onnx"), []byte("x"))
	}
	write(t, filepath.Join(top, "text", "8"), []byte("a file"))
	if err := os.Symlink("2", filepath.Join(top, "text", "9")); err != nil {
		t.Fatal(err)
	}
	vs, err := s.Versions(t.Context(), "text")
	if err != nil || len(vs) != 1 || vs[0].Number != 2 {
		t.Errorf("got %v, %v; want version 2 only", vs, err)
	}
}

func TestModels(t *testing.T) {
	top := t.TempDir()
	s := open(t, dir.Options{Dir: top})
	for _, name := range []string{"text", "video-2_x", "7b", ".hidden", "_x", "-x", "with space", "tiếng", strings.Repeat("a", 64), strings.Repeat("a", 65)} {
		if err := os.Mkdir(filepath.Join(top, name), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(top, "file"), nil)
	got, err := s.Models()
	want := []string{"7b", strings.Repeat("a", 64), "text", "video-2_x"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestNoVersionYet(t *testing.T) {
	top := t.TempDir()
	s := open(t, dir.Options{Dir: top})
	if err := os.Mkdir(filepath.Join(top, "text"), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Latest(t.Context(), "text"); !errors.Is(err, modelstore.ErrNoVersion) {
		t.Errorf("got %v, want ErrNoVersion", err)
	}
}

func TestMissingFolder(t *testing.T) {
	_, err := dir.New(dir.Options{Dir: filepath.Join(t.TempDir(), "none")})
	if err == nil || !strings.Contains(err.Error(), "text/1/model.onnx") {
		t.Errorf("got %v, want an error that tells the layout", err)
	}
}

// The identity follows the weights: not the folder's own time, not the metrics, but every change of a file.
func TestIdentity(t *testing.T) {
	top := t.TempDir()
	s := open(t, dir.Options{Dir: top})
	publish(t, top, "text", 1, map[string][]byte{"model.onnx": []byte("x"), "sub/a": []byte("a")})
	v := latest(t, s)
	folder := filepath.Join(top, "text", "1")
	write(t, filepath.Join(folder, "metrics.json"), []byte(`{"eval_f1": 0.8}`))
	write(t, filepath.Join(folder, ".DS_Store"), []byte("x"))
	if got := latest(t, s); !got.Same(v) {
		t.Errorf("a metric and a hidden file changed the identity from %v to %v", v.Created, got.Created)
	}
	later := v.Created.Add(time.Second)
	if err := os.Chtimes(filepath.Join(folder, "sub", "a"), later, later); err != nil {
		t.Fatal(err)
	}
	if got := latest(t, s); got.Same(v) {
		t.Error("a changed file didn't change the identity")
	}
	if _, err := s.F1(t.Context(), v); !errors.Is(err, modelstore.ErrNoVersion) {
		t.Errorf("F1 of the version before the change: got %v, want ErrNoVersion", err)
	}
}

func TestMetrics(t *testing.T) {
	top := t.TempDir()
	s := open(t, dir.Options{Dir: top, MetricNames: []string{"macro_f1"}})
	for n, c := range []struct {
		name, json string
		want       modelstore.F1
	}{
		{"a number", `{"macro_f1": 0.5}`, modelstore.F1{Known: true, Value: 0.5, Metric: "macro_f1"}},
		{"text", `{"macro_f1": "0.5"}`, modelstore.F1{Metric: "macro_f1"}},
		{"NaN as text", `{"macro_f1": "NaN"}`, modelstore.F1{Metric: "macro_f1"}},
		{"NaN as Python writes it", `{"macro_f1": NaN}`, modelstore.F1{}},
		{"out of range", `{"macro_f1": 1.01}`, modelstore.F1{Metric: "macro_f1"}},
		{"no float64", `{"macro_f1": 1e999}`, modelstore.F1{Metric: "macro_f1"}},
		{"null", `{"macro_f1": null}`, modelstore.F1{Metric: "macro_f1"}},
		{"a list", `[0.5]`, modelstore.F1{}},
		{"cut off", `{"macro_f1": 0.5`, modelstore.F1{}},
		{"empty", ``, modelstore.F1{}},
		{"too large", strings.Repeat(" ", 1<<20) + `{"macro_f1": 0.5}`, modelstore.F1{}},
		{"only the defaults", `{"eval_f1": 0.9, "f1": 0.9}`, modelstore.F1{Absent: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			publish(t, top, "text", n+1, map[string][]byte{"model.onnx": {}, "metrics.json": []byte(c.json)})
			got, err := s.F1(t.Context(), latest(t, s))
			if err != nil {
				t.Fatal(err)
			}
			if got.Known == (got.Why != "") {
				t.Errorf("an unknown F1 says why, a known one doesn't: %+v", got)
			}
			got.Why = ""
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestFetchRefuses(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, []byte("secret"))
	for name, c := range map[string]struct {
		o    dir.Options
		make func(folder string) error
		want string
	}{
		"a link":         {make: func(f string) error { return os.Symlink(secret, filepath.Join(f, "model.onnx.data")) }, want: "model.onnx.data is a link"},
		"a folder link":  {make: func(f string) error { return os.Symlink(filepath.Dir(secret), filepath.Join(f, "sub")) }, want: "sub is a link"},
		"a pipe":         {make: func(f string) error { return syscall.Mkfifo(filepath.Join(f, "pipe"), 0o600) }, want: "pipe is a link or a special file"},
		"metrics pipe":   {make: func(f string) error { return syscall.Mkfifo(filepath.Join(f, "metrics.json"), 0o600) }, want: "metrics.json is a link or a special file"},
		"too many files": {o: dir.Options{MaxFiles: 1}, make: func(f string) error { return os.WriteFile(filepath.Join(f, "b"), nil, 0o600) }, want: "more than 1 files"},
		"too many bytes": {o: dir.Options{MaxBytes: 3}, make: func(string) error { return nil }, want: "more than 3 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Dir = t.TempDir()
			publish(t, c.o.Dir, "text", 1, map[string][]byte{"model.onnx": []byte("weights")})
			if err := c.make(filepath.Join(c.o.Dir, "text", "1")); err != nil {
				t.Fatal(err)
			}
			s := open(t, c.o)
			v, err := s.Latest(t.Context(), "text")
			if err == nil {
				err = s.Fetch(t.Context(), v, t.TempDir(), nil)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestVersionThatCannotBeReadHidesNoOther(t *testing.T) {
	top := t.TempDir()
	publish(t, top, "text", 1, map[string][]byte{"model.onnx": []byte("x"), "metrics.json": []byte(`{"eval_f1": 0.8}`)})
	publish(t, top, "text", 2, map[string][]byte{"a": nil, "b": nil, "c": nil})
	s := open(t, dir.Options{Dir: top, MaxFiles: 2})
	vs, err := s.Versions(t.Context(), "text")
	if err != nil || len(vs) != 2 || vs[1].Number != 1 {
		t.Fatalf("got %v, %v; want both", vs, err)
	}
	if f1, err := s.F1(t.Context(), vs[1]); err != nil || f1.Value != 0.8 {
		t.Errorf("F1 of 1: %v, %v", f1, err)
	}
	if _, err := s.F1(t.Context(), vs[0]); err == nil || !strings.Contains(err.Error(), "more than 2 files") {
		t.Errorf("F1 of 2: %v, want what is wrong with it", err)
	}
}

func TestLinkedModelFolderIsNoModel(t *testing.T) {
	top, elsewhere := t.TempDir(), t.TempDir()
	publish(t, elsewhere, "text", 1, map[string][]byte{"model.onnx": []byte("x")})
	if err := os.Symlink(filepath.Join(elsewhere, "text"), filepath.Join(top, "text")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir.Options{Dir: top}).Latest(t.Context(), "text"); !errors.Is(err, modelstore.ErrNoModel) {
		t.Errorf("got %v, want ErrNoModel", err)
	}
}
