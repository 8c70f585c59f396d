package disk_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

// TestMain is also the entry of the child processes that the crash tests kill.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir)
	}
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		// Every step of the property test syncs files, so the default of 100 runs takes minutes.
		checks := "12"
		if testing.Short() {
			checks = "4"
		}
		_ = f.Value.Set(checks)
	}
	goleak.VerifyTestMain(m)
}

func version(n int64) modelstore.Version {
	return modelstore.Version{
		Model: "text", Registered: "text_classification_model", Number: n,
		Created: time.UnixMilli(1_700_000_000_000 + n).UTC(), Source: fmt.Sprintf("mlflow-artifacts:/1/run%d/artifacts", n),
	}
}

type tree map[string]string // content by slash-separated path

// fetch writes the tree as a Source would.
func (tr tree) fetch(_ context.Context, dir string) error {
	for name, content := range tr {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// with returns a copy of the tree with one more file.
func (tr tree) with(name, content string) tree {
	c := tree{name: content}
	for n, s := range tr {
		if n != name {
			c[n] = s
		}
	}
	return c
}

type manifestFile struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func (tr tree) entries() []manifestFile {
	var files []manifestFile
	for name, content := range tr {
		files = append(files, manifestFile{name, int64(len(content)), sum(content)})
	}
	slices.SortFunc(files, func(a, b manifestFile) int { return strings.Compare(a.Path, b.Path) })
	return files
}

// manifest is the manifest.json that a publisher would write, after edit.
func (tr tree) manifest(edit func([]manifestFile) []manifestFile) string {
	files := tr.entries()
	if edit != nil {
		files = edit(files)
	}
	b, err := json.Marshal(map[string]any{"files": files})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// digest is the documented form of a bundle's digest, written down a second time.
func (tr tree) digest() string {
	var text strings.Builder
	for _, f := range tr.entries() {
		fmt.Fprintf(&text, "%s %d %s\n", f.SHA256, f.Size, f.Path)
	}
	return sum(text.String())
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func neverFetch(context.Context, string) error {
	return errors.New("fetched what is in the cache already")
}

func openCache(t *testing.T, dir string, o disk.CacheOptions) *disk.Cache {
	t.Helper()
	c, err := disk.OpenCache(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func openData(t *testing.T, dir string, o disk.DataOptions) *disk.Data {
	t.Helper()
	d, err := disk.OpenData(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// add adds a version that must go in, and releases it.
func add(t *testing.T, c *disk.Cache, v modelstore.Version, tr tree) modelstore.Bundle {
	t.Helper()
	b, err := c.Add(t.Context(), v, tr.fetch, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Release()
	return b
}

func found(t *testing.T, c *disk.Cache, v modelstore.Version) bool {
	t.Helper()
	b, ok, err := c.Lookup(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		b.Release()
	}
	return ok
}

// readTree reads a folder back.
func readTree(dir string) (tree, error) {
	tr := tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		tr[filepath.ToSlash(rel)] = string(content)
		return err
	})
	return tr, err
}

// checkBundles verifies every bundle that can be seen in a cache folder, without the package's own code.
func checkBundles(dir string) (digests []string, err error) {
	dirs, err := filepath.Glob(filepath.Join(dir, "bundles", "*"))
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		tr, err := readTree(filepath.Join(d, "files"))
		if err != nil {
			return nil, err
		}
		if got := tr.digest(); got != filepath.Base(d) {
			return nil, fmt.Errorf("bundle %s has the content of %s", d, got)
		}
		digests = append(digests, filepath.Base(d))
	}
	return digests, nil
}

// names lists what lies in one of the cache's folders.
func names(t *testing.T, dir ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir...))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
