package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modelgate/modelstore"
)

// Prune removes the versions of a model beyond the Keep that were used last (of those used at once: the highest numbers).
// Versions in keep stay, and so do those whose content is in use, here or by another gateway, or is another version's too.
func (c *Cache) Prune(ctx context.Context, model string, keep []modelstore.Version) error {
	all, _, err := c.records()
	if err != nil {
		return fmt.Errorf("prune %s: %w", model, err)
	}
	candidates := slices.DeleteFunc(all, func(r record) bool { return r.Version.Model != model || !exists(c.bundle(r.Digest)) })
	slices.SortFunc(candidates, func(a, b record) int {
		if d := b.Used.Compare(a.Used); d != 0 {
			return d
		}
		return b.Version.Compare(a.Version)
	})
	for i, r := range candidates {
		if i < c.o.Keep || slices.ContainsFunc(keep, r.Version.Same) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("prune %s: %w", model, err)
		}
		if err := c.forget(r); err != nil {
			return fmt.Errorf("prune %v: %w", r.Version, err)
		}
	}
	return wrap(c.sweep(), "clean cache folder")
}

// forget removes a record, and its bundle if that was the last record of it. It does nothing if the bundle is in use,
// or if the record is another one by now.
func (c *Cache) forget(r record) error {
	return ifUnused(c.bundleLock(r.Digest), func() error {
		key := keyOf(r.Version)
		now, ok, err := c.readRecord(key)
		if err != nil || !ok || now.Digest != r.Digest || !now.Used.Equal(r.Used) {
			return err
		}
		if err := remove(c.recordPath(key)); err != nil {
			return err
		}
		return c.discardUnnamed(r.Digest)
	})
}

// discardUnnamed removes a bundle that no record names. The caller holds its lock exclusively.
func (c *Cache) discardUnnamed(digest string) error {
	all, _, err := c.records()
	if err != nil || slices.ContainsFunc(all, func(r record) bool { return r.Digest == digest }) {
		return err
	}
	if exists(c.bundle(digest)) {
		c.log.Info("removing a bundle from the cache", "digest", digest)
	}
	return errors.Join(c.discard(c.bundle(digest)), c.discard(c.path("prepared", digest)))
}

// sweep removes what nobody will use: halves of removals and writes, bundles without a record, records without a bundle,
// old downloads, locks of nothing. One gateway sweeps at a time; if another one does so now, nothing is left to do.
func (c *Cache) sweep() error {
	return ifUnused(c.path("locks", sweepLock), func() error {
		return errors.Join(c.sweepTrash(), c.sweepTmp(), c.sweepIndex(), c.sweepBundles(), c.sweepPrepared(), c.sweepPartials(), c.sweepLocks())
	})
}

// sweepTrash finishes removals that a crash cut off. Two that remove the same folder don't disturb each other.
func (c *Cache) sweepTrash() error {
	return c.each("trash", func(name string) error { return os.RemoveAll(c.path("trash", name)) })
}

// sweepTmp removes what a crash left unwritten; what is young may be in the making.
func (c *Cache) sweepTmp() error {
	return c.each("tmp", func(name string) error {
		if newest, err := newestChange(c.path("tmp", name)); err != nil || c.o.Now().Sub(newest) < time.Hour {
			return err
		}
		return remove(c.path("tmp", name))
	})
}

// sweepIndex removes records that can't be read, or whose bundle is gone and isn't just being placed.
func (c *Cache) sweepIndex() error {
	all, bad, err := c.records()
	if err != nil {
		return err
	}
	for _, key := range bad {
		if err := remove(c.recordPath(key)); err != nil {
			return err
		}
	}
	for _, r := range all {
		if exists(c.bundle(r.Digest)) {
			continue
		}
		err := ifUnused(c.bundleLock(r.Digest), func() error {
			if exists(c.bundle(r.Digest)) {
				return nil
			}
			return remove(c.recordPath(keyOf(r.Version)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) sweepBundles() error {
	all, _, err := c.records()
	if err != nil {
		return err
	}
	named := make(map[string]bool, len(all))
	for _, r := range all {
		named[r.Digest] = true
	}
	return c.each("bundles", func(name string) error {
		if named[name] {
			return nil
		}
		return ifUnused(c.bundleLock(name), func() error { return c.discardUnnamed(name) })
	})
}

func (c *Cache) sweepPartials() error {
	return c.each("partial", func(name string) error {
		return ifUnused(c.partialLock(name), func() error {
			path := c.path("partial", name)
			if newest, err := newestChange(path); err != nil || c.o.Now().Sub(newest) < c.o.PartialAge {
				return err
			}
			c.log.Info("removing a download that nobody resumed", "folder", path)
			return c.discard(path)
		})
	})
}

// sweepLocks removes lock files of things that are gone. Whoever waits for one of them notices (see take).
func (c *Cache) sweepLocks() error {
	return c.each("locks", func(name string) error {
		thing, ok := strings.CutSuffix(name, ".lock")
		if !ok || name == sweepLock {
			return nil
		}
		path := c.bundle(thing)
		if key, ok := strings.CutPrefix(thing, "partial-"); ok {
			path = c.partial(key)
		}
		if prepared := c.preparedOf(thing); prepared != "" {
			path = prepared
		}
		if exists(path) {
			return nil
		}
		return ifUnused(c.path("locks", name), func() error {
			if exists(path) {
				return nil
			}
			return remove(c.path("locks", name))
		})
	})
}

// each calls f with the names in one of the cache's folders.
func (c *Cache) each(folder string, f func(name string) error) error {
	names, err := os.ReadDir(c.path(folder))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := f(n.Name()); err != nil {
			return err
		}
	}
	return nil
}

// ifUnused runs f with the lock held exclusively, unless somebody holds it.
func ifUnused(lockPath string, f func() error) (err error) {
	lock, err := tryExclusive(lockPath)
	if err != nil || lock == nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	return f()
}

// newestChange is when anything at or below path was written last; what disappears meanwhile counts as new, since somebody works on it.
func newestChange(path string) (newest time.Time, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return time.Now(), nil
	}
	return newest, err
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
