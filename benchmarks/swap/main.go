// Command swap measures what a swap costs: the store's Acquire and Release, the publication of a version under readers, and each
// phase of a real bundle's way from a folder to being served. It writes a table and a plot.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"modelgate/benchmarks/command"
	"modelgate/benchmarks/results"
	"modelgate/inference/engine/ort"
)

// settings say how much is measured.
type settings struct {
	library string // ONNX Runtime's
	out     string // folder for RESULTS.md and swap.svg; "" prints the table only
	runs    int    // of everything; tables give the median run
	readers []int
	publish int // publications in one run
	swaps   int // of a real bundle in one run
}

func full() settings {
	return settings{runs: 3, readers: []int{0, 8, 64, 256}, publish: 1000, swaps: 20}
}

// quick is for a look and for checks on every commit: too little to quote.
func quick() settings {
	return settings{runs: 1, readers: []int{0, 8, 64}, publish: 200, swaps: 6}
}

func main() { command.Main("swap", measureAll) }

func measureAll(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("swap", flag.ContinueOnError)
	short := flags.Bool("quick", false, "measure for some seconds only and write no file")
	out := flags.String("out", "benchmarks", "folder for RESULTS.md and swap.svg, from the checkout's root")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := full()
	s.out = *out
	if *short {
		s = quick()
	}
	var err error
	if s.library, err = command.Library(); err != nil {
		return err
	}
	return run(ctx, s, os.Stdout)
}

// measured is everything that was measured.
type measured struct {
	machine results.Machine
	s       settings
	acquire []acquired
	publish []published
	phases  []phased
}

// run measures, prints the table and writes the files.
func run(ctx context.Context, s settings, w io.Writer) error {
	scratch, err := os.MkdirTemp("", "modelgate-swap-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	eng, err := ort.Open(ort.Options{LibraryPath: s.library})
	if err != nil {
		return err
	}
	r := measured{machine: results.ThisMachine(eng.Version()), s: s}
	fmt.Fprintln(w, "machine:", r.machine)

	fmt.Fprintln(w, "acquire and release ...")
	if r.acquire, err = measureAcquire(ctx, s.runs); err != nil {
		return fmt.Errorf("acquire and release: %w", err)
	}
	fmt.Fprintln(w, "publish under readers ...")
	if r.publish, err = measurePublish(ctx, s, eng, filepath.Join(scratch, "publish")); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	fmt.Fprintln(w, "phases of a swap ...")
	for _, b := range []bundleKind{exampleBundle(), largeBundle()} {
		p, err := measurePhases(ctx, s, eng, b, filepath.Join(scratch, "phases"))
		if err != nil {
			return fmt.Errorf("phases of %s: %w", b.name, err)
		}
		r.phases = append(r.phases, p)
	}
	table := r.markdown()
	fmt.Fprint(w, "\n", table)
	if s.out == "" {
		return nil
	}
	if err := results.WriteSection(filepath.Join(s.out, "RESULTS.md"), "swap", table); err != nil {
		return err
	}
	return r.plot(filepath.Join(s.out, "swap.svg"))
}
