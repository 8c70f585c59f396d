package modelstore_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"modelgate/modelstore"
)

var day = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// version makes version n, created on day n of the month, promoted through the alias.
func version(n int64, f1 float64) modelstore.Version {
	return modelstore.Version{Model: "text", Registered: "text_classification_model", Number: n, Created: day.AddDate(0, 0, int(n)),
		Source: "runs:/a", Pointer: "alias:production", F1: modelstore.KnownF1("eval_f1", f1)}
}

func withF1(v modelstore.Version, f modelstore.F1) modelstore.Version { v.F1 = f; return v }

func withPointer(v modelstore.Version, p string) modelstore.Version { v.Pointer = p; return v }

func TestImprove(t *testing.T) {
	type state = modelstore.State
	none := modelstore.Version{}
	rules := modelstore.Rules{Threshold: 0.75}
	absent := modelstore.AbsentF1("metrics.json is missing")
	remade := version(1, 0.9) // the model was deleted and made again: numbers restart, dates don't
	remade.Created = day.AddDate(0, 1, 0)
	cases := []struct {
		name   string
		s      state
		action modelstore.Action
		code   string
		reason string // must be part of the sentence
	}{
		{"first above the threshold", state{Candidate: version(1, 0.76)}, modelstore.Take, modelstore.CodeFirst, "0.7600 exceeds the threshold 0.75"},
		{"first at the threshold", state{Candidate: version(1, 0.75)}, modelstore.Refuse, modelstore.CodeBelowThreshold, "does not exceed the threshold"},
		{"first below the threshold", state{Candidate: version(1, 0.7)}, modelstore.Refuse, modelstore.CodeBelowThreshold, "0.7000"},
		{"better", state{Active: version(1, 0.76), Candidate: version(2, 0.78)}, modelstore.Take, modelstore.CodeImproved, "0.7800 exceeds 0.7600 of version 1"},
		{"equal changes nothing", state{Active: version(1, 0.76), Candidate: version(2, 0.76)}, modelstore.Refuse, modelstore.CodeNoImprovement, "does not exceed"},
		{"worse", state{Active: version(1, 0.78), Candidate: version(2, 0.77)}, modelstore.Refuse, modelstore.CodeNoImprovement, "0.7700"},
		{"better than a serving one below the threshold, itself below it", state{Active: version(1, 0.5), Candidate: version(2, 0.6)}, modelstore.Refuse, modelstore.CodeBelowThreshold, ""},
		{"10 comes after 9", state{Active: version(9, 0.76), Candidate: version(10, 0.77), LastPointer: version(9, 0)}, modelstore.Take, modelstore.CodeImproved, ""},
		{"the same version", state{Active: version(2, 0.78), Candidate: version(2, 0.78)}, modelstore.Keep, modelstore.CodeSame, "serves already"},
		{"less than min_improvement better", state{Rules: modelstore.Rules{Threshold: 0.75, MinImprovement: 0.05}, Active: version(1, 0.76), Candidate: version(2, 0.80)},
			modelstore.Refuse, modelstore.CodeNoImprovement, "by more than 0.05"},
		{"more than min_improvement better", state{Rules: modelstore.Rules{Threshold: 0.75, MinImprovement: 0.05}, Active: version(1, 0.76), Candidate: version(2, 0.82)},
			modelstore.Take, modelstore.CodeImproved, "by more than 0.05"},
		{"exactly min_improvement better", state{Rules: modelstore.Rules{MinImprovement: 0.25}, Active: version(1, 0.5), Candidate: version(2, 0.75)},
			modelstore.Refuse, modelstore.CodeNoImprovement, ""},

		{"exactly min_improvement better, though not in binary", state{Rules: modelstore.Rules{MinImprovement: 0.1}, Active: version(1, 0.7), Candidate: version(2, 0.8)},
			modelstore.Refuse, modelstore.CodeNoImprovement, ""},

		{"F1 missing", state{Candidate: withF1(version(1, 0), absent)}, modelstore.Refuse, modelstore.CodeF1Unknown, "metrics.json is missing"},
		{"F1 missing, nothing serves, and that is allowed", state{Rules: modelstore.Rules{AcceptUnknownFirst: true}, Candidate: withF1(version(1, 0), absent)},
			modelstore.Take, modelstore.CodeFirstUnknown, "F1 unknown"},
		{"F1 missing, something serves", state{Rules: modelstore.Rules{AcceptUnknownFirst: true}, Active: version(1, 0.8), Candidate: withF1(version(2, 0), absent)},
			modelstore.Refuse, modelstore.CodeF1Unknown, ""},
		{"F1 NaN is not missing", state{Rules: modelstore.Rules{AcceptUnknownFirst: true}, Candidate: version(1, math.NaN())}, modelstore.Refuse, modelstore.CodeF1Unknown, "NaN"},
		{"F1 above 1", state{Candidate: version(1, 1.5)}, modelstore.Refuse, modelstore.CodeF1Unknown, "1.5"},
		{"F1 below 0", state{Candidate: version(1, -0.5)}, modelstore.Refuse, modelstore.CodeF1Unknown, "-0.5"},
		{"F1 infinite", state{Candidate: version(1, math.Inf(1))}, modelstore.Refuse, modelstore.CodeF1Unknown, "Inf"},
		{"F1 is text", state{Candidate: withF1(version(1, 0), modelstore.InvalidF1("eval_f1", `metric eval_f1 is "good"`))}, modelstore.Refuse, modelstore.CodeF1Unknown, "good"},
		{"the serving F1 is unknown", state{Active: withF1(version(1, 0), absent), Candidate: version(2, 0.76)}, modelstore.Take, modelstore.CodeActiveUnknown, "unknown"},

		{"the pointer moved back", state{Active: version(3, 0.8), Candidate: version(2, 0.1), LastPointer: version(3, 0)},
			modelstore.Return, modelstore.CodeRegistryRollback, "from version 3 to 2"},
		{"the pointer moved back from one that was refused", state{Active: version(3, 0.8), Candidate: version(2, 0.1), LastPointer: version(4, 0)},
			modelstore.Return, modelstore.CodeRegistryRollback, ""},
		{"the pointer moved back, to be ignored", state{Rules: modelstore.Rules{IgnoreRegistryRollback: true}, Active: version(3, 0.8), Candidate: version(2, 0.9), LastPointer: version(3, 0)},
			modelstore.Refuse, modelstore.CodeRegistryRollback, "ignore"},
		{"the pointer moved forward to an older one that is worse", state{Active: version(3, 0.8), Candidate: version(2, 0.76), LastPointer: version(1, 0)},
			modelstore.Refuse, modelstore.CodeNoImprovement, ""},
		{"the pointer moved forward to an older one that is better", state{Active: version(3, 0.8), Candidate: version(2, 0.85), LastPointer: version(1, 0)},
			modelstore.Take, modelstore.CodeImproved, ""},
		{"the pointer stands on an older one since before", state{Active: version(3, 0.8), Candidate: version(2, 0.9), LastPointer: version(2, 0)},
			modelstore.Refuse, modelstore.CodeOlder, "has not moved"},
		{"without a pointer older is older", state{Rules: modelstore.Rules{Newest: true}, Active: version(3, 0.8), Candidate: version(2, 0.9), LastPointer: version(3, 0)},
			modelstore.Refuse, modelstore.CodeOlder, ""},
		{"a model made anew is judged by its F1", state{Active: version(7, 0.8), Candidate: remade, LastPointer: version(7, 0)}, modelstore.Take, modelstore.CodeImproved, ""},

		{"pinned elsewhere", state{Pin: 1, Active: version(1, 0.76), Candidate: version(2, 0.9)}, modelstore.Refuse, modelstore.CodePinned, "version 1"},
		{"pinned to the candidate", state{Pin: 2, Active: version(1, 0.76), Candidate: version(2, 0.1)}, modelstore.Take, modelstore.CodePinned, ""},
		{"held", state{Hold: &modelstore.Hold{Pointer: version(2, 0), Why: "rollback"}, Active: version(1, 0.76), Candidate: version(2, 0.9)},
			modelstore.Refuse, modelstore.CodeHeld, "rollback"},
		{"the hold ends when the pointer moves", state{Hold: &modelstore.Hold{Pointer: version(2, 0)}, Active: version(1, 0.76), Candidate: version(3, 0.9)},
			modelstore.Take, modelstore.CodeImproved, ""},
		{"held, newest: nothing up to the newest of then", state{Rules: modelstore.Rules{Newest: true}, Hold: &modelstore.Hold{Pointer: version(4, 0)}, Active: version(1, 0.76), Candidate: version(3, 0.9)},
			modelstore.Refuse, modelstore.CodeHeld, ""},
		{"held, newest: one that came later", state{Rules: modelstore.Rules{Newest: true}, Hold: &modelstore.Hold{Pointer: version(4, 0)}, Active: version(1, 0.76), Candidate: version(5, 0.9)},
			modelstore.Take, modelstore.CodeImproved, ""},
		{"in quarantine", state{Quarantined: &modelstore.Quarantined{Since: day, Why: "bad digest"}, Active: version(1, 0.76), Candidate: version(2, 0.9)},
			modelstore.Refuse, modelstore.CodeQuarantined, "bad digest"},
		{"seen through the alias, now only through the stage", state{LastPointer: version(1, 0), Active: version(1, 0.76), Candidate: withPointer(version(2, 0.9), "stage:Production")},
			modelstore.Refuse, modelstore.CodePointerKind, "alias:production"},
		{"another alias is still an alias", state{LastPointer: version(1, 0), Active: version(1, 0.76), Candidate: withPointer(version(2, 0.9), "alias:champion")},
			modelstore.Take, modelstore.CodeImproved, ""},
		{"nothing was seen before", state{LastPointer: none, Candidate: withPointer(version(2, 0.9), "stage:Production")}, modelstore.Take, modelstore.CodeFirst, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.s.Rules == (modelstore.Rules{}) {
				c.s.Rules = rules
			}
			d := modelstore.Improve(c.s)
			if d.Action != c.action || d.Code != c.code || !strings.Contains(d.Reason, c.reason) {
				t.Errorf("Improve = %d %q %q, want %d %q with %q", d.Action, d.Code, d.Reason, c.action, c.code, c.reason)
			}
		})
	}
}

// Whatever the registry says, a version that nobody ordered never takes over with an F1 that isn't better and above the threshold.
func TestImproveNeverTakesWhatIsNotBetter(t *testing.T) {
	f1 := rapid.OneOf(rapid.Float64(), rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{0, 0.75, 1, math.NaN(), math.Inf(1)}))
	number := rapid.Int64Range(1, 4)
	rapid.Check(t, func(t *rapid.T) {
		s := modelstore.State{
			Rules: modelstore.Rules{Threshold: rapid.Float64Range(0, 1).Draw(t, "threshold"), MinImprovement: rapid.Float64Range(0, 0.2).Draw(t, "min"),
				Newest: rapid.Bool().Draw(t, "newest"), AcceptUnknownFirst: rapid.Bool().Draw(t, "unknown"), IgnoreRegistryRollback: rapid.Bool().Draw(t, "ignore")},
			Active: version(number.Draw(t, "active"), f1.Draw(t, "active F1")), Candidate: version(number.Draw(t, "candidate"), f1.Draw(t, "F1")),
			LastPointer: version(number.Draw(t, "last"), 0.5),
		}
		d := modelstore.Improve(s)
		if d.Code == "" || d.Reason == "" {
			t.Fatalf("a decision without a reason: %+v", d)
		}
		if d.Action != modelstore.Take {
			return
		}
		c, a := s.Candidate.F1, s.Active.F1
		if !c.Known || c.Value <= s.Rules.Threshold || a.Known && c.Value <= a.Value+s.Rules.MinImprovement {
			t.Fatalf("taken (%s) with F1 %v over %v, threshold %v", d.Code, c, a, s.Rules.Threshold)
		}
		forward := !s.Rules.Newest && s.Candidate.Number > s.LastPointer.Number
		if s.Candidate.Number <= s.Active.Number && !forward {
			t.Fatalf("version %v taken over %v without an order", s.Candidate, s.Active)
		}
	})
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "10": 10, "9223372036854775807": math.MaxInt64,
		"": 0, "0": 0, "-1": 0, "+1": 0, "01": 0, "1.0": 0, "v1": 0, "9223372036854775808": 0, " 1": 0, "١": 0} { //nolint:gocritic // the space is what is tested
		n, err := modelstore.ParseVersion(in)
		if n != want && err == nil || (err == nil) != (want != 0) {
			t.Errorf("ParseVersion(%q) = %d, %v; want %d", in, n, err, want)
		}
	}
}
