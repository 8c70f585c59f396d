package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"modelgate/benchmarks/minilm"
	"modelgate/benchmarks/results"
	"modelgate/inference/engine"
	"modelgate/inference/video"
	"modelgate/inference/video/videotest"
)

// corpus are the clips that are sent.
type corpus struct {
	good, hostile []clip
}

func makeClips(ctx context.Context, s settings, dir string) (c corpus, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	m := videotest.Maker{FFmpeg: s.ffmpeg, Dir: dir}
	for name, args := range map[string]string{
		"360p, 10 s": "-f lavfi -i testsrc2=s=640x360:r=25:d=10 -c:v libx264 -preset veryfast -pix_fmt yuv420p",
		"large, 4 s": fmt.Sprintf(vertical, s.large, 4),
	} {
		data, err := m.Clip(ctx, "mp4", args)
		if err != nil {
			return c, err
		}
		c.good = append(c.good, clip{name, data, true})
	}
	canary := filepath.Join(dir, "canary.mp4")
	if err := os.WriteFile(canary, c.good[0].data, 0o600); err != nil {
		return c, err
	}
	files, err := m.Hostile(ctx, canary, "127.0.0.1:1")
	if err != nil {
		return c, err
	}
	if files["slow"], err = m.Slow(ctx); err != nil {
		return c, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		c.hostile = append(c.hostile, clip{name, files[name], false})
	}
	return c, nil
}

// A company is what is sent beside the texts.
type company struct {
	name   string
	clips  []clip
	p50    []time.Duration // of each phase
	p99    []time.Duration
	all    *hdr.Histogram // of all phases, in microseconds
	rounds []float64      // the p99 of each round, as a multiple of that of the texts alone just before
	sent   int64          // clips answered
}

// neighbours are the text model's latencies, alone and in company, and what the hostile files took.
type neighbours struct {
	capacity, rate       float64
	alone, good, hostile *company
	memory               memory
	slowest              time.Duration
}

func measureNeighbours(ctx context.Context, s settings, eng engine.Engine, all corpus, scratch string, w io.Writer) (n neighbours, err error) {
	decoder, err := video.NewDecoder(video.DecoderOptions{FFmpeg: s.ffmpeg, Timeout: s.slowest}) //nolint:contextcheck // one short run of ffmpeg at the start
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, decoder.Close()) }()
	g, err := newGateway(ctx, eng, decoder, scratch)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if n.capacity, err = g.capacity(ctx, runtime.NumCPU(), s.phase/2); err != nil {
		return n, err
	}
	n.rate = n.capacity * s.share
	fmt.Fprintf(w, "%.0f texts a second can be answered; %.0f are sent\n", n.capacity, n.rate)
	if err := n.lookAtFiles(ctx, g, all.hostile); err != nil {
		return n, err
	}
	n.alone, n.good, n.hostile = newCompany("alone", nil), newCompany("beside good clips", all.good), newCompany("beside hostile files", all.hostile)
	for round := range s.rounds {
		for _, c := range []*company{n.hostile, n.good} {
			if err := errors.Join(n.alone.measure(ctx, s, g, n.rate), c.measure(ctx, s, g, n.rate)); err != nil {
				return n, fmt.Errorf("%s: %w", c.name, err)
			}
			alone, beside := last(n.alone.p99), last(c.p99)
			c.rounds = append(c.rounds, float64(beside)/float64(alone))
			fmt.Fprintf(w, "round %d, %s: p50 %v, alone %v; p99 %v, alone %v; %d clips; load %s\n", round+1, c.name,
				last(c.p50), last(n.alone.p50), beside, alone, c.sent, results.Load())
		}
	}
	return n, nil
}

func newCompany(name string, clips []clip) *company {
	return &company{name: name, clips: clips, all: newHistogram()}
}

// lookAtFiles sends every hostile file once and watches the children.
func (n *neighbours) lookAtFiles(ctx context.Context, g *gateway, files []clip) error {
	for _, f := range files {
		start, stop := time.Now(), watchChildren()
		err := g.send(ctx, f)
		m := stop()
		if err != nil {
			return err
		}
		n.slowest = max(n.slowest, time.Since(start))
		n.memory.resident, n.memory.address = max(n.memory.resident, m.resident), max(n.memory.address, m.address)
	}
	return nil
}

// measure is one phase.
func (c *company) measure(ctx context.Context, s settings, g *gateway, rate float64) error {
	stop := func() (int64, error) { return 0, nil }
	if len(c.clips) > 0 {
		stop = g.clips(ctx, c.clips, s.senders)
	}
	latencies, err := g.texts(ctx, rate, s.phase)
	sent, failed := stop()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	c.sent += sent
	c.all.Merge(latencies)
	c.p50, c.p99 = append(c.p50, quantile(latencies, 50)), append(c.p99, quantile(latencies, 99))
	return nil
}

func quantile(h *hdr.Histogram, q float64) time.Duration {
	return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond
}

// bar is what the p99 beside hostile files may be, as a multiple of that of the texts alone.
const bar = 2

func (n neighbours) write(w io.Writer, s settings) {
	word := "is within"
	ratio := float64(quantile(n.hostile.all, 99)) / float64(quantile(n.alone.all, 99))
	if ratio > bar {
		word = "is NOT within"
	}
	fmt.Fprintf(w, `
## Beside hostile files

One gateway serves a text model of MiniLM's size (%d layers of %d, 31 tokens a text) and a video model of 16 frames. Texts come at %.0f a
second, %.0f %% of the %.0f that it can answer; a latency counts from the moment at which the text was due. Clips come from %d callers, each of
which sends the next as soon as the last is answered. Hostile are %d files: playlists, truncated ones, huge frames, 20 minutes, and one
within every limit that takes longer to decode than is allowed (here %v). Texts alone and in company take turns, %v each, %d rounds.
Good clips are 360p of 10 s and %s of 4 s.

| texts | p50 | p99, median of the phases | p99 of all | x alone, p50 | x alone, p99 of all | x alone, p99, median of the rounds | clips answered |
|---|---:|---:|---:|---:|---:|---:|---:|
`, minilm.Layers, minilm.Hidden, n.rate, 100*s.share, n.capacity, s.senders, len(n.hostile.clips), s.slowest, s.phase, s.rounds, s.large)
	for _, c := range []*company{n.alone, n.good, n.hostile} {
		rounds := "1"
		if len(c.rounds) > 0 {
			rounds = fmt.Sprintf("%.2f", median(c.rounds))
		}
		fmt.Fprintf(w, "| %s | %.1f ms | %.1f ms | %.1f ms | %.2f | %.2f | %s | %d |\n", c.name, ms(median(c.p50)), ms(median(c.p99)), ms(quantile(c.all, 99)),
			float64(median(c.p50))/float64(median(n.alone.p50)), float64(quantile(c.all, 99))/float64(quantile(n.alone.all, 99)), rounds, c.sent)
	}
	fmt.Fprintf(w, `
The p99 of all beside hostile files, %.2f times that alone, %s the bar of %d. Every hostile file was refused, the slowest after %.1f s. The
largest ffmpeg had %s resident and %s of address space; %s are allowed.
`, ratio, word, bar, n.slowest.Seconds(), mega(n.memory.resident), mega(n.memory.address), mega(1<<30))
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func last[T any](all []T) T { return all[len(all)-1] }

func median[T cmp.Ordered](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func least(all []float64) float64 { return slices.Min(all) }

func most(all []float64) float64 { return slices.Max(all) }
