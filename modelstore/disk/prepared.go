package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"modelgate/modelstore"
)

// preparedKey is a name that can't be taken for another folder's.
var preparedKey = regexp.MustCompile(`^[a-z0-9]{1,64}$`)

func (c *Cache) prepared(digest, key string) string { return c.path("prepared", digest, key) }

func preparedName(digest, key string) string { return "prepared-" + digest + "-" + key }

// Prepare gives b back with Prepared set to the folder of what was made of it under key, which says all that the making depended on.
// If it isn't there, or is damaged, have writes it into a private folder; it is then made durable and read-only, and visible by a rename.
//
// Of gateways that prepare the same at once one does and the others wait, as long as ctx allows. What is there stays until b is
// released, and is locked: on an error b is as it was.
func (c *Cache) Prepare(ctx context.Context, b modelstore.Bundle, key string, have func(ctx context.Context, dir string) error) (modelstore.Bundle, error) {
	digest := b.Version.Digest
	if !isDigest(digest) || !preparedKey.MatchString(key) {
		return b, fmt.Errorf("prepare %v: digest %.80q or key %.80q isn't one", b.Version, digest, key)
	}
	use, err := waitShared(ctx, c.path("locks", preparedName(digest, key)+".lock"))
	if err != nil {
		return b, fmt.Errorf("prepare %v: %w", b.Version, err)
	}
	if err := c.havePrepared(ctx, digest, key, have); err != nil {
		return b, errors.Join(fmt.Errorf("prepare %v: %w", b.Version, err), use.Unlock())
	}
	release := b.Release
	b.Prepared = filepath.Join(c.prepared(digest, key), filesName)
	b.Release = sync.OnceFunc(func() {
		if err := use.Unlock(); err != nil {
			c.log.Error("release what was prepared; it stays locked until this gateway ends", "version", b.Version.String(), "error", err)
		}
		release()
	})
	return b, nil
}

// havePrepared sees to it that what key stands for is there and whole. The caller holds its lock, shared: no clean-up removes it.
func (c *Cache) havePrepared(ctx context.Context, digest, key string, have func(ctx context.Context, dir string) error) error {
	if state, err := c.checkPrepared(ctx, digest, key); err != nil || state == intact {
		return err
	}
	partial := preparedName(digest, key)
	making, err := waitExclusive(ctx, c.partialLock(partial))
	if err != nil {
		return err
	}
	defer func() { _ = making.Unlock() }() // its file goes with the next sweep
	state, err := c.checkPrepared(ctx, digest, key)
	if err != nil || state == intact {
		return err
	}
	// What was cut off isn't taken up again: it can't be told how far it is.
	if err := errors.Join(c.discard(c.partial(partial)), makeFolders(c.partial(partial), filesName)); err != nil {
		return err
	}
	if err := have(ctx, filepath.Join(c.partial(partial), filesName)); err != nil {
		return errors.Join(err, c.discard(c.partial(partial)))
	}
	err = c.placePrepared(ctx, c.partial(partial), digest, key)
	if err != nil {
		err = errors.Join(err, c.discard(c.partial(partial)))
	}
	return err
}

// placePrepared hashes what was made, makes it durable and renames it to its place. What is damaged there makes way: whoever has it
// mapped keeps it.
func (c *Cache) placePrepared(ctx context.Context, partial, digest, key string) error {
	files, err := c.listPrepared(ctx, filepath.Join(partial, filesName))
	if err != nil {
		return err
	}
	if err := c.seal(partial, files); err != nil {
		return fmt.Errorf("make durable: %w", err)
	}
	if err := errors.Join(c.discard(c.prepared(digest, key)), makeFolders(c.path("prepared"), digest)); err != nil {
		return err
	}
	if err := os.Rename(partial, c.prepared(digest, key)); err != nil {
		return err
	}
	return errors.Join(syncDir(c.path("prepared", digest)), syncDir(c.path("prepared")), syncDir(c.path("partial")))
}

func (c *Cache) listPrepared(ctx context.Context, dir string) ([]file, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer closeRoot(root)
	files, err := scan(root, c.lim)
	if err != nil {
		return nil, err
	}
	return files, hashAll(ctx, root, files)
}

// checkPrepared reads all of it: a bit that isn't what was written would give other scores, and nobody would know.
func (c *Cache) checkPrepared(ctx context.Context, digest, key string) (condition, error) {
	dir := c.prepared(digest, key)
	if !exists(dir) {
		return missing, nil
	}
	list, err := readPreparedList(dir)
	if err == nil {
		err = verifyAs(ctx, filepath.Join(dir, filesName), list, limits{len(list) + 1, math.MaxInt64})
	}
	switch {
	case err == nil:
		now := c.o.Now()
		if err := os.Chtimes(dir, now, now); err != nil {
			c.log.Warn("note that what was prepared is used", "folder", dir, "error", err)
		}
		return intact, nil
	case ctx.Err() != nil:
		return damaged, ctx.Err()
	case isViolation(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP):
		c.log.Warn("what was prepared of a bundle is damaged; it is made again", "folder", dir, "error", err)
		return damaged, nil
	}
	return damaged, err
}

func readPreparedList(dir string) (list []file, err error) {
	content, err := os.ReadFile(filepath.Join(dir, entriesName))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, violation("%s: %w", entriesName, err)
	}
	return list, nil
}

// preparedFor is how long what was prepared stays unused. One bundle may have several keys that are all wanted: two models of the same
// content and other settings, or gateways on unlike machines that share the cache.
const preparedFor = 7 * 24 * time.Hour

// sweepPrepared removes what was prepared of bundles that are gone, and of the others what wasn't used for long and isn't the one that
// was used last: what another version of this program, or of the engine, has made.
func (c *Cache) sweepPrepared() error {
	return c.each("prepared", func(digest string) error {
		if exists(c.bundle(digest)) {
			return c.sweepKeys(digest)
		}
		return ifUnused(c.bundleLock(digest), func() error {
			if exists(c.bundle(digest)) {
				return nil
			}
			return c.discard(c.path("prepared", digest))
		})
	})
}

func (c *Cache) sweepKeys(digest string) error {
	used := map[string]time.Time{}
	var keys []string
	err := c.each(filepath.Join("prepared", digest), func(key string) error {
		st, err := os.Stat(c.prepared(digest, key))
		if err == nil {
			used[key] = st.ModTime()
			keys = append(keys, key)
		}
		return nil // one that is gone meanwhile needs no removal
	})
	if err != nil {
		return err
	}
	slices.SortFunc(keys, func(a, b string) int { return used[b].Compare(used[a]) })
	for i, key := range keys {
		if i == 0 || c.o.Now().Sub(used[key]) < preparedFor {
			continue
		}
		err := ifUnused(c.path("locks", preparedName(digest, key)+".lock"), func() error {
			c.log.Info("removing what was prepared for another engine or other settings", "digest", digest, "key", key)
			return c.discard(c.prepared(digest, key))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// preparedOf is the folder that a lock's name belongs to; "" if it is no such lock.
func (c *Cache) preparedOf(lock string) string {
	name, ok := strings.CutPrefix(lock, "prepared-")
	digest, key, has := strings.Cut(name, "-")
	if !ok || !has {
		return ""
	}
	return c.prepared(digest, key)
}

// Free is how many bytes may still be written to the cache's disk.
func (c *Cache) Free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(c.dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", c.dir, err)
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(st.Bsize))) * int64(st.Bsize), nil //nolint:unconvert // types differ between systems
}
