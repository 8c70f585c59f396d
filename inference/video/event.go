package video

import (
	"context"
	"errors"
	"time"
)

// An Event is something that happened to a clip in a Decoder. Every clip that Queued tells of Began or Left, and every one that
// Began Ended.
type Event struct {
	Kind    EventKind
	Took    time.Duration // Began and Left: the wait for a turn; Ended: the decoding
	Outcome Outcome       // of Ended
}

// EventKind says what happened.
type EventKind int

// The kinds of events.
const (
	Queued EventKind = iota // a clip waits for its turn
	Shared                  // a clip is decoded, or will be, for another caller already, and is not decoded twice
	Began                   // its turn has come
	Left                    // its callers left before its turn came
	Ended                   // its turn is over
)

// Outcome is how the decoding of a clip ended.
type Outcome string

// The outcomes.
const (
	OK        Outcome = "ok"
	BadClip   Outcome = "bad_clip"  // the clip is at fault
	TimedOut  Outcome = "timeout"   // it took longer than a clip may, be that the clip's fault or the machine's
	Cancelled Outcome = "cancelled" // all who asked for it left
	Failed    Outcome = "error"     // the machine is at fault
)

// Outcomes are all outcomes.
func Outcomes() []Outcome { return []Outcome{OK, BadClip, TimedOut, Cancelled, Failed} }

// errSlow is the error of a clip whose time is over. It comes wrapped beside ErrClip.
var errSlow = errors.New("decoding it takes longer than")

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, errSlow), errors.Is(err, errStarved):
		return TimedOut
	case errors.Is(err, ErrClip):
		return BadClip
	case errors.Is(err, context.Canceled):
		return Cancelled
	}
	return Failed
}
