package inference

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"modelgate/inference/engine"
	"modelgate/inference/text"
	"modelgate/inference/video"
)

// A Rehearsal is what opening and running a bundle once, away from what serves, has shown. A model that is opened with it needn't find
// it out again.
type Rehearsal struct {
	// Graph is the graph in the form that the engine loads fastest; empty: the bundle's own graph serves.
	Graph string `json:"graph"`
	Why   string `json:"why"` // there is no such form
	// Lasting says that there won't be one another time either: Why isn't a full disk, say.
	Lasting bool `json:"lasting"`
	Alone   bool `json:"alone"`
	Pads    bool `json:"pads"`
	// Answers are digests of what some runs gave, bit for bit.
	Answers []string `json:"answers"`
}

// maxRehearsedCheck is how long golden answers are rehearsed for. What doesn't end in that time isn't wrong: Check runs them all.
const maxRehearsedCheck = time.Minute

// ErrOtherNumbers says that the prepared form of a graph doesn't give what the graph gives.
var ErrOtherNumbers = errors.New("the prepared graph gives other numbers than the bundle's")

// Rehearse opens the bundle in dir for the first time: in a process that can be done without, since neither the graph nor the tokenizer
// is trusted. It exercises the tokenizer, warms the model up and examines it, clips excepted, which take programs of others. If into is
// given and eng can, it writes the graph there in the form that loads fastest; Confirm says whether that is good. Its errors wrap
// ErrBundle where the bundle is at fault.
func Rehearse(ctx context.Context, dir, into string, eng engine.Engine, o Options) (Rehearsal, error) {
	m, why, err := rehearsed(ctx, dir, o, func(b *bundle, eo engine.Options) (engine.Session, error, error) {
		return firstOpen(ctx, eng, b, into, eo)
	})
	if err != nil {
		return Rehearsal{}, err
	}
	r, err := m.rehearse(ctx)
	switch {
	case why != nil:
		r.Why, r.Lasting = why.Error(), errors.Is(why, engine.ErrNoForm)
	case into != "":
		r.Graph = engine.PreparedGraph
	}
	if err != nil {
		return Rehearsal{}, errors.Join(bundleError(ctx, fmt.Errorf("rehearse %s: %w", dir, err)), m.Close())
	}
	return r, m.Close()
}

// Confirm says whether the prepared form of a graph, at path, gives what the bundle's own graph gave in the Rehearsal. It may crash.
func Confirm(ctx context.Context, dir, path string, eng engine.Engine, o Options, r Rehearsal) error {
	m, _, err := rehearsed(ctx, dir, o, func(_ *bundle, eo engine.Options) (engine.Session, error, error) {
		eo.Prepared = true
		s, err := eng.Open(ctx, path, eo)
		return s, nil, err
	})
	if err != nil {
		return err
	}
	answers, err := m.answers(ctx)
	if err == nil && strings.Join(answers, " ") != strings.Join(r.Answers, " ") {
		err = fmt.Errorf("%w: %w", ErrBundle, ErrOtherNumbers)
	}
	return errors.Join(err, m.Close())
}

// rehearsed is the model around the session that open opens, without clips.
func rehearsed(ctx context.Context, dir string, o Options, open func(*bundle, engine.Options) (s engine.Session, why, err error)) (m *Model, why, err error) {
	o.Decoder, o.MaxCheck, o.Rehearsal, o.noClips = new(video.Decoder), maxRehearsedCheck, nil, true
	m, err = openWith(ctx, dir, o, func(b *bundle, eo engine.Options) (s engine.Session, err error) {
		s, why, err = open(b, eo)
		return s, err
	})
	return m, why, err
}

// firstOpen opens the graph, and has it written to into if that is given and eng can. why says why it wasn't.
func firstOpen(ctx context.Context, eng engine.Engine, b *bundle, into string, eo engine.Options) (s engine.Session, why, err error) {
	p, can := eng.(engine.Preparer)
	switch {
	case into == "":
	case !can:
		why = fmt.Errorf("%w: this engine has no faster one", engine.ErrNoForm)
	default:
		if s, err = p.Prepare(ctx, b.graph, into, eo); err == nil {
			return s, nil, nil
		}
		why = err
	}
	s, err = eng.Open(ctx, b.graph, eo)
	return s, why, err
}

func (m *Model) rehearse(ctx context.Context) (r Rehearsal, err error) {
	if err := m.exercise(ctx); err != nil {
		return r, err
	}
	if err := m.WarmUp(ctx); err != nil {
		return r, err
	}
	if _, err := m.Examine(ctx); err != nil && !errors.Is(err, errSlowCheck) {
		return r, err
	}
	r.Alone, r.Pads = m.alone.Load(), m.pads.Load()
	r.Answers, err = m.answers(ctx)
	return r, err
}

// exercise gives the tokenizer texts on which one that is made to do harm might do it. What it makes of them doesn't matter, nor that
// it gives up on some long ones.
func (m *Model) exercise(ctx context.Context) error {
	var g *tokenGraph
	switch kind := m.graph.(type) {
	case *tokenGraph:
		g = kind
	case *fusionGraph:
		g = kind.tokenGraph
	default:
		return nil
	}
	for _, s := range exercises(min(g.encoder.MaxBytes(), longExercise)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := g.encoder.Encode(s)
		if err != nil && len(s) <= shortExercise && !errors.Is(err, text.ErrVocabulary) && !errors.Is(err, text.ErrTooLong) {
			return fmt.Errorf("encode a text of %d bytes that begins with %s: %w", len(s), short(clipped(s, 20)), err)
		}
	}
	return nil
}

// A tokenizer takes half a microsecond a byte. What explodes does so within some dozens.
const (
	longExercise  = 8 << 10 // bytes
	shortExercise = 200     // bytes; what gives up on a text of so few is at fault
)

// exercises are texts of up to most bytes. Runs of one character with another one at the end are what regular expressions explode on.
func exercises(most int) []string {
	all := []string{"", "\x00", warmupText, strings.Repeat(warmupText+"\n", most/(len(warmupText)+1))}
	for _, s := range []string{"a", "1", " ", "\n", ".", "-", "'", "é", "e\u0301", "ệ", "好", "🙂", "\ufdfa", "\u200d", "aA1 .", "ab", "a b "} {
		all = append(all, strings.Repeat(s, 40)+"!", strings.Repeat(s, most/len(s)-1)+"!")
	}
	for c := 'a'; c <= 'z'; c++ {
		all = append(all, strings.Repeat(string(c), 40)+"!", strings.Repeat(strings.ToUpper(string(c)), 40)+"?")
	}
	return all
}

// answers runs the model in the shapes that traffic will have, alone and with one other, and gives digests of what comes out.
func (m *Model) answers(ctx context.Context) ([]string, error) {
	runs, err := m.graph.warmups(ctx, min(m.maxBatch, 2))
	if err != nil {
		return nil, err
	}
	var digests []string
	for _, examples := range runs {
		inputs, err := m.graph.stack(examples)
		if err != nil {
			return nil, err
		}
		outputs, err := m.session.Run(ctx, inputs)
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		for _, t := range outputs {
			_, _ = fmt.Fprintf(h, "%v %v %q ", t.Type(), t.Shape, t.Keys) // a hash doesn't fail
			writeBits(h, t)
		}
		digests = append(digests, hex.EncodeToString(h.Sum(nil)))
	}
	return digests, nil
}
