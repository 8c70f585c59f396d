package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"modelgate/modelstore"
)

// limits bound an artifact.
type limits struct {
	files int
	bytes int64
}

// verify reads an artifact's folder and returns its entries with digests. If the publisher wrote a manifest.json at its root,
// exactly the files that it lists must be there, besides itself, with these sizes and digests. A violation is permanent.
func verify(ctx context.Context, dir string, lim limits) ([]file, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer closeRoot(root)
	found, err := scan(root, lim)
	if err != nil {
		return nil, err
	}
	listed, err := readManifest(root, found)
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(slices.Clone(found), func(f file) bool { return f.Path == manifestName })
	if listed != nil {
		if err := compareNames(listed, others, manifestName); err != nil {
			return nil, err
		}
	}
	if err := hashAll(ctx, root, found); err != nil {
		return nil, err
	}
	return found, compareDigests(listed, found, manifestName)
}

// Verify checks an artifact's folder as Add would: regular files only, and exactly those of its manifest.json if it has one. It writes nothing.
func Verify(ctx context.Context, dir string) error {
	o := CacheOptions{}.withDefaults()
	_, err := verify(ctx, dir, limits{o.MaxFiles, o.MaxBytes})
	return wrap(err, "verify %s", dir)
}

// HasManifest reports whether an artifact's folder holds a manifest.json, which Add and Verify compare it with.
func HasManifest(dir string) (bool, error) {
	st, err := os.Lstat(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && st.Mode().IsRegular(), err
}

// verifyAs checks that a folder holds exactly the files of list. Sizes come first, since they cost nothing.
func verifyAs(ctx context.Context, dir string, list []file, lim limits) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer closeRoot(root)
	found, err := scan(root, lim)
	if err != nil {
		return err
	}
	if err := compareNames(list, found, entriesName); err != nil {
		return err
	}
	if err := hashAll(ctx, root, found); err != nil {
		return err
	}
	return compareDigests(list, found, entriesName)
}

// readManifest returns what manifest.json lists, or nil if there is none.
func readManifest(root *os.Root, found []file) ([]file, error) {
	i := slices.IndexFunc(found, func(f file) bool { return f.Path == manifestName })
	if i < 0 {
		return nil, nil
	}
	if found[i].Size > maxManifest {
		return nil, violation("%s has %d bytes, at most %d are allowed", manifestName, found[i].Size, maxManifest)
	}
	content, err := root.ReadFile(manifestName)
	if err != nil {
		return nil, err
	}
	listed, err := parseManifest(content)
	if err != nil {
		return nil, violation("%s: %w", manifestName, err)
	}
	return listed, nil
}

// scan lists the files below root with their sizes, sorted by path. Only folders and regular files with one name are allowed:
// a link could lead out of the folder, or be changed from outside of it.
func scan(root *os.Root, lim limits) ([]file, error) {
	var found []file
	var total int64
	err := fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		if err := checkPath(p); err != nil {
			return violation("artifact: %w", err)
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := checkKind(p, info); err != nil {
			return err
		}
		found = append(found, file{Path: p, Size: info.Size()})
		total += info.Size()
		if len(found) > lim.files {
			return violation("the artifact has more than %d files", lim.files)
		}
		if total > lim.bytes {
			return violation("the artifact has more than %d bytes", lim.bytes)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, violation("the artifact has no files")
	}
	slices.SortFunc(found, byPath)
	return found, nil
}

func checkKind(p string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return violation("%s is a %s: only regular files are allowed", p, kind(info.Mode()))
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Nlink > 1 {
		return violation("%s is a hard link (%d names): only files with one name are allowed", p, s.Nlink)
	}
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// hashAll fills in the digests.
func hashAll(ctx context.Context, root *os.Root, files []file) error {
	buf := make([]byte, 1<<20)
	for i := range files {
		sum, err := hashFile(ctx, root, files[i], buf)
		if err != nil {
			return fmt.Errorf("hash %s: %w", files[i].Path, err)
		}
		files[i].SHA256 = sum
	}
	return nil
}

func hashFile(ctx context.Context, root *os.Root, want file, buf []byte) (_ string, err error) {
	f, err := root.Open(filepath.FromSlash(want.Path))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		began := time.Now()
		k, err := f.Read(buf)
		_, _ = h.Write(buf[:k]) // a hash doesn't fail
		n += int64(k)
		modelstore.Rest(ctx, time.Since(began))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	if n != want.Size {
		return "", fmt.Errorf("it has %d bytes now and had %d a moment ago: something still writes to it", n, want.Size)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func closeRoot(r *os.Root) {
	_ = r.Close() // only read from
}
