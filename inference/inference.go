// Package inference opens a model's folder and computes predictions from texts and clips.
package inference

import (
	"context"
	"errors"
	"fmt"
	"time"

	"modelgate/inference/batch"
	"modelgate/inference/engine"
	"modelgate/inference/text/hf"
	"modelgate/inference/video"
)

var (
	// ErrBundle says that a model's folder is at fault: opening it again won't help.
	ErrBundle = errors.New("the bundle can't be served")
	// ErrInput says that the caller's input is at fault: sending it again won't help.
	ErrInput = errors.New("bad input")
	// ErrFull says that too many requests wait for the model already: later may work. A *batch.FullError says when.
	ErrFull = batch.ErrFull
	// ErrSlowRun says that the run of an input was ended because it took longer than one may.
	ErrSlowRun = batch.ErrSlowRun
	// ErrClosed says that the model was closed.
	ErrClosed = batch.ErrClosed
)

// An Input is what a caller wants judged.
type Input struct {
	Text  *string     // nil: none given
	Video *video.Clip // nil: none given
	// Beside says that another model judges what else there is: an empty text is then one like any other, as it is for a fusion.
	Beside bool
	// Patient says that the caller has others in progress, and bounds how many: this one waits where others would be refused.
	Patient bool
}

// An Encoder turns an input into tensors. It is safe for concurrent use.
type Encoder interface {
	// Encode's errors wrap ErrInput where the input is at fault.
	Encode(ctx context.Context, in Input) (Example, error)
}

// An Example is one encoded input: a tensor for each of the graph's inputs, in their order, without the batch dimension.
type Example struct {
	Tensors []engine.Tensor
	Notes   Notes
}

// Notes are what a caller should know about how its input was encoded.
type Notes struct {
	Truncated      bool // some of the text was cut off
	FramesRepeated bool // the clip has fewer frames than the model takes: some were given to it more than once
	// Waited is how long the clip waited for its turn to be decoded.
	Waited time.Duration
}

// A Decision says on which side of the threshold the positive label's score lies. The zero Decision is unspecified.
type Decision int

// The decisions. A score that equals the threshold is at or above it.
const (
	Unspecified Decision = iota
	BelowThreshold
	AtOrAboveThreshold
	Undecided // the model has no positive label
)

var decisionNames = [...]string{"unspecified", "below threshold", "at or above threshold", "undecided"}

func (d Decision) String() string {
	if d < 0 || int(d) >= len(decisionNames) {
		return fmt.Sprintf("decision(%d)", int(d))
	}
	return decisionNames[d]
}

// A Class is one of a model's answers and the score it got, in [0, 1].
type Class struct {
	Label string
	Score float64
}

// A Prediction is a model's answer to one input.
type Prediction struct {
	Classes       []Class // all of them, by descending score; equal scores in the model's order
	Label         string  // of the best class
	Score         float64 // of the best class
	PositiveLabel string  // what the decision is about; empty where it is Undecided
	Decision      Decision
	Threshold     float64 // that the decision used; 0 where it is Undecided
	Truncated     bool
	// FramesRepeated says that the clip has fewer frames than the model takes, which got some of them more than once.
	FramesRepeated bool
	Kind           Kind // of the model
	Timings        Timings
}

// A Kind says what a model takes.
type Kind string

// The kinds.
const (
	KindTokens Kind = "tokens" // a text, as token ids
	KindString Kind = "string" // a text, as it is
	KindVideo  Kind = "video"  // a clip
	KindFusion Kind = "fusion" // a text and a clip
)

// Timings say where the time of a prediction went.
type Timings struct {
	Decode  time.Duration // from the input to tensors, without waiting
	Queue   time.Duration // waiting, for a decoder and for a run
	Compute time.Duration // of the run, which may have had other inputs in it
}

// DefaultThreshold decides where a positive label is known but no threshold is.
const DefaultThreshold = 0.5

// Options say how a model is opened. The zero Options are good.
type Options struct {
	PositiveLabel string   // overrides the bundle's; empty: the bundle's
	Threshold     *float64 // overrides the bundle's; nil: the bundle's, else DefaultThreshold
	MaxLength     int      // overrides the bundle's number of tokens; 0: the bundle's
	MaxTextBytes  int      // longest text; 0 means 64 KiB
	SpecialAsText bool     // special tokens that a user types are text, whatever the bundle says
	Tokenizers    *hf.Pool // shares tokenizers between models; nil: not shared
	// Decoder decodes clips for all models. Without one, a model that takes clips isn't opened. It is not closed with the model.
	Decoder *video.Decoder

	Threads  int // threads inside one run; 0: the engine's choice
	Workers  int // runs at the same time; 0: one a core
	MaxBatch int // inputs in one run; 0 means 8
	MaxQueue int // inputs that wait; 0 means 1024
	// MaxWait is how long an input may be expected to wait before it is refused; 0 means batch.Options' own.
	MaxWait time.Duration
	// MaxRun is how long one run may take; 0 means a minute.
	MaxRun time.Duration
	// MaxWarmUp is how long the first run of a model may take, and WarmUp after it; 0 means DefaultMaxWarmUp.
	MaxWarmUp time.Duration
	// MaxCheck is how long Check may take; 0 means DefaultMaxCheck.
	MaxCheck time.Duration

	// Observed is called, if set, when a run starts, with its number of inputs and how long each waited. It must not block.
	Observed func(inputs int, waits []time.Duration)

	Supervision Supervision
	// AllowLabelChange lets a version with other labels, another positive label or of another kind take the place of one that serves.
	AllowLabelChange bool
	// MaxSlowdown is how many times as long as one of the version that serves a run may take; 0: any number.
	MaxSlowdown float64
	// Rehearsal is what Rehearse has shown, with the path of the prepared graph if there is one; nil: it wasn't rehearsed.
	Rehearsal *Rehearsal

	noClips bool // golden answers to clips are passed over

	Contract string // what the registry says that the model is like, as JSON; Check compares it. Empty: nothing
}

// Info describes an open model.
type Info struct {
	Kind          Kind
	Graph         string // path of the graph's file
	Labels        []string
	PositiveLabel string  // empty: none
	Threshold     float64 // for PositiveLabel
	MaxLength     int     // most tokens of a text; 0: no limit but that of the bytes
	MaxTextBytes  int
	Clip          []int64       // a clip as the model takes it, without the batch; nil: it takes none
	Choice        *video.Choice // of a clip's frames; nil: it takes none
	Inputs        []string      // as the graph declares them
	Outputs       []string
}
