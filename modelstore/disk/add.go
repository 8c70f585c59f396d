package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"modelgate/modelstore"
)

// Add returns v's bundle; if it isn't there yet, fetch writes its files and Add verifies them and makes them visible by rename.
//
// A fetch that fails, or is cut off by a crash, leaves its files for the next attempt, which finds them in its folder; after a
// restart of the machine they are dropped, since they may have lost content. Of gateways that add the same version at once one
// fetches and the others wait for it, as long as ctx allows. Errors about the artifact itself are permanent (modelstore.ErrPermanent)
// and remove what was fetched: so is content that differs from v.Digest, if that is known from earlier, or from v.Declared. A full disk
// is not permanent.
func (c *Cache) Add(ctx context.Context, v modelstore.Version, fetch func(ctx context.Context, dir string) error,
	timing func(phase string, d time.Duration),
) (_ modelstore.Bundle, err error) {
	if err := checkVersion(v); err != nil {
		return modelstore.Bundle{}, modelstore.Permanent(fmt.Errorf("add %v to the cache: %w", v, err))
	}
	if timing == nil {
		timing = func(string, time.Duration) {}
	}
	lock, err := waitExclusive(ctx, c.partialLock(keyOf(v)))
	if err != nil {
		return modelstore.Bundle{}, fmt.Errorf("add %v to the cache: wait for a download of the same version: %w", v, err)
	}
	defer func() {
		if err := lock.Unlock(); err != nil {
			c.log.Error("unlock a download; it stays locked until this gateway ends", "version", v.String(), "error", err)
		}
	}()
	start := time.Now()
	if b, ok, err := c.Lookup(ctx, v); ok || err != nil {
		timing("verify", time.Since(start))
		return b, err
	}
	b, err := c.fetchAndPublish(ctx, v, fetch, timing)
	if isViolation(err) {
		// What was fetched is wrong: it must not be resumed.
		err = errors.Join(err, c.discard(c.partial(keyOf(v))))
	}
	return b, wrap(err, "add %v to the cache", v)
}

func (c *Cache) fetchAndPublish(ctx context.Context, v modelstore.Version, fetch func(ctx context.Context, dir string) error,
	timing func(phase string, d time.Duration),
) (modelstore.Bundle, error) {
	partial := c.partial(keyOf(v))
	if err := c.openPartial(partial, v); err != nil {
		return modelstore.Bundle{}, err
	}
	dir := filepath.Join(partial, filesName)
	start := time.Now()
	err := fetch(ctx, dir)
	timing("fetch", time.Since(start))
	if err != nil {
		return modelstore.Bundle{}, err
	}
	start = time.Now()
	defer func() { timing("verify", time.Since(start)) }()
	files, err := verify(ctx, dir, c.lim)
	if err != nil {
		return modelstore.Bundle{}, fmt.Errorf("verify: %w", err)
	}
	digest := digestOf(files)
	if v.Digest != "" && v.Digest != digest {
		return modelstore.Bundle{}, violation("its content has changed since it was served: the digest is %s and was %s; "+
			"versions are immutable, so register the new content as a new version", digest, v.Digest)
	}
	if v.Declared != "" && v.Declared != digest {
		return modelstore.Bundle{}, violation("its files aren't those that were published: their digest is %s, the registry says %.100q; "+
			"publish it again as a new version", digest, v.Declared)
	}
	if err := c.seal(partial, files); err != nil {
		return modelstore.Bundle{}, fmt.Errorf("make durable: %w", err)
	}
	return c.publish(ctx, v, partial, digest)
}

func (c *Cache) partial(key string) string     { return c.path("partial", key) }
func (c *Cache) partialLock(key string) string { return c.path("locks", "partial-"+key+".lock") }

// An owner says whose the files of a partial download are. It lies beside them.
type owner struct {
	Version modelstore.Version `json:"version"`
	Boot    string             `json:"boot"` // when they were written; files that aren't synced don't outlive a power failure
}

// openPartial makes a folder to fetch into, or makes the one of an earlier attempt ready to be resumed.
func (c *Cache) openPartial(partial string, v modelstore.Version) error {
	path := filepath.Join(partial, ownerName)
	var o owner
	content, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(content, &o)
	}
	if err != nil || !o.Version.Same(v) || o.Boot != c.boot {
		if err := c.discard(partial); err != nil {
			return err
		}
	}
	if err := makeFolders(partial, filesName); err != nil {
		return err
	}
	if content, err = json.Marshal(owner{v, c.boot}); err != nil {
		return err
	}
	if err := replaceFile(path, c.path("tmp"), content); err != nil {
		return err
	}
	return makeWritable(filepath.Join(partial, filesName))
}

// makeWritable undoes seal, for an attempt that was cut off after it.
func makeWritable(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer closeRoot(root)
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return root.Chmod(p, 0o600)
	})
}

// seal makes the files read-only, writes their list beside them and syncs everything, so that a rename is all that is left to do.
func (c *Cache) seal(partial string, files []file) error {
	root, err := os.OpenRoot(filepath.Join(partial, filesName))
	if err != nil {
		return err
	}
	defer closeRoot(root)
	for _, f := range files {
		if err := chmodAndSync(root, filepath.FromSlash(f.Path), 0o400); err != nil {
			return err
		}
	}
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return chmodAndSync(root, p, 0o700)
	})
	if err != nil {
		return err
	}
	list, err := json.MarshalIndent(files, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(partial, entriesName), c.path("tmp"), append(list, '\n'))
}

func chmodAndSync(root *os.Root, path string, mode fs.FileMode) error {
	f, err := root.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(mode), f.Sync(), f.Close())
}

// publish renames a sealed download into place, or drops it if another version has brought the same content.
func (c *Cache) publish(ctx context.Context, v modelstore.Version, partial, digest string) (modelstore.Bundle, error) {
	if err := c.removeDamaged(ctx, digest); err != nil {
		return modelstore.Bundle{}, err
	}
	lock, err := waitShared(ctx, c.bundleLock(digest))
	if err != nil {
		return modelstore.Bundle{}, err
	}
	if err := c.place(ctx, v, partial, digest); err != nil {
		return modelstore.Bundle{}, errors.Join(err, lock.Unlock())
	}
	return c.held(v, digest, lock), nil
}

// place puts the bundle and its record where they belong. The caller holds the bundle's lock, shared, so that no clean-up removes either.
func (c *Cache) place(ctx context.Context, v modelstore.Version, partial, digest string) error {
	state, err := c.check(ctx, digest)
	if err != nil {
		return err
	}
	if state == damaged {
		return fmt.Errorf("bundle %s is damaged, and in use: it is replaced when the gateways that serve it have swapped or ended", c.bundle(digest))
	}
	// The record comes first: if we die now, it names a bundle that isn't there, which is the same as no record;
	// a bundle that no record names would have to be fetched again.
	if err := c.writeRecord(v, digest); err != nil {
		return err
	}
	if state == intact {
		return c.discard(partial)
	}
	err = os.Rename(partial, c.bundle(digest))
	if errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTEMPTY) {
		// Another version with the same content was faster; what it placed was verified a moment ago.
		return c.discard(partial)
	}
	if err != nil {
		return err
	}
	return errors.Join(remove(filepath.Join(c.bundle(digest), ownerName)), syncDir(c.path("bundles")), syncDir(c.path("partial")))
}
