package main

import (
	"fmt"
	"strings"
	"time"

	"modelgate/modelstore"
)

// markdown is the whole report.
func (r measured) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What a swap costs\n\n`make bench` wrote this section and the plot on %s.\n\nMachine: %s.\n\n"+
		"Seconds differ from machine to machine and with its load; the ratios within this section say more. "+
		"Every figure is the median of %s, if it doesn't say otherwise; max is the largest value of all.\n",
		r.machine.When.Format("2006-01-02"), r.machine, plural(r.s.runs, "run"))
	if r.s.out != "" {
		b.WriteString("\n![Publication under readers, and the phases of a swap](swap.svg)\n")
	}
	r.writeAcquire(&b)
	r.writePublish(&b)
	for _, p := range r.phases {
		p.write(&b)
	}
	return b.String()
}

func (r measured) writeAcquire(b *strings.Builder) {
	b.WriteString("\n## Acquire and Release\n\nWhat every request pays to pin its version. The read lock alone is the least that it could cost.\n\n" +
		"| operation | one goroutine | one a core, together | against the lock alone |\n|---|---:|---:|---:|\n")
	for _, a := range r.acquire {
		fmt.Fprintf(b, "| %s | %.0f ns | %.0f ns | %.1fx, %.1fx |\n", a.what, a.single, a.parallel,
			a.single/r.acquire[0].single, a.parallel/r.acquire[0].parallel)
	}
}

func (r measured) writePublish(b *strings.Builder) {
	fmt.Fprintf(b, "\n## Publication\n\nThe moment in which callers go over to the new version: the wait for the write lock, and the time for which it is held. "+
		"%d publications a run, while readers hold pins, as requests do, and not the lock.\n\n"+
		"| readers | each | held p50 | held p99 | held max | wait p50 | wait p99 | wait max | requests |\n"+
		"|---:|---|---:|---:|---:|---:|---:|---:|---:|\n", r.s.publish)
	for i := range r.publish {
		p := &r.publish[i]
		does := p.does
		if p.readers == 0 {
			does = ""
		}
		fmt.Fprintf(b, "| %d | %s | %s | %s | %s | %s | %s | %s | %d |\n", p.readers, does,
			short(p.held.quantile(50)), short(p.held.quantile(99)), short(p.held.most()),
			short(p.wait.quantile(50)), short(p.wait.quantile(99)), short(p.wait.most()), p.requests)
	}
	b.WriteString("\n" + r.verdict() + "\n")
}

// heldBar is the bar for the p99 of the time under the write lock, with 64 readers.
const heldBar = 50 * time.Microsecond

func (r measured) verdict() string {
	for i := range r.publish {
		p := &r.publish[i]
		if p.readers != 64 || p.does != waits {
			continue
		}
		word := "is under"
		if p.held.quantile(99) >= heldBar {
			word = "is NOT under"
		}
		return fmt.Sprintf("The p99 of the time under the write lock with 64 readers, %s, %s the bar of %s.", short(p.held.quantile(99)), word, short(heldBar))
	}
	return "64 readers were not measured."
}

// write is one bundle's table.
func (p *phased) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n## Phases of a swap: %s, %.1f MB\n\n"+
		"%d swaps from the folder through the cache on disk, ONNX Runtime and the updater, while %d callers predict, with a pause of %v between: %d requests, 0 failed. "+
		"p99 and max are over all swaps. No standby is kept here, so that a drain follows each swap, off its path.\n\n"+
		"| phase | median | p99 | max | share of the swap |\n|---|---:|---:|---:|---:|\n", p.bundle, float64(p.bytes)/1e6, p.swaps, callers, callerPause, p.requests)
	total := p.total.quantile(50)
	for _, phase := range phases() {
		s := p.phases[phase]
		share := fmt.Sprintf("%.1f %%", 100*s.quantile(50).Seconds()/total.Seconds())
		if phase == modelstore.PhaseDrain {
			share = "after it"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", phase, short(s.quantile(50)), short(s.overall99()), short(s.most()), share)
	}
	fmt.Fprintf(b, "| the rest: registry, state, ledger, pruning | %s | %s | %s | %.1f %% |\n", short(p.rest.quantile(50)), short(p.rest.overall99()), short(p.rest.most()),
		100*p.rest.quantile(50).Seconds()/total.Seconds())
	fmt.Fprintf(b, "| the whole swap | %s | %s | %s | |\n", short(total), short(p.total.overall99()), short(p.total.most()))
}

// short is a duration with two or three digits that count.
func short(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", float64(d.Nanoseconds())/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.3g s", d.Seconds())
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
