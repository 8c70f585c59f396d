package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"modelgate/benchmarks/minilm"
	"modelgate/benchmarks/results"
	"modelgate/inference/engine/enginetest"
)

// lived is how large versions become live, and what two of them keep.
type lived struct {
	bytes    int64 // of a version's graph
	versions int   // after the first
	first    time.Duration
	after    []time.Duration // from the end of the preparation until it serves, of each but the first
	slowest  []phase         // of the slowest of those
	own      []int64         // anonymous memory of the workers of two versions, each after a run
}

// measureLive serves versions of the size of XLM-R base, one after the other.
func measureLive(ctx context.Context, s settings, dir string, w io.Writer) (l lived, err error) {
	s.logLevel = "debug" // it tells the phases
	write := func(n int) func(dir string) error {
		return func(dir string) error {
			e := s.encoder(uint64(n))
			if err := errors.Join((enginetest.TextBundle{}).Write(dir), writeVocabulary(filepath.Join(dir, "tokenizer.json"), e.Vocab)); err != nil {
				return err
			}
			path := filepath.Join(dir, "model.onnx")
			err := e.Graph().WriteLarge(path, false)
			if st, statErr := os.Stat(path); statErr == nil {
				l.bytes = st.Size()
			}
			return err
		}
	}
	if err := publish(dir, "text", 1, write(1)); err != nil {
		return l, err
	}
	g, err := startGateway(ctx, s, dir, "process", "text")
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if l.first, _, err = g.live(1); err != nil {
		return l, err
	}
	fmt.Fprintf(w, "version 1 serves %v after it was prepared, with its tokenizer opened for the first time; load %s\n", l.first.Round(time.Millisecond), results.Load())
	for n := 2; n < s.rounds+2; n++ {
		if err := publish(dir, "text", n, write(n)); err != nil {
			return l, err
		}
		if err := g.refresh(ctx, "text", n); err != nil {
			return l, err
		}
		took, phases, err := g.live(n)
		if err != nil {
			return l, err
		}
		if _, err := g.ask(ctx, minilm.Sentence()+" this"); err != nil {
			return l, err
		}
		own, workers, err := anonymous(g.cmd.Process.Pid)
		if err != nil {
			return l, err
		}
		if workers != 2 {
			return l, fmt.Errorf("%d processes compute, want one for each of two versions", workers)
		}
		l.versions++
		if len(l.after) == 0 || took > slices.Max(l.after) {
			l.slowest = phases
		}
		l.after, l.own = append(l.after, took), append(l.own, own)
		fmt.Fprintf(w, "version %d serves %v after it was prepared; two workers have %s of their own; load %s\n", n, took.Round(time.Millisecond), mega(own), results.Load())
		if err := os.RemoveAll(filepath.Join(dir, "models", "text", strconv.Itoa(n-1))); err != nil {
			return l, err
		}
	}
	return l, nil
}

// usual are words that a large vocabulary holds, in several languages.
const usual = "the quick brown fox jumps over lazy dog and nobody minds a film was good sad day this very not xin chào thế giới 你好 🙂 12345"

// writeVocabulary writes a tokenizer of so many pieces, in the form of XLM-R's. A word that it doesn't hold becomes several pieces.
func writeVocabulary(path string, pieces int) error {
	var b strings.Builder
	b.WriteString(`{"version": "1.0", "truncation": null, "padding": null,
 "added_tokens": [{"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
  {"id": 1, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
 "normalizer": {"type": "NFKC"}, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
 "post_processor": null, "decoder": null,
 "model": {"type": "Unigram", "unk_id": 1, "byte_fallback": false, "vocab": [["[PAD]", 0], ["[UNK]", 0]`)
	r, n, seen := rand.New(rand.NewPCG(1, 1)), 2, map[string]bool{}
	add := func(piece string) {
		if n < pieces && !seen[piece] {
			seen[piece] = true
			n++
			fmt.Fprintf(&b, ",\n  [%q, %.6f]", piece, -5-12*r.Float64())
		}
	}
	add("▁")
	for c := 'a'; c <= 'z'; c++ {
		add(string(c))
	}
	for _, word := range strings.Fields(usual) {
		add("▁" + word)
	}
	add(",")
	add(":")
	const consonants, vowels = "bcdfghklmnprstvz", "aeiou"
	for n < pieces {
		var piece strings.Builder
		if r.IntN(2) == 0 {
			piece.WriteString("▁")
		}
		for range 1 + r.IntN(5) {
			piece.WriteByte(consonants[r.IntN(len(consonants))])
			piece.WriteByte(vowels[r.IntN(len(vowels))])
		}
		add(piece.String())
	}
	b.WriteString("]}}")
	return os.WriteFile(path, []byte(b.String()), 0o600)
}

// live is the time from the end of version n's preparation until it served, and its phases.
func (g *gateway) live(n int) (time.Duration, []phase, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var mine []phase
	var prepared, serves time.Time
	for _, p := range g.phases {
		if p.Version != fmt.Sprintf("text v%d", n) {
			continue
		}
		mine = append(mine, p)
		switch p.Phase {
		case "prepare":
			prepared = p.Time
		case "publish_held":
			serves = p.Time
		}
	}
	if prepared.IsZero() || serves.Before(prepared) {
		return 0, nil, fmt.Errorf("the log tells no phases of version %d: %+v", n, mine)
	}
	return serves.Sub(prepared), mine, nil
}

func (l lived) rows() []row {
	took, own := median(l.after), slices.Max(l.own)
	return []row{
		{what: fmt.Sprintf("time from prepared to live, of a version of %s", mega(l.bytes)), measured: fmt.Sprintf("%.2f s", took.Seconds()), bar: "at most 1 s", met: took <= time.Second},
		{what: "memory of their own that the workers of two of them have, after a run of 32 tokens", measured: mega(own), bar: "less than 300 MB", met: own < 300_000_000},
	}
}

func (l lived) text() string {
	var phases []string
	for _, p := range l.slowest {
		phases = append(phases, fmt.Sprintf("%s %.2f s", p.Phase, p.Seconds))
	}
	return fmt.Sprintf("Versions with random weights, each of them with a tokenizer of as many pieces as XLM-R's; the median of %d. The slowest took %.2f s: %s. The first version, "+
		"whose tokenizer nothing has opened before in the gateway, took %.2f s.\n",
		l.versions, slices.Max(l.after).Seconds(), strings.Join(phases, ", "), l.first.Seconds())
}
