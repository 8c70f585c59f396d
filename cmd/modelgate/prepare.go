package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"modelgate/cmd/modelgate/config"
	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/engine/ort"
	"modelgate/inference/engine/worker"
	"modelgate/modelstore"
	"modelgate/modelstore/disk"
)

const (
	// rehearsalFile is what the rehearsal has shown, in the folder of what was prepared.
	rehearsalFile = "rehearsal.json"
	// preparedFormat is increased when what was prepared before can't be used, or wasn't looked at closely enough.
	preparedFormat = "1"
	// worthPreparing is the size of a bundle from which the prepared form pays: docs/DECISIONS.md has the figures.
	worthPreparing = 8 << 20 // bytes
)

// A preparer opens each version for the first time: in a child process, before the swap. See docs/DESIGN.md.
type preparer struct {
	config  *config.Loaded
	cache   *disk.Cache
	memory  *admission
	workers *worker.Engine
	timeout time.Duration // of a child: for the load, and as much for all else
	machine string        // what the prepared form of a graph depends on, besides the graph
	log     *slog.Logger
}

// openPreparer is nil where preparing is switched off, or there are no child processes for it.
func openPreparer(ctx context.Context, c *config.Loaded, cache *disk.Cache, memory *admission, log *slog.Logger) (*preparer, error) {
	if c.Prepare == "off" || c.WorkerProgram != "" { // the form would be another engine's
		return nil, nil
	}
	workers, library, err := openWorkers(c, log)
	if err != nil {
		return nil, err
	}
	if err := workers.Try(ctx); err != nil {
		log.Warn("no version is prepared: what opens one for the first time is the gateway itself, or its worker (prepare: off says that this is wanted)", "reason", err)
		return nil, ctx.Err()
	}
	machine, err := machineKey(library)
	if err != nil {
		return nil, fmt.Errorf("prepare (prepare, MODELGATE_PREPARE or --prepare): %w", err)
	}
	return &preparer{config: c, cache: cache, memory: memory, workers: workers, machine: machine, log: log, timeout: 2 * time.Duration(c.LoadTimeout)}, nil
}

// orNothing is what the updater calls.
func (p *preparer) orNothing() func(context.Context, modelstore.Bundle) (modelstore.Bundle, error) {
	if p == nil {
		return nil
	}
	return p.prepare
}

// machineKey names what the form of a prepared graph depends on: the engine's very file, and the processor's kind.
func machineKey(library string) (string, error) {
	h := sha256.New()
	f, err := os.Open(library)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", library, err)
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(info), "\n\n")
	for line := range strings.Lines(first) {
		name, _, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part", "Features":
			_, _ = io.WriteString(h, line) // a hash doesn't fail
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// rehearsalOptions are the options of a model that a rehearsal is about, as they cross to the child. What is under "text" decides about
// its outcome.
type rehearsalOptions struct {
	Text struct {
		MaxLength, MaxTextBytes, MaxBatch int
		SpecialAsText                     bool
	}
	PositiveLabel string
	Threshold     *float64
	Threads       int
	Contract      string
}

func newRehearsalOptions(o inference.Options) (r rehearsalOptions) {
	r.Text.MaxLength, r.Text.MaxTextBytes, r.Text.MaxBatch, r.Text.SpecialAsText = o.MaxLength, o.MaxTextBytes, o.MaxBatch, o.SpecialAsText
	r.PositiveLabel, r.Threshold, r.Threads, r.Contract = o.PositiveLabel, o.Threshold, o.Threads, o.Contract
	return r
}

func (r rehearsalOptions) options() inference.Options {
	return inference.Options{
		MaxLength: r.Text.MaxLength, MaxTextBytes: r.Text.MaxTextBytes, MaxBatch: r.Text.MaxBatch, SpecialAsText: r.Text.SpecialAsText,
		PositiveLabel: r.PositiveLabel, Threshold: r.Threshold, Threads: r.Threads, Contract: r.Contract,
		MaxWarmUp: untilEnded, MaxRun: untilEnded,
	}
}

// untilEnded leaves it to whoever started the child when that has taken too long: the child can't tell a graph that doesn't come to an
// end from processors that others had all the time.
const untilEnded = 24 * time.Hour

// key names all that the outcome of a rehearsal depends on, besides the bundle.
func (p *preparer) key(o rehearsalOptions) (string, error) {
	text, err := json.Marshal(o.Text)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(preparedFormat + " " + p.machine + " " + string(text)))
	return hex.EncodeToString(sum[:16]), nil
}

// prepare finds what was prepared of a bundle, or has it prepared. A bundle that is at fault is a permanent error.
func (p *preparer) prepare(ctx context.Context, b modelstore.Bundle) (modelstore.Bundle, error) {
	if err := checkProvenance(p.config, b.Version.Model, b.Dir, b.Version.Declared != "" || p.config.ModelsDir != ""); err != nil {
		return b, err
	}
	o := modelOptions(p.config, b.Version.Model)
	o.Contract = b.Version.Contract
	options := newRehearsalOptions(o)
	key, err := p.key(options)
	if err != nil {
		return b, err
	}
	prepared, err := p.cache.Prepare(ctx, b, key, func(ctx context.Context, dir string) error {
		if b.Restored { // it was rehearsed before it served
			return errNotYet
		}
		return p.make(ctx, b, dir, options)
	})
	if errors.Is(err, errNotYet) {
		return b, nil
	}
	if errors.Is(err, errNotKept) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS) {
		p.log.Warn("a version is loaded from what its publisher published, which takes longer and more memory", "version", b.Version.String(), "reason", err)
		return b, nil
	}
	return prepared, err
}

// errNotYet says that a version that is restored isn't made to wait for its prepared form.
var errNotYet = errors.New("it isn't prepared here")

// errNotKept says that a version was rehearsed, and that what came of it isn't kept.
var errNotKept = errors.New("its prepared form isn't kept")

// make rehearses a bundle and fills dir.
func (p *preparer) make(ctx context.Context, b modelstore.Bundle, dir string, o rehearsalOptions) error {
	size, err := sizeOf(b.Dir)
	if err != nil {
		return err
	}
	into, short, err := p.where(dir, size)
	if err != nil {
		return err
	}
	// The child takes the memory that the version would. Nothing leaves for it: a standby goes only for the load itself.
	done, err := p.memory.admit(modelstore.Admission{Bundle: b})
	if err != nil {
		return fmt.Errorf("rehearse it: %w", err)
	}
	r, err := p.rehearse(ctx, b, into, size, o)
	done()
	if err != nil {
		return err
	}
	if short != nil {
		return short
	}
	if r.Graph == "" && into != "" && !r.Lasting {
		return fmt.Errorf("%w: %s", errNotKept, r.Why)
	}
	if r.Graph == "" {
		r.Why = orDefault(r.Why, fmt.Sprintf("its %d bytes are loaded as fast as they are", size))
		p.log.Info("a version was rehearsed; there is no prepared form of it", "version", b.Version.String(), "reason", r.Why)
		if err := removeAll(dir, engine.PreparedGraph, engine.PreparedData); err != nil {
			return err
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, rehearsalFile), text, 0o600)
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// where makes the files that the prepared form is written to, if it is to be. short says that there is no room for it.
func (p *preparer) where(dir string, size int64) (into string, short, err error) {
	if size < worthPreparing {
		return "", nil, nil
	}
	free, err := p.cache.Free()
	if err != nil {
		return "", nil, err
	}
	if need := roomFor(size); free < need {
		return "", fmt.Errorf("%w: it needs %d MiB of disk for a while, and %d are free", errNotKept, need>>20, free>>20), nil
	}
	for _, name := range []string{engine.PreparedGraph, engine.PreparedData} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			return "", nil, err
		}
	}
	return dir, nil, nil
}

// roomFor is how much disk a prepared form may take: the weights, once more those that are packed, and some that stays free.
func roomFor(size int64) int64 { return 2*size + 256<<20 }

// rehearse has a child open the bundle, and another one confirm that the prepared form does what the bundle does. That a child dies of
// the prepared form isn't the bundle's fault.
func (p *preparer) rehearse(ctx context.Context, b modelstore.Bundle, into string, size int64, o rehearsalOptions) (inference.Rehearsal, error) {
	t := task{Dir: b.Dir, Into: into, Options: o}
	r, err := p.do(ctx, t, size)
	var died string
	if into != "" && errors.Is(err, engine.ErrGraph) {
		died = oneLine(err.Error())
		t.Into = ""
		r, err = p.do(ctx, t, size)
	}
	switch {
	case err != nil:
		return r.Rehearsal, permanent(err)
	case r.Fault != "":
		return r.Rehearsal, modelstore.Permanent(errors.New(r.Fault))
	case r.Graph == "":
		r.Why = orDefault(r.Why, died)
		return r.Rehearsal, nil
	}
	t.Graph, t.Confirm = filepath.Join(into, r.Graph), &r.Rehearsal
	confirmed, err := p.do(ctx, t, size)
	if err != nil && !errors.Is(err, engine.ErrGraph) {
		return r.Rehearsal, err
	}
	if err != nil || confirmed.Fault != "" {
		r.Graph, r.Why, r.Lasting = "", "it can't be confirmed: "+confirmed.Fault, confirmed.Lasting
		if err != nil {
			r.Why += oneLine(err.Error())
		}
		p.log.Error("the prepared form of a version isn't used", "version", b.Version.String(), "reason", r.Why)
	}
	return r.Rehearsal, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// do has a child do t.
func (p *preparer) do(ctx context.Context, t task, size int64) (rehearsed, error) {
	// What serves gets as much.
	memory := max(4*size+4<<30, inference.MostMemory(t.Dir, p.config.Workers))
	j := worker.Job{Spec: t, Reads: []string{t.Dir}, FileLimit: 4*size + 64<<20, DataLimit: memory, Timeout: p.timeout}
	if t.Into != "" {
		graph, data := filepath.Join(t.Into, engine.PreparedGraph), filepath.Join(t.Into, engine.PreparedData)
		j.Reads = append(j.Reads, t.Into)
		if t.Confirm == nil {
			j.Writes = []string{graph, data}
		}
	}
	var r rehearsed
	err := p.workers.Do(ctx, j, &r)
	return r, err
}

// sizeOf is how many bytes the files of a folder have.
func sizeOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			total += st.Size()
		}
		return err
	})
	return total, err
}

func removeAll(dir string, names ...string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readRehearsal is what a rehearsal has shown, as the loader needs it; nil: there was none.
func readRehearsal(prepared string) (*inference.Rehearsal, error) {
	if prepared == "" {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(prepared, rehearsalFile))
	if err != nil {
		return nil, err
	}
	var r inference.Rehearsal
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", rehearsalFile, err)
	}
	if r.Graph != "" {
		r.Graph = filepath.Join(prepared, engine.PreparedGraph)
	}
	return &r, nil
}

// A task is what a child is to do.
type task struct {
	Dir     string // the bundle
	Into    string // for its prepared form; empty: none is made
	Options rehearsalOptions
	Graph   string               // the prepared form that is to be confirmed
	Confirm *inference.Rehearsal // nil: the bundle is rehearsed
}

// rehearsed is what came of it.
type rehearsed struct {
	inference.Rehearsal
	Fault string // of the bundle, or, for one that confirms, of the prepared form
}

// doTask is what the child does.
func doTask(eng engine.Engine, spec json.RawMessage) (any, error) {
	var t task
	if err := json.Unmarshal(spec, &t); err != nil {
		return nil, err
	}
	ctx := context.Background()
	var r rehearsed
	var err error
	if t.Confirm != nil {
		err = inference.Confirm(ctx, t.Dir, t.Graph, eng, t.Options.options(), *t.Confirm)
	} else {
		r.Rehearsal, err = inference.Rehearse(ctx, t.Dir, t.Into, eng, t.Options.options())
	}
	ort.Trim()
	if errors.Is(err, inference.ErrOtherNumbers) {
		r.Lasting = true
	}
	if err != nil && errors.Is(permanent(err), modelstore.ErrPermanent) {
		return rehearsed{Rehearsal: inference.Rehearsal{Lasting: r.Lasting}, Fault: err.Error()}, nil
	}
	return r, err
}
