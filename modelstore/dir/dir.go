// Package dir takes model versions from a plain folder: DIR/<served name>/<version number>/.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modelgate/modelstore"
)

// Options say where the folder is and within which limits versions are taken from it.
type Options struct {
	Dir         string   // must exist
	MetricNames []string // exact names in metrics.json, the first that is there counts; default eval_f1, f1
	MaxBytes    int64    // of all files of one version together, default 16 GiB
	MaxFiles    int      // files and folders of one version, default 1000
}

// Source is a modelstore.Source over a folder. A version's folder appears by rename, whole, and doesn't change afterwards.
// Names that aren't version numbers ("tmp", ".partial", "01") are ignored, so a version can be prepared beside its place.
// Safe for concurrent use.
type Source struct {
	root *os.Root // everything is read through it: a name or link can't lead out of the folder
	abs  string
	o    Options
}

var _ modelstore.Source = (*Source)(nil)

const metricsFile = "metrics.json"

// New opens the folder.
func New(o Options) (*Source, error) {
	if o.MaxBytes < 0 || o.MaxFiles < 0 {
		return nil, errors.New("models folder: a limit is negative")
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 16 << 30
	}
	if o.MaxFiles == 0 {
		o.MaxFiles = 1000
	}
	o.MetricNames = slices.Clone(o.MetricNames)
	if len(o.MetricNames) == 0 {
		o.MetricNames = []string{"eval_f1", "f1"}
	}
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("models folder: %w", err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("models folder: %w; it holds one folder a model and in that one folder a version: text/1/model.onnx", err)
	}
	return &Source{root: root, abs: abs, o: o}, nil
}

// Close gives the folder back.
func (s *Source) Close() error { return s.root.Close() }

// Models lists the names under which models can be served, sorted: the folders whose name is a valid one.
func (s *Source) Models() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list the models in %s: %w", s.abs, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && validName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// validName accepts letters, digits, - and _, up to 64, with a letter or digit first.
func validName(name string) bool {
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return name != "" && len(name) <= 64 && strings.Contains(alnum, name[:1]) && strings.Trim(name, alnum+"_-") == ""
}

// Latest is the version with the highest number.
func (s *Source) Latest(ctx context.Context, model string) (modelstore.Version, error) {
	numbers, err := s.numbers(ctx, model)
	if err != nil {
		return modelstore.Version{}, fmt.Errorf("latest version of %s: %w", model, err)
	}
	if len(numbers) == 0 {
		return modelstore.Version{}, fmt.Errorf("latest version of %s: %w: %s holds no folder named by a number, such as 1",
			model, modelstore.ErrNoVersion, filepath.Join(s.abs, model))
	}
	v, err := s.version(ctx, model, numbers[0])
	if err != nil {
		return modelstore.Version{}, fmt.Errorf("latest version of %s: %w", model, err)
	}
	v.Pointer = "newest"
	return v, nil
}

// Versions lists a model's versions, the highest number first. One whose folder can't be read is listed without a time: F1 and Fetch
// tell what is wrong with it, and it hides no other.
func (s *Source) Versions(ctx context.Context, model string) ([]modelstore.Version, error) {
	numbers, err := s.numbers(ctx, model)
	if err != nil {
		return nil, fmt.Errorf("versions of %s: %w", model, err)
	}
	vs := make([]modelstore.Version, 0, len(numbers))
	for _, n := range numbers {
		v, err := s.version(ctx, model, n)
		if errors.Is(err, modelstore.ErrNoVersion) { // removed since
			continue
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("versions of %s: %w", model, ctx.Err())
		}
		if err != nil {
			v = s.named(model, n)
		}
		vs = append(vs, v)
	}
	return vs, nil
}

// numbers lists the version numbers of a model, the highest first.
func (s *Source) numbers(ctx context.Context, model string) ([]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validName(model) {
		return nil, fmt.Errorf("%w: %.80q is no valid name", modelstore.ErrNoModel, model)
	}
	info, err := s.root.Lstat(model)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%w: there is no folder %s", modelstore.ErrNoModel, filepath.Join(s.abs, model))
	}
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(s.root.FS(), model)
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for _, e := range entries {
		if n, err := modelstore.ParseVersion(e.Name()); err == nil && e.IsDir() {
			numbers = append(numbers, n)
		}
	}
	slices.SortFunc(numbers, func(a, b int64) int { return int(max(-1, min(1, b-a))) })
	return numbers, nil
}

// version describes the version in a folder. Created is the latest modification time of a file in it, metrics.json aside: it
// changes whenever a weight does, and stays when a metric is added or something odd (an editor's lock, a .DS_Store) comes and goes
// in the folder itself, whose own time would change then. The time at which the folder appeared isn't recorded anywhere.
func (s *Source) version(ctx context.Context, model string, n int64) (modelstore.Version, error) {
	v := s.named(model, n)
	files, _, err := s.files(ctx, v)
	if err != nil {
		return modelstore.Version{}, err
	}
	for _, f := range files {
		if f.path != metricsFile && f.modified.After(v.Created) {
			v.Created = f.modified.UTC()
		}
	}
	return v, nil
}

func (s *Source) named(model string, n int64) modelstore.Version {
	v := modelstore.Version{Model: model, Number: n, Registered: model}
	v.Source = filepath.Join(s.abs, folder(v))
	return v
}

type file struct {
	path     string // relative to the version's folder, with slashes
	size     int64
	modified time.Time
}

// folder is a version's folder relative to the root.
func folder(v modelstore.Version) string { return path.Join(v.Model, v.ID()) }

// files lists a version's regular files, and names a link or special file if there is one. Hidden files are not part of a version.
func (s *Source) files(ctx context.Context, v modelstore.Version) (files []file, odd string, err error) {
	top := folder(v)
	var total int64
	seen := 0
	err = fs.WalkDir(s.root.FS(), top, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case p == top:
			return nil
		}
		if seen++; seen > s.o.MaxFiles {
			return fmt.Errorf("%s holds more than %d files and folders", top, s.o.MaxFiles)
		}
		rel := strings.TrimPrefix(p, top+"/")
		switch {
		case strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			return nil
		case !e.Type().IsRegular():
			odd = rel
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Size() > s.o.MaxBytes-total {
			return fmt.Errorf("the files in %s have more than %d bytes together", top, s.o.MaxBytes)
		}
		total += info.Size()
		files = append(files, file{path: rel, size: info.Size(), modified: info.ModTime()})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("%w: %w", modelstore.ErrNoVersion, err)
	}
	return files, odd, err
}
