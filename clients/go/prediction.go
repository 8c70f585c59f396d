package modelgate

import (
	"fmt"
	"time"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// A Prediction is the answer to one input. Unlike the message on the wire it exists only where the server has answered, so that
// no error can be taken for a score of 0.
type Prediction struct {
	// Classes are sorted by score, best first.
	Classes []Class
	// Label is the one with the best score.
	Label string
	// Score is the positive label's, from 0 to 1; the best one where no label is positive.
	Score float64
	// Decision compares Score with Threshold.
	Decision  Decision
	Threshold float64
	// PositiveLabel is what Score and Decision speak of; empty if no label is positive.
	PositiveLabel string
	// Reason says why nothing was decided although the scores are there; mostly empty.
	Reason string
	// Model, Version and Digest, the sha256 over its files, say what answered. Version and Digest are empty where Parts has more than one.
	Model, Version, Digest string
	// Path says what the answer was computed by.
	Path Path
	// Parts are what the single models said, where Path is PathLateScore, PathTextOnly or PathVideoOnly.
	Parts []Part
	// Timings say where the server's time went.
	Timings Timings
	// ID is the request's.
	ID string
	// Truncated says that the text was longer than the model takes and was cut.
	Truncated bool
	// FramesRepeated says that the clip has fewer frames than the model takes, which got some of them more than once.
	FramesRepeated bool
}

// A Class is one label and its score, from 0 to 1.
type Class struct {
	Label string
	Score float64
}

// A Part is what one model said towards an answer that is not its own.
type Part struct {
	// Model, Version and Digest say what answered.
	Model, Version, Digest string
	// Label is the one with the best score.
	Label string
	// Score is the positive label's, from 0 to 1; the best one where no label is positive.
	Score float64
	// PositiveLabel is what Score speaks of; empty if no label is positive.
	PositiveLabel string
	// Weight is by how much Score counts, from 0 to 1.
	Weight float64
}

// Timings say where the server's time went. Where parts were computed side by side, each is that of the slower part.
type Timings struct {
	Decode  time.Duration // from the input to tensors, without waiting
	Queue   time.Duration // waiting, for a decoder and for a run of the model
	Compute time.Duration // the run, which may have had other inputs in it
}

// A Decision compares a score with the threshold.
type Decision int

// The decisions, with the numbers that they have on the wire. A newer server may send others.
const (
	BelowThreshold     Decision = 1
	AtOrAboveThreshold Decision = 2
	Undecided          Decision = 3 // no label is positive, or Reason says why
)

func (d Decision) String() string {
	switch d {
	case BelowThreshold:
		return "below threshold"
	case AtOrAboveThreshold:
		return "at or above threshold"
	case Undecided:
		return "undecided"
	}
	return fmt.Sprintf("Decision(%d)", int(d))
}

// A Path says what an answer was computed by.
type Path int

// The paths, with the numbers that they have on the wire. A newer server may send others, an older one 0.
const (
	PathText      Path = 1 // a version of the model, from a text
	PathVideo     Path = 2 // a version of the model, from a clip
	PathFusion    Path = 3 // a version of the model, from both
	PathLateScore Path = 4 // no version of the fusion serves: the weighted mean of the text model's and the video model's scores
	PathTextOnly  Path = 5 // the fusion was asked without a clip: the text model alone
	PathVideoOnly Path = 6 // the fusion was asked without a text: the video model alone
)

func (p Path) String() string {
	switch p {
	case PathText:
		return "text"
	case PathVideo:
		return "video"
	case PathFusion:
		return "fusion"
	case PathLateScore:
		return "late score"
	case PathTextOnly:
		return "text only"
	case PathVideoOnly:
		return "video only"
	}
	return fmt.Sprintf("Path(%d)", int(p))
}

func prediction(p *modelgatev1.PredictResponse) *Prediction {
	classes := make([]Class, len(p.GetClasses()))
	for i, class := range p.GetClasses() {
		classes[i] = Class{Label: class.GetLabel(), Score: class.GetScore()}
	}
	var parts []Part
	for _, part := range p.GetParts() {
		parts = append(parts, Part{Model: part.GetModel(), Version: part.GetVersion(), Digest: part.GetDigest(), Label: part.GetLabel(),
			Score: part.GetScore(), PositiveLabel: part.GetPositiveLabel(), Weight: part.GetWeight()})
	}
	t := p.GetTimings()
	return &Prediction{
		Classes: classes, Label: p.GetLabel(), Score: p.GetScore(),
		Decision: Decision(p.GetDecision()), Threshold: p.GetThreshold(), PositiveLabel: p.GetPositiveLabel(), Reason: p.GetReason(),
		Model: p.GetModel(), Version: p.GetVersion(), Digest: p.GetDigest(), Path: Path(p.GetPath()), Parts: parts,
		Timings: Timings{Decode: seconds(t.GetDecodeSeconds()), Queue: seconds(t.GetQueueSeconds()), Compute: seconds(t.GetComputeSeconds())},
		ID:      p.GetId(), Truncated: p.GetTruncated(), FramesRepeated: p.GetFramesRepeated(),
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
