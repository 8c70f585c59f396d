package server

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"

	"modelgate/inference"
	"modelgate/inference/video"
	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
)

// acquire pins the version of a model that serves now.
func (s *Server) acquire(ctx context.Context, model string) (*handle, error) {
	h, err := s.store.Acquire(model)
	if err == nil {
		return h, nil
	}
	if known := s.known(ctx, model); known != nil {
		return nil, known
	}
	return nil, s.fail(ctx, s.whyNotReady(model, err), ofPrediction())
}

// known is nil if a model of that name is configured, else the status that says so.
func (s *Server) known(ctx context.Context, model string) error {
	if model == "" {
		return invalid("MODEL_MISSING", "model is missing: name one of "+s.names())
	}
	if _, err := s.updater.Status(model); err != nil {
		return s.fail(ctx, fmt.Errorf("%w; there are: %s", err, s.names()), ofPrediction())
	}
	return nil
}

// whyNotReady adds to err what the model waits for.
func (s *Server) whyNotReady(model string, err error) error {
	st, serr := s.updater.Status(model)
	switch {
	case serr != nil:
	case !st.Candidate.IsZero():
		return fmt.Errorf("%w; %v is on its way (%s)", err, st.Candidate, st.Phase)
	case st.LastError != "":
		return fmt.Errorf("%w; the last check failed: `modelgate models` says why", err)
	case st.Last.Reason != "":
		return fmt.Errorf("%w; the last decision was %s (%s)", err, st.Last.Outcome, st.Last.Code)
	case !st.LastCheck.IsZero():
		return fmt.Errorf("%w; %s", err, nothingPromoted)
	}
	return err
}

// names lists the configured models for a sentence, at most twenty.
func (s *Server) names() string {
	all := s.updater.List()
	if len(all) == 0 {
		return "none yet"
	}
	var names []string
	for i, st := range all {
		if i == 20 {
			names = append(names, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		names = append(names, st.Name)
	}
	return strings.Join(names, ", ")
}

// check refuses what no model would take.
func (s *Server) check(req *pb.PredictRequest) error {
	switch {
	case len(req.GetId()) > s.o.Limits.IDBytes:
		return invalid("ID_TOO_LONG", fmt.Sprintf("id has %d bytes, more than %d", len(req.GetId()), s.o.Limits.IDBytes))
	case req.GetTopK() < 0:
		return invalid("BAD_TOP_K", fmt.Sprintf("top_k is %d: it must be 0 for all classes, or more", req.GetTopK()))
	}
	return nil
}

// input is what req gives a model to judge. What is wrong with the clip itself is found where it is decoded.
func input(req *pb.PredictRequest) inference.Input {
	in := inference.Input{Text: req.Text}
	if req.GetVideo() == nil {
		return in
	}
	in.Video = &video.Clip{}
	switch source := req.GetVideo().GetSource().(type) {
	case *pb.Video_Clip:
		// Empty is not absent.
		if in.Video.Encoded = source.Clip; source.Clip == nil {
			in.Video.Encoded = []byte{}
		}
	case *pb.Video_Frames:
		if in.Video.Images = source.Frames.GetImages(); in.Video.Images == nil {
			in.Video.Images = [][]byte{}
		}
	case *pb.Video_Raw:
		in.Video.Raw = &video.Raw{RGB: source.Raw.GetRgb(), Width: int(source.Raw.GetWidth()), Height: int(source.Raw.GetHeight())}
	case *pb.Video_Uri:
		in.Video.Encoded = []byte{} // until dereference has read it
	}
	return in
}

// response is p as the wire has it. A prediction that makes no sense is an error, never a verdict.
func response(req *pb.PredictRequest, v modelstore.Version, p inference.Prediction) (*pb.PredictResponse, error) {
	d, err := decision(p.Decision)
	if err == nil {
		err = sane(v, p)
	}
	if err != nil {
		return nil, err
	}
	score, _ := decisive(p)
	classes := make([]*pb.Class, topK(req, len(p.Classes)))
	for i := range classes {
		classes[i] = &pb.Class{Label: p.Classes[i].Label, Score: p.Classes[i].Score}
	}
	return &pb.PredictResponse{Classes: classes, Label: p.Label, Score: score, Decision: d, Threshold: p.Threshold, Model: v.Model,
		Version: v.ID(), Id: req.GetId(), Truncated: p.Truncated, PositiveLabel: p.PositiveLabel, FramesRepeated: p.FramesRepeated,
		Path: paths[p.Kind], Timings: timings(p.Timings), Digest: v.Digest}, nil
}

// paths says by which path a model of each kind answers for itself.
var paths = map[inference.Kind]pb.Path{inference.KindTokens: pb.Path_PATH_TEXT, inference.KindString: pb.Path_PATH_TEXT,
	inference.KindVideo: pb.Path_PATH_VIDEO, inference.KindFusion: pb.Path_PATH_FUSION}

// topK is how many of n classes are asked for.
func topK(req *pb.PredictRequest, n int) int {
	if k := int(req.GetTopK()); k > 0 {
		return min(n, k)
	}
	return n
}

func timings(t inference.Timings) *pb.Timings {
	return &pb.Timings{DecodeSeconds: t.Decode.Seconds(), QueueSeconds: t.Queue.Seconds(), ComputeSeconds: t.Compute.Seconds()}
}

// sane refuses scores that are no probabilities, and a decision about a label that isn't there.
func sane(v modelstore.Version, p inference.Prediction) error {
	if _, ok := decisive(p); !ok {
		return fmt.Errorf("%w: %v gave %d classes, none of which is %q", errBroken, v, len(p.Classes), cmp.Or(p.PositiveLabel, p.Label))
	}
	for _, c := range p.Classes {
		if !probability(c.Score) {
			return fmt.Errorf("%w: %v gave the label %q the score %v", errBroken, v, c.Label, c.Score)
		}
	}
	return nil
}

// decisive is the score that the decision is about: the positive label's, or the best one where no label is positive.
func decisive(p inference.Prediction) (score float64, ok bool) {
	label := cmp.Or(p.PositiveLabel, p.Label)
	for _, c := range p.Classes {
		if c.Label == label {
			return c.Score, probability(c.Score)
		}
	}
	return 0, false
}

func probability(x float64) bool { return !math.IsNaN(x) && x >= 0 && x <= 1 }

func decision(d inference.Decision) (pb.Decision, error) {
	switch d {
	case inference.BelowThreshold:
		return pb.Decision_DECISION_BELOW_THRESHOLD, nil
	case inference.AtOrAboveThreshold:
		return pb.Decision_DECISION_AT_OR_ABOVE_THRESHOLD, nil
	case inference.Undecided:
		return pb.Decision_DECISION_UNDECIDED, nil
	}
	return pb.Decision_DECISION_UNSPECIFIED, fmt.Errorf("%w: it decided %v", errBroken, d)
}

// batchModel settles which model an item of a batch means.
func batchModel(batch string, item *pb.PredictRequest) error {
	if item.GetModel() != "" && item.GetModel() != batch {
		return invalid("OTHER_MODEL",
			fmt.Sprintf("this item names the model %q and its batch %q: leave the item's out, or send it in a batch of its own", item.GetModel(), batch))
	}
	return nil
}
