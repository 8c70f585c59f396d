package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"modelgate/benchmarks/minilm"
	"modelgate/benchmarks/results"
)

// overloaded is what a gateway does that is asked for five times what it can do, beside what it does just below its capacity.
type overloaded struct {
	rounds   int
	capacity []float64 // texts a second
	calm     []offered // at 90 % of the capacity just measured
	flood    []offered // at five times that
	goodput  []float64 // of the flood, as a share of the capacity
	net      []float64 // the same, with what the callers themselves compute taken off both: they have the gateway's processors
	late     []float64 // p99 of those admitted in the flood, as a multiple of that at 90 %
}

const overload = 5

// measureOverload takes turns, so that a busy spell of the machine meets all three.
func measureOverload(ctx context.Context, s settings, dir string, w io.Writer) (o overloaded, err error) {
	if err := publish(dir, "text", 1, minilm.Write); err != nil {
		return o, err
	}
	g, err := startGateway(ctx, s, dir, "process", "text")
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	text := minilm.Sentence()
	for range s.rounds {
		// The most that the machine can do is with full runs for each worker, or with a run of one for each.
		few, own, err := g.capacityAndOwn(ctx, text, runtime.NumCPU(), s.phase/2)
		if err != nil {
			return o, err
		}
		many, ownMany, err := g.capacityAndOwn(ctx, text, 8*runtime.NumCPU(), s.phase/2)
		if err != nil {
			return o, err
		}
		most := max(few, many)
		if many > few {
			own = ownMany
		}
		calm := g.offer(ctx, text, .9*most, s.phase, nil)
		g.offer(ctx, text, overload*most, s.phase/5, nil) // the first moments of a flood look like a burst
		before, err := g.runs(ctx)
		if err != nil {
			return o, err
		}
		began := ownTime()
		flood := g.offer(ctx, text, overload*most, s.phase, nil)
		ownFlood := share(ownTime()-began, flood.length)
		after, err := g.runs(ctx)
		if err != nil {
			return o, err
		}
		if err := ctx.Err(); err != nil {
			return o, err
		}
		o.rounds++
		o.capacity, o.calm, o.flood = append(o.capacity, most), append(o.calm, calm), append(o.flood, flood)
		o.net = append(o.net, flood.goodput()/(1-ownFlood)/(most/(1-own)))
		o.goodput, o.late = append(o.goodput, flood.goodput()/most), append(o.late, float64(flood.p99())/float64(calm.p99()))
		fmt.Fprintf(w, "capacity %.0f/s (%.0f with a caller a core); at 90 %%: p99 %v, %d of %d refused; at %dx: goodput %.2f, %.2f without the callers' %.1f %% of the processors (%.1f %%), %.1f texts a run, p99 %v, %.2f times that; load %s\n",
			most, few, calm.p99(), calm.refused, calm.sent, overload, last(o.goodput), last(o.net), 100*ownFlood, 100*own, float64(len(flood.latencies))/(after-before), flood.p99(), last(o.late), results.Load())
		select { // for what waits to be over
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return o, nil
}

func last[T any](all []T) T { return all[len(all)-1] }

// other is how many got something else than an answer or a refusal that says when to come back.
func (o overloaded) other() (n int, first error) {
	for _, phase := range append(append([]offered{}, o.calm...), o.flood...) {
		n += len(phase.failed)
		if len(phase.failed) > 0 {
			first = phase.failed[0]
		}
	}
	return n, first
}

func (o overloaded) rows() []row {
	other, _ := o.other()
	goodput, late := median(o.net), median(o.late)
	return []row{
		{what: "5x overload: goodput, of the capacity, without what the callers compute", measured: fmt.Sprintf("%.0f %%", 100*goodput), bar: "at least 90 %", met: goodput >= .9},
		{what: "5x overload: p99 of those admitted, against that at 90 % of the capacity", measured: fmt.Sprintf("%.2fx", late), bar: "at most 2x", met: late <= 2},
		{what: "5x overload: neither answered nor RESOURCE_EXHAUSTED with RetryInfo", measured: fmt.Sprint(other), bar: "0", met: other == 0},
	}
}

func (o overloaded) text() string {
	refused, sent := 0, 0
	var before, during []time.Duration
	for i := range o.calm {
		refused, sent = refused+o.calm[i].refused, sent+o.calm[i].sent
		before, during = append(before, o.calm[i].p99()), append(during, o.flood[i].p99())
	}
	say := fmt.Sprintf("Text of %d tokens, a model of MiniLM's size (%d layers of %d), requests at random moments; the median of %d rounds. Capacity %.0f a second; at 90 %% of it p99 %s, "+
		"%.2f %% refused; at five times it p99 %s. The callers have the same processors as the gateway, and five times as many cost more: with that, goodput was %.0f %%.\n", 31, minilm.Layers, minilm.Hidden, o.rounds, median(o.capacity), short(median(before)),
		100*float64(refused)/float64(max(sent, 1)), short(median(during)), 100*median(o.goodput))
	if _, first := o.other(); first != nil {
		say += fmt.Sprintf("\nThe last other answer: %v.\n", first)
	}
	return say
}

// capacityAndOwn is capacity, and the share of the processors that the callers themselves took.
func (g *gateway) capacityAndOwn(ctx context.Context, text string, callers int, length time.Duration) (rate, own float64, err error) {
	began, start := ownTime(), time.Now()
	rate, err = g.capacity(ctx, text, callers, length)
	return rate, share(ownTime()-began, time.Since(start)), err
}

// share is what so much processor time is of all that there was.
func share(used, length time.Duration) float64 {
	return used.Seconds() / length.Seconds() / float64(runtime.NumCPU())
}

// isolated is what a worker process costs.
type isolated struct {
	loss   []float64          // share of the throughput, of each pair of turns
	none   []float64          // throughput without
	micros map[string]float64 // of processor time a run, where each is of one text
}

// turn is for how long one of two gateways is measured, before the other is. What else the machine does changes from one second to the
// next: two turns that follow each other have more of it in common than two long phases, and the median of many pairs forgets the rest.
const turn = 500 * time.Millisecond

// measureIsolation compares two gateways, one with its model in process and one with a worker, which take turns. They have one cache: so
// both compute with the same pages of memory, and how those lie is no difference between them.
func measureIsolation(ctx context.Context, s settings, dir string, w io.Writer) (i isolated, err error) {
	if err := publish(dir, "text", 1, minilm.Write); err != nil {
		return i, err
	}
	gateways := map[string]*gateway{}
	for _, isolation := range isolations() {
		g, err := startGateway(ctx, s, dir, isolation, "text")
		if err != nil {
			return i, err
		}
		defer func() { err = errors.Join(err, g.close()) }()
		gateways[isolation] = g
	}
	rates := map[string][]float64{}
	err = takeTurns(s.pairs, func(isolation string) error { // a few callers a core: what can be had
		rate, err := gateways[isolation].capacity(ctx, minilm.Sentence(), 2*runtime.NumCPU(), turn)
		rates[isolation] = append(rates[isolation], rate)
		return err
	})
	if err != nil {
		return i, err
	}
	for n, rate := range rates["none"] {
		i.loss = append(i.loss, 1-rates["process"][n]/rate)
	}
	i.none = rates["none"]
	fmt.Fprintf(w, "in process %.1f/s, in a worker %.1f/s; of %d pairs the loss is %.1f %% in the middle, from %.1f to %.1f %% at the quarters; load %s\n",
		median(rates["none"]), median(rates["process"]), s.pairs, 100*median(i.loss), 100*quantile(i.loss, .25), 100*quantile(i.loss, .75), results.Load())
	used, runs := map[string]time.Duration{}, map[string]float64{}
	err = takeTurns(s.pairs, func(isolation string) error { // a caller a core: each run is of one text
		u, n, err := gateways[isolation].cost(ctx, minilm.Sentence(), turn)
		used[isolation], runs[isolation] = used[isolation]+u, runs[isolation]+n
		return err
	})
	if err != nil {
		return i, err
	}
	i.micros = map[string]float64{}
	for _, isolation := range isolations() {
		i.micros[isolation] = float64(used[isolation].Microseconds()) / runs[isolation]
	}
	fmt.Fprintf(w, "a run takes %.0f µs of the processors in process, %.0f in a worker; load %s\n", i.micros["none"], i.micros["process"], results.Load())
	return i, nil
}

func isolations() []string { return []string{"none", "process"} }

// takeTurns measures both isolations so many times, each of them first every other time.
func takeTurns(pairs int, measure func(isolation string) error) error {
	order := isolations()
	for range pairs {
		for _, isolation := range order {
			if err := measure(isolation); err != nil {
				return err
			}
		}
		slices.Reverse(order)
	}
	return nil
}

// cost is the processor time that runs of one text take, and how many there were.
func (g *gateway) cost(ctx context.Context, text string, length time.Duration) (used time.Duration, runs float64, err error) {
	before, err := look(g.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	from, err := g.runs(ctx)
	if err != nil {
		return 0, 0, err
	}
	if _, err := g.capacity(ctx, text, runtime.NumCPU(), length); err != nil {
		return 0, 0, err
	}
	to, err := g.runs(ctx)
	if err != nil {
		return 0, 0, err
	}
	after, err := look(g.cmd.Process.Pid)
	return after.processor - before.processor, to - from, err
}

// runs is how many the text model has had.
func (g *gateway) runs(ctx context.Context) (float64, error) {
	return g.metric(ctx, `modelgate_batch_size_count{model="text"}`)
}

func (i isolated) rows() []row {
	loss := median(i.loss)
	return []row{
		{what: "throughput that isolation costs", measured: fmt.Sprintf("%.1f %%", 100*loss), bar: "at most 3 %", met: loss <= .03},
		{what: "processor time that isolation costs a run", measured: fmt.Sprintf("%.0f µs", i.micros["process"]-i.micros["none"]), bar: "reported", met: true},
	}
}

func (i isolated) text() string {
	return fmt.Sprintf("Two gateways take turns of %v over the same model, with `isolation: none` and `process`, %d callers; the median of %d pairs of turns (quarters: %.1f and %.1f %%). "+
		"In process: %.0f a second, and %.1f ms of the processors a run.\n", turn, 2*runtime.NumCPU(), len(i.loss), 100*quantile(i.loss, .25), 100*quantile(i.loss, .75), median(i.none), i.micros["none"]/1000)
}
