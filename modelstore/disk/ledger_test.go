package disk_test

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

func decision(n int64) modelstore.Entry {
	model := "text"
	if n%2 == 0 {
		model = "video"
	}
	return modelstore.Entry{
		Time: time.UnixMilli(n).UTC(), Model: model, Candidate: version(n), Threshold: 0.75, Outcome: modelstore.Refused,
		Code: "below_threshold", Reason: fmt.Sprintf("decision %d", n), Actor: "policy", Seconds: map[string]float64{"fetch": 0.5},
	}
}

func record(t *testing.T, d *disk.Data, from, to int64) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := d.Record(decision(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// history is the candidates' numbers of what History returns.
func history(t *testing.T, d *disk.Data, model string, limit int) []int64 {
	t.Helper()
	entries, err := d.History(model, limit)
	if err != nil {
		t.Fatal(err)
	}
	var all []int64
	for _, e := range entries {
		all = append(all, e.Candidate.Number)
	}
	return all
}

func down(from, to, step int64) []int64 {
	var all []int64
	for n := from; n >= to; n -= step {
		all = append(all, n)
	}
	return all
}

func TestHistoryIsNewestFirst(t *testing.T) {
	dir := t.TempDir()
	d := openData(t, dir, disk.DataOptions{})
	if h := history(t, d, "", 10); h != nil {
		t.Fatalf("a new ledger has %v", h)
	}
	record(t, d, 1, 6)
	for name, c := range map[string]struct {
		model string
		limit int
		want  []int64
	}{
		"all":            {"", 10, down(6, 1, 1)},
		"the newest two": {"", 2, down(6, 5, 1)},
		"of one model":   {"video", 10, down(6, 2, 2)},
		"one of a model": {"text", 1, []int64{5}},
		"of no model":    {"fusion", 10, nil},
		"none":           {"", 0, nil},
		"less than none": {"", -1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, history(t, d, c.model, c.limit)); diff != "" {
				t.Error("(-want +got):", diff)
			}
		})
	}
	entries, err := d.History("", 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]modelstore.Entry{decision(6)}, entries); diff != "" {
		t.Error("an entry as it comes back (-want +got):", diff)
	}
}

func TestLedgerRotates(t *testing.T) {
	dir := t.TempDir()
	o := disk.DataOptions{LedgerBytes: 4096, LedgerKeep: 2}
	d := openData(t, dir, o)
	record(t, d, 1, 60)
	files, err := filepath.Glob(filepath.Join(dir, "ledger.jsonl*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v, error %v; want the ledger and two before it", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > o.LedgerBytes {
			t.Errorf("%s has %d bytes, error %v", f, info.Size(), err)
		}
	}
	h := history(t, d, "", 1000)
	if len(h) < 10 || len(h) == 60 {
		t.Errorf("%d entries are left", len(h))
	}
	if diff := cmp.Diff(down(60, 61-int64(len(h)), 1), h); diff != "" {
		t.Error("(-want +got):", diff)
	}

	t.Run("a gap that a crash left", func(t *testing.T) {
		if err := os.Rename(filepath.Join(dir, "ledger.jsonl.1"), filepath.Join(dir, "ledger.jsonl.2")); err != nil {
			t.Fatal(err)
		}
		before := history(t, d, "", 1000)
		record(t, d, 61, 67)
		if diff := cmp.Diff(append(down(67, 61, 1), before...), history(t, d, "", 1000)); diff != "" {
			t.Error("(-want +got):", diff)
		}
	})
}

func TestDamagedLedgerIsReadAround(t *testing.T) {
	for name, c := range map[string]struct {
		after string // put behind entries 1 and 2
		bad   bool
	}{
		"a last line that was cut":        {`{"time":"2026-01-01T00:00:00Z","model":"text","cand`, true},
		"garbage":                         {"\x00\x01\x02\n\xff\xfe\n", true},
		"JSON of another kind":            {"[]\n42\n{}\nnull\n", true},
		"a line that is far too long":     {strings.Repeat("x", 1<<20) + "\n", true},
		"zeros, as after a power failure": {strings.Repeat("\x00", 5000), true},
		"empty lines":                     {"\n\n  \n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := disk.OpenData(dir, disk.DataOptions{})
			if err != nil {
				t.Fatal(err)
			}
			record(t, d, 1, 2)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(t, filepath.Join(dir, "ledger.jsonl"), func(s string) string { return s + c.after })

			var log strings.Builder
			d = openData(t, dir, disk.DataOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if diff := cmp.Diff(down(2, 1, 1), history(t, d, "", 10)); diff != "" {
				t.Error("before (-want +got):", diff)
			}
			record(t, d, 3, 4)
			if diff := cmp.Diff(down(4, 1, 1), history(t, d, "", 10)); diff != "" {
				t.Error("after (-want +got):", diff)
			}
			if n := strings.Count(log.String(), "can't be read"); n != map[bool]int{true: 1}[c.bad] {
				t.Errorf("the log tells %d times of bad lines: %s", n, log.String())
			}
		})
	}
}

func TestRecordBoundsAnEntry(t *testing.T) {
	d := openData(t, t.TempDir(), disk.DataOptions{})
	long := decision(1)
	long.Reason = strings.Repeat("đ", 1<<20)
	if err := d.Record(long); err != nil {
		t.Fatal(err)
	}
	h, err := d.History("", 1)
	if err != nil || len(h) != 1 || len(h[0].Reason) > 17<<10 || strings.Contains(h[0].Reason, "\ufffd") {
		t.Errorf("%d entries, error %v; want one with a shortened reason", len(h), err)
	}
	huge := decision(2)
	huge.Candidate.Source = strings.Repeat("s", 1<<20)
	if err := d.Record(huge); err == nil {
		t.Error("an entry of a megabyte was recorded")
	}
	bad := decision(3)
	bad.Threshold = math.NaN()
	if err := d.Record(bad); err == nil {
		t.Error("a threshold that isn't a number was recorded")
	}
	if diff := cmp.Diff([]int64{1}, history(t, d, "", 10)); diff != "" {
		t.Error("(-want +got):", diff)
	}
}

func TestLedgerIsSafeForConcurrentUse(t *testing.T) {
	d := openData(t, t.TempDir(), disk.DataOptions{LedgerBytes: 2048, LedgerKeep: 50})
	var group sync.WaitGroup
	for g := range int64(4) {
		group.Go(func() {
			for n := range int64(10) {
				if err := d.Record(decision(g*10 + n + 1)); err != nil {
					t.Error(err)
				}
				if _, err := d.History("", 5); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if h := history(t, d, "", 1000); len(h) != 40 {
		t.Errorf("%d entries, want 40", len(h))
	}
}
