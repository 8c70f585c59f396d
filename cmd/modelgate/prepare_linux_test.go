package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modelgate/cmd/modelgate/config"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
	"modelgate/inference/engine/worker"
	"modelgate/modelstore"
	"modelgate/modelstore/disk"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// publishEncoder makes version n of the text model of an Encoder, all at once.
func publishEncoder(t *testing.T, w testbed, n int, e enginetest.Encoder) {
	t.Helper()
	next := filepath.Join(w.dir, "next")
	if err := (enginetest.TextBundle{}).Write(next); err != nil {
		t.Fatal(err)
	}
	if err := e.Graph().WriteLarge(filepath.Join(next, "model.onnx"), false); err != nil {
		t.Fatal(err)
	}
	publishFolder(t, w, n, next)
}

func publishFolder(t *testing.T, w testbed, n int, next string) {
	t.Helper()
	rate(t, next, 0.8+float64(n)/100)
	if err := os.Rename(next, filepath.Join(w.models(), "text", strconv.Itoa(n))); err != nil {
		t.Fatal(err)
	}
}

func awaitVersion(t *testing.T, p *process, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	err := p.await(ctx, func(m *modelgatev1.Model) bool { return m.GetActive().GetVersion() == strconv.Itoa(n) })
	if err != nil {
		t.Fatalf("version %d: %v\n%s", n, err, p.log())
	}
}

// anonymous is the memory of its own that a process has, in MiB.
func anonymous(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`RssAnon:\s+(\d+)`).FindStringSubmatch(string(text))
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n >> 10
}

// Two versions that are mapped in their prepared form keep little memory of their own. `make soak` does it with larger ones, and says
// how soon they serve.
func TestPreparedVersionsAreSmall(t *testing.T) {
	const most = 120 // MiB
	w := newTestbed(t)
	publishEncoder(t, w, 1, enginetest.MiniLM(1))
	p := w.serve(t, "--isolation", "process")
	<-p.listening
	awaitVersion(t, p, 1)
	publishEncoder(t, w, 2, enginetest.MiniLM(2))
	awaitVersion(t, p, 2)
	conn, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := say(modelgatev1.NewPredictionServiceClient(conn), strings.Repeat("good film ", 15)); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, pid := range workersOf(t, p) {
		n := anonymous(t, pid)
		t.Logf("worker %d: %d MiB of its own", pid, n)
		total += n
	}
	if total > most {
		t.Errorf("%d MiB together, the limit is %d", total, most)
	}
	if strings.Contains(p.log(), "isn't used") || strings.Contains(p.log(), "no prepared form") {
		t.Errorf("no prepared form:\n%s", p.log())
	}
}

// workersOf are the processes that p started and that compute.
func workersOf(t *testing.T, p *process) (pids []int) {
	t.Helper()
	return childrenOf(t, p.cmd.Process.Pid)
}

// childrenOf are the workers that a process has.
func childrenOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		list, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(list)) {
			line, err := os.ReadFile("/proc/" + field + "/cmdline")
			if err != nil || !strings.Contains(string(line), "\x00worker\x00") {
				continue
			}
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// lab is a preparer over a cache of its own, with one bundle in it.
type lab struct {
	p *preparer
	b modelstore.Bundle
}

// newLab adds the bundle that is in dir. A child may take limit.
func newLab(t *testing.T, dir string, limit time.Duration) lab {
	t.Helper()
	c, err := config.Load(config.Sources{Env: []string{"HOME=" + t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	library := enginetest.Library(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	workers, err := worker.New(worker.Options{Path: exe, Args: []string{"modelgate", "worker", library}, Logger: log, LoadTimeout: limit})
	if err != nil {
		t.Fatal(err)
	}
	machine, err := machineKey(library)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := disk.OpenCache(t.TempDir(), disk.CacheOptions{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	b, err := cache.Add(t.Context(), modelstore.Version{Model: "text", Number: 1, Created: time.Unix(1, 0), Source: "x"},
		func(_ context.Context, into string) error { return os.CopyFS(into, os.DirFS(dir)) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Release() })
	return lab{&preparer{config: c, cache: cache, memory: newAdmission(0, log), workers: workers, machine: machine, log: log, timeout: limit}, b}
}

// bundleOf is a folder with a small text model, after edit.
func bundleOf(t *testing.T, edit func(dir string) error) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := errors.Join((enginetest.TextBundle{}).Write(dir), edit(dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func replaceIn(dir, name, old, with string) error {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err == nil && !strings.Contains(string(text), old) {
		err = fmt.Errorf("%s has no %s", name, old)
	}
	return errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(strings.Replace(string(text), old, with, 1)), 0o600))
}

// What is made to do harm does it in the child, and is refused for good.
func TestHostileBundlesAreFoundOutInTheChild(t *testing.T) {
	explode := `"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a|a)*$"}, "behavior": "Isolated", "invert": false}`
	deadlyAlways := func(dir string) error {
		return enginetest.DeadlyText(len(enginetest.Words()) + 2).WriteFile(filepath.Join(dir, "model.onnx"))
	}
	for name, c := range map[string]struct {
		edit func(dir string) error
		want string
	}{
		"regular expression that explodes": {func(dir string) error {
			return replaceIn(dir, "tokenizer.json", `"pre_tokenizer": {"type": "Whitespace"}`, explode)
		}, "retry-limit"},
		"malformed tokenizer":  {func(dir string) error { return os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte("{"), 0o600) }, "tokenizer.json"},
		"graph that kills":     {deadlyAlways, "SIGFPE"},
		"graph that isn't one": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("x"), 0o600) }, "not an ONNX graph"},
		"label that isn't there": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "modelgate.yaml"), []byte("positive_label: nobody"), 0o600)
		}, "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, bundleOf(t, c.edit), 5*time.Second)
			b, err := l.p.prepare(t.Context(), l.b)
			if !errors.Is(err, modelstore.ErrPermanent) || !strings.Contains(err.Error(), c.want) || b.Prepared != "" {
				t.Errorf("%q, %v; want a permanent error that says %q", b.Prepared, err, c.want)
			}
		})
	}
}

// A small bundle is rehearsed once, and needs no form of its own.
func TestSmallBundleIsRehearsedOnly(t *testing.T) {
	l := newLab(t, bundleOf(t, func(string) error { return nil }), 0)
	b, err := l.p.prepare(t.Context(), l.b)
	if err != nil {
		t.Fatal(err)
	}
	r, err := readRehearsal(b.Prepared)
	if err != nil || r == nil || r.Graph != "" || len(r.Answers) == 0 || r.Alone || !r.Pads {
		t.Errorf("%+v, %v", r, err)
	}
	l.p.workers = nil // whoever would start a child now would be seen
	if again, err := l.p.prepare(t.Context(), l.b); err != nil || again.Prepared != b.Prepared {
		t.Errorf("%q, %v", again.Prepared, err)
	}
}

func encoderBundle(t *testing.T) string {
	t.Helper()
	return bundleOf(t, func(dir string) error {
		e := enginetest.Encoder{Vocab: 30000, Positions: 512, Hidden: 192, Layers: 2, Heads: 4, Inner: 768, Classes: 2, Seed: 1}
		return e.Graph().WriteLarge(filepath.Join(dir, "model.onnx"), true)
	})
}

// What can't be written whole isn't used, and isn't the bundle's fault; nor is a form that gives other numbers.
func TestPreparedFormThatIsNoGood(t *testing.T) {
	l := newLab(t, encoderBundle(t), 0)
	into := t.TempDir()
	files := []string{filepath.Join(into, "model.onnx"), filepath.Join(into, "model.data")}
	for _, path := range files {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var r rehearsed
	spec := task{Dir: l.b.Dir, Into: into}
	j := worker.Job{Spec: spec, Reads: []string{l.b.Dir, into}, Writes: files, FileLimit: 1 << 20}
	if err := l.p.workers.Do(t.Context(), j, &r); err != nil || r.Fault != "" || r.Graph != "" || r.Why == "" || len(r.Answers) == 0 {
		t.Errorf("on a full disk: %v, %+v", err, r)
	}
	good, err := l.p.do(t.Context(), spec, 100<<20)
	if err != nil || good.Graph == "" || good.Fault != "" {
		t.Fatalf("%v, %+v", err, good)
	}
	spec.Graph, spec.Confirm = files[0], &good.Rehearsal
	if r, err := l.p.do(t.Context(), spec, 100<<20); err != nil || r.Fault != "" {
		t.Errorf("confirm what is good: %v, %+v", err, r)
	}
	other := good.Rehearsal
	other.Answers = append([]string{"0"}, other.Answers[1:]...)
	spec.Confirm = &other
	if r, err := l.p.do(t.Context(), spec, 100<<20); err != nil || !strings.Contains(r.Fault, "other numbers") || !r.Lasting {
		t.Errorf("confirm what isn't: %v, %+v", err, r)
	}
	if err := os.Truncate(files[1], 100); err != nil {
		t.Fatal(err)
	}
	spec.Confirm = &good.Rehearsal
	if r, err := l.p.do(t.Context(), spec, 100<<20); err == nil && (r.Fault == "" || r.Lasting) {
		t.Error("a truncated form was confirmed")
	}
}

// Whoever waits for a rehearsal may leave: the child ends at once, and nothing stays. A child that somebody kills is nobody's fault.
func TestRehearsalIsCutShort(t *testing.T) {
	l := newLab(t, encoderBundle(t), 0)
	for name, cut := range map[string]func(cancel func(), pid int) error{
		"cancelled": func(cancel func(), _ int) error { cancel(); return nil },
		"killed":    func(_ func(), pid int) error { return unix.Kill(pid, unix.SIGKILL) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		before := map[int]bool{}
		for _, pid := range childrenOf(t, os.Getpid()) {
			before[pid] = true
		}
		ended := make(chan error, 1)
		go func() {
			b, err := l.p.prepare(ctx, l.b)
			if b.Prepared != "" {
				b.Release()
			}
			ended <- err
		}()
		pid := 0
		for pid == 0 {
			for _, child := range childrenOf(t, os.Getpid()) {
				if !before[child] {
					pid = child
				}
			}
		}
		if err := cut(cancel, pid); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil || errors.Is(err, modelstore.ErrPermanent) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the child is there: %v", name, err)
		}
	}
	if b, err := l.p.prepare(t.Context(), l.b); err != nil || b.Prepared == "" {
		t.Errorf("afterwards: %q, %v", b.Prepared, err)
	}
}

// A gateway that is killed while it prepares leaves no child, and the next one prepares anew.
func TestKilledWhilePreparing(t *testing.T) {
	w := newTestbed(t)
	publishFolder(t, w, 1, encoderBundle(t))
	p := w.serve(t)
	<-p.listening
	partial := filepath.Join(w.dir, "data", "cache", "partial", "prepared-*", "files", "model.data")
	for {
		if found, err := filepath.Glob(partial); err != nil || len(found) > 0 {
			break
		}
		select {
		case <-p.ended:
			t.Fatalf("it ended: %v\n%s", p.err, p.log())
		case <-time.After(time.Millisecond):
		}
	}
	children := workersOf(t, p)
	p.kill()
	deadline := time.Now().Add(patience)
	for _, pid := range children {
		for {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("child %d outlives the gateway", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
	p = w.ready(t)
	if left, err := filepath.Glob(partial); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if made, err := filepath.Glob(filepath.Join(w.dir, "data", "cache", "prepared", "*", "*", "files", "model.data")); err != nil || len(made) != 1 {
		t.Errorf("prepared: %v, %v\n%s", made, err, p.log())
	}
}

// What was prepared and can't be opened, for whatever reason, keeps no version from serving that does so by itself.
func TestPreparedFormThatIsLost(t *testing.T) {
	eng, err := ort.Open(ort.Options{LibraryPath: enginetest.Library(t)})
	if err != nil {
		t.Fatal(err)
	}
	screened := enginetest.DeadlyText(len(enginetest.Words()) + 2)
	for name, lose := range map[string]func(dir string) error{
		"no rehearsal": func(dir string) error { return os.Remove(filepath.Join(dir, rehearsalFile)) },
		"no graph":     func(dir string) error { return os.Remove(filepath.Join(dir, engine.PreparedGraph)) },
		"no weights":   func(dir string) error { return os.Remove(filepath.Join(dir, engine.PreparedData)) },
		"unreadable": func(dir string) error {
			p := filepath.Join(dir, engine.PreparedGraph)
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o700))
		},
		"refused in-process": func(dir string) error { return screened.WriteFile(filepath.Join(dir, engine.PreparedGraph)) },
	} {
		l := newLab(t, encoderBundle(t), 0)
		b, err := l.p.prepare(t.Context(), l.b)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(b.Prepared, 0o700), os.Chmod(filepath.Join(b.Prepared, engine.PreparedGraph), 0o600), lose(b.Prepared)); err != nil {
			t.Fatal(err)
		}
		m, err := openModel(t.Context(), b, eng, modelOptions(l.p.config, "text"), l.p.log)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := errors.Join(m.WarmUp(t.Context()), m.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b.Release()
	}
}

// That there is no prepared form isn't remembered where the reason may pass.
func TestReasonsThatPass(t *testing.T) {
	l := newLab(t, encoderBundle(t), 0)
	dir := t.TempDir() // what is written there is gone, as on a disk that is full in between
	if err := os.Symlink("/dev/null", filepath.Join(dir, engine.PreparedData)); err != nil {
		t.Fatal(err)
	}
	err := l.p.make(t.Context(), l.b, dir, newRehearsalOptions(modelOptions(l.p.config, "text")))
	if !errors.Is(err, errNotKept) || !strings.Contains(err.Error(), "bytes") || errors.Is(err, modelstore.ErrPermanent) {
		t.Errorf("%v, want errNotKept", err)
	}
	if _, err := os.Stat(filepath.Join(dir, rehearsalFile)); err == nil {
		t.Error("it is remembered")
	}
}
