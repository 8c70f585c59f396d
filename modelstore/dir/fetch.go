package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"modelgate/modelstore"
)

const partFolder = ".part"

// Fetch copies the version's files into dir. Files that an earlier attempt copied wholly are kept, others in dir are removed.
func (s *Source) Fetch(ctx context.Context, v modelstore.Version, dir string, progress func(done, total int64)) error {
	if err := s.same(ctx, v); err != nil {
		return fmt.Errorf("fetch %v: %w", v, err)
	}
	files, odd, err := s.files(ctx, v)
	switch {
	case err != nil:
		return fmt.Errorf("fetch %v: %w", v, err)
	case odd != "": // it could bring in what isn't the version's
		return fmt.Errorf("fetch %v: %s is a link or a special file; put the file itself into %s", v, odd, v.Source)
	case len(files) == 0:
		return fmt.Errorf("fetch %v: %s is empty", v, v.Source)
	}
	if err := s.copyAll(ctx, v, files, dir, progress); err != nil {
		return fmt.Errorf("fetch %v: %w", v, err)
	}
	if err := s.same(ctx, v); err != nil { // what was copied is what was judged
		return fmt.Errorf("fetch %v: %w", v, err)
	}
	return nil
}

func (s *Source) copyAll(ctx context.Context, v modelstore.Version, files []file, dir string, progress func(done, total int64)) error {
	to, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	if err := removeOthers(to, files); err != nil {
		return err
	}
	if err := to.MkdirAll(partFolder, 0o750); err != nil {
		return err
	}
	c := &copier{from: s.root, top: folder(v), to: to, progress: progress}
	for _, f := range files {
		c.total += f.size
	}
	for _, f := range files {
		if err := c.one(ctx, f); err != nil {
			return fmt.Errorf("copy %s: %w", f.path, err)
		}
	}
	return to.RemoveAll(partFolder)
}

// removeOthers removes from a folder of an earlier attempt what isn't wholly one of files.
func removeOthers(to *os.Root, files []file) error {
	want := map[string]file{}
	folders := map[string]bool{".": true}
	for _, f := range files {
		want[f.path] = f
		for p := path.Dir(f.path); p != "."; p = path.Dir(p) {
			folders[p] = true
		}
	}
	var surplus []string
	err := fs.WalkDir(to.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if folders[p] {
				return nil
			}
			surplus = append(surplus, p)
			return fs.SkipDir
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		f, ok := want[p]
		if !ok || !e.Type().IsRegular() || info.Size() != f.size || !info.ModTime().Equal(f.modified) {
			surplus = append(surplus, p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range surplus {
		if err := to.RemoveAll(filepath.FromSlash(p)); err != nil {
			return err
		}
	}
	return nil
}

// copier copies files one after the other: a disk gains nothing from more.
type copier struct {
	from, to    *os.Root
	top         string // the version's folder below from
	done, total int64
	progress    func(done, total int64)
}

func (c *copier) add(n int64) {
	c.done += n
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
}

// one copies a file under a temporary name, gives it the time of the original, by which a later attempt knows it, and renames it.
func (c *copier) one(ctx context.Context, f file) error {
	name := filepath.FromSlash(f.path)
	if _, err := c.to.Lstat(name); err == nil { // whole, or removeOthers had removed it
		c.add(f.size)
		return nil
	}
	if err := c.to.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	const part = partFolder + "/file"
	if err := c.copy(ctx, f, part); err != nil {
		return err
	}
	if err := c.to.Chtimes(part, f.modified, f.modified); err != nil {
		return err
	}
	return c.to.Rename(part, name)
}

func (c *copier) copy(ctx context.Context, f file, part string) (err error) {
	in, err := c.from.Open(filepath.FromSlash(path.Join(c.top, f.path)))
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, errors.New("it is no regular file any more"))
	}
	out, err := c.to.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf := make([]byte, 1<<20)
	for left := f.size; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		n, err := in.Read(buf)
		if left -= int64(n); left < 0 {
			return errors.New("it grew while it was copied")
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		c.add(int64(n))
		modelstore.Rest(ctx, time.Since(began))
		switch {
		case errors.Is(err, io.EOF) && left > 0:
			return errors.New("it shrank while it was copied")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
