// Command hostile measures what clips cost, and what they cost the requests beside them: how a text model's latency changes while
// good clips are decoded, and while files come that nobody should send.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"modelgate/benchmarks/command"
	"modelgate/benchmarks/results"
	"modelgate/inference/engine/ort"
)

// settings say how much is measured.
type settings struct {
	library string // ONNX Runtime's
	ffmpeg  string
	page    string // the page whose section is written; "": none is
	rounds  int    // each measures every company once
	phase   time.Duration
	share   float64       // of what the gateway can answer
	senders int           // of clips
	costs   int           // how often a clip's cost is measured
	seconds int           // of the clip whose memory is measured; a third of it, of the one whose time is
	large   string        // the size of large clips
	slowest time.Duration // of one clip's decoding: shorter than a gateway's default, so that the slow file comes up again and again
}

func full() settings {
	return settings{rounds: 6, phase: 6 * time.Second, share: 0.3, senders: 4, costs: 5, seconds: 30, large: "1080x1920", slowest: 5 * time.Second}
}

// quick is for a look: too little to quote.
func quick() settings {
	return settings{rounds: 1, phase: 3 * time.Second, share: 0.3, senders: 4, costs: 1, seconds: 6, large: "1080x1920", slowest: 5 * time.Second}
}

func main() { command.Main("hostile", measureAll) }

func measureAll(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("hostile", flag.ContinueOnError)
	short := flags.Bool("quick", false, "measure for some seconds only and write no file")
	page := flags.String("page", filepath.Join("benchmarks", "RESULTS.md"), "page to write the results to, from the checkout's root")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := full()
	s.page = *page
	if *short {
		s = quick()
	}
	var err error
	if s.library, err = command.Library(); err != nil {
		return err
	}
	if s.ffmpeg, err = exec.LookPath("ffmpeg"); err != nil {
		if s.ffmpeg, err = exec.LookPath(filepath.Join(".cache", "ffmpeg", "ffmpeg")); err != nil {
			return fmt.Errorf("%w: run `make ffmpeg` and start this from the checkout's root", err)
		}
	}
	if s.ffmpeg, err = filepath.Abs(s.ffmpeg); err != nil {
		return err
	}
	return run(ctx, s, os.Stdout)
}

// run measures, prints the section and writes it to the page.
func run(ctx context.Context, s settings, w io.Writer) error {
	scratch, err := os.MkdirTemp("", "modelgate-hostile-")
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
	c, err := measureCosts(ctx, s, filepath.Join(scratch, "costs"), w)
	if err != nil {
		return fmt.Errorf("what a clip costs: %w", err)
	}
	fmt.Fprintln(w, "making clips ...")
	all, err := makeClips(ctx, s, filepath.Join(scratch, "clips"))
	if err != nil {
		return err
	}
	n, err := measureNeighbours(ctx, s, eng, all, filepath.Join(scratch, "gateway"), w)
	if err != nil {
		return err
	}
	var section strings.Builder
	fmt.Fprintf(&section, "# What clips cost, and what they cost others\n\n`make bench-hostile` wrote this section on %s.\n\nMachine: %s, after %s%s.\n",
		machine.When.Format("2006-01-02"), machine, results.Load(), results.Weight())
	c.write(&section)
	n.write(&section, s)
	fmt.Fprint(w, "\n", section.String())
	if s.page == "" {
		return nil
	}
	return results.WriteSection(s.page, "hostile", section.String())
}
