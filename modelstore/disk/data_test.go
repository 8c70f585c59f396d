package disk_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

func saved(n int64) modelstore.Saved {
	v := version(n)
	v.F1 = modelstore.KnownF1("eval_f1", 0.8)
	v.Digest = numbered(n).digest()
	return modelstore.Saved{
		Active: v, LastPointer: v, Pin: n,
		Hold:       &modelstore.Hold{Pointer: v, Since: time.UnixMilli(n).UTC(), Why: "rollback"},
		Quarantine: []modelstore.Quarantined{{Version: version(n + 100), Since: time.UnixMilli(n).UTC(), Why: "bad <digest> & more\xff"}},
	}
}

// asRead is what comes back: JSON has no invalid UTF-8.
func asRead(n int64) modelstore.Saved {
	s := saved(n)
	s.Quarantine[0].Why = "bad <digest> & more\ufffd"
	return s
}

func TestOneGatewayADataFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	d, err := disk.OpenData(dir, disk.DataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %v, error %v; want 0700", info.Mode(), err)
	}
	_, err = disk.OpenData(dir, disk.DataOptions{})
	if err == nil {
		t.Fatal("opened twice")
	}
	for _, w := range []string{dir, "process " + strconv.Itoa(os.Getpid()), "MODELGATE_DATA_DIR"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q doesn't say %q", err, w)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Record(modelstore.Entry{Model: "text"}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("recorded after Close: %v", err)
	}
	openData(t, dir, disk.DataOptions{})
}

func TestStateOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	d, err := disk.OpenData(dir, disk.DataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := d.Load("text"); err != nil || !s.Active.IsZero() {
		t.Fatalf("a new model has state %+v, error %v", s, err)
	}
	for _, n := range []int64{1, 2} {
		if err := d.Save("text", saved(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Save("video", saved(7)), d.Close()); err != nil {
		t.Fatal(err)
	}
	d = openData(t, dir, disk.DataOptions{})
	for model, n := range map[string]int64{"text": 2, "video": 7} {
		got, err := d.Load(model)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asRead(n), got); diff != "" {
			t.Errorf("%s (-want +got): %s", model, diff)
		}
	}
}

func TestSaveNeverWritesInPlace(t *testing.T) {
	dir := t.TempDir()
	d := openData(t, dir, disk.DataOptions{})
	path := filepath.Join(dir, "state", "text.json")
	var before []os.FileInfo
	for n := range int64(3) {
		if err := d.Save("text", saved(n+1)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(before) > 0 && os.SameFile(info, before[len(before)-1]) {
			t.Errorf("state of version %d was written over the one before it", n+1)
		}
		before = append(before, info)
	}
}

func TestStateNamesAreChecked(t *testing.T) {
	d := openData(t, t.TempDir(), disk.DataOptions{})
	for _, name := range []string{"", "..", "a/b", "../lock", ".hidden", "a.json"} {
		if err := d.Save(name, saved(1)); err == nil || !strings.Contains(err.Error(), "model name") {
			t.Errorf("Save(%q): %v", name, err)
		}
		if _, err := d.Load(name); err == nil {
			t.Errorf("Load(%q) succeeded", name)
		}
	}
}

func TestDamagedStateStillServes(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(good string) string
		backup func(good string) string
		want   modelstore.Saved
	}{
		"empty":              {damage: func(string) string { return "" }, want: asRead(1)},
		"cut":                {damage: func(s string) string { return s[:len(s)/2] }, want: asRead(1)},
		"zeros":              {damage: func(s string) string { return strings.Repeat("\x00", len(s)) }, want: asRead(1)},
		"a digit differs":    {damage: func(s string) string { return strings.Replace(s, `"pin": 2`, `"pin": 3`, 1) }, want: asRead(1)},
		"no state":           {damage: func(string) string { return `{"format": 1}` }, want: asRead(1)},
		"another shape":      {damage: func(string) string { return `[1, 2]` }, want: asRead(1)},
		"the backup as well": {damage: func(string) string { return "" }, backup: func(s string) string { return s[:40] }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var log strings.Builder
			d := openData(t, dir, disk.DataOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err := errors.Join(d.Save("text", saved(1)), d.Save("text", saved(2))); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "state", "text.json")
			spoil(t, path, c.damage)
			if c.backup != nil {
				spoil(t, path+".bak", c.backup)
			}
			for range 2 { // the second time, nothing is damaged any more
				got, err := d.Load("text")
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error("state (-want +got):", diff)
				}
			}
			if _, err := os.Stat(path + ".damaged"); err != nil {
				t.Error("the damaged file isn't kept:", err)
			}
			h, err := d.History("text", 10)
			if err != nil || len(h) != 1 || h[0].Code != "state_damaged" || !strings.Contains(h[0].Reason, path) {
				t.Errorf("ledger has %+v, error %v; want one entry that names the file", h, err)
			}
			if !strings.Contains(log.String(), "level=ERROR") {
				t.Errorf("the log doesn't tell: %s", log.String())
			}
		})
	}
}

func TestDamagedStateNeverReplacesTheBackup(t *testing.T) {
	dir := t.TempDir()
	d := openData(t, dir, disk.DataOptions{})
	if err := errors.Join(d.Save("text", saved(1)), d.Save("text", saved(2))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state", "text.json")
	spoil(t, path, func(string) string { return "" })
	if err := d.Save("text", saved(3)); err != nil {
		t.Fatal(err)
	}
	spoil(t, path, func(string) string { return "" })
	if got, err := d.Load("text"); err != nil || got.Pin != 1 {
		t.Errorf("state of version %d, error %v; want the backup, of version 1", got.Pin, err)
	}
}

func TestStateOfANewerModelgateIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	d := openData(t, dir, disk.DataOptions{})
	path := filepath.Join(dir, "state", "text.json")
	const newer = `{"format": 2, "saved": "in another way"}`
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	_, loadErr := d.Load("text")
	for _, err := range []error{loadErr, d.Save("text", saved(1))} {
		if err == nil || !strings.Contains(err.Error(), "newer modelgate") || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v, want one that names the file and the cause", err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != newer {
		t.Errorf("the file is %q, error %v", got, err)
	}
}

// spoil changes a file's content in place.
func spoil(t *testing.T, path string, change func(string) string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(change(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
}
