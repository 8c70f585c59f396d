package inference

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"modelgate/inference/text"
)

// What a comparison of speed takes: pairs of runs, one of each version, until there are enough.
const (
	fewestPairs = 3
	mostPairs   = 50
	raceFor     = 300 * time.Millisecond // once there are the fewest
	raceAtMost  = 30 * time.Second       // with what there is by then
)

// Compare says whether callers of active would notice that m answers in its place: by labels or a kind that they don't know, or by
// waiting much longer. before and after are the medians of a run of active and of m; 0 where they weren't measured. It is called after Check,
// when both compute at the same priority. Its errors wrap ErrBundle where m is refused.
func (m *Model) Compare(ctx context.Context, active *Model) (before, after time.Duration, err error) {
	if err := m.sameAnswers(active); err != nil && !m.options.AllowLabelChange {
		return 0, 0, fmt.Errorf("%w: %w: set models.*.allow_label_change for such versions, or promote this one by hand", ErrBundle, err)
	}
	if class(m.kind) != class(active.kind) {
		return 0, 0, nil // nothing runs on both
	}
	r, err := m.race(ctx, active)
	if err != nil || len(r.own) == 0 {
		return 0, 0, err
	}
	most := m.options.MaxSlowdown
	before, after, refused := r.judge(most)
	if refused {
		return before, after, fmt.Errorf("%w: a run takes %.3g times as long as one of the version that serves, %v instead of %v: at most %g is allowed "+
			"(models.*.max_slowdown); promote it by hand if that is intended", ErrBundle, after.Seconds()/before.Seconds(),
			after.Round(time.Microsecond), before.Round(time.Microsecond), most)
	}
	return before, after, nil
}

// laps are the times of a comparison: pairs, and how long the candidate has run in all.
type laps struct {
	old, own []time.Duration
	spent    time.Duration
}

// judge gives the medians, and says whether the candidate is refused. Too few pairs refuse nobody, unless that there were no more is the
// candidate's doing.
func (r laps) judge(most float64) (before, after time.Duration, refused bool) {
	slices.Sort(r.old)
	slices.Sort(r.own)
	before, after = r.old[len(r.old)/2], r.own[len(r.own)/2]
	if len(r.own) < fewestPairs && r.spent < raceAtMost*9/10 {
		return before, after, false
	}
	// Others who compute meanwhile slow both down, and chance may have it that they slow down one more: the fastest run of each, which met
	// the fewest of them, has to say the same.
	return before, after, slower(before, after, most) && slower(r.old[0], r.own[0], most)
}

func slower(before, after time.Duration, most float64) bool {
	return most > 0 && after.Seconds() > most*before.Seconds()
}

// class is the kind as callers see it.
func class(k Kind) Kind {
	if k == KindString {
		return KindTokens
	}
	return k
}

// sameAnswers says what callers of active may not know of m's answers. The order of labels isn't part of it: answers name them.
func (m *Model) sameAnswers(active *Model) error {
	if a, b := class(active.kind), class(m.kind); a != b {
		return fmt.Errorf("it is of the kind %s, the version that serves is of the kind %s", b, a)
	}
	a, b := slices.Sorted(slices.Values(active.labels)), slices.Sorted(slices.Values(m.labels))
	if !slices.Equal(a, b) {
		return fmt.Errorf("its labels are %s, those of the version that serves are %s", short(b), short(a))
	}
	if a, b := active.positiveLabel(), m.positiveLabel(); a != b {
		return fmt.Errorf("its positive label is %q, that of the version that serves is %q", b, a)
	}
	return nil
}

func (m *Model) positiveLabel() string {
	if m.positive < 0 {
		return ""
	}
	return m.labels[m.positive]
}

// race runs both on the same input in turn, one run at a time, and gives the times of each. That active can't run is
// not m's fault: then there are none.
func (m *Model) race(ctx context.Context, active *Model) (r laps, err error) {
	bounded, cancel := context.WithTimeout(ctx, raceAtMost)
	defer cancel()
	began := time.Now()
	for i := -1; i < fewestPairs || i < mostPairs && time.Since(began) < raceFor; i++ {
		a, err := active.lap(bounded)
		if err != nil {
			break
		}
		b, err := m.lap(bounded)
		r.spent += b
		if err != nil && bounded.Err() == nil {
			return laps{}, bundleError(ctx, fmt.Errorf("run it beside the version that serves: %w", err))
		}
		if err != nil && ctx.Err() == nil { // it took all the time that there was, and would have taken more
			r.old, r.own = append(r.old, a), append(r.own, b)
			return r, nil
		}
		if i >= 0 { // the first one warms up again what checks of other shapes have cooled
			r.old, r.own = append(r.old, a), append(r.own, b)
		}
	}
	return r, ctx.Err()
}

// lap is how long one run takes on an input such as traffic may have.
func (m *Model) lap(ctx context.Context) (time.Duration, error) {
	ex, err := m.typical(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	_, err = m.run(ctx, []Example{ex})
	return time.Since(began), err
}

// typical is a sentence for models of texts, and the sample for others.
func (m *Model) typical(ctx context.Context) (Example, error) {
	if class(m.kind) != KindTokens {
		return m.graph.sample(ctx)
	}
	ex, err := m.graph.Encode(ctx, textInput(warmupText))
	if errors.Is(err, text.ErrTooLong) {
		return m.graph.sample(ctx)
	}
	return ex, err
}
