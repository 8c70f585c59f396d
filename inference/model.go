package inference

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"modelgate/inference/batch"
	"modelgate/inference/engine"
	"modelgate/inference/text/hf"
)

// A graph adapts one kind of graph: it encodes inputs for it and reads scores from what it gives.
type graph interface {
	Encoder
	// stack joins examples into the graph's inputs.
	stack([]Example) ([]engine.Tensor, error)
	// scores reads one row of class scores for each of n examples.
	scores(outputs []engine.Tensor, n int) ([][]float64, error)
	// size says which examples may share a run while padding is not known to be harmless.
	size(Example) int
	// sample is a small example to learn from how the graph answers.
	sample(ctx context.Context) (Example, error)
	// warmups are examples in the shapes that traffic will have, each a run.
	warmups(ctx context.Context, maxBatch int) ([][]Example, error)
	// strangers are two examples of one size that have little in common; nil where rows can't depend on each other.
	strangers(ctx context.Context) ([]Example, error)
	// paddable are runs of two examples of which the first must be padded; nil where padding never happens.
	paddable(ctx context.Context) ([]Example, error)
	info() Info
	Close() error
}

// A Model is an open bundle: encoder, batcher and graph, one unit. All methods but Close are safe for concurrent use.
type Model struct {
	graph    graph
	session  engine.Session
	batcher  *batch.Batcher[Example, row]
	labels   []string
	kind     Kind
	positive int // index of the positive label; -1: none
	limit    float64
	maxBatch int
	alone    atomic.Bool // rows never share a run: WarmUp has seen that their scores depend on their company
	serial   atomic.Int64
	pads     atomic.Bool // rows of nearly one length may share a run: WarmUp has seen that padding changes nothing
	bundle   *bundle
	options  Options // as Open got them
	killers  *killers
}

// A row is what a run gives for one input.
type row struct {
	scores  []float64
	compute time.Duration // of the whole run
}

// Open opens the bundle in dir with eng. Its errors wrap ErrBundle where the bundle is at fault. The caller closes the Model.
func Open(ctx context.Context, dir string, eng engine.Engine, o Options) (m *Model, err error) {
	return openWith(ctx, dir, o, func(b *bundle, eo engine.Options) (engine.Session, error) {
		if r := o.Rehearsal; r != nil && r.Graph != "" {
			eo.Prepared = true
			return eng.Open(ctx, r.Graph, eo)
		}
		return eng.Open(ctx, b.graph, eo)
	})
}

// openWith is Open with a session that open opens.
func openWith(ctx context.Context, dir string, o Options, open func(*bundle, engine.Options) (engine.Session, error)) (m *Model, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, fmt.Errorf("%w: opening it panicked: %v", ErrBundle, p)
		}
		if err != nil {
			err = bundleError(ctx, fmt.Errorf("open %s: %w", dir, err))
		}
	}()
	b, err := openBundle(dir)
	if err != nil {
		return nil, err
	}
	k := newKillers(o.Supervision)
	workers := cmp.Or(o.Workers, runtime.GOMAXPROCS(0))
	// One more, for what isn't the batcher's: golden answers, a comparison.
	session, err := open(b, engine.Options{Threads: o.Threads, Runs: workers + 1, Memory: memoryFor(b.graph, workers), Died: k.died, Restarted: k.Restarted})
	if err != nil && !errors.Is(err, engine.ErrGraph) {
		return nil, machineError{err}
	}
	if err != nil {
		return nil, err
	}
	g, err := newGraph(b, session, o)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	m, err = newModel(ctx, b, g, session, k, o)
	if err != nil {
		return nil, errors.Join(err, session.Close(), g.Close())
	}
	return m, nil
}

func (o Options) check() error {
	if o.Threshold != nil && !inUnit(*o.Threshold) {
		return fmt.Errorf("threshold is %v: must be in [0, 1]", *o.Threshold)
	}
	if !(o.MaxSlowdown == 0 || o.MaxSlowdown >= 1) {
		return fmt.Errorf("max slowdown is %v: must be 0 or at least 1", o.MaxSlowdown)
	}
	for name, v := range map[string]int{
		"max length": o.MaxLength, "max text bytes": o.MaxTextBytes, "threads": o.Threads, "workers": o.Workers, "max batch": o.MaxBatch, "max queue": o.MaxQueue,
		"killers": o.Supervision.Killers, "refuse for": int(o.Supervision.RefuseFor),
	} {
		if v < 0 {
			return fmt.Errorf("%s is %d: must not be negative", name, v)
		}
	}
	if o.MaxWait < 0 {
		return fmt.Errorf("max wait is %v: must not be negative", o.MaxWait)
	}
	return nil
}

func inUnit(v float64) bool { return v >= 0 && v <= 1 }

// newGraph finds out which kind of graph session holds.
func newGraph(b *bundle, session engine.Session, o Options) (graph, error) {
	in, out := session.Inputs(), session.Outputs()
	if len(in) == 1 && in[0].Type == engine.String {
		return newStringGraph(b, session, o)
	}
	at := findPixels(in)
	switch {
	case at < 0:
		return newTokenGraph(b, in, out, o)
	case len(in) == 1:
		return newVideoGraph(b, in[0], out, o)
	}
	return newFusionGraph(b, in, at, out, o)
}

func newModel(ctx context.Context, b *bundle, g graph, session engine.Session, k *killers, o Options) (*Model, error) {
	m := &Model{graph: g, session: session, positive: -1, maxBatch: o.MaxBatch, bundle: b, options: o, killers: k}
	if m.maxBatch == 0 {
		m.maxBatch = 8
	}
	for _, in := range session.Inputs() {
		if len(in.Shape) > 0 && in.Shape[0] == 1 {
			m.maxBatch = 1
		}
	}
	if err := m.soon(ctx, m.probe); err != nil {
		return nil, err
	}
	if err := m.decideBy(b, o); err != nil {
		return nil, err
	}
	m.batcher = batch.New(batch.Options[Example]{
		Workers: o.Workers, MaxBatch: m.maxBatch, MaxQueue: maxQueue(o.MaxQueue, g.info().Clip), Size: m.size, Observed: o.Observed, MaxRun: o.MaxRun, MaxWait: o.MaxWait,
	}, m.timed)
	return m, nil
}

// probe runs the graph once, to learn how many classes it has and what they are called.
func (m *Model) probe(ctx context.Context) error {
	ex, err := m.graph.sample(ctx)
	if err != nil {
		return fmt.Errorf("encode a first input: %w", err)
	}
	if _, err := m.run(ctx, []Example{ex}); err != nil {
		return fmt.Errorf("run a first input: %w", err)
	}
	info := m.graph.info()
	m.labels, m.kind = info.Labels, info.Kind
	return nil
}

// decideBy takes the positive label and the threshold from o, else from the bundle.
func (m *Model) decideBy(b *bundle, o Options) error {
	label, from := o.PositiveLabel, "the configuration"
	if label == "" {
		label, from = b.settings.PositiveLabel, settingsFile
	}
	m.limit = DefaultThreshold
	switch {
	case o.Threshold != nil:
		m.limit = *o.Threshold
	case b.settings.Threshold != nil:
		m.limit = *b.settings.Threshold
	}
	if label == "" {
		return nil
	}
	m.positive = slices.Index(m.labels, label)
	if m.positive < 0 {
		return fmt.Errorf("%s names the positive label %q, which the model doesn't have: its labels are %s", from, label, strings.Join(m.labels, ", "))
	}
	return nil
}

func (m *Model) size(ex Example) int {
	if m.alone.Load() {
		return int(m.serial.Add(1)) // a size that no other has
	}
	n := m.graph.size(ex)
	if m.pads.Load() {
		return (n + paddingStep - 1) / paddingStep
	}
	return n
}

// paddingStep is how far the lengths of texts that share a run may lie apart. On a CPU each padded token costs as much as a real
// one, and a run of several texts gains little: so texts of very different lengths don't wait for each other.
const paddingStep = 8

// run computes a batch.
func (m *Model) run(ctx context.Context, examples []Example) ([][]float64, error) {
	inputs, err := m.graph.stack(examples)
	if err != nil {
		return nil, err
	}
	outputs, err := m.session.Run(ctx, inputs)
	if err != nil {
		return nil, err
	}
	return m.graph.scores(outputs, len(examples))
}

// Predict computes the prediction for in. Its errors wrap ErrInput, ErrKiller, ErrFull or ErrClosed, or are ctx's, or the model is at fault.
func (m *Model) Predict(ctx context.Context, in Input) (Prediction, error) {
	return m.predict(ctx, m.graph, in)
}

// Admit says whether Predict would let in one more input that isn't Patient.
func (m *Model) Admit(ctx context.Context) error { return m.batcher.Admit(ctx) }

func (m *Model) predict(ctx context.Context, enc Encoder, in Input) (p Prediction, err error) {
	began := time.Now()
	place, err := m.batcher.Enter(ctx, in.Patient) // before it is encoded, so that one that is refused costs nothing
	if err != nil {
		return Prediction{}, err
	}
	defer place.Leave()
	entered := time.Now()
	ex, err := enc.Encode(ctx, in)
	if errors.Is(err, hf.ErrClosed) {
		return Prediction{}, ErrClosed
	}
	if err != nil {
		return Prediction{}, err
	}
	encoded := time.Now()
	r := row{}
	if err = m.killers.refusal(ex); err == nil {
		r, err = place.Do(ctx, ex)
	}
	if errors.Is(err, ErrKiller) {
		m.killers.Refused()
	}
	if err != nil {
		return Prediction{}, err
	}
	waited := min(ex.Notes.Waited, encoded.Sub(entered))
	p = m.prediction(r.scores)
	p.Truncated, p.FramesRepeated, p.Kind = ex.Notes.Truncated, ex.Notes.FramesRepeated, m.kind
	p.Timings = Timings{Decode: encoded.Sub(entered) - waited, Queue: entered.Sub(began) + waited + max(0, time.Since(encoded)-r.compute), Compute: r.compute}
	return p, nil
}

// timed is run, with how long it took. What would end the process again isn't run: it may have waited while another like it did. An
// error of several examples at once leads to a run of each of them alone, which is when the one to blame is found.
func (m *Model) timed(ctx context.Context, examples []Example) ([]row, error) {
	for _, ex := range examples {
		if err := m.killers.refusal(ex); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	scores, err := m.run(ctx, examples)
	if err != nil {
		if len(examples) == 1 {
			m.killers.charge(examples[0], err)
		}
		return nil, err
	}
	rows, took := make([]row, len(scores)), time.Since(began)
	for i, s := range scores {
		rows[i] = row{s, took}
	}
	return rows, nil
}

func (m *Model) prediction(scores []float64) Prediction {
	p := Prediction{Classes: make([]Class, len(scores)), Decision: Undecided}
	for i, s := range scores {
		p.Classes[i] = Class{Label: m.labels[i], Score: s}
	}
	if m.positive >= 0 {
		p.PositiveLabel, p.Threshold, p.Decision = m.labels[m.positive], m.limit, BelowThreshold
		if scores[m.positive] >= m.limit {
			p.Decision = AtOrAboveThreshold
		}
	}
	slices.SortStableFunc(p.Classes, func(a, b Class) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		}
		return 0
	})
	p.Label, p.Score = p.Classes[0].Label, p.Classes[0].Score
	return p
}

// Info describes the model.
func (m *Model) Info() Info {
	i := m.graph.info()
	i.Graph, i.Labels = m.bundle.graph, slices.Clone(m.labels)
	if m.positive >= 0 {
		i.PositiveLabel, i.Threshold = m.labels[m.positive], m.limit
	}
	for _, s := range m.session.Inputs() {
		i.Inputs = append(i.Inputs, s.String())
	}
	for _, s := range m.session.Outputs() {
		i.Outputs = append(i.Outputs, s.String())
	}
	return i
}

// Close refuses new inputs, answers those that wait, and frees the model. The batcher goes first: what it still holds needs the
// session.
func (m *Model) Close() error {
	return errors.Join(m.batcher.Close(), m.session.Close(), m.graph.Close())
}

// killedByOthers says that err is of a process that didn't end by itself, or can't be started for a reason that isn't the graph.
func killedByOthers(err error) bool {
	var crash *engine.CrashError
	if errors.As(err, &crash) {
		return crash.Cause != engine.Crashed
	}
	return errors.Is(err, engine.ErrCrashed) && !errors.Is(err, engine.ErrGraph)
}

// A machineError is one of the engine that isn't the graph's fault.
type machineError struct{ error }

func (e machineError) Unwrap() error { return e.error }

// bundleError marks err as the bundle's fault, unless it comes from ctx or the engine, or says that a file couldn't be read, which
// may pass.
func bundleError(ctx context.Context, err error) error {
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, ErrBundle), ctx.Err() != nil, errors.As(err, new(machineError)), killedByOthers(err):
		return err
	case errors.As(err, &pathErr) && !errors.Is(err, fs.ErrNotExist):
		return err
	case errors.Is(err, ErrInput):
		// The input was ours: no caller's is at fault.
		return fmt.Errorf("%w: %s", ErrBundle, err.Error())
	}
	return fmt.Errorf("%w: %w", ErrBundle, err)
}
