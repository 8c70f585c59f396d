package mlflow

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A listing gathers the files of a version, within the limits on files, bytes and depth.
type listing struct {
	maxFiles int
	maxBytes int64

	entries int // what was listed, whatever became of it
	files   []artifact
	total   int64
	seen    map[string]bool // whether a path is a folder
}

func newListing(o Options) *listing {
	return &listing{maxFiles: o.MaxFiles, maxBytes: o.MaxBytes, seen: map[string]bool{}}
}

// add takes a file or a folder in.
func (l *listing) add(a artifact, isDir bool) error {
	if err := checkPath(a); err != nil {
		return err
	}
	if _, again := l.seen[a.path]; again {
		return fmt.Errorf("%q is listed twice", a.path)
	}
	l.seen[a.path] = isDir
	if len(l.seen) > l.maxFiles {
		return fmt.Errorf("more than %d files and folders", l.maxFiles)
	}
	if isDir {
		return nil
	}
	if a.size > l.maxBytes-l.total {
		return fmt.Errorf("more than %d bytes together", l.maxBytes)
	}
	l.total += a.size
	l.files = append(l.files, a)
	return nil
}

// addFolders takes the folders of a path in, where only files are listed.
func (l *listing) addFolders(p string) error {
	for i, c := range p {
		if c != '/' {
			continue
		}
		isDir, known := l.seen[p[:i]]
		switch {
		case known && !isDir:
			return fmt.Errorf("%q is listed as a file and as a folder", p[:i])
		case !known:
			if err := l.add(artifact{path: p[:i]}, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// all are the files, and their bytes together. The large ones come first, so that the small ones fill the gaps.
func (l *listing) all() ([]artifact, int64, error) {
	if len(l.files) == 0 {
		return nil, 0, errors.New("list its files: there are none")
	}
	slices.SortStableFunc(l.files, func(a, b artifact) int { return int(max(-1, min(1, b.size-a.size))) })
	return l.files, l.total, nil
}

// checkPath checks what the check of its parts can't.
func checkPath(a artifact) error {
	switch {
	case a.path == partFolder || strings.HasPrefix(a.path, partFolder+"/"):
		return fmt.Errorf("the name %q is taken", partFolder)
	case len(a.path) > maxPathLen || strings.Count(a.path, "/") >= maxDepth:
		return fmt.Errorf("%.60q... is too long or too deep", a.path)
	case !filepath.IsLocal(filepath.FromSlash(a.path)):
		return fmt.Errorf("%q leads out of the folder", a.path)
	case a.size < 0:
		return fmt.Errorf("%q is listed with %d bytes", a.path, a.size)
	}
	return nil
}
