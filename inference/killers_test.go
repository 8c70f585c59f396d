package inference_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/worker/workertest"
)

// A tally is what a model under supervision told.
type tally struct {
	mu       sync.Mutex // guards what follows
	deaths   map[engine.Cause]int
	restarts int
	refused  int
	charged  []string
	blamed   []string
}

func (c *tally) supervision(killers int, refuseFor time.Duration) inference.Supervision {
	c.deaths = map[engine.Cause]int{}
	note := func(f func()) { c.mu.Lock(); defer c.mu.Unlock(); f() }
	return inference.Supervision{Killers: killers, RefuseFor: refuseFor,
		Died:      func(cause engine.Cause) { note(func() { c.deaths[cause]++ }) },
		Restarted: func() { note(func() { c.restarts++ }) },
		Refused:   func() { note(func() { c.refused++ }) },
		Charged:   func(what string) { note(func() { c.charged = append(c.charged, what) }) },
		AtFault:   func(why string) { note(func() { c.blamed = append(c.blamed, why) }) },
	}
}

func (c *tally) died() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deaths[engine.Crashed]
}

// deadlyModel is a model that some words kill, checked as one that serves.
func deadlyModel(t *testing.T, s inference.Supervision, words ...string) *inference.Model {
	t.Helper()
	if !workertest.Isolated() {
		t.Skip("in this process it would end the test")
	}
	m := openModel(t, writeBundle(t, enginetest.TextBundle{Deadly: words}), inference.Options{Supervision: s, Workers: 2})
	if err := m.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// Among many under load only the input that kills fails; it isn't tried again, however it comes.
func TestKillerIsRefused(t *testing.T) {
	var c tally
	m := deadlyModel(t, c.supervision(3, 0), "hate")
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	var answered atomic.Int64
	loaded := make(chan struct{})
	for i := range 6 {
		others.Go(func() {
			for n := i; ctx.Err() == nil || n < 40; n++ {
				if _, err := m.Predict(t.Context(), input(strings.Repeat("good film ", 1+n%5))); err != nil {
					t.Errorf("a harmless input: %v", err)
				}
				if answered.Add(1) == 30 {
					close(loaded)
				}
			}
		})
	}
	<-loaded
	_, err := m.Predict(t.Context(), input("they hate this"))
	if !errors.Is(err, engine.ErrCrashed) || errors.Is(err, inference.ErrKiller) {
		t.Errorf("the killer got %v, want ErrCrashed", err)
	}
	deaths := c.died()
	if deaths < 1 || deaths > 3 {
		t.Errorf("%d deaths of one killer", deaths)
	}
	for range 20 {
		if _, err := m.Predict(t.Context(), input("they hate this")); !errors.Is(err, inference.ErrKiller) || !strings.Contains(err.Error(), "10m0s") {
			t.Errorf("the second time: %v, want that it isn't tried again for 10m0s", err)
		}
	}
	stop()
	others.Wait()
	if c.died() != deaths || c.refused != 20 || len(c.blamed) > 0 {
		t.Errorf("%d deaths, then %d; %d refused, blamed %q", deaths, c.died(), c.refused, c.blamed)
	}
	if h := m.Health(); h != (inference.Health{Deaths: deaths, Killers: 1, Refused: 1}) {
		t.Errorf("%+v", h)
	}
	t.Logf("%d harmless inputs answered, %d deaths", answered.Load(), deaths)
}

// Copies of a killer that wait while the first one kills are refused too, without a death each.
func TestCopiesOfAKiller(t *testing.T) {
	var c tally
	m := deadlyModel(t, c.supervision(3, 0), "hate")
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			_, err := m.Predict(t.Context(), input("they hate this"))
			if !errors.Is(err, engine.ErrCrashed) && !errors.Is(err, inference.ErrKiller) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := c.died(); n > 6 { // those that ran already when the first was found out
		t.Errorf("%d deaths of 32 copies", n)
	}
}

// So many different inputs make the version guilty; the same one, tried again after its time, counts once.
func TestKillersAreCounted(t *testing.T) {
	var c tally
	const window = 300 * time.Millisecond
	m := deadlyModel(t, c.supervision(2, window), "hate", "sad")
	kill := func(text string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for time.Now().Before(deadline) {
			_, err := m.Predict(t.Context(), input(text))
			switch {
			case errors.Is(err, engine.ErrCrashed):
				return
			case !errors.Is(err, inference.ErrKiller):
				t.Fatalf("%s: %v", text, err)
			}
		}
		t.Fatalf("%s is still refused", text)
	}
	kill("hate")
	kill("hate") // it is tried again when its time is over
	if len(c.blamed) > 0 {
		t.Errorf("blamed after one input: %q", c.blamed)
	}
	kill("sad")
	if len(c.blamed) != 1 || !strings.Contains(c.blamed[0], "2 different inputs") || !strings.Contains(c.blamed[0], "SIGFPE") {
		t.Errorf("blamed %q", c.blamed)
	}
	kill("sad day")
	if len(c.blamed) != 2 {
		t.Errorf("a third input: blamed %q", c.blamed)
	}
	if len(c.charged) != 1 || !strings.Contains(c.charged[0], "sha256") || !strings.Contains(c.charged[0], "SIGFPE") {
		t.Errorf("charged %q, want the first input, once", c.charged)
	}
}

// A worker that somebody else kills is nobody's fault: not the input's, not the version's, not even before it serves.
func TestKilledByHand(t *testing.T) {
	var c tally
	s := c.supervision(1, 0)
	if !workertest.Isolated() {
		t.Skip("there is no worker")
	}
	dir := writeBundle(t, enginetest.TextBundle{Seed: 1})
	killing := &killingEngine{Engine: newEngine(t)}
	m, err := inference.Open(t.Context(), dir, killing, inference.Options{Supervision: s})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	killing.on.Store(true)
	for name, do := range map[string]func(context.Context) error{
		"warm-up": m.WarmUp,
		"predict": func(ctx context.Context) error { _, err := m.Predict(ctx, input("good")); return err },
	} {
		err := do(t.Context())
		if !errors.Is(err, engine.ErrCrashed) || errors.Is(err, inference.ErrBundle) {
			t.Errorf("%s: %v, want a crash that isn't the bundle's fault", name, err)
		}
	}
	killing.on.Store(false)
	if err := errors.Join(m.WarmUp(t.Context()), m.Check(t.Context())); err != nil {
		t.Error(err)
	}
	predict(t, m, "good")
	if h := m.Health(); h.Killers != 0 || h.Refused != 0 || len(c.blamed) > 0 {
		t.Errorf("%+v, blamed %q", h, c.blamed)
	}
}

// A killingEngine says of each run, while on, that somebody has killed its process: as often as a run is tried.
type killingEngine struct {
	engine.Engine
	on atomic.Bool
}

type killingSession struct {
	engine.Session
	e *killingEngine
}

func (e *killingEngine) Open(ctx context.Context, path string, o engine.Options) (engine.Session, error) {
	s, err := e.Engine.Open(ctx, path, o)
	return killingSession{s, e}, err
}

func (s killingSession) Run(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	if s.e.on.Load() {
		return nil, &engine.CrashError{Cause: engine.Killed, Err: errors.New("killed")}
	}
	return s.Session.Run(ctx, in)
}

// What kills the process before the version serves is the bundle's fault.
func TestKillerBeforeItServes(t *testing.T) {
	var c tally
	s := c.supervision(1, 0)
	if !workertest.Isolated() {
		t.Skip("in this process it would end the test")
	}
	dir := writeBundle(t, enginetest.TextBundle{Deadly: []string{"hate"}})
	golden := `{"request": {"text": "they hate this"}, "scores": {"negative": 0.5, "positive": 0.5}, "tolerance": 0.001}` + "\n"
	if err := os.WriteFile(dir+"/golden.jsonl", []byte(golden), 0o600); err != nil {
		t.Fatal(err)
	}
	m := openModel(t, dir, inference.Options{Supervision: s})
	if err := m.Check(t.Context()); !errors.Is(err, inference.ErrBundle) || !errors.Is(err, engine.ErrCrashed) {
		t.Errorf("%v, want that the bundle is at fault, and crashed", err)
	}
	if len(c.blamed) > 0 {
		t.Errorf("the version doesn't serve and was blamed: %q", c.blamed)
	}
}

// Only the newest killers are remembered.
func TestManyKillers(t *testing.T) {
	var c tally
	m, err := inference.Open(t.Context(), writeBundle(t, enginetest.TextBundle{Seed: 1}), provenEngine{newEngine(t)}, inference.Options{Supervision: c.supervision(1<<20, 0)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	words := enginetest.Words()
	text := func(i int) string { // of three words each: the number i
		return fmt.Sprintf("very %s %s %s", words[i%len(words)], words[i/len(words)%len(words)], words[i/len(words)/len(words)])
	}
	for i := range 1100 {
		if _, err := m.Predict(t.Context(), input(text(i))); !errors.Is(err, engine.ErrCrashed) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if h := m.Health(); h.Killers != 1100 || h.Refused != 1024 {
		t.Errorf("%+v", h)
	}
	var refused []bool
	for _, i := range []int{1099, 76, 75, 0} {
		_, err := m.Predict(t.Context(), input(text(i)))
		refused = append(refused, errors.Is(err, inference.ErrKiller))
	}
	if want := []bool{true, true, false, false}; !slices.Equal(refused, want) {
		t.Errorf("refused: %v, want %v", refused, want)
	}
}

// A provenEngine says of each run of a text of four words that it ended the process.
type provenEngine struct{ engine.Engine }

type provenSession struct{ engine.Session }

func (e provenEngine) Open(ctx context.Context, path string, o engine.Options) (engine.Session, error) {
	s, err := e.Engine.Open(ctx, path, o)
	return provenSession{s}, err
}

func (s provenSession) Run(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	if in[0].Shape[1] == 4 {
		return nil, &engine.CrashError{Cause: engine.Crashed, Proven: true, Err: errors.New("a test")}
	}
	return s.Session.Run(ctx, in)
}
