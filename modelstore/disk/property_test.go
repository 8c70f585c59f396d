package disk_test

import (
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

// twoGateways is what the property test does things to: two caches on one folder, and what must be true of it.
type twoGateways struct {
	dir    string
	caches [2]*disk.Cache
	serves *modelstore.Version // in keep of every Prune
	held   []modelstore.Bundle
}

// content of version n: every third has the same.
func shared(n int64) tree { return numbered(n % 3) }

func (g *twoGateways) cache(t *rapid.T) *disk.Cache {
	return rapid.SampledFrom(g.caches[:]).Draw(t, "gateway")
}

func (g *twoGateways) add(t *rapid.T) {
	v := version(rapid.Int64Range(1, 7).Draw(t, "version"))
	b, err := g.cache(t).Add(t.Context(), v, shared(v.Number).fetch, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.held = append(g.held, b)
	g.serves = &v
}

func (g *twoGateways) release(t *rapid.T) {
	if len(g.held) == 0 {
		return
	}
	i := rapid.IntRange(0, len(g.held)-1).Draw(t, "which")
	g.held[i].Release()
	g.held = append(g.held[:i], g.held[i+1:]...)
}

func (g *twoGateways) prune(t *rapid.T) {
	var keep []modelstore.Version
	if g.serves != nil {
		keep = append(keep, *g.serves)
	}
	if err := g.cache(t).Prune(t.Context(), "text", keep); err != nil {
		t.Fatal(err)
	}
}

func (g *twoGateways) lookup(t *rapid.T) {
	b, ok, err := g.cache(t).Lookup(t.Context(), version(rapid.Int64Range(1, 7).Draw(t, "version")))
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		b.Release()
	}
}

func (g *twoGateways) restart(t *rapid.T) {
	c, err := disk.OpenCache(g.dir, disk.CacheOptions{Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	g.caches[rapid.IntRange(0, 1).Draw(t, "which")] = c
}

// check is run after every step.
func (g *twoGateways) check(t *rapid.T) {
	if _, err := checkBundles(g.dir); err != nil {
		t.Fatal(err)
	}
	for _, b := range g.held {
		if err := sameTree(b.Dir, shared(b.Version.Number)); err != nil {
			t.Fatalf("%v, in use: %v", b.Version, err)
		}
	}
	if g.serves == nil {
		return
	}
	for i, c := range g.caches {
		b, ok, err := c.Lookup(t.Context(), *g.serves)
		if err != nil || !ok {
			t.Fatalf("gateway %d: found %v: %v, error %v", i, *g.serves, ok, err)
		}
		b.Release()
	}
}

func sameTree(dir string, want tree) error {
	got, err := readTree(dir)
	if err == nil && got.digest() != want.digest() {
		err = fmt.Errorf("%s has other content", dir)
	}
	return err
}

func TestWhatServesIsAlwaysOnDisk(t *testing.T) {
	parent := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(parent, "")
		if err != nil {
			t.Fatal(err)
		}
		g := &twoGateways{dir: dir}
		for i := range g.caches {
			if g.caches[i], err = disk.OpenCache(dir, disk.CacheOptions{Keep: 1}); err != nil {
				t.Fatal(err)
			}
		}
		defer func() {
			for _, b := range g.held {
				b.Release()
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"add": g.add, "release": g.release, "prune": g.prune, "lookup": g.lookup, "restart": g.restart, "": g.check,
		})
	})
}
