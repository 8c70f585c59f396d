package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

// a clock that goes on by a second each time somebody looks.
func ticking() func() time.Time {
	now := time.Now()
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func numbered(n int64) tree { return tree{"model.onnx": "graph " + strconv.FormatInt(n, 10)} }

// present lists the versions 1 to 9 of a model whose record is in the index and whose content is there, without using them.
func present(t *testing.T, c *disk.Cache, dir string, of func(int64) tree) []int64 {
	t.Helper()
	var all []int64
	for n := range int64(9) {
		if _, err := os.Stat(filepath.Join(dir, "bundles", of(n+1).digest())); err == nil {
			all = append(all, n+1)
		}
	}
	for _, n := range all {
		if !found(t, c, version(n)) {
			t.Errorf("version %d has a bundle and isn't found", n)
		}
	}
	return all
}

func TestPrune(t *testing.T) {
	for name, c := range map[string]struct {
		keep  int
		added []int64
		used  []int64 // looked up afterwards
		stay  []int64 // named to Prune
		want  []int64
	}{
		"the last three by default":  {added: []int64{1, 2, 3, 4, 5}, want: []int64{3, 4, 5}},
		"fewer than three":           {added: []int64{1, 2}, want: []int64{1, 2}},
		"what was used last":         {keep: 2, added: []int64{1, 2, 3, 4}, used: []int64{1}, want: []int64{1, 4}},
		"what must stay":             {keep: 1, added: []int64{1, 2, 3, 4}, stay: []int64{2}, want: []int64{2, 4}},
		"ten comes after nine":       {keep: 1, added: []int64{8, 9}, want: []int64{9}},
		"an unknown one to stay":     {keep: 1, added: []int64{1, 2}, stay: []int64{7}, want: []int64{2}},
		"nothing is there":           {keep: 1},
		"an older one is added last": {keep: 1, added: []int64{5, 2}, want: []int64{2}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cache := openCache(t, dir, disk.CacheOptions{Keep: c.keep, Now: ticking()})
			for _, n := range c.added {
				add(t, cache, version(n), numbered(n))
			}
			for _, n := range c.used {
				found(t, cache, version(n))
			}
			var stay []modelstore.Version
			for _, n := range c.stay {
				stay = append(stay, version(n))
			}
			if err := cache.Prune(t.Context(), "text", stay); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, present(t, cache, dir, numbered)); d != "" {
				t.Error("left (-want +got):", d)
			}
			if records := names(t, dir, "index"); len(records) != len(c.want) {
				t.Errorf("%d records for %d versions", len(records), len(c.want))
			}
		})
	}
}

func TestPruneLeavesOtherModelsAlone(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, disk.CacheOptions{Keep: 1, Now: ticking()})
	video := version(1)
	video.Model = "video"
	add(t, c, video, numbered(1))
	add(t, c, version(1), numbered(1))
	add(t, c, version(2), numbered(2))
	if err := c.Prune(t.Context(), "text", nil); err != nil {
		t.Fatal(err)
	}
	if found(t, c, version(1)) {
		t.Error("version 1 is still found")
	}
	if !found(t, c, video) {
		t.Error("another model's version with the same content is gone")
	}
}

func TestPruneNeverTakesWhatAnotherGatewayUses(t *testing.T) {
	dir := t.TempDir()
	mine, other := openCache(t, dir, disk.CacheOptions{Keep: 1, Now: ticking()}), openCache(t, dir, disk.CacheOptions{})
	b, err := other.Add(t.Context(), version(1), numbered(1).fetch, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(2); n < 5; n++ {
		add(t, mine, version(n), numbered(n))
		if err := mine.Prune(t.Context(), "text", nil); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]int64{1, 4}, present(t, other, dir, numbered)); d != "" {
		t.Error("left (-want +got):", d)
	}
	b.Release()
	b.Release() // twice is no harm
	add(t, mine, version(5), numbered(5))
	if err := mine.Prune(t.Context(), "text", nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int64{5}, present(t, other, dir, numbered)); d != "" {
		t.Error("left once it was released (-want +got):", d)
	}
}

func TestPruneEndsWithTheContext(t *testing.T) {
	c := openCache(t, t.TempDir(), disk.CacheOptions{Keep: 1, Now: ticking()})
	add(t, c, version(1), numbered(1))
	add(t, c, version(2), numbered(2))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Prune(ctx, "text", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestOpenSweepsOrphans(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, disk.CacheOptions{})
	add(t, c, version(1), numbered(1))
	inUse, err := c.Add(t.Context(), version(2), numbered(2).fetch, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.Release()
	old := time.Now().Add(-48 * time.Hour)
	put := func(content string, age time.Time, path ...string) {
		t.Helper()
		p := filepath.Join(append([]string{dir}, path...)...)
		err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(content), 0o600),
			os.Chtimes(p, age, age), os.Chtimes(filepath.Dir(p), age, age))
		if err != nil {
			t.Fatal(err)
		}
	}
	put("x", time.Now(), "trash", "half-removed", "model.onnx")
	put("x", time.Now(), "bundles", sum("nobody's"), "model.onnx")
	put("{}", time.Now(), "index", sum("garbage")+".json")
	put("x", old, "tmp", ".old123")
	put("x", time.Now(), "tmp", ".young123")
	put("x", time.Now(), "partial", sum("young"), "half")
	put("x", old, "partial", sum("old"), "half")
	put("", old, "locks", sum("gone")+".lock")
	put("", old, "locks", "partial-"+sum("gone")+".lock")

	openCache(t, dir, disk.CacheOptions{})
	want := map[string][]string{
		"trash": nil, "tmp": {".young123"}, "partial": {sum("young")},
		"bundles": {numbered(1).digest(), numbered(2).digest()},
		"locks":   {numbered(1).digest() + ".lock", numbered(2).digest() + ".lock", "sweep.lock", "partial-" + sum("young") + ".lock"},
	}
	for folder, w := range want {
		slices.Sort(w)
		if d := cmp.Diff(w, names(t, dir, folder)); d != "" {
			t.Errorf("%s (-want +got): %s", folder, d)
		}
	}
	if n := len(names(t, dir, "index")); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	if !found(t, c, version(1)) || !found(t, c, version(2)) {
		t.Error("a version is gone")
	}
}

func TestSweepLeavesADownloadInProgressAlone(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, disk.CacheOptions{})
	b, err := c.Add(t.Context(), version(1), func(ctx context.Context, partial string) error {
		if err := numbered(1).fetch(ctx, partial); err != nil {
			return err
		}
		// A gateway starts whose clock is far ahead, so that everything looks old to it.
		_, err := disk.OpenCache(dir, disk.CacheOptions{Now: func() time.Time { return time.Now().Add(1000 * time.Hour) }})
		return err
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Release()
}
