package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"modelgate/benchmarks/minilm"
	"modelgate/benchmarks/results"
	"modelgate/inference/engine/enginetest"
)

// loaded is what the requests for one version notice while a large one of another model loads.
type loaded struct {
	bytes          int64
	rate, capacity float64
	loads          int
	took           []time.Duration // of each load, from the order until it serves
	alone, beside  []time.Duration // all latencies
	ratio          []float64       // of the p99s, of each round
	refused        int
}

// writeLarge writes a text model that has a table of so many bytes.
func writeLarge(bytes int64, n int) func(dir string) error {
	return func(dir string) error {
		const classes = 64
		b := enginetest.TextBundle{}
		for i := range classes {
			b.Labels = append(b.Labels, "label"+strconv.Itoa(i))
		}
		if err := b.Write(dir); err != nil {
			return err
		}
		return enginetest.LinearText(int(bytes/(4*classes)), classes, uint64(n), 0).WriteFile(filepath.Join(dir, "model.onnx"))
	}
}

// measureLoading serves a text model of MiniLM's size, and has a large version of another model load beside it.
func measureLoading(ctx context.Context, s settings, dir string, w io.Writer) (l loaded, err error) {
	l.bytes = s.large
	if err := errors.Join(publish(dir, "text", 1, minilm.Write), publish(dir, "large", 1, writeLarge(s.large/100, 1))); err != nil {
		return l, err
	}
	g, err := startGateway(ctx, s, dir, "process", "text", "large")
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	text := minilm.Sentence()
	if l.capacity, err = g.capacity(ctx, text, 2*runtime.NumCPU(), s.phase); err != nil {
		return l, err
	}
	l.rate = l.capacity * s.share
	for n := 2; n < s.rounds+2; n++ {
		if err := publish(dir, "large", n, writeLarge(s.large, n)); err != nil {
			return l, err
		}
		runtime.GC() // what it took to make the version
		alone := g.offer(ctx, text, l.rate, s.phase, nil)
		ended, failed := make(chan struct{}), make(chan error, 1)
		began := time.Now()
		go func() {
			failed <- g.refresh(ctx, "large", n)
			close(ended)
		}()
		beside := g.offer(ctx, text, l.rate, patience, ended)
		if err := <-failed; err != nil {
			return l, err
		}
		l.loads++
		l.took = append(l.took, time.Since(began))
		l.alone, l.beside = append(l.alone, alone.latencies...), append(l.beside, beside.latencies...)
		l.ratio = append(l.ratio, float64(beside.p99())/float64(alone.p99()))
		l.refused += alone.refused + beside.refused
		fmt.Fprintf(w, "alone p99 %v, while %s load in %v %v: %.2f times that; %d requests, %d refused; load %s\n", alone.p99(), mega(s.large), last(l.took).Round(time.Millisecond),
			beside.p99(), last(l.ratio), beside.sent, alone.refused+beside.refused, results.Load())
		if err := errors.Join(append(alone.failed, beside.failed...)...); err != nil {
			return l, err
		}
		if err := os.RemoveAll(filepath.Join(dir, "models", "large", strconv.Itoa(n-1))); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l loaded) all() float64 {
	return float64(p99(l.beside)) / float64(p99(l.alone))
}

func (l loaded) rows() []row {
	return []row{{what: fmt.Sprintf("p99 while a version of %s loads, against that alone", mega(l.bytes)), measured: fmt.Sprintf("%.2fx", l.all()), bar: "at most 1.5x", met: l.all() <= 1.5}}
}

func (l loaded) text() string {
	return fmt.Sprintf("The model of MiniLM's size at %.0f %% of its capacity (%.0f of %.0f a second), requests at random moments; a version of another model with a table of %s is fetched, verified, loaded and "+
		"checked beside it, %d times, in %v (median). p99 of all: alone %s, beside %s; median of the rounds' ratios %.2f. %d were refused.\n",
		100*l.rate/l.capacity, l.rate, l.capacity, mega(l.bytes), l.loads, median(l.took).Round(10*time.Millisecond), short(p99(l.alone)), short(p99(l.beside)), median(l.ratio), l.refused)
}
