package modelstore

import (
	"fmt"
	"strings"
)

// Rules say, for one model, when a candidate may replace the active version.
type Rules struct {
	// Threshold is what a candidate's F1 must exceed, strictly.
	Threshold float64
	// MinImprovement is by how much a candidate's F1 must exceed the active version's, strictly. 0 means that any gain is enough.
	MinImprovement float64
	// IgnoreRegistryRollback keeps the active version when the operator moves the registry's pointer back to an older one.
	IgnoreRegistryRollback bool
	// Newest takes candidates in the order of their numbers, whatever their stage or alias, instead of the promoted one.
	Newest bool
	// AcceptUnknownFirst serves a version without a recorded F1 while nothing else serves.
	AcceptUnknownFirst bool
}

// State is all that a policy looks at: facts about one model at one moment.
type State struct {
	Rules       Rules
	Active      Version      // what serves; zero if nothing does
	Candidate   Version      // what the registry offers, with its F1
	LastPointer Version      // what the registry's pointer named when it was last acted on; zero if never
	Pin         int64        // the operator's pinned version; 0 if none
	Hold        *Hold        // the operator's hold, if any
	Quarantined *Quarantined // the candidate's quarantine, if any
}

// A Decision is a policy's answer and why, as a stable word and as a sentence.
type Decision struct {
	Action Action
	Code   string
	Reason string
}

// An Action is what a policy wants done.
type Action int

// The actions.
const (
	Keep   Action = iota // nothing changes, and nothing was asked: not worth a line in the ledger
	Refuse               // nothing changes although a candidate was there
	Take                 // swap the candidate in
	Return               // swap the candidate in: the operator moved the registry's pointer back to it
)

// The codes of decisions: stable words for metrics, ledgers and scripts.
const (
	CodeFirst            = "first_version"
	CodeFirstUnknown     = "first_version_f1_unknown"
	CodeImproved         = "improved"
	CodeActiveUnknown    = "active_f1_unknown"
	CodeRegistryRollback = "registry_rollback"
	CodeSame             = "already_serving"
	CodePinned           = "pinned"
	CodeHeld             = "held"
	CodeQuarantined      = "quarantined"
	CodePointerKind      = "pointer_kind_changed"
	CodeOlder            = "older_version"
	CodeF1Unknown        = "f1_unknown"
	CodeBelowThreshold   = "below_threshold"
	CodeNoImprovement    = "no_improvement"
	CodeCondemned        = "condemned" // by Updater.Condemn, no policy
)

// A Policy decides what to do about a candidate. It is a pure function: the same State gives the same Decision.
type Policy func(State) Decision

// Improve is the policy of modelgate: a candidate is taken if its F1 exceeds both the threshold and the active version's F1 by more
// than MinImprovement. The operator's word goes before: a pin, a hold, a pointer moved back.
func Improve(s State) Decision {
	c, a := s.Candidate, s.Active
	switch {
	case c.Same(a):
		return Decision{Keep, CodeSame, fmt.Sprintf("%v serves already", c)}
	case s.Pin == c.Number && s.Pin != a.Number: // never other weights under the number that is pinned and serves
		return Decision{Take, CodePinned, fmt.Sprintf("the model is pinned to version %d", s.Pin)}
	case s.Pin != 0:
		return refuse(CodePinned, "the model is pinned to version %d; unpin it to follow the registry", s.Pin)
	case held(s):
		return refuse(CodeHeld, "held since the operator's %s, until the registry's pointer moves from %v or the model is unpinned", s.Hold.Why, c)
	case s.Quarantined != nil:
		return refuse(CodeQuarantined, "%v is in quarantine since %s: %s; promote it by hand to lift that",
			c, s.Quarantined.Since.UTC().Format("2006-01-02 15:04:05Z"), s.Quarantined.Why)
	case pointerKindChanged(s):
		return refuse(CodePointerKind, "the registry's pointer was %s and is %s now; that may be a mistake, so it is not followed: promote a version by hand to go over",
			s.LastPointer.Pointer, c.Pointer)
	}
	if back, d := movedBack(s); back {
		return d
	}
	return compareF1(s)
}

func refuse(code, format string, args ...any) Decision {
	return Decision{Refuse, code, fmt.Sprintf(format, args...)}
}

// held reports whether the registry's pointer is still what it was when the operator took over. Without a pointer, a hold is against
// every version that was there then: a worse newcomer must not bring back what the operator took away.
func held(s State) bool {
	switch {
	case s.Hold == nil:
		return false
	case s.Rules.Newest && s.Candidate.Number <= s.Hold.Pointer.Number && !s.Candidate.Created.After(s.Hold.Pointer.Created):
		return true
	}
	return s.Candidate.Same(s.Hold.Pointer)
}

// pointerKindChanged reports whether the model was seen through one kind of pointer and is now seen only through another.
func pointerKindChanged(s State) bool {
	was, _, _ := strings.Cut(s.LastPointer.Pointer, ":")
	is, _, _ := strings.Cut(s.Candidate.Pointer, ":")
	return was != "" && is != "" && was != is
}

// movedBack handles a candidate that is older than the active version.
func movedBack(s State) (bool, Decision) {
	c, a := s.Candidate, s.Active
	older := !a.IsZero() && c.Number < a.Number && !c.Created.After(a.Created) // a model made anew restarts at 1, with later dates
	switch {
	case !older:
		return false, Decision{}
	case s.Rules.Newest:
		return true, refuse(CodeOlder, "%v is older than version %s, which serves", c, a.ID())
	case c.Same(s.LastPointer):
		return true, refuse(CodeOlder, "%v is older than version %s, which serves, and the registry's pointer has not moved", c, a.ID())
	case !s.LastPointer.IsZero() && c.Number > s.LastPointer.Number: // moved forward, to below what the operator promoted by hand
		return false, Decision{}
	case s.Rules.IgnoreRegistryRollback:
		return true, refuse(CodeRegistryRollback, "the registry's pointer was moved back to %v; on_registry_rollback is ignore", c)
	}
	return true, Decision{Return, CodeRegistryRollback, fmt.Sprintf("the registry's pointer was moved back from version %s to %s: an operator's order, followed whatever the F1",
		a.ID(), c.ID())}
}

// compareF1 judges the candidate by its F1.
func compareF1(s State) Decision {
	c, a, r := s.Candidate, s.Active, s.Rules
	switch {
	case !c.F1.Known && c.F1.Absent && r.AcceptUnknownFirst && a.IsZero():
		return Decision{Take, CodeFirstUnknown, fmt.Sprintf("nothing else serves; F1 unknown: %s", c.F1.Why)}
	case !c.F1.Known:
		return refuse(CodeF1Unknown, "%v has no F1 to judge it by: %s", c, c.F1.Why)
	case c.F1.Value <= r.Threshold:
		return refuse(CodeBelowThreshold, "F1 %v of %v does not exceed the threshold %v", c.F1, c, r.Threshold)
	case a.IsZero():
		return Decision{Take, CodeFirst, fmt.Sprintf("F1 %v exceeds the threshold %v, and nothing serves yet", c.F1, r.Threshold)}
	case !a.F1.Known:
		return Decision{Take, CodeActiveUnknown, fmt.Sprintf("F1 %v exceeds the threshold %v; the F1 of version %s, which serves, is unknown", c.F1, r.Threshold, a.ID())}
	case c.F1.Value <= a.F1.Value+r.MinImprovement+rounding(r.MinImprovement):
		return refuse(CodeNoImprovement, "F1 %v of %v does not exceed %v of version %s, which serves%s", c.F1, c, a.F1, a.ID(), byMoreThan(r.MinImprovement))
	}
	return Decision{Take, CodeImproved, fmt.Sprintf("F1 %v exceeds %v of version %s, which serves%s, and the threshold %v", c.F1, a.F1, a.ID(), byMoreThan(r.MinImprovement), r.Threshold)}
}

// rounding is what the sum of two decimal fractions may lack in binary: 0.8 is no more than 0.1 above 0.7.
func rounding(least float64) float64 {
	if least == 0 {
		return 0
	}
	return 1e-12
}

func byMoreThan(least float64) string {
	if least == 0 {
		return ""
	}
	return fmt.Sprintf(", by more than %v", least)
}
