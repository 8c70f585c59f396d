// Command soak holds the gateway, with each version in a worker process, to its bars: no request fails and no answer is of a wrong
// version over a thousand swaps, memory stays flat, a load in the background and worker processes cost little, and overload is refused.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modelgate/benchmarks/command"
	"modelgate/benchmarks/results"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
)

// settings say how much is measured.
type settings struct {
	library string // ONNX Runtime's
	program string // modelgate
	page    string // the page whose section is written; "": none is
	parts   []string

	requests, swaps int
	share           float64       // of what the gateway can answer, where it isn't to be overloaded
	phase           time.Duration // of one measurement
	rounds, pairs   int
	large           int64 // bytes of the version that loads in the background
	encoder         func(seed uint64) enginetest.Encoder
	logLevel        string // of the gateways
}

func full() settings {
	return settings{requests: 1_000_000, swaps: 1000, share: .6, phase: 10 * time.Second, rounds: 5, pairs: 150, large: 400_000_000, encoder: enginetest.XLMRBase, logLevel: "info"}
}

// quick is for a look: too little to quote.
func quick() settings {
	return settings{requests: 20_000, swaps: 30, share: .6, phase: 2 * time.Second, rounds: 1, pairs: 6, large: 40_000_000, encoder: enginetest.MiniLM, logLevel: "info"}
}

// partNames are what can be measured, in this order.
func partNames() []string { return []string{"swaps", "loading", "live", "isolation", "overload"} }

func main() { command.Main("soak", measureAll) }

func measureAll(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	short := flags.Bool("quick", false, "measure for a minute only and write no file")
	program := flags.String("program", filepath.Join("bin", "modelgate"), "the gateway, from the checkout's root")
	page := flags.String("page", filepath.Join("benchmarks", "RESULTS.md"), "page to write the results to, from the checkout's root")
	parts := flags.String("parts", strings.Join(partNames(), ","), "what to measure; the page is written only for all of it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := full()
	s.page = *page
	if *short {
		s = quick()
	}
	s.parts = strings.Split(*parts, ",")
	for _, p := range s.parts {
		if !slices.Contains(partNames(), p) {
			return fmt.Errorf("-parts: %q is none of %s", p, strings.Join(partNames(), ", "))
		}
	}
	if len(s.parts) < len(partNames()) {
		s.page = ""
	}
	var err error
	if s.library, err = command.Library(); err != nil {
		return err
	}
	if s.program, err = exec.LookPath(*program); err == nil {
		s.program, err = filepath.Abs(s.program)
	}
	if err != nil {
		return fmt.Errorf("%w: run `make build` and start this from the checkout's root, or say -program", err)
	}
	return run(ctx, s, os.Stdout)
}

// A row is a bar, and what was measured.
type row struct {
	what, measured, bar string
	met                 bool
}

// A part is what one measurement gave.
type part interface {
	rows() []row
	text() string // what was done, for the page
}

// run measures, prints the section and writes it to the page. A bar that isn't met is an error.
func run(ctx context.Context, s settings, w io.Writer) error {
	scratch, err := os.MkdirTemp("", "modelgate-soak-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	eng, err := ort.Open(ort.Options{LibraryPath: s.library})
	if err != nil {
		return err
	}
	machine := results.ThisMachine(eng.Version())
	fmt.Fprintln(w, "machine:", machine)
	var rows []row
	var texts strings.Builder
	for _, name := range s.parts {
		fmt.Fprintln(w, name, "...")
		p, err := measure(ctx, s, name, filepath.Join(scratch, name), w)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, p.rows()...)
		fmt.Fprintf(&texts, "\n## %s\n\n%s", titles()[name], p.text())
	}
	section := fmt.Sprintf("# Soak\n\n`make soak` wrote this section on %s. Every gateway is a process of its own, with a worker process a version.\n\nMachine: %s, after %s%s.\n\n%s%s",
		machine.When.Format("2006-01-02"), machine, results.Load(), results.Weight(), table(rows), texts.String())
	fmt.Fprint(w, "\n", section)
	if s.page != "" {
		if err := results.WriteSection(s.page, "soak", section); err != nil {
			return err
		}
	}
	var missed []string
	for _, r := range rows {
		if !r.met {
			missed = append(missed, r.what+": "+r.measured+", the bar is "+r.bar)
		}
	}
	if missed != nil {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

func titles() map[string]string {
	return map[string]string{"swaps": "Requests over swaps", "loading": "A load in the background", "live": "From prepared to live", "isolation": "What isolation costs", "overload": "Overload"}
}

func measure(ctx context.Context, s settings, name, dir string, w io.Writer) (part, error) {
	switch name {
	case "swaps":
		return measureSwaps(ctx, s, dir, w)
	case "loading":
		return measureLoading(ctx, s, dir, w)
	case "live":
		return measureLive(ctx, s, dir, w)
	case "isolation":
		return measureIsolation(ctx, s, dir, w)
	}
	return measureOverload(ctx, s, dir, w)
}

func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| what | measured | bar | |\n|---|---:|---:|---|\n")
	for _, r := range rows {
		word := "met"
		if !r.met {
			word = "**MISSED**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.what, r.measured, r.bar, word)
	}
	return b.String()
}

func mega(bytes int64) string { return fmt.Sprintf("%d MB", (bytes+500_000)/1_000_000) }

func short(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }
