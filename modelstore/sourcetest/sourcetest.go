// Package sourcetest is the suite that every modelstore.Source passes.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"modelgate/modelstore"
)

// A Harness makes subjects for the suite.
type Harness struct {
	// New returns a Source that is used by one test only, and how to publish to what it reads.
	New func(t *testing.T) Subject
}

// A Subject is a Source under test and the registry behind it, where nothing is registered yet.
type Subject struct {
	Source modelstore.Source
	Model  string // a served name
	// Publish adds a version with the next number from 1, as its publisher would, with these files and metrics, and returns
	// it as the Source lists it. It isn't promoted.
	Publish func(t *testing.T, files map[string][]byte, metrics map[string]float64) modelstore.Version
	// Promote moves the registry's pointer. It is nil where there is none and the newest version counts.
	Promote func(t *testing.T, v modelstore.Version)
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*testing.T, Subject){
		"an unknown model is ErrNoModel":                                noModel,
		"the pointer names the version, again and again the same":       latest,
		"defect 1: versions compare as numbers, 10 after 9":             numbers,
		"defect 2: a newer version that isn't promoted doesn't count":   unpromoted,
		"defect 3: Fetch gets the judged version, not the promoted one": judged,
		"defect 4: metric names are exact":                              exactMetric,
		"the F1 of each version is its own":                             f1,
		"Fetch gets every file as it was published":                     fetch,
		"Fetch into a folder with leftovers gets just the version":      leftovers,
		"Fetch tells its progress up to the end":                        progress,
		"a version that the registry doesn't have is ErrNoVersion":      noVersion,
		"a version that was replaced under its number is ErrNoVersion":  replaced,
		"an ended context ends every call":                              ended,
		"all methods can be called at once":                             concurrent,
		"MarkPromoted moves the pointer":                                promoter,
	} {
		t.Run(name, func(t *testing.T) { test(t, h.New(t)) })
	}
}

func model(content string) map[string][]byte { return map[string][]byte{"model.onnx": []byte(content)} }

func metrics(f1 float64) map[string]float64 { return map[string]float64{"eval_f1": f1} }

// publish publishes and, where there is a pointer, promotes.
func (s Subject) publish(t *testing.T, files map[string][]byte, m map[string]float64) modelstore.Version {
	t.Helper()
	v := s.Publish(t, files, m)
	if s.Promote != nil {
		s.Promote(t, v)
	}
	return v
}

func (s Subject) latest(t *testing.T) modelstore.Version {
	t.Helper()
	v, err := s.Source.Latest(t.Context(), s.Model)
	if err != nil {
		t.Fatalf("Latest: %v", err)
	}
	return v
}

func (s Subject) fetch(t *testing.T, v modelstore.Version) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	if err := s.Source.Fetch(t.Context(), v, dir, nil); err != nil {
		t.Fatalf("Fetch %v: %v", v, err)
	}
	return read(t, dir)
}

// read returns every file below dir, metrics.json aside, which only some sources keep among the files.
func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	got := map[string][]byte{}
	err = fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || p == "metrics.json" {
			return err
		}
		got[p], err = fs.ReadFile(root.FS(), p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wantFiles(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	for name, b := range want {
		if g, ok := got[name]; !ok || !bytes.Equal(g, b) {
			t.Errorf("%q: got %d bytes (there: %v), want the %d that were published", name, len(g), ok, len(b))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%q is there and was never published", name)
		}
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func noModel(t *testing.T, s Subject) {
	for _, name := range []string{s.Model, "no-such-model", "", "..", "../text", "a/b", "a\x00b"} {
		_, err := s.Source.Latest(t.Context(), name)
		wantErr(t, "Latest of "+name, err, modelstore.ErrNoModel)
		_, err = s.Source.Versions(t.Context(), name)
		wantErr(t, "Versions of "+name, err, modelstore.ErrNoModel)
	}
}

func latest(t *testing.T, s Subject) {
	v := s.publish(t, model("1"), metrics(0.8))
	got := s.latest(t)
	if !got.Same(v) || got.Number != 1 || got.Model != s.Model || got.Pointer == "" || got.Registered == "" || got.Source == "" {
		t.Errorf("Latest is %+v, published was %+v", got, v)
	}
	if got.F1.Known || v.Pointer != "" {
		t.Errorf("Latest has F1 %v (want it unknown), a listed version pointer %q (want none)", got.F1, v.Pointer)
	}
	if again := s.latest(t); again != got {
		t.Errorf("nothing changed, but Latest was %+v and is %+v", got, again)
	}
	w := s.publish(t, model("2"), metrics(0.9))
	if got := s.latest(t); !got.Same(w) || got.Same(v) {
		t.Errorf("after version 2, Latest is %+v", got)
	}
}

func numbers(t *testing.T, s Subject) {
	var v modelstore.Version
	for range 10 {
		v = s.Publish(t, model("x"), nil)
	}
	if s.Promote != nil {
		s.Promote(t, v)
	}
	vs, err := s.Source.Versions(t.Context(), s.Model)
	if err != nil {
		t.Fatal(err)
	}
	if len(vs) != 10 {
		t.Fatalf("%d versions, want 10", len(vs))
	}
	for i, v := range vs {
		if want := int64(10 - i); v.Number != want {
			t.Errorf("place %d has version %d, want %d", i, v.Number, want)
		}
	}
	if got := s.latest(t); got.Number != 10 {
		t.Errorf("Latest is %v, want v10", got)
	}
}

func unpromoted(t *testing.T, s Subject) {
	if s.Promote == nil {
		return // nothing is promoted there: newest is what counts
	}
	_ = s.Publish(t, model("1"), nil)
	_, err := s.Source.Latest(t.Context(), s.Model)
	wantErr(t, "Latest where nothing is promoted", err, modelstore.ErrNoVersion)
	v2 := s.publish(t, model("2"), nil)
	_ = s.Publish(t, model("3"), nil)
	if got := s.latest(t); !got.Same(v2) {
		t.Errorf("Latest is %v, promoted is %v", got, v2)
	}
}

func judged(t *testing.T, s Subject) {
	s.publish(t, model("first"), nil)
	v1 := s.latest(t)
	s.publish(t, model("second"), nil)
	v2 := s.latest(t)
	wantFiles(t, s.fetch(t, v1), model("first"))
	wantFiles(t, s.fetch(t, v2), model("second"))
}

func f1(t *testing.T, s Subject) {
	for name, c := range map[string]struct {
		metrics map[string]float64
		want    modelstore.F1
	}{
		"eval_f1":               {map[string]float64{"eval_f1": 0.81, "f1": 0.5}, modelstore.KnownF1("eval_f1", 0.81)},
		"f1 where no eval_f1":   {map[string]float64{"f1": 0.5, "accuracy": 0.9}, modelstore.KnownF1("f1", 0.5)},
		"0 is a number":         {map[string]float64{"eval_f1": 0}, modelstore.KnownF1("eval_f1", 0)},
		"over 1 can't be used":  {map[string]float64{"eval_f1": 81}, modelstore.KnownF1("eval_f1", 81)},
		"under 0 can't be used": {map[string]float64{"eval_f1": -0.1}, modelstore.KnownF1("eval_f1", -0.1)},
	} {
		v := s.Publish(t, model(name), c.metrics)
		got, err := s.Source.F1(t.Context(), v)
		if err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	v := s.Publish(t, model("none"), nil)
	got, err := s.Source.F1(t.Context(), v)
	if err != nil || got.Known || !got.Absent || got.Why == "" {
		t.Errorf("no metric: got %+v, %v; want it absent, and why", got, err)
	}
}

func exactMetric(t *testing.T, s Subject) {
	v := s.Publish(t, model("x"), map[string]float64{"weighted_f1": 0.99, "eval_f1_macro": 0.98, "F1": 0.97})
	got, err := s.Source.F1(t.Context(), v)
	if err != nil || got.Known || !got.Absent {
		t.Errorf("got %+v, %v; want an absent F1", got, err)
	}
}

func tree() map[string][]byte {
	return map[string][]byte{
		"model.onnx":             bytes.Repeat([]byte("0123456789abcdef"), 40_000),
		"config.json":            []byte(`{"id2label": {"0": "safe"}}`),
		"empty":                  {},
		"sub/deeper/weights.bin": bytes.Repeat([]byte{0, 255, 10}, 1000),
		"with space.txt":         []byte("a b"),
		"tiếng việt.txt":         []byte("đúng"),
		"a+b (1) & c=d,e.txt":    []byte("%"),
	}
}

func fetch(t *testing.T, s Subject) {
	wantFiles(t, s.fetch(t, s.publish(t, tree(), nil)), tree())
}

func leftovers(t *testing.T, s Subject) {
	v := s.publish(t, tree(), nil)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"model.onnx": "half", "old.bin": "x", ".part/abc": "x", "config.json/x": "a folder in the way", "other/y": "y",
	} {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "with space.txt")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time everything is there
		if err := s.Source.Fetch(t.Context(), v, dir, nil); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, read(t, dir), tree())
		if _, err := os.Stat(filepath.Join(dir, ".part")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf(".part stayed: %v", err)
		}
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "mine" {
		t.Errorf("a link led Fetch out of its folder: %q, %v", b, err)
	}
}

func progress(t *testing.T, s Subject) {
	v := s.publish(t, tree(), nil)
	var last, whole int64
	err := s.Source.Fetch(t.Context(), v, t.TempDir(), func(done, total int64) {
		if done < last || done > total {
			t.Errorf("progress went from %d to %d of %d", last, done, total)
		}
		last, whole = done, total
	})
	if err != nil {
		t.Fatal(err)
	}
	if last == 0 || last != whole {
		t.Errorf("progress ended at %d of %d", last, whole)
	}
}

func noVersion(t *testing.T, s Subject) {
	v := s.publish(t, model("1"), nil)
	for _, n := range []int64{99, 0, -1} {
		w := v
		w.Number = n
		wantErr(t, "Fetch", s.Source.Fetch(t.Context(), w, t.TempDir(), nil), modelstore.ErrNoVersion)
	}
}

func replaced(t *testing.T, s Subject) {
	v := s.publish(t, model("1"), nil)
	v.Created = v.Created.AddDate(0, 0, -1)
	dir := t.TempDir()
	wantErr(t, "Fetch", s.Source.Fetch(t.Context(), v, dir, nil), modelstore.ErrNoVersion)
	wantFiles(t, read(t, dir), nil)
}

func ended(t *testing.T, s Subject) {
	v := s.publish(t, model("1"), metrics(0.8))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Source.Latest(ctx, s.Model)
	wantErr(t, "Latest", err, context.Canceled)
	_, err = s.Source.Versions(ctx, s.Model)
	wantErr(t, "Versions", err, context.Canceled)
	_, err = s.Source.F1(ctx, v)
	wantErr(t, "F1", err, context.Canceled)
	wantErr(t, "Fetch", s.Source.Fetch(ctx, v, t.TempDir(), nil), context.Canceled)
}

func concurrent(t *testing.T, s Subject) {
	v := s.publish(t, tree(), metrics(0.8))
	var wg sync.WaitGroup
	for range 4 {
		dir := t.TempDir()
		wg.Go(func() {
			if got, err := s.Source.Latest(t.Context(), s.Model); err != nil || !got.Same(v) {
				t.Errorf("Latest: %v, %v", got, err)
			}
			if vs, err := s.Source.Versions(t.Context(), s.Model); err != nil || len(vs) != 1 {
				t.Errorf("Versions: %v, %v", vs, err)
			}
			if f, err := s.Source.F1(t.Context(), v); err != nil || f.Value != 0.8 {
				t.Errorf("F1: %v, %v", f, err)
			}
			if err := s.Source.Fetch(t.Context(), v, dir, nil); err != nil {
				t.Errorf("Fetch: %v", err)
			}
			wantFiles(t, read(t, dir), tree())
		})
	}
	wg.Wait()
}

func promoter(t *testing.T, s Subject) {
	p, ok := s.Source.(modelstore.Promoter)
	if !ok {
		return // an optional interface
	}
	v1 := s.publish(t, model("1"), nil)
	v2 := s.Publish(t, model("2"), nil)
	for _, v := range []modelstore.Version{v2, v1} {
		if err := p.MarkPromoted(t.Context(), v); err != nil {
			t.Fatalf("MarkPromoted %v: %v", v, err)
		}
		if got := s.latest(t); !got.Same(v) {
			t.Errorf("after MarkPromoted %v, Latest is %v", v, got)
		}
	}
	gone := v1
	gone.Number = 99
	wantErr(t, "MarkPromoted of what isn't there", p.MarkPromoted(t.Context(), gone), modelstore.ErrNoVersion)
}
