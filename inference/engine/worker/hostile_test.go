package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modelgate/inference/batch"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/worker"
)

// divide is q = x / y over whole numbers. The processor can't divide the smallest one by -1.
func divide() *enginetest.Graph {
	return enginetest.NewGraph().
		Input("x", enginetest.Int64, "batch").Input("y", enginetest.Int64, "batch").
		Node("Div", []string{"x", "y"}, []string{"q"}).
		Output("q", enginetest.Int64, "batch")
}

func pair(x, y int64) []engine.Tensor {
	return []engine.Tensor{{Shape: []int64{1}, Data: []int64{x}}, {Shape: []int64{1}, Data: []int64{y}}}
}

func checkDivides(t *testing.T, s engine.Session, x, y int64) {
	t.Helper()
	out, err := s.Run(t.Context(), pair(x, y))
	if err != nil {
		t.Errorf("%d / %d: %v", x, y, err)
		return
	}
	if want := []int64{x / y}; !reflect.DeepEqual(out[0].Data, want) {
		t.Errorf("%d / %d = %v", x, y, out[0].Data)
	}
}

// A request that kills the process gets an error. Those beside it, and those after it, get their answers.
func TestRunThatKills(t *testing.T) {
	s := enginetest.Open(t, serving(t), divide())
	checkDivides(t, s, 7, 2)
	var others sync.WaitGroup
	for i := range int64(4) {
		others.Go(func() {
			for n := range int64(50) {
				checkDivides(t, s, 1000*i+n, 3)
			}
		})
	}
	checkProven(t, s)
	others.Wait()
	checkDivides(t, s, 9, 3)
}

// checkProven has s divide what can't be divided.
func checkProven(t *testing.T, s engine.Session) {
	t.Helper()
	out, err := s.Run(t.Context(), pair(math.MinInt64, -1))
	var crash *engine.CrashError
	if !errors.As(err, &crash) || crash.Cause != engine.Crashed || !crash.Proven || !errors.Is(err, engine.ErrCrashed) || errors.Is(err, engine.ErrGraph) {
		t.Errorf("%v, %v, want a crash of which this run is proven to be the cause", out, err)
	}
}

// watched opens a graph and counts the deaths, by cause, and the restarts of its workers.
func watched(t *testing.T, e engine.Engine, g *enginetest.Graph) (engine.Session, func() (map[engine.Cause]int, int)) {
	t.Helper()
	var mu sync.Mutex // guards the two below
	deaths, restarts := map[engine.Cause]int{}, 0
	path := t.TempDir() + "/model.onnx"
	if err := g.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	s, err := e.Open(t.Context(), path, engine.Options{
		Died:      func(c engine.Cause) { mu.Lock(); defer mu.Unlock(); deaths[c]++ },
		Restarted: func() { mu.Lock(); defer mu.Unlock(); restarts++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, func() (map[engine.Cause]int, int) {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(deaths), restarts
	}
}

// A worker that has answered before may have died of what came before: its last run is tried once more, on another. One that dies of
// the very first it gets proves it at once.
func TestHowOftenARunMayKill(t *testing.T) {
	s, seen := watched(t, serving(t), divide())
	for i, want := range []int{1, 2, 4} {
		checkProven(t, s)
		if i > 0 {
			checkDivides(t, s, 6, 3)
		}
		deaths, _ := seen()
		if deaths[engine.Crashed] != want || len(deaths) != 1 {
			t.Errorf("after killer %d: deaths %v, want %d", i+1, deaths, want)
		}
	}
	if deaths, restarts := seen(); restarts != deaths[engine.Crashed] {
		t.Errorf("%d restarts after deaths %v", restarts, deaths)
	}
}

// A run of several rows that somebody else's kill ended is told apart from one that did it itself.
func TestCauseOfACrash(t *testing.T) {
	s, seen := watched(t, newEngine(t, worker.Options{}, "probe", "-"), divide())
	_, err := s.Run(t.Context(), []engine.Tensor{{Shape: []int64{2}, Data: []string{"create", "killed"}}})
	var crash *engine.CrashError
	if !errors.As(err, &crash) || crash.Cause != engine.Killed || crash.Proven {
		t.Errorf("%+v: %v, want one that was killed by somebody else", crash, err)
	}
	if deaths, _ := seen(); deaths[engine.Killed] != 1 || len(deaths) != 1 {
		t.Errorf("deaths %v", deaths)
	}
}

// In a batch only the request that kills fails, since who joined the batch runs its rows one by one.
func TestRowThatKills(t *testing.T) {
	s := enginetest.Open(t, serving(t), divide())
	b := batch.New(batch.Options[[2]int64]{Workers: 1}, func(ctx context.Context, in [][2]int64) ([]int64, error) {
		var x, y []int64
		for _, p := range in {
			x, y = append(x, p[0]), append(y, p[1])
		}
		shape := []int64{int64(len(in))}
		out, err := s.Run(ctx, []engine.Tensor{{Shape: shape, Data: x}, {Shape: shape, Data: y}})
		if err != nil {
			return nil, err
		}
		q, _ := out[0].Data.([]int64)
		return q, nil
	})
	defer b.Close()
	var all sync.WaitGroup
	for i := range int64(24) {
		all.Go(func() {
			in := [2]int64{i * 10, 2}
			if i == 5 {
				in = [2]int64{math.MinInt64, -1}
			}
			q, err := b.Do(t.Context(), in)
			switch {
			case i == 5 && !errors.Is(err, engine.ErrCrashed):
				t.Errorf("the killer got %d, %v", q, err)
			case i != 5 && (err != nil || q != i*5):
				t.Errorf("row %d got %d, %v", i, q, err)
			}
		})
	}
	all.Wait()
}

// Whoever kills the worker from outside fails nobody: what was in flight runs again.
func TestKilledFromOutside(t *testing.T) {
	s := enginetest.Open(t, serving(t), divide())
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range int64(8) {
		all.Go(func() {
			for n := int64(0); ctx.Err() == nil; n++ {
				checkDivides(t, s, 1000*i+n, 3)
			}
		})
	}
	for range 4 {
		checkDivides(t, s, 8, 2)
		was := worker.PID(s)
		if err := unix.Kill(was, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for worker.PID(s) == was || worker.PID(s) == 0 {
			checkDivides(t, s, 6, 2)
		}
	}
	cancel()
	all.Wait()
}

// What a service manager or a terminal sends to all processes of the gateway is the gateway's to heed.
func TestSignalsOfTheGateway(t *testing.T) {
	s := enginetest.Open(t, serving(t), divide())
	was := worker.PID(s)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		if err := unix.Kill(was, sig); err != nil {
			t.Fatal(err)
		}
		checkDivides(t, s, 6, 2)
	}
	if worker.PID(s) != was {
		t.Error("the worker has ended")
	}
}

// A graph that kills the process that loads it is refused.
func TestLoadThatKills(t *testing.T) {
	one := func(v int64) enginetest.Tensor { return enginetest.Tensor{Shape: []int64{1}, Data: []int64{v}} }
	g := enginetest.NewGraph().Input("x", enginetest.Int64, "batch").
		Init("a", one(math.MinInt64)).Init("b", one(-1)).
		Node("Div", []string{"a", "b"}, []string{"c"}).
		Node("Add", []string{"x", "c"}, []string{"y"}).
		Output("y", enginetest.Int64, "batch")
	checkRefused(t, serving(t), g)
}

func openGraph(ctx context.Context, t *testing.T, e engine.Engine, g *enginetest.Graph) (engine.Session, error) {
	t.Helper()
	path := t.TempDir() + "/model.onnx"
	if err := g.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return e.Open(ctx, path, engine.Options{})
}

func checkRefused(t *testing.T, e engine.Engine, g *enginetest.Graph) {
	t.Helper()
	s, err := openGraph(t.Context(), t, e, g)
	if !errors.Is(err, engine.ErrGraph) {
		t.Errorf("%v, want ErrGraph", err)
	}
	if s != nil {
		_ = s.Close()
	}
}

// bigProduct has the optimizer multiply huge constants at load, for minutes.
func bigProduct() *enginetest.Graph {
	g := enginetest.NewGraph().Input("x", enginetest.Float, "batch").
		Init("shape", enginetest.Tensor{Shape: []int64{2}, Data: []int64{6000, 6000}}).
		Init("axes", enginetest.Tensor{Shape: []int64{2}, Data: []int64{0, 1}}).
		Node("ConstantOfShape", []string{"shape"}, []string{"m0"}, enginetest.TensorAttr("value", enginetest.Tensor{Shape: []int64{1}, Data: []float32{1e-4}}))
	last := "m0"
	for _, next := range []string{"m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"} {
		g.Node("MatMul", []string{last, last}, []string{next})
		last = next
	}
	return g.Node("ReduceSum", []string{last, "axes"}, []string{"sum"}, enginetest.IntAttr("keepdims", 0)).
		Node("Add", []string{"x", "sum"}, []string{"y"}).Output("y", enginetest.Float, "batch")
}

// A load that takes too long is the graph's fault only where it was allowed to run.
func TestLoadThatHangs(t *testing.T) {
	const limit = time.Second
	t.Run("a graph", func(t *testing.T) {
		checkRefused(t, newEngine(t, worker.Options{LoadTimeout: limit}, "ort", enginetest.Library(t)), bigProduct())
	})
	t.Run("computes", func(t *testing.T) {
		checkRefused(t, newEngine(t, worker.Options{LoadTimeout: limit}, "spin", "-"), divide())
	})
	t.Run("waits", func(t *testing.T) {
		_, err := openGraph(t.Context(), t, newEngine(t, worker.Options{LoadTimeout: limit / 2}, "sleep", "-"), divide())
		if err == nil || errors.Is(err, engine.ErrGraph) {
			t.Errorf("%v, want an error that isn't the graph's", err)
		}
	})
	t.Run("killed from outside", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var killer sync.WaitGroup
		killer.Go(func() {
			for ctx.Err() == nil {
				for _, pid := range childrenOf(t) {
					if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), "\x00spin\x00") {
						_ = unix.Kill(pid, unix.SIGKILL)
					}
				}
			}
		})
		_, err := openGraph(ctx, t, newEngine(t, worker.Options{}, "spin", "-"), divide())
		cancel()
		killer.Wait()
		if err == nil || errors.Is(err, engine.ErrGraph) {
			t.Errorf("%v, want an error that isn't the graph's", err)
		}
	})
	t.Run("nobody waits any more", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := openGraph(ctx, t, newEngine(t, worker.Options{}, "spin", "-"), divide()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's error", err)
		}
	})
}

// What is wrong with the worker itself isn't the graph's fault.
func TestWorkerThatIsNone(t *testing.T) {
	for _, does := range []string{"none", "dead"} {
		_, err := openGraph(t.Context(), t, newEngine(t, worker.Options{}, does, "-"), divide())
		if err == nil || errors.Is(err, engine.ErrGraph) {
			t.Errorf("%s: %v, want an error that isn't the graph's", does, err)
		}
		if err := newEngine(t, worker.Options{}, does, "-").Try(t.Context()); err == nil {
			t.Errorf("%s was tried with success", does)
		}
	}
	if err := newEngine(t, worker.Options{}, "ort", enginetest.Library(t)).Try(t.Context()); err != nil {
		t.Error(err)
	}
	o := options("ort")
	o.Path = "/no/such/program"
	e, err := worker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openGraph(t.Context(), t, e, divide()); err == nil || errors.Is(err, engine.ErrGraph) {
		t.Errorf("no program: %v", err)
	}
	for name, spoil := range map[string]func(*worker.Options){
		"no path":         func(o *worker.Options) { o.Path = "" },
		"relative":        func(o *worker.Options) { o.Path = "modelgate" },
		"no name":         func(o *worker.Options) { o.Args = nil },
		"no logger":       func(o *worker.Options) { o.Logger = nil },
		"negative limits": func(o *worker.Options) { o.DataLimit = -1 },
	} {
		o := options("ort")
		spoil(&o)
		if _, err := worker.New(o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// A graph that asks for more memory than it may have gets none, and can go on.
func TestAllocationBomb(t *testing.T) {
	g := enginetest.NewGraph().Input("shape", enginetest.Int64, 2).
		Node("ConstantOfShape", []string{"shape"}, []string{"y"}, enginetest.TensorAttr("value", enginetest.Tensor{Shape: []int64{1}, Data: []float32{1}})).
		Node("ReduceMax", []string{"y"}, []string{"max"}, enginetest.IntAttr("keepdims", 1)).
		Output("max", enginetest.Float, 1, 1)
	for name, limits := range map[string][2]int64{"of the engine": {1 << 30, 0}, "of the graph": {0, 1 << 30}, "the smaller one": {1 << 40, 1 << 30}, "either way": {1 << 30, 1 << 40}} {
		t.Run(name, func(t *testing.T) { askForMemory(t, limited(t, g, limits[0], limits[1])) })
	}
}

// limited opens g in a worker with a limit of the engine's and one of the graph's.
func limited(t *testing.T, g *enginetest.Graph, engines, graphs int64) engine.Session {
	t.Helper()
	s, err := openLimited(t, g, engines, graphs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openLimited(t *testing.T, g *enginetest.Graph, engines, graphs int64) (engine.Session, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := g.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	s, err := newEngine(t, worker.Options{DataLimit: engines}, "ort", enginetest.Library(t)).Open(t.Context(), path, engine.Options{Memory: graphs})
	if s != nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

// A graph whose constants are that large takes the memory at its load, or at its first run: neither gets it.
func TestAllocationBombAtLoad(t *testing.T) {
	g := enginetest.NewGraph().Input("x", enginetest.Float, "n").
		Init("shape", enginetest.Tensor{Shape: []int64{2}, Data: []int64{1 << 16, 1 << 14}}).
		Node("ConstantOfShape", []string{"shape"}, []string{"c"}, enginetest.TensorAttr("value", enginetest.Tensor{Shape: []int64{1}, Data: []float32{1}})).
		Node("ReduceMax", []string{"c"}, []string{"max"}, enginetest.IntAttr("keepdims", 0)).
		Node("Add", []string{"x", "max"}, []string{"y"}).
		Output("y", enginetest.Float, "n")
	s, err := openLimited(t, g, 0, 1<<30)
	if err == nil {
		_, err = s.Run(t.Context(), []engine.Tensor{{Shape: []int64{1}, Data: []float32{1}}})
	}
	if !errors.Is(err, engine.ErrGraph) && !errors.Is(err, engine.ErrCrashed) {
		t.Errorf("4 GiB: %v", err)
	}
}

func askForMemory(t *testing.T, s engine.Session) {
	ask := func(rows, columns int64) error {
		_, err := s.Run(t.Context(), []engine.Tensor{{Shape: []int64{2}, Data: []int64{rows, columns}}})
		return err
	}
	before := worker.PID(s)
	if err := ask(16, 16); err != nil {
		t.Fatal(err)
	}
	if err := ask(1<<16, 1<<14); !errors.Is(err, engine.ErrGraph) && !errors.Is(err, engine.ErrCrashed) {
		t.Errorf("4 GiB: %v", err)
	}
	if err := ask(16, 16); err != nil {
		t.Error(err)
	}
	t.Logf("the worker lives on: %v", before == worker.PID(s))
}

// A worker that doesn't end a cancelled run, or doesn't do anything any more, is killed; what else was in flight runs again.
func TestHungRun(t *testing.T) {
	t.Run("doesn't hear", func(t *testing.T) {
		s := enginetest.Open(t, newEngine(t, worker.Options{Grace: 300 * time.Millisecond}, "probe", "-"), divide())
		was := worker.PID(s)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := s.Run(ctx, question("deaf")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, engine.ErrCrashed) {
			t.Errorf("%v, want the context's error", err)
		}
		if got := ask(t, s, "create"); got == "" || worker.PID(s) == was {
			t.Errorf("%q from worker %d, which was %d", got, worker.PID(s), was)
		}
	})
	t.Run("computes on", func(t *testing.T) {
		s := enginetest.Open(t, newEngine(t, worker.Options{Grace: time.Second}, "probe", "-"), divide())
		if c, ok := s.(engine.Candidate); !ok || c.Live(t.Context()) != nil { // it gets its share of a busy machine
			t.Fatal("it can't be made live")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := s.Run(ctx, question("busy"))
		var crash *engine.CrashError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &crash) || crash.Cause != engine.Hung || !crash.Proven {
			t.Errorf("%v, want the context's error, and that the run is why", err)
		}
	})
	t.Run("hears", func(t *testing.T) {
		s := enginetest.Open(t, newEngine(t, worker.Options{}, "probe", "-"), divide())
		was := worker.PID(s)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := s.Run(ctx, question("patient")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's error", err)
		}
		if ask(t, s, "create"); worker.PID(s) != was {
			t.Error("it was killed")
		}
	})
	t.Run("stopped", func(t *testing.T) {
		s := enginetest.Open(t, newEngine(t, worker.Options{Grace: 300 * time.Millisecond}, "ort", enginetest.Library(t)), divide())
		if err := unix.Kill(worker.PID(s), unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		patient := make(chan error, 1)
		go func() {
			_, err := s.Run(t.Context(), pair(6, 3))
			patient <- err
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := s.Run(ctx, pair(6, 2)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, engine.ErrCrashed) {
			t.Errorf("%v, want the context's error", err)
		}
		if err := <-patient; err != nil {
			t.Errorf("who had time: %v", err)
		}
		checkDivides(t, s, 6, 2)
	})
	t.Run("closed while stopped", func(t *testing.T) {
		s := enginetest.Open(t, newEngine(t, worker.Options{Grace: 300 * time.Millisecond}, "ort", enginetest.Library(t)), divide())
		if err := unix.Kill(worker.PID(s), unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func question(q string) []engine.Tensor {
	return []engine.Tensor{{Shape: []int64{1}, Data: []string{q}}}
}

func ask(t *testing.T, s engine.Session, q string) string {
	t.Helper()
	out, err := s.Run(t.Context(), question(q))
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	answers, _ := out[0].Data.([]string)
	return answers[0]
}

// However soon a run is cancelled, its worker hears of it.
func TestCancelledAtOnce(t *testing.T) {
	s := enginetest.Open(t, newEngine(t, worker.Options{}, "probe", "-"), divide())
	was := worker.PID(s)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				go cancel()
				if _, err := s.Run(ctx, []engine.Tensor{{Shape: []int64{1}, Data: []string{"patient"}}}); !errors.Is(err, context.Canceled) {
					t.Errorf("%v, want the context's error", err)
				}
			}
		})
	}
	all.Wait()
	if now := worker.PID(s); now != was {
		t.Errorf("worker %d is in the place of %d: a run that was cancelled hung", now, was)
	}
}
