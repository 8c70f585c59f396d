package disk_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

var small = tree{"model.onnx": "graph", "model/data/weights.bin": strings.Repeat("w", 3<<20), "config.json": "{}", "empty": ""}

func TestAddMakesAVerifiedReadOnlyBundle(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, disk.CacheOptions{})
	phases := map[string]int{}
	var fetched os.FileInfo
	b, err := c.Add(t.Context(), version(1), func(ctx context.Context, partial string) error {
		if err := small.fetch(ctx, partial); err != nil {
			return err
		}
		if seen := names(t, dir, "bundles"); len(seen) > 0 {
			t.Errorf("seen before it is complete: %v", seen)
		}
		var err error
		fetched, err = os.Stat(filepath.Join(partial, "model.onnx"))
		return err
	}, func(phase string, _ time.Duration) { phases[phase]++ })
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if info, err := os.Stat(filepath.Join(b.Dir, "model.onnx")); err != nil || !os.SameFile(info, fetched) {
		t.Errorf("model.onnx is a copy of what was fetched, error %v; want it moved, in one step", err)
	}
	got, err := readTree(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(small, got); d != "" {
		t.Error("content (-want +got):", d)
	}
	if b.Version.Digest != small.digest() || !b.Version.Same(version(1)) {
		t.Errorf("bundle is %+v, want version 1 with digest %s", b.Version, small.digest())
	}
	if d := cmp.Diff(map[string]int{"fetch": 1, "verify": 1}, phases); d != "" {
		t.Error("phases (-want +got):", d)
	}
	for name := range small {
		info, err := os.Stat(filepath.Join(b.Dir, name))
		if err != nil || info.Mode().Perm() != 0o400 {
			t.Errorf("%s: mode %v, error %v; want 0400", name, info.Mode(), err)
		}
	}
	for _, folder := range []string{"partial", "trash", "tmp"} {
		if left := names(t, dir, folder); len(left) > 0 {
			t.Errorf("left in %s: %v", folder, left)
		}
	}
}

func TestAddFetchesOnlyWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, disk.CacheOptions{})
	first := add(t, c, version(1), small)

	t.Run("the same version", func(t *testing.T) {
		b, err := c.Add(t.Context(), version(1), neverFetch, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	})
	t.Run("the same version after a restart", func(t *testing.T) {
		b, err := openCache(t, dir, disk.CacheOptions{}).Add(t.Context(), version(1), neverFetch, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	})
	t.Run("a model made again", func(t *testing.T) {
		again := version(1)
		again.Created = again.Created.Add(time.Hour)
		b := add(t, c, again, tree{"model.onnx": "other"})
		if b.Dir == first.Dir {
			t.Error("took the bundle of the deleted model of the same name and number")
		}
	})
	t.Run("another version with equal content shares the folder", func(t *testing.T) {
		if b := add(t, c, version(2), small); b.Dir != first.Dir {
			t.Errorf("in %s, want %s", b.Dir, first.Dir)
		}
		if left := names(t, dir, "partial"); len(left) > 0 {
			t.Errorf("left in partial: %v", left)
		}
	})
}

func TestAddResumes(t *testing.T) {
	cut := errors.New("connection reset")
	for name, c := range map[string]struct {
		err    error
		change func(t *testing.T, owner string)
		resume bool
	}{
		"after a cut-off download":      {err: cut, resume: true},
		"after a full disk":             {err: &fs.PathError{Op: "write", Path: "model.onnx", Err: syscall.ENOSPC}, resume: true},
		"not after a permanent failure": {err: modelstore.Permanent(cut)},
		"not after the machine went down": {err: cut, change: func(t *testing.T, owner string) {
			b, err := os.ReadFile(owner)
			if err != nil {
				t.Fatal(err)
			}
			i := strings.Index(string(b), `"boot":"`) + len(`"boot":"`)
			if err := os.WriteFile(owner, append(b[:i:i], `another"}`...), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		"not what nobody owns": {err: cut, change: func(t *testing.T, owner string) {
			if err := os.Remove(owner); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cache := openCache(t, dir, disk.CacheOptions{})
			_, err := cache.Add(t.Context(), version(1), func(ctx context.Context, dir string) error {
				return errors.Join(tree{"half": "ha"}.fetch(ctx, dir), c.err)
			}, nil)
			if !errors.Is(err, c.err) || errors.Is(err, modelstore.ErrPermanent) != errors.Is(c.err, modelstore.ErrPermanent) {
				t.Fatalf("error %v, want %v and as permanent as that", err, c.err)
			}
			if c.change != nil {
				owners, _ := filepath.Glob(filepath.Join(dir, "partial", "*", "owner.json"))
				if len(owners) != 1 {
					t.Fatalf("owners of partial downloads: %v", owners)
				}
				c.change(t, owners[0])
			}
			resumed := false
			b, err := openCache(t, dir, disk.CacheOptions{}).Add(t.Context(), version(1), func(ctx context.Context, dir string) error {
				content, err := os.ReadFile(filepath.Join(dir, "half"))
				resumed = err == nil && string(content) == "ha"
				return tree{"half": "half"}.fetch(ctx, dir)
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			b.Release()
			if resumed != c.resume {
				t.Errorf("resumed: %v, want %v", resumed, c.resume)
			}
		})
	}
}

func TestTwoGatewaysFetchAVersionOnce(t *testing.T) {
	dir := t.TempDir()
	var fetches atomic.Int32
	var group sync.WaitGroup
	for range 4 {
		c := openCache(t, dir, disk.CacheOptions{})
		for range 2 {
			group.Go(func() {
				b, err := c.Add(t.Context(), version(1), func(ctx context.Context, dir string) error {
					fetches.Add(1)
					return small.fetch(ctx, dir)
				}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				b.Release()
			})
		}
	}
	group.Wait()
	if n := fetches.Load(); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
}

func TestWaitForAnotherGatewayEndsWithTheContext(t *testing.T) {
	dir := t.TempDir()
	a, b := openCache(t, dir, disk.CacheOptions{}), openCache(t, dir, disk.CacheOptions{})
	fetching, goOn := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		bundle, err := a.Add(t.Context(), version(1), func(ctx context.Context, dir string) error {
			close(fetching)
			<-goOn
			return small.fetch(ctx, dir)
		}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		bundle.Release()
	})
	<-fetching
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Add(ctx, version(1), neverFetch, nil)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, modelstore.ErrPermanent) {
		t.Errorf("error %v, want the context's", err)
	}
	close(goOn)
	group.Wait()
	if !found(t, b, version(1)) {
		t.Error("the other gateway's version isn't found")
	}
}

func TestVersionsWithEqualContentAddedAtOnce(t *testing.T) {
	dir := t.TempDir()
	var group sync.WaitGroup
	for n := range int64(6) {
		c := openCache(t, dir, disk.CacheOptions{})
		group.Go(func() {
			b, err := c.Add(t.Context(), version(n+1), small.fetch, nil)
			if err != nil {
				t.Error(err)
				return
			}
			b.Release()
		})
	}
	group.Wait()
	digests, err := checkBundles(dir)
	if d := cmp.Diff([]string{small.digest()}, digests); d != "" || err != nil {
		t.Errorf("bundles (-want +got): %s, error %v", d, err)
	}
}

func TestAddHonoursContextWhileHashing(t *testing.T) {
	c := openCache(t, t.TempDir(), disk.CacheOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Add(ctx, version(1), func(ctx context.Context, dir string) error {
		defer cancel()
		return small.fetch(ctx, dir)
	}, nil)
	if !errors.Is(err, context.Canceled) || errors.Is(err, modelstore.ErrPermanent) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestContentThatChangedUnderAVersionIsRefused(t *testing.T) {
	c := openCache(t, t.TempDir(), disk.CacheOptions{})
	served := version(1)
	served.Digest = tree{"model.onnx": "as served"}.digest()
	_, err := c.Add(t.Context(), served, small.fetch, nil)
	if !errors.Is(err, modelstore.ErrPermanent) || !strings.Contains(err.Error(), served.Digest) || !strings.Contains(err.Error(), small.digest()) {
		t.Errorf("error %v, want a permanent one with both digests", err)
	}
	add(t, c, version(1), small)
	if found(t, c, served) {
		t.Error("found, with content other than what was served")
	}
}

// What the registry declares is what is served, or nothing is.
func TestContentThatIsNotWhatWasPublishedIsRefused(t *testing.T) {
	c := openCache(t, t.TempDir(), disk.CacheOptions{})
	v := version(1)
	for _, declared := range []string{tree{"model.onnx": "as published"}.digest(), "(the tag is there twice)", strings.Repeat("x", 10_000)} {
		v.Declared = declared
		_, err := c.Add(t.Context(), v, small.fetch, nil)
		if !errors.Is(err, modelstore.ErrPermanent) || !strings.Contains(err.Error(), declared[:20]) || !strings.Contains(err.Error(), small.digest()) || len(err.Error()) > 600 {
			t.Errorf("error %v, want a permanent one with both digests", err)
		}
	}
	v.Declared = small.digest()
	if b := add(t, c, v, small); b.Version.Declared != v.Declared {
		t.Errorf("%+v", b.Version)
	}
	if !found(t, c, v) || !found(t, c, version(1)) {
		t.Error("not found, with the content that was published")
	}
	// A version that was fetched before somebody changed the tag isn't served from the cache either.
	v.Declared = tree{"model.onnx": "as published"}.digest()
	if found(t, c, v) {
		t.Error("found, with content other than what is declared now")
	}
}

func TestLookupDetectsDamage(t *testing.T) {
	for name, damage := range map[string]func(files string) error{
		"one byte differs": func(d string) error { return overwrite(filepath.Join(d, "model.onnx"), "grapH") },
		"a file is cut":    func(d string) error { return overwrite(filepath.Join(d, "model.onnx"), "gra") },
		"a file is gone":   func(d string) error { return os.Remove(filepath.Join(d, "config.json")) },
		"a file too many":  func(d string) error { return overwrite(filepath.Join(d, "model", "extra.bin"), "x") },
		"a file is a link": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "config.json")), os.Symlink("model.onnx", filepath.Join(d, "config.json")))
		},
		"a file has a second name": func(d string) error {
			return os.Link(filepath.Join(d, "config.json"), filepath.Join(filepath.Dir(d), "second"))
		},
		"the files are gone":      os.RemoveAll,
		"the entries are gone":    func(d string) error { return os.Remove(filepath.Join(filepath.Dir(d), "entries.json")) },
		"the entries are garbage": func(d string) error { return overwrite(filepath.Join(filepath.Dir(d), "entries.json"), "[{") },
		"the entries differ":      func(d string) error { return overwrite(filepath.Join(filepath.Dir(d), "entries.json"), "[]") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, disk.CacheOptions{})
			b := add(t, c, version(1), small)
			if err := damage(b.Dir); err != nil {
				t.Fatal(err)
			}
			if found(t, c, version(1)) {
				t.Fatal("found, though damaged")
			}
			if left := names(t, dir, "bundles"); len(left) > 0 {
				t.Errorf("a damaged bundle stayed: %v", left)
			}
			add(t, c, version(1), small)
			if !found(t, c, version(1)) {
				t.Error("not found after it was fetched again")
			}
		})
	}
}

func TestDamagedBundleInUseStays(t *testing.T) {
	dir := t.TempDir()
	c, other := openCache(t, dir, disk.CacheOptions{}), openCache(t, dir, disk.CacheOptions{})
	b, err := other.Add(t.Context(), version(1), small.fetch, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := overwrite(filepath.Join(b.Dir, "config.json"), "[]"); err != nil {
		t.Fatal(err)
	}
	if found(t, c, version(1)) {
		t.Error("found, though damaged")
	}
	if left := names(t, dir, "bundles"); len(left) != 1 {
		t.Errorf("bundles: %v; the other gateway's is gone", left)
	}
	if _, err := c.Add(t.Context(), version(1), small.fetch, nil); err == nil || errors.Is(err, modelstore.ErrPermanent) {
		t.Errorf("error %v, want one to be retried", err)
	}
	b.Release()
	add(t, c, version(1), small)
	if _, err := checkBundles(dir); err != nil {
		t.Error(err)
	}
}

func TestDamagedContentOfAnotherVersionIsReplaced(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, disk.CacheOptions{})
	b := add(t, c, version(1), small)
	if err := overwrite(filepath.Join(b.Dir, "config.json"), "[]"); err != nil {
		t.Fatal(err)
	}
	add(t, c, version(2), small)
	if _, err := checkBundles(dir); err != nil {
		t.Error(err)
	}
	if !found(t, c, version(1)) {
		t.Error("version 1 has the content again but isn't found")
	}
}

func TestRestartServesThoughNothingCanBeWritten(t *testing.T) {
	dir := t.TempDir()
	add(t, openCache(t, dir, disk.CacheOptions{}), version(1), small)
	// A file where the folder for temporary files was: every write fails, as on a full disk.
	c := openCache(t, dir, disk.CacheOptions{})
	if err := errors.Join(os.Remove(filepath.Join(dir, "tmp")), overwrite(filepath.Join(dir, "tmp"), "")); err != nil {
		t.Fatal(err)
	}
	if !found(t, c, version(1)) {
		t.Error("not found")
	}
	if _, err := c.Add(t.Context(), version(2), small.fetch, nil); err == nil || errors.Is(err, modelstore.ErrPermanent) {
		t.Errorf("error %v, want one to be retried", err)
	}
}

// overwrite replaces a file's content in place, as a fault would.
func overwrite(path, content string) error {
	if err := os.Chmod(path, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o600)
}
