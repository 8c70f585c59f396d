package disk

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"modelgate/modelstore"
)

const (
	entriesName = "entries.json"
	filesName   = "files"
	ownerName   = "owner.json"
	sweepLock   = "sweep.lock"
)

// CacheOptions are the settings of a cache; the zero value is good.
type CacheOptions struct {
	Keep       int              // how many versions of a model Prune leaves, those that must stay aside; 0: 3
	MaxFiles   int              // of one artifact; 0: 10,000
	MaxBytes   int64            // of one artifact; 0: 64 GiB
	PartialAge time.Duration    // a download that nobody resumed for so long is removed; 0: 24 hours
	Logger     *slog.Logger     // nil: silent
	Now        func() time.Time // nil: time.Now; says when a version was used last
}

func (o CacheOptions) withDefaults() CacheOptions {
	if o.Keep <= 0 {
		o.Keep = 3
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = 10_000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 30
	}
	if o.PartialAge <= 0 {
		o.PartialAge = 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Logger = orDiscard(o.Logger)
	return o
}

// A Cache keeps bundles on disk, by digest; several gateways may share its folder.
// It implements modelstore.Cache and is safe for concurrent use. It holds nothing open but the bundles that are in use.
type Cache struct {
	dir  string
	o    CacheOptions
	lim  limits
	log  *slog.Logger
	boot string // names the machine's present run; "" if unknown
}

var _ modelstore.Cache = (*Cache)(nil)

// OpenCache opens a cache folder, creating it if need be, and removes what died gateways left, unless another gateway does so now.
func OpenCache(dir string, o CacheOptions) (*Cache, error) {
	o = o.withDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	if err := makeFolders(dir, "bundles", "prepared", "index", "partial", "locks", "tmp", "trash"); err != nil {
		return nil, fmt.Errorf("create cache folder (set MODELGATE_CACHE_DIR to a folder that can be written): %w", err)
	}
	c := &Cache{dir: dir, o: o, lim: limits{o.MaxFiles, o.MaxBytes}, log: o.Logger, boot: bootID()}
	if err := c.sweep(); err != nil {
		// What can't be removed takes room but stops nobody from serving.
		c.log.Warn("clean up the cache folder", "folder", dir, "error", err)
	}
	return c, nil
}

// bootID tells one run of the machine from the next, on Linux.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (c *Cache) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}
func (c *Cache) bundle(digest string) string     { return c.path("bundles", digest) }
func (c *Cache) bundleLock(digest string) string { return c.path("locks", digest+".lock") }

// Lookup finds a version that was added before and checks each of its files. A version that is known with another digest than
// v.Digest or v.Declared isn't found. If it is damaged, ok is false, and the bundle is removed unless somebody uses it.
func (c *Cache) Lookup(ctx context.Context, v modelstore.Version) (b modelstore.Bundle, ok bool, err error) {
	if v.IsZero() {
		return modelstore.Bundle{}, false, nil
	}
	r, ok, err := c.readRecord(keyOf(v))
	if err != nil || !ok || (v.Digest != "" && v.Digest != r.Digest) || (v.Declared != "" && v.Declared != r.Digest) {
		return modelstore.Bundle{}, false, wrap(err, "look up %v", v)
	}
	lock, err := waitShared(ctx, c.bundleLock(r.Digest))
	if err != nil {
		return modelstore.Bundle{}, false, fmt.Errorf("look up %v: %w", v, err)
	}
	state, err := c.check(ctx, r.Digest)
	if err == nil && state == intact {
		if err := c.writeRecord(v, r.Digest); err != nil {
			// A restart must serve from a full disk too; the record that is there says all but when.
			c.log.Warn("note in the cache's index that a version is used", "version", v.String(), "error", err)
		}
		return c.held(v, r.Digest, lock), true, nil
	}
	err = errors.Join(wrap(err, "look up %v", v), lock.Unlock())
	if err == nil && state == damaged {
		err = c.removeDamaged(ctx, r.Digest)
	}
	return modelstore.Bundle{}, false, err
}

// held is the bundle as callers get it; lock is theirs until Release.
func (c *Cache) held(v modelstore.Version, digest string, lock *flock.Flock) modelstore.Bundle {
	v.Digest = digest
	return modelstore.Bundle{Version: v, Dir: filepath.Join(c.bundle(digest), filesName), Release: sync.OnceFunc(func() {
		if err := lock.Unlock(); err != nil {
			c.log.Error("release a bundle; it stays locked until this gateway ends", "version", v.String(), "error", err)
		}
	})}
}

// A condition is what check found.
type condition int

const (
	missing condition = iota
	damaged
	intact
)

// check reads a whole bundle. The caller holds its lock.
func (c *Cache) check(ctx context.Context, digest string) (condition, error) {
	dir := c.bundle(digest)
	if !exists(dir) {
		return missing, nil
	}
	list, err := readEntries(dir, digest)
	if err == nil {
		err = verifyAs(ctx, filepath.Join(dir, filesName), list, limits{len(list) + 1, math.MaxInt64})
	}
	switch {
	case err == nil:
		return intact, nil
	case ctx.Err() != nil:
		return damaged, ctx.Err()
	case isViolation(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOTDIR):
		c.log.Warn("a bundle in the cache is damaged", "bundle", dir, "error", err)
		return damaged, nil
	}
	return damaged, err
}

// readEntries reads the list beside a bundle's files and checks that it is the one that the digest is made from.
func readEntries(dir, digest string) ([]file, error) {
	content, err := os.ReadFile(filepath.Join(dir, entriesName))
	if err != nil {
		return nil, err
	}
	var list []file
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, violation("%s: %w", entriesName, err)
	}
	if got := digestOf(list); got != digest {
		return nil, violation("%s has digest %s, its folder is named %s", entriesName, got, digest)
	}
	return list, nil
}

// removeDamaged removes a bundle if nobody uses it. It checks again, since another gateway may have mended it meanwhile.
func (c *Cache) removeDamaged(ctx context.Context, digest string) (err error) {
	lock, err := tryExclusive(c.bundleLock(digest))
	if err != nil || lock == nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	state, err := c.check(ctx, digest)
	if err != nil || state != damaged {
		return err
	}
	return c.discard(c.bundle(digest))
}

// discard removes a folder in two steps, so that nobody sees half of it. One that isn't there is fine.
func (c *Cache) discard(dir string) error {
	doomed := c.path("trash", filepath.Base(dir)+"-"+rand.Text())
	if err := os.Rename(dir, doomed); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(doomed)
}

// wrap adds context to an error and leaves nil alone.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
