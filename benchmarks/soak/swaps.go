package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modelgate/benchmarks/results"
	"modelgate/inference/engine/enginetest"
)

// Version n adds n steps to a logit: so an answer tells which version gave it, whatever it says about that itself.
const (
	step   = 0.01
	middle = 500 // version of which both scores are about as large as without any step
)

func shift(n int) float32 { return float32(step * float64(n-middle)) }

func writeTiny(n int) func(dir string) error {
	return func(dir string) error { return enginetest.TextBundle{Seed: 1, Shift: shift(n)}.Write(dir) }
}

// giver is the version that gave these scores, of which zero are version middle's; -1: none did.
func giver(zero, negative, positive float64) int {
	steps := (math.Log(negative/positive)-zero)/step + middle
	n := math.Round(steps)
	if math.IsNaN(steps) || n < 1 || math.Abs(steps-n) > 0.1 {
		return -1
	}
	return int(n)
}

// state is what a gateway has while it serves.
type state struct {
	usage
	goroutines float64
}

// swapped is what came of many requests over many swaps.
type swapped struct {
	requests, swaps int
	rate            float64 // requests a second that were sent
	took            time.Duration
	failed          int
	wrong           int // answers that aren't of the version that they name, or of none
	unordered       int // answers that contradict the history
	first           error
	early, late     state // after the first swaps, and after all
	earlySwaps      int
}

// inFlight is how many requests wait for their answers at the same time.
const inFlight = 64

// measureSwaps sends requests while one version replaces the other.
func measureSwaps(ctx context.Context, s settings, dir string, w io.Writer) (r swapped, err error) {
	if err := publish(dir, "text", 1, writeTiny(1)); err != nil {
		return r, err
	}
	g, err := startGateway(ctx, s, dir, "process", "text")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	most, err := g.capacity(ctx, tinyText, inFlight, s.phase/2)
	if err != nil {
		return r, err
	}
	r.earlySwaps, r.rate = min(10, s.swaps/2), most*s.share
	c := &crowd{g: g, start: time.Now(), interval: time.Duration(float64(time.Second) / r.rate)}
	if c.zero, err = zero(ctx, g); err != nil {
		return r, err
	}
	c.events = append(c.events, event{publication: 1, order: true})
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	for range inFlight {
		running.Go(func() { c.ask(asking) })
	}
	err = r.swap(ctx, s, c, w)
	stop()
	running.Wait()
	r.took, r.requests = time.Since(c.start), int(c.answers.Load())
	r.failed, r.wrong, r.first = c.failed, c.wrong, c.first
	var unordered error
	r.unordered, unordered = checkHistory(c.events)
	if r.first == nil {
		r.first = unordered
	}
	return r, err
}

// zero is the logit of the tiny text without any step.
func zero(ctx context.Context, g *gateway) (float64, error) {
	resp, err := g.ask(ctx, tinyText)
	if err != nil {
		return 0, err
	}
	scores := map[string]float64{}
	for _, c := range resp.GetClasses() {
		scores[c.GetLabel()] = c.GetScore()
	}
	return math.Log(scores["negative"]/scores["positive"]) - step*(1-middle), nil
}

// swap publishes one version after the other, evenly over the requests.
func (r *swapped) swap(ctx context.Context, s settings, c *crowd, w io.Writer) (err error) {
	for n := 2; n <= s.swaps+1; n++ {
		if err := c.await(ctx, (n-1)*s.requests/(s.swaps+1)); err != nil {
			return err
		}
		if err := publish(c.g.dir, "text", n, writeTiny(n)); err != nil {
			return err
		}
		began := time.Since(c.start)
		if err := c.g.refresh(ctx, "text", n); err != nil {
			return err
		}
		c.add(event{began: began, ended: time.Since(c.start), publication: n, order: true})
		r.swaps++
		if err := os.RemoveAll(filepath.Join(c.g.dir, "models", "text", strconv.Itoa(n-3))); err != nil {
			return err
		}
		if r.swaps == r.earlySwaps {
			if r.early, err = c.g.state(ctx); err != nil {
				return err
			}
		}
		if r.swaps%max(s.swaps/10, 1) == 0 {
			fmt.Fprintf(w, "%d swaps, %d requests, load %s\n", r.swaps, c.answers.Load(), results.Load())
		}
	}
	if err := c.await(ctx, s.requests); err != nil {
		return err
	}
	r.late, err = c.g.state(ctx)
	return err
}

// state is what the gateway has, while it is loaded: the median of some looks; of goroutines the fewest, since each request in progress has
// some, and how many are depends on how busy the machine is.
func (g *gateway) state(ctx context.Context) (st state, err error) {
	var memory []int64
	var descriptors, children []int
	var goroutines []float64
	for range 21 {
		u, err := look(g.cmd.Process.Pid)
		if err != nil {
			return st, err
		}
		n, err := g.metric(ctx, "go_goroutines")
		if err != nil {
			return st, err
		}
		memory, descriptors, children = append(memory, u.memory), append(descriptors, u.descriptors), append(children, u.children)
		goroutines = append(goroutines, n)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
	st.memory, st.descriptors, st.children, st.goroutines = median(memory), median(descriptors), median(children), slices.Min(goroutines)
	return st, nil
}

const tinyText = "good film"

// A crowd asks one gateway and keeps what it was told.
type crowd struct {
	g        *gateway
	start    time.Time
	interval time.Duration // between two requests of all
	zero     float64
	asked    atomic.Int64
	answers  atomic.Int64

	mu            sync.Mutex // guards what follows
	events        []event
	failed, wrong int
	first         error // that went wrong
}

// ask is one caller. It asks when it is its turn, or later.
func (c *crowd) ask(ctx context.Context) {
	for {
		due := c.start.Add(time.Duration(c.asked.Add(1)) * c.interval)
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return
		}
		c.one(context.WithoutCancel(ctx)) // what was asked has to be answered
	}
}

func (c *crowd) one(ctx context.Context) {
	e := event{began: time.Since(c.start)}
	resp, err := c.g.ask(ctx, tinyText)
	e.ended = time.Since(c.start)
	c.answers.Add(1)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.failed++
		if c.first == nil {
			c.first = err
		}
		return
	}
	var negative, positive float64
	for _, class := range resp.GetClasses() {
		if class.GetLabel() == "negative" {
			negative = class.GetScore()
		} else {
			positive = class.GetScore()
		}
	}
	e.publication = giver(c.zero, negative, positive)
	if strconv.Itoa(e.publication) != resp.GetVersion() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.wrong++
		if c.first == nil {
			c.first = fmt.Errorf("an answer of version %q has the scores of version %d: %v", resp.GetVersion(), e.publication, resp.GetClasses())
		}
		return
	}
	c.add(e)
}

func (c *crowd) add(e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

// await waits until so many requests are answered.
func (c *crowd) await(ctx context.Context, n int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last, since := int64(0), time.Now()
	for int(c.answers.Load()) < n {
		if now := c.answers.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > patience {
			return fmt.Errorf("no request was answered for %v\n%s", patience, c.g.said())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func median[T int | int64 | float64 | time.Duration](all []T) T { return quantile(all, .5) }

func quantile[T int | int64 | float64 | time.Duration](all []T, share float64) T {
	return slices.Sorted(slices.Values(all))[int(float64(len(all))*share)]
}

func (r swapped) rows() []row {
	count := func(what string, n int) row {
		return row{what: what, measured: strconv.Itoa(n), bar: "0", met: n == 0}
	}
	growth := 100 * (float64(r.late.memory)/float64(r.early.memory) - 1)
	memory := row{what: fmt.Sprintf("memory of all processes after %d swaps, above that after %d", r.swaps, r.earlySwaps),
		measured: fmt.Sprintf("%+.1f %% (%s, %s)", growth, mega(r.late.memory), mega(r.early.memory)), bar: "at most +10 %", met: growth <= 10}
	flat := func(what string, late, early float64) row {
		return row{what: what, measured: fmt.Sprintf("%.0f, %.0f", late, early), bar: "flat", met: late <= early*1.1+2}
	}
	where := fmt.Sprintf(" of %d, over %d swaps", r.requests, r.swaps)
	return []row{
		count("requests failed,"+where, r.failed), count("answers that a wrong version gave,"+where, r.wrong),
		count("answers older than one before, or newer than its order,"+where, r.unordered), memory,
		flat("file descriptors, likewise", float64(r.late.descriptors), float64(r.early.descriptors)),
		flat("goroutines, likewise", r.late.goroutines, r.early.goroutines),
		{what: "child processes, likewise", measured: fmt.Sprintf("%d, %d", r.late.children, r.early.children), bar: "equal", met: r.late.children == r.early.children},
	}
}

func (r swapped) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "A tiny text model, a worker process a version. %d requests over gRPC, at most %d in flight, %.0f a second, while %d versions follow each other in %v. "+
		"Each adds another constant to a logit, so an answer tells which version gave it. The history is checked whole: no request that began after the answer to "+
		"another may get an earlier version, or after the order to publish has ended, or a later one before its order.\n",
		r.requests, inFlight, float64(r.requests)/r.took.Seconds(), r.swaps, r.took.Round(time.Second))
	if r.first != nil {
		fmt.Fprintf(&b, "\nThe first that went wrong: %v.\n", r.first)
	}
	return b.String()
}
