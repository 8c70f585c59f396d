package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"golang.org/x/sys/unix"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
	"modelgate/inference/engine/worker"
)

// TestMain makes this program its own worker: started with such arguments it is one, and never gets to the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "worker" {
		err := beWorker(os.Args[2:])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "parent" {
		beParent(os.Args[2], os.Args[3])
	}
	goleak.VerifyTestMain(m)
}

func beWorker(args []string) error {
	h := worker.Host{Engine: func() (engine.Engine, error) { return probe{args[0]}, nil }}
	h.Job = probeJob
	switch args[0] {
	case "ort":
		h.Engine = func() (engine.Engine, error) { return ort.Open(ort.Options{LibraryPath: args[1], Isolated: true}) }
		h.Libraries = []string{filepath.Dir(args[1])}
		h.Loaded = ort.Trim
	case "none":
		h.Engine = func() (engine.Engine, error) { return nil, errors.New("the library isn't there") }
	case "dead":
		os.Exit(3)
	}
	return worker.Serve(h)
}

// beParent opens a graph, says which process its worker is, and waits to be killed.
func beParent(library, graph string) {
	e, err := worker.New(options("ort", library))
	if err != nil {
		panic(err)
	}
	s, err := e.Open(context.Background(), graph, engine.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Println(worker.PID(s))
	select {}
}

// options start this program as a worker with those arguments.
func options(args ...string) worker.Options {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return worker.Options{Path: exe, Args: append([]string{"modelgate", "worker"}, args...), Logger: slog.Default()}
}

func newEngine(t testing.TB, o worker.Options, args ...string) *worker.Engine {
	t.Helper()
	o.Path, o.Args = options(args...).Path, options(args...).Args
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	e, err := worker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// serving is the engine that serves.
func serving(t testing.TB) engine.Engine {
	return newEngine(t, worker.Options{}, "ort", enginetest.Library(t))
}

// A probe is an engine that looks around in its worker, or misbehaves.
type probe struct{ does string }

func (p probe) Open(_ context.Context, path string, _ engine.Options) (engine.Session, error) {
	switch p.does {
	case "spin":
		for n := 0; ; n++ {
			runtime.KeepAlive(n)
		}
	case "sleep":
		select {}
	}
	return probeSession{path, scheduling()}, nil
}

type probeSession struct{ path, loading string }

func (probeSession) Inputs() []engine.TensorSpec {
	return []engine.TensorSpec{{Name: "x", Type: engine.String}}
}
func (probeSession) Outputs() []engine.TensorSpec {
	return []engine.TensorSpec{{Name: "y", Type: engine.String}}
}
func (probeSession) Close() error { return nil }

// Run answers each question.
func (s probeSession) Run(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	var out []string
	questions, _ := in[0].Data.([]string)
	for _, q := range questions {
		out = append(out, s.answer(ctx, q))
	}
	return []engine.Tensor{{Shape: []int64{int64(len(out))}, Data: out}}, nil
}

func (s probeSession) answer(ctx context.Context, q string) string {
	what, path, _ := strings.Cut(q, " ")
	switch what {
	case "environment":
		return strings.Join(os.Environ(), " ")
	case "scheduling":
		return s.loading + " " + scheduling()
	case "read":
		_, err := os.ReadFile(path)
		return fmt.Sprint(err)
	case "write":
		return fmt.Sprint(os.WriteFile(path, []byte("x"), 0o600))
	case "create":
		return fmt.Sprint(os.WriteFile("file", []byte("x"), 0o600))
	case "killed": // as by somebody else
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "deaf":
		select {}
	case "busy":
		for n := 0; ; n++ {
			runtime.KeepAlive(n)
		}
	case "patient":
		<-ctx.Done()
		return "cancelled"
	case "descriptors":
		return descriptors()
	case "privileges":
		n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
		return fmt.Sprint(n, err)
	}
	return "what?"
}

func scheduling() string {
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err.Error()
	}
	return strconv.Itoa(int(a.Policy))
}

// descriptors lists what is open that isn't Go's own.
func descriptors() string {
	var open []string
	for fd := range 256 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		open = append(open, fmt.Sprintf("%d:%o", fd, st.Mode&unix.S_IFMT))
	}
	return strings.Join(open, " ")
}
