package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"modelgate/modelstore"
)

// Fetch downloads the files of exactly v. What an earlier call got of them in dir is kept: whole files of the listed size (and ETag, in S3) as they
// are, begun ones below ".part", which is gone when Fetch returns nil. Files in dir that aren't v's are removed.
func (s *Source) Fetch(ctx context.Context, v modelstore.Version, dir string, progress func(done, total int64)) error {
	mv, err := s.same(ctx, v)
	if err != nil {
		return fmt.Errorf("fetch %v: %w", v, err)
	}
	if mv.Status != "" && mv.Status != "READY" {
		return fmt.Errorf("fetch %v: the registry says that it is %s %s", v, clip(mv.Status), clip(mv.Message))
	}
	if err := s.fetch(ctx, mv, dir, progress); err != nil {
		return fmt.Errorf("fetch %v: %w", v, err)
	}
	return nil
}

func (s *Source) fetch(ctx context.Context, mv modelVersion, dir string, progress func(done, total int64)) error {
	from, err := s.place(ctx, mv)
	if err != nil {
		return err
	}
	files, total, err := from.files(ctx)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := prepare(root, files); err != nil {
		return err
	}
	d := &downloader{c: s.c, model: mv.Name, from: from, root: root, meter: newMeter(total, progress)}
	err = d.all(ctx, files)
	d.meter.stop()
	if err != nil {
		return err
	}
	return root.RemoveAll(partFolder)
}

// prepare removes what doesn't belong to the version and makes the folders.
func prepare(root *os.Root, files []artifact) error {
	want := map[string]bool{partFolder: true, ".": true}
	for _, a := range files {
		for p := a.path; p != "."; p = path.Dir(p) {
			want[p] = true
		}
	}
	var surplus []string
	err := fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !want[p], e.Type()&^fs.ModeDir != 0, p == partFolder && !e.IsDir():
			surplus = append(surplus, p)
		case p != partFolder:
			return nil
		}
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range surplus {
		if err := root.RemoveAll(filepath.FromSlash(p)); err != nil {
			return err
		}
	}
	if err := root.MkdirAll(partFolder, 0o750); err != nil {
		return err
	}
	for _, a := range files {
		if err := root.MkdirAll(filepath.FromSlash(path.Dir(a.path)), 0o750); err != nil {
			return err
		}
	}
	return nil
}

// downloader gets the files of one version.
type downloader struct {
	c     *client
	model string // its registered name
	from  place
	root  *os.Root
	meter *meter
}

func (d *downloader) all(ctx context.Context, files []artifact) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.c.o.ParallelFiles)
	for _, a := range files {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := d.one(ctx, a); err != nil {
				return fmt.Errorf("download %s: %w", a.path, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// one gets a file unless it is there already.
func (d *downloader) one(ctx context.Context, a artifact) error {
	name := filepath.FromSlash(a.path)
	info, err := d.root.Lstat(name)
	switch {
	case err == nil && info.Mode().IsRegular() && info.Size() == a.size && d.same(a):
		d.meter.add(a.size)
		return nil
	case err == nil:
		if err := d.root.RemoveAll(name); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	p, err := openPart(d.root, a, d.from.first())
	if err != nil {
		return err
	}
	err = d.fill(ctx, p, a)
	if cerr := p.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return p.finish(name)
}

// same reports whether a whole file that an earlier call got is the one that is listed now, where the listing tells.
func (d *downloader) same(a artifact) bool {
	return d.from.first() != routeS3 || a.etag != "" && readNote(d.root, partName(a)).Validator == a.etag
}

// meter adds up bytes from several downloads and reports from one goroutine.
type meter struct {
	bytes   atomic.Int64
	changed chan struct{} // capacity one
	done    chan struct{} // closed when the reporting goroutine has ended
}

func newMeter(total int64, report func(done, total int64)) *meter {
	m := &meter{changed: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for range m.changed {
			if report != nil {
				report(m.bytes.Load(), total)
			}
		}
	}()
	return m
}

// add counts n more bytes, or fewer where a file starts again.
func (m *meter) add(n int64) {
	m.bytes.Add(n)
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// stop reports the last state and ends the reporting. add must not be called any more.
func (m *meter) stop() {
	close(m.changed)
	<-m.done
}
