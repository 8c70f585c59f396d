package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

var listed = tree{"model.onnx": "graph", "data/weights.bin": "weights"}

func TestManifest(t *testing.T) {
	entry := func(i int, f func(*manifestFile)) func([]manifestFile) []manifestFile {
		return func(m []manifestFile) []manifestFile {
			f(&m[i]) // 0 is data/weights.bin, 1 is model.onnx
			return m
		}
	}
	for name, c := range map[string]struct {
		files    tree
		manifest string
		want     []string // in the error; none: it is taken
	}{
		"all is as listed": {files: listed, manifest: listed.manifest(nil)},
		"keys that we don't know, digests in capitals": {
			files: tree{"a": "a"}, manifest: `{"made_by": "x", "files": [{"path": "a", "size": 1, "sha256": "` + strings.ToUpper(sum("a")) + `", "mode": 1}]}`,
		},
		"a file is missing": {
			files: tree{"model.onnx": "graph"}, manifest: listed.manifest(nil),
			want: []string{"data/weights.bin is missing", "7 bytes"},
		},
		"a size differs": {
			files: listed, manifest: listed.manifest(entry(1, func(f *manifestFile) { f.Size = 6 })),
			want: []string{"model.onnx has 5 bytes", "says 6"},
		},
		"a digest differs": {
			files: listed, manifest: listed.manifest(entry(0, func(f *manifestFile) { f.SHA256 = sum("other") })),
			want: []string{"data/weights.bin has sha256 " + sum("weights"), "says " + sum("other")},
		},
		"a file isn't listed": {
			files: listed.with("data/more.bin", "m"), manifest: listed.manifest(nil),
			want: []string{"data/more.bin isn't listed in manifest.json"},
		},
		"a file is listed twice": {
			files: listed, manifest: listed.manifest(func(m []manifestFile) []manifestFile { return append(m, m[0]) }),
			want: []string{"data/weights.bin is listed twice"},
		},
		"it lists itself": {
			files: listed, manifest: listed.with("manifest.json", "x").manifest(nil), want: []string{"lists itself"},
		},
		"a path leads out": {
			files: listed, manifest: listed.with("../outside", "x").manifest(nil), want: []string{`"../outside"`},
		},
		"a path is absolute": {
			files: listed, manifest: listed.with("/etc/passwd", "x").manifest(nil), want: []string{`"/etc/passwd"`},
		},
		"a path isn't clean": {
			files: listed, manifest: listed.with("data//weights.bin", "x").manifest(nil), want: []string{`"data//weights.bin"`},
		},
		"no size":           {files: tree{"a": ""}, manifest: `{"files": [{"path": "a", "sha256": "` + sum("") + `"}]}`, want: []string{"a has no size"}},
		"a negative size":   {files: tree{"a": ""}, manifest: `{"files": [{"path": "a", "size": -1, "sha256": "` + sum("") + `"}]}`, want: []string{"a has no size"}},
		"a short digest":    {files: tree{"a": ""}, manifest: `{"files": [{"path": "a", "size": 0, "sha256": "abc"}]}`, want: []string{"abc", "64 hexadecimal digits"}},
		"no files":          {files: listed, manifest: `{"files": []}`, want: []string{`"files" is missing or empty`}},
		"another format":    {files: listed, manifest: `{"name": "my app"}`, want: []string{`"files" is missing or empty`}},
		"truncated":         {files: listed, manifest: listed.manifest(nil)[:40], want: []string{"manifest.json", "isn't JSON"}},
		"something follows": {files: listed, manifest: listed.manifest(nil) + "{}", want: []string{"follows"}},
		"empty":             {files: listed, manifest: "", want: []string{"manifest.json", "isn't JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cache := openCache(t, dir, disk.CacheOptions{})
			b, err := cache.Add(t.Context(), version(1), c.files.with("manifest.json", c.manifest).fetch, nil)
			if err == nil {
				b.Release()
			}
			checkVerdict(t, dir, err, c.want)
		})
	}
}

func TestArtifactViolations(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		o     disk.CacheOptions
		want  []string
	}{
		"nested folders are fine": {spoil: func(d string) error { return tree{"a/b/c/d/e": "x"}.fetch(context.Background(), d) }},
		"symbolic link":           {spoil: func(d string) error { return os.Symlink("model.onnx", filepath.Join(d, "link")) }, want: []string{"link is a symbolic link"}},
		"symbolic link to a folder": {
			spoil: func(d string) error { return os.Symlink("/etc", filepath.Join(d, "data", "link")) }, want: []string{"data/link is a symbolic link"},
		},
		"hard link": {
			spoil: func(d string) error { return os.Link(filepath.Join(d, "model.onnx"), filepath.Join(d, "second")) },
			want:  []string{"hard link (2 names)"},
		},
		"named pipe":       {spoil: func(d string) error { return syscall.Mkfifo(filepath.Join(d, "pipe"), 0o600) }, want: []string{"pipe is a named pipe"}},
		"line break":       {spoil: func(d string) error { return overwrite(filepath.Join(d, "a\nb"), "") }, want: []string{`"a\nb"`}},
		"backslash":        {spoil: func(d string) error { return overwrite(filepath.Join(d, `a\b`), "") }, want: []string{"backslash"}},
		"invalid UTF-8":    {spoil: func(d string) error { return overwrite(filepath.Join(d, "a\xff"), "") }, want: []string{"UTF-8"}},
		"no files":         {spoil: emptied, want: []string{"no files"}},
		"too many files":   {spoil: func(string) error { return nil }, o: disk.CacheOptions{MaxFiles: 1}, want: []string{"more than 1 files"}},
		"too many bytes":   {spoil: func(string) error { return nil }, o: disk.CacheOptions{MaxBytes: 11}, want: []string{"more than 11 bytes"}},
		"bytes just right": {spoil: func(string) error { return nil }, o: disk.CacheOptions{MaxBytes: 12, MaxFiles: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cache := openCache(t, dir, c.o)
			b, err := cache.Add(t.Context(), version(1), func(ctx context.Context, dir string) error {
				return errors.Join(listed.fetch(ctx, dir), c.spoil(dir))
			}, nil)
			if err == nil {
				b.Release()
			}
			checkVerdict(t, dir, err, c.want)
		})
	}
}

func TestAddRefusesNamesThatAreNoFileNames(t *testing.T) {
	c := openCache(t, t.TempDir(), disk.CacheOptions{})
	for _, name := range []string{"", "../text", "a/b", "-x", "é", strings.Repeat("a", 65)} {
		v := version(1)
		v.Model = name
		if _, err := c.Add(t.Context(), v, neverFetch, nil); err == nil || !strings.Contains(err.Error(), "model name") {
			t.Errorf("model %q: error %v", name, err)
		}
	}
	if _, err := c.Add(t.Context(), modelstore.Version{Model: "text"}, neverFetch, nil); err == nil {
		t.Error("added no version")
	}
}

// checkVerdict checks that Add's error is permanent and says what it should, and that nothing of the artifact is left to poison a retry.
func checkVerdict(t *testing.T, dir string, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, modelstore.ErrPermanent) {
		t.Fatalf("error %v, want a permanent one", err)
	}
	for _, w := range append(want, "text v1") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q doesn't say %q", err, w)
		}
	}
	for _, folder := range []string{"partial", "bundles", "trash", "index"} {
		if left := names(t, dir, folder); len(left) > 0 {
			t.Errorf("left in %s: %v", folder, left)
		}
	}
}

func emptied(dir string) error {
	return errors.Join(os.RemoveAll(filepath.Join(dir, "data")), os.Remove(filepath.Join(dir, "model.onnx")), os.Mkdir(filepath.Join(dir, "folder"), 0o700))
}
