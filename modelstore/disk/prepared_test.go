package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

// fill writes what a rehearsal would, and counts how often it was asked to.
func fill(made *atomic.Int64) func(context.Context, string) error {
	return func(_ context.Context, dir string) error {
		made.Add(1)
		return errors.Join(os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("graph"), 0o600),
			os.WriteFile(filepath.Join(dir, "model.data"), []byte(strings.Repeat("weights ", 1000)), 0o600))
	}
}

func prepare(t *testing.T, c *disk.Cache, b modelstore.Bundle, key string, have func(context.Context, string) error) modelstore.Bundle {
	t.Helper()
	p, err := c.Prepare(t.Context(), b, key, have)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What was prepared is found again, and made again where any of its files isn't what was written, whatever happened to it.
func TestPreparedFormIsMadeOnceAndMended(t *testing.T) {
	c := openCache(t, t.TempDir(), disk.CacheOptions{})
	b := add(t, c, version(1), tree{"model.onnx": "content 1"})
	defer b.Release()
	var made atomic.Int64
	dir := prepare(t, c, b, "key1", fill(&made)).Prepared
	for range 2 {
		if p := prepare(t, c, b, "key1", fill(&made)); p.Prepared != dir || p.Dir != b.Dir {
			t.Errorf("prepared in %s, of %s", p.Prepared, p.Dir)
		}
	}
	if made.Load() != 1 {
		t.Fatalf("made %d times", made.Load())
	}
	data, graph, list := filepath.Join(dir, "model.data"), filepath.Join(dir, "model.onnx"), filepath.Join(filepath.Dir(dir), "entries.json")
	for _, path := range []string{data, graph} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o400 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	for name, damage := range map[string]func() error{
		"truncated":         func() error { return overwrite(data, "weights ") },
		"a bit":             func() error { return overwrite(data, strings.Replace(strings.Repeat("weights ", 1000), "w", "v", 1)) },
		"empty":             func() error { return overwrite(graph, "") },
		"graph removed":     func() error { return os.Remove(graph) },
		"data removed":      func() error { return os.Remove(data) },
		"list removed":      func() error { return os.Remove(list) },
		"list not JSON":     func() error { return overwrite(list, "[{") },
		"list of nothing":   func() error { return overwrite(list, "[]") },
		"another file":      func() error { return os.WriteFile(filepath.Join(dir, "more"), nil, 0o600) },
		"link to elsewhere": func() error { return replaceByLink(t, data, os.Symlink) },
		"hard link":         func() error { return replaceByLink(t, data, os.Link) },
		"folder removed":    func() error { return os.RemoveAll(filepath.Dir(dir)) },
	} {
		was := made.Load()
		if err := damage(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p := prepare(t, c, b, "key1", fill(&made))
		got, err := os.ReadFile(filepath.Join(p.Prepared, "model.data"))
		if made.Load() != was+1 || err != nil || string(got) != strings.Repeat("weights ", 1000) {
			t.Errorf("%s: made %d times, %d bytes, %v", name, made.Load()-was, len(got), err)
		}
		p.Release()
	}
}

// replaceByLink puts a link in the place of a file, to one with the same content.
func replaceByLink(t *testing.T, path string, link func(from, to string) error) error {
	t.Helper()
	elsewhere := filepath.Join(t.TempDir(), "data")
	content, err := os.ReadFile(path)
	return errors.Join(err, os.WriteFile(elsewhere, content, 0o600), os.Remove(path), link(elsewhere, path))
}

// A making that fails leaves nothing, and the bundle as it was.
func TestPreparingFails(t *testing.T) {
	cacheDir := t.TempDir()
	c := openCache(t, cacheDir, disk.CacheOptions{})
	b := add(t, c, version(1), tree{"model.onnx": "content 1"})
	defer b.Release()
	broken := errors.New("broken")
	for name, have := range map[string]func(context.Context, string) error{
		"error": func(_ context.Context, dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), broken)
		},
		"nothing": func(context.Context, string) error { return nil },
		"a link": func(_ context.Context, dir string) error {
			return os.Symlink("/etc/hostname", filepath.Join(dir, "model.data"))
		},
	} {
		p, err := c.Prepare(t.Context(), b, "key1", have)
		if err == nil || name == "error" && !errors.Is(err, broken) || p.Prepared != "" || p.Dir != b.Dir {
			t.Errorf("%s: %q, %v", name, p.Prepared, err)
		}
	}
	for _, folder := range []string{"prepared/*/*", "partial/*"} {
		if left, err := filepath.Glob(filepath.Join(cacheDir, folder)); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	for _, key := range []string{"", "..", "a/b", "Key"} {
		if _, err := c.Prepare(t.Context(), b, key, fill(new(atomic.Int64))); err == nil {
			t.Errorf("key %q is taken", key)
		}
	}
}

// Gateways that share a cache prepare once; one that waits gives up with its context.
func TestPreparingIsShared(t *testing.T) {
	cacheDir := t.TempDir()
	one, two := openCache(t, cacheDir, disk.CacheOptions{}), openCache(t, cacheDir, disk.CacheOptions{})
	a := add(t, one, version(1), tree{"model.onnx": "content 1"})
	defer a.Release()
	b, ok, err := two.Lookup(t.Context(), version(1))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	defer b.Release()
	var made atomic.Int64
	began, goOn := make(chan struct{}), make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() {
		_, err := one.Prepare(t.Context(), a, "key1", func(ctx context.Context, dir string) error {
			close(began)
			<-goOn
			return fill(&made)(ctx, dir)
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-began
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := two.Prepare(short, b, "key1", fill(&made)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that waits: %v", err)
	}
	both.Go(func() {
		if _, err := two.Prepare(t.Context(), b, "key1", fill(&made)); err != nil {
			t.Error(err)
		}
	})
	close(goOn)
	both.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

// What was prepared goes with its bundle, and when another key has taken its place and nobody uses it.
func TestPreparedFormsAreCleanedUp(t *testing.T) {
	now := time.Now()
	cacheDir := t.TempDir()
	open := func() *disk.Cache {
		c, err := disk.OpenCache(cacheDir, disk.CacheOptions{Keep: 1, Now: func() time.Time { now = now.Add(time.Second); return now }})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	there := func(want ...string) {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(cacheDir, "prepared", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, path := range found {
			keys = append(keys, filepath.Base(path))
		}
		if strings.Join(keys, " ") != strings.Join(want, " ") {
			t.Errorf("prepared: %v, want %v", keys, want)
		}
	}
	c := open()
	b := add(t, c, version(1), tree{"model.onnx": "content 1"})
	var made atomic.Int64
	old := prepare(t, c, b, "old", fill(&made))
	fresh := prepare(t, c, modelstore.Bundle{Version: b.Version, Dir: b.Dir, Release: func() {}}, "new", fill(&made))
	open()
	there("new", "old") // in use, both
	fresh.Release()
	open()
	there("new", "old")
	old.Release()
	open()
	there("new", "old") // another model may want the one as well as the other
	now = now.Add(6 * 24 * time.Hour)
	again := prepare(t, c, modelstore.Bundle{Version: b.Version, Dir: b.Dir, Release: func() {}}, "new", fill(&made))
	if open(); made.Load() != 2 {
		t.Errorf("made %d times, want once each", made.Load())
	}
	there("new", "old")
	now = now.Add(2 * 24 * time.Hour)
	again.Release()
	open()
	there("new") // "old" wasn't used for eight days
	now = now.Add(30 * 24 * time.Hour)
	open()
	there("new") // it was used last
	if locks, err := filepath.Glob(filepath.Join(cacheDir, "locks", "*old*")); err != nil || len(locks) > 0 {
		t.Errorf("locks of what is gone: %v, %v", locks, err)
	}
	next := add(t, c, version(2), tree{"model.onnx": "content 2"})
	defer next.Release()
	if err := c.Prune(t.Context(), b.Version.Model, []modelstore.Version{next.Version}); err != nil {
		t.Fatal(err)
	}
	there()
}
