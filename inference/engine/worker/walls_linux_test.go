package worker_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/worker"
)

// What the worker of a probe sees is what a graph that took it over could use.
func TestWalls(t *testing.T) {
	t.Setenv("SECRET", "token")
	elsewhere := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(elsewhere, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A descriptor that a library forgot to close on exec.
	fd, err := unix.Open(elsewhere, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()

	bundle := filepath.Join(t.TempDir(), "bundle")
	if err := os.MkdirAll(bundle, 0o750); err != nil {
		t.Fatal(err)
	}
	graph := filepath.Join(bundle, "model.onnx")
	if err := divide().WriteFile(graph); err != nil {
		t.Fatal(err)
	}
	s, err := newEngine(t, worker.Options{}, "probe", "-").Open(t.Context(), graph, engine.Options{Runs: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	within := filepath.Join(bundle, "new")
	for question, want := range map[string]string{
		"environment":             "MALLOC_ARENA_MAX=2 GOMAXPROCS=4",
		"privileges":              "1 <nil>",
		"read " + graph:           "<nil>",
		"read " + elsewhere:       "open " + elsewhere + ": permission denied",
		"read /etc/hostname":      "open /etc/hostname: permission denied",
		"read /proc/self/environ": "open /proc/self/environ: permission denied",
		"write " + within:         "open " + within + ": permission denied",
		"create":                  "open file: no such file or directory",
	} {
		if got := ask(t, s, question); got != want {
			t.Errorf("%s: %q, want %q", question, got, want)
		}
	}
	for _, d := range strings.Fields(ask(t, s, "descriptors")) {
		if strings.HasSuffix(d, ":100000") {
			t.Errorf("a file is open: %s", d)
		}
	}
	if dir, err := os.Readlink("/proc/" + strconv.Itoa(worker.PID(s)) + "/cwd"); err != nil || !strings.HasSuffix(dir, "(deleted)") {
		t.Errorf("it works in %s, %v", dir, err)
	}
}

// Until it is live, a worker computes only where nobody else wants to.
func TestPriority(t *testing.T) {
	s := enginetest.Open(t, newEngine(t, worker.Options{}, "probe", "-"), divide())
	idle, usual := "5", "0"
	if os.Geteuid() != 0 {
		idle = "3" // what can't be raised again isn't lowered as far
	}
	if got, want := ask(t, s, "scheduling"), idle+" "+idle; got != want {
		t.Errorf("before it is live: %s, want %s", got, want)
	}
	live, ok := s.(engine.Candidate)
	if !ok {
		t.Fatal("the session can't be told")
	}
	for range 2 {
		if err := live.Live(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		if got, want := ask(t, s, "scheduling"), idle+" "+usual; got != want {
			t.Errorf("live: %s, want %s", got, want)
		}
	}
	if err := unix.Kill(worker.PID(s), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(t, s, "scheduling"), usual+" "+usual; got != want && got != idle+" "+usual {
		t.Errorf("started anew: %s, want %s", got, want)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// childrenOf are the processes that this one has, dead ones that nobody has waited for included.
func childrenOf(t *testing.T) []int {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Error(err)
	}
	var found []int
	for _, path := range list {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		after := data[strings.LastIndexByte(string(data), ')')+1:]
		if strings.Fields(string(after))[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// Whatever was opened, run, killed and closed: no descriptor, goroutine, child or folder stays.
func TestNothingStays(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	e := serving(t)
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := divide().WriteFile(path); err != nil {
		t.Fatal(err)
	}
	cycle := func(kill bool) {
		s, err := e.Open(t.Context(), path, engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		checkDivides(t, s, 6, 3)
		if kill {
			_ = unix.Kill(worker.PID(s), unix.SIGKILL)
			checkDivides(t, s, 6, 3)
		}
		pid := worker.PID(s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("worker %d is there after Close: %v", pid, err)
		}
	}
	cycle(true)
	files, goroutines, processes := count(t, "/proc/self/fd"), runtime.NumGoroutine(), len(childrenOf(t))
	for i := range 50 {
		cycle(i%10 == 9)
	}
	if n := count(t, "/proc/self/fd"); n > files {
		t.Errorf("%d descriptors, there were %d", n, files)
	}
	if n := runtime.NumGoroutine(); n > goroutines+1 { // a timer's may just be ending
		t.Errorf("%d goroutines, there were %d", n, goroutines)
	}
	if n := len(childrenOf(t)); n > processes {
		t.Errorf("%d children, there were %d", n, processes)
	}
	if n := count(t, tmp); n != 0 {
		t.Errorf("%d files in the temporary folder", n)
	}
}

// However often a session's worker dies, and of whatever: nothing of the dead stays. MODELGATE_DEATHS says how often, if not 25 times.
func TestDeathsLeaveNothing(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	deaths := 25
	if n, err := strconv.Atoi(os.Getenv("MODELGATE_DEATHS")); err == nil {
		deaths = n
	}
	s, seen := watched(t, serving(t), divide())
	die := func(byHand bool) {
		if byHand {
			_ = unix.Kill(worker.PID(s), unix.SIGKILL)
		} else {
			checkProven(t, s)
		}
		checkDivides(t, s, 6, 3)
	}
	die(true)
	die(false)
	files, goroutines, processes := count(t, "/proc/self/fd"), runtime.NumGoroutine(), len(childrenOf(t))
	died := func() int { causes, _ := seen(); return causes[engine.Crashed] + causes[engine.Killed] }
	for i := 0; died() < deaths; i++ {
		die(i%3 == 0)
	}
	if n := count(t, "/proc/self/fd"); n > files {
		t.Errorf("%d descriptors, there were %d", n, files)
	}
	if n := runtime.NumGoroutine(); n > goroutines+1 { // a timer's may just be ending
		t.Errorf("%d goroutines, there were %d", n, goroutines)
	}
	if n := len(childrenOf(t)); n > processes {
		t.Errorf("%d children, there were %d", n, processes)
	}
	if n := count(t, tmp); n != 0 {
		t.Errorf("%d files in the temporary folder", n)
	}
	causes, restarts := seen()
	t.Logf("deaths %v, %d restarts, %d descriptors, %d goroutines", causes, restarts, files, goroutines)
}

// Whoever kills the gateway leaves no worker behind, not even one that is stopped and doesn't see its socket close.
func TestNoOrphan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := divide().WriteFile(path); err != nil {
		t.Fatal(err)
	}
	for name, stopped := range map[string]bool{"running": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			parent, pid := startParent(t, path)
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Close(fd) }()
			if stopped {
				if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			if err := parent.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = parent.Wait()
			polled, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((10 * time.Second).Milliseconds()))
			if err != nil || polled != 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
				t.Errorf("worker %d lives: %d, %v", pid, polled, err)
			}
		})
	}
}

// startParent starts a process that has a worker, and says which.
func startParent(t *testing.T, graph string) (*exec.Cmd, int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), exe, "parent", enginetest.Library(t), graph)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid == 0 {
		t.Fatalf("worker %q: %v", line, err)
	}
	return parent, pid
}
