// Package modelstore decides which version of a model is served, and replaces it without failing a request.
package modelstore

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// A Version names one immutable set of weights and says what is known about it. The zero Version means "none".
//
// A registry may delete a model and make it again, and then versions restart at 1: the identity of a version is
// its name, number, creation time and source together (see ID).
type Version struct {
	Model      string    `json:"model"`            // the name under which it is served, such as "text"
	Number     int64     `json:"version"`          // the registry's version number, from 1; compared as a number
	Registered string    `json:"registered"`       // the name in the registry, such as "text_classification_model"
	Created    time.Time `json:"created"`          // when the registry says that it was created; may be zero
	Source     string    `json:"source"`           // where the registry says that its files are
	Run        string    `json:"run,omitempty"`    // the run that produced it, if known
	Pointer    string    `json:"pointer"`          // what chose it: "alias:production", "stage:Production", "newest"; empty when listed
	F1         F1        `json:"f1"`               // the metric that the policy judges
	Digest     string    `json:"digest,omitempty"` // sha256 over the bundle's sorted entries, once fetched

	// What the publisher has the registry say of the version. Nobody has checked it; empty where it says nothing.
	Declared string `json:"declared,omitempty"` // the digest that its files are to have
	Contract string `json:"contract,omitempty"` // what the model is to be like, for whoever loads it
}

// IsZero reports whether v is "no version".
func (v Version) IsZero() bool { return v.Number == 0 }

// Same reports whether v and w are the same set of weights: same name, number, creation time and source.
func (v Version) Same(w Version) bool {
	return v.Model == w.Model && v.Registered == w.Registered && v.Number == w.Number &&
		v.Created.Equal(w.Created) && v.Source == w.Source
}

// ID is the version as text, as it is written on the wire: "12"; "" for the zero Version.
func (v Version) ID() string {
	if v.IsZero() {
		return ""
	}
	return strconv.FormatInt(v.Number, 10)
}

// String is for people: "text v12".
func (v Version) String() string {
	if v.IsZero() {
		return "no version"
	}
	return v.Model + " v" + v.ID()
}

// Compare orders versions by number, so that 10 comes after 9.
func (v Version) Compare(w Version) int { return cmp.Compare(v.Number, w.Number) }

// ParseVersion reads a version number as callers write it: decimal, from 1, no sign and no leading zero.
func ParseVersion(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("version %q is not a whole number from 1", s)
	}
	return n, nil
}

// F1 is a metric as a registry tells it: a number in [0, 1], or unknown and why.
// The zero F1 is unknown.
type F1 struct {
	Value  float64 // in [0, 1]; 0 when not Known
	Known  bool
	Metric string // the exact name of the metric that was read, such as "eval_f1"
	Why    string // when not Known: "metric eval_f1 is NaN"
	Absent bool   // when not Known: nobody recorded one, as opposed to one that can't be used
}

// KnownF1 is the F1 of value x, or an unknown one that says why x can't be used: not a number, or out of [0, 1].
func KnownF1(metric string, x float64) F1 {
	if math.IsNaN(x) || x < 0 || x > 1 {
		return F1{Metric: metric, Why: fmt.Sprintf("metric %s is %v, not a number from 0 to 1", metric, x)}
	}
	return F1{Value: x, Known: true, Metric: metric}
}

// AbsentF1 says that no F1 was recorded: why is for people.
func AbsentF1(why string) F1 { return F1{Why: why, Absent: true} }

// InvalidF1 says that something was recorded that can't be used as an F1.
func InvalidF1(metric, why string) F1 { return F1{Metric: metric, Why: why} }

func (f F1) String() string {
	if !f.Known {
		return "unknown"
	}
	return strconv.FormatFloat(f.Value, 'f', 4, 64)
}

type f1JSON struct {
	Value  *float64 `json:"value"` // null: unknown
	Metric string   `json:"metric,omitempty"`
	Why    string   `json:"why,omitempty"`
	Absent bool     `json:"absent,omitempty"`
}

// MarshalJSON writes an unknown F1 with a null value, since JSON has no NaN.
func (f F1) MarshalJSON() ([]byte, error) {
	j := f1JSON{Metric: f.Metric, Why: f.Why, Absent: f.Absent}
	if f.Known {
		j.Value = &f.Value
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *F1) UnmarshalJSON(b []byte) error {
	var j f1JSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*f = F1{Metric: j.Metric, Why: j.Why, Absent: j.Absent}
	if j.Value != nil {
		*f = KnownF1(j.Metric, *j.Value)
	}
	return nil
}
