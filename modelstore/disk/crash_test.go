package disk_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

// crashDirEnv tells a copy of the test binary to be a gateway that works in this folder until it is killed.
const crashDirEnv = "MODELGATE_TEST_CRASH_DIR"

var (
	crashCache = disk.CacheOptions{Keep: 2}
	crashData  = disk.DataOptions{LedgerBytes: 6 << 10, LedgerKeep: 3}
	// They make the state so big that a kill can hit in the middle of writing it.
	manyQuarantined = slices.Repeat([]modelstore.Quarantined{{Version: version(99), Why: strings.Repeat("why ", 500)}}, 8)
)

// crashed is the content of version n in the crash test: several files, big enough that a kill can hit in the middle of any.
func crashed(n int64) tree {
	s := strconv.FormatInt(n, 10)
	tr := tree{"model.onnx": "graph " + s, "data/weights.bin": strings.Repeat(s+" ", 100_000), "data/more.bin": strings.Repeat(s+"/", 50_000)}
	return tr.with("manifest.json", tr.manifest(nil))
}

// crashChild adds, saves, records and prunes one version after the other and says so on standard output, each time after the fact.
func crashChild(dir string) {
	cache, err := disk.OpenCache(filepath.Join(dir, "cache"), crashCache)
	if err != nil {
		log.Fatal(err)
	}
	data, err := disk.OpenData(filepath.Join(dir, "data"), crashData)
	if err != nil {
		log.Fatal(err)
	}
	s, err := data.Load("text")
	if err != nil {
		log.Fatal(err)
	}
	for n := s.Active.Number + 1; ; n++ {
		if s, err = crashStep(cache, data, s, n); err != nil {
			log.Fatal(err)
		}
	}
}

func crashStep(cache *disk.Cache, data *disk.Data, s modelstore.Saved, n int64) (modelstore.Saved, error) {
	ctx := context.Background()
	b, err := cache.Add(ctx, version(n), crashed(n).fetch, nil)
	if err != nil {
		return s, err
	}
	defer b.Release()
	fmt.Println("added", n)
	s = modelstore.Saved{Active: b.Version, Previous: s.Active, Quarantine: manyQuarantined}
	if err := data.Save("text", s); err != nil {
		return s, err
	}
	fmt.Println("saved", n)
	e := decision(n)
	e.Model = "text"
	if err := data.Record(e); err != nil {
		return s, err
	}
	fmt.Println("recorded", n)
	if err := cache.Prune(ctx, "text", []modelstore.Version{s.Active}); err != nil {
		return s, err
	}
	fmt.Println("pruned", n)
	return s, nil
}

// told is what a child said before it died: the numbers of each kind.
type told map[string][]int64

// killed runs a child and kills it after some of its lines and a little more, wherever that is.
func killed(t *testing.T, dir string, rng *rand.Rand) told {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), crashDirEnv+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said := told{}
	lines := bufio.NewScanner(out)
	first := time.Minute // for a child that hangs
	if rng.IntN(4) == 0 {
		first = time.Duration(rng.IntN(60_000)) * time.Microsecond // before it says anything, while it opens or resumes
	}
	kill := time.AfterFunc(first, func() { _ = child.Process.Kill() })
	for left := rng.IntN(9); lines.Scan(); left-- {
		what, number, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		said[what] = append(said[what], n)
		if left == 0 {
			kill.Reset(time.Duration(rng.IntN(12_000)) * time.Microsecond)
		}
	}
	kill.Stop()
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return said
}

func TestKillAtAnyMomentLosesNothing(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 12
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	w := witness{recorded: map[int64]bool{}}
	for round := range rounds {
		said := killed(t, dir, rng)
		w.note(said)
		if err := w.check(t.Context(), dir); err != nil {
			t.Fatalf("round %d, after %v: %v", round, said, err)
		}
	}
	t.Logf("%d versions were served, %d decisions recorded", w.saved, len(w.recorded))
}

// A witness knows what must be on disk: what children said that they had done.
type witness struct {
	saved    int64
	recorded map[int64]bool
}

func (w *witness) note(said told) {
	for _, n := range said["saved"] {
		w.saved = max(w.saved, n)
	}
	for _, n := range said["recorded"] {
		w.recorded[n] = true
	}
}

func (w *witness) check(ctx context.Context, dir string) error {
	if _, err := checkBundles(filepath.Join(dir, "cache")); err != nil {
		return err
	}
	data, err := disk.OpenData(filepath.Join(dir, "data"), crashData)
	if err != nil {
		return err
	}
	s, err := data.Load("text")
	if err == nil {
		err = w.checkState(ctx, dir, s)
	}
	if err == nil {
		err = w.checkLedger(data)
	}
	w.saved = max(w.saved, s.Active.Number)
	return errors.Join(err, data.Close())
}

// checkState: the state is the last one that was told of or the one after it, and what it says serves is complete.
func (w *witness) checkState(ctx context.Context, dir string, s modelstore.Saved) error {
	n := s.Active.Number
	if n != w.saved && n != w.saved+1 {
		return fmt.Errorf("state is of version %d, want %d or the next", n, w.saved)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "state", "text.json.damaged")); err == nil {
		return errors.New("the state file was damaged")
	}
	if n == 0 {
		return nil
	}
	if s.Previous.Number != n-1 || s.Active.Digest != crashed(n).digest() {
		return fmt.Errorf("state mixes versions: %+v", s)
	}
	cache, err := disk.OpenCache(filepath.Join(dir, "cache"), crashCache)
	if err != nil {
		return err
	}
	b, ok, err := cache.Lookup(ctx, s.Active)
	if err != nil || !ok {
		return fmt.Errorf("%v serves and is found: %v, error %w", s.Active, ok, err)
	}
	defer b.Release()
	return sameTree(b.Dir, crashed(n))
}

// checkLedger: entries come in order, and of those that were told of none is missing but the oldest, which rotation removed.
func (w *witness) checkLedger(data *disk.Data) error {
	entries, err := data.History("text", 1_000_000)
	if err != nil || len(entries) == 0 {
		return err
	}
	have := map[int64]bool{}
	for i, e := range entries {
		n := e.Candidate.Number
		if i > 0 && n >= entries[i-1].Candidate.Number {
			return fmt.Errorf("entry %d comes after %d", n, entries[i-1].Candidate.Number)
		}
		have[n] = true
	}
	oldest := entries[len(entries)-1].Candidate.Number
	for n := range w.recorded {
		if n > oldest && !have[n] {
			return fmt.Errorf("entry %d was recorded and is missing; the oldest is %d", n, oldest)
		}
	}
	return nil
}
