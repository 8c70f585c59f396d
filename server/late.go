package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"modelgate/inference"
	pb "modelgate/proto/modelgate/v1"
)

// A Late says how requests for the fusion are answered that no version of it can answer: by the text model and the video model.
//
// While no version of the fusion serves, text and clip together get the late score, TextWeight*text + VideoWeight*video. A request
// with one of the two only gets the score of that one's model, whether a fusion serves or not. An error of either is an error.
type Late struct {
	Fusion, Text, Video     string  // served names
	TextWeight, VideoWeight float64 // from 0 to 1, 1 together
	// Single lets one model decide where a text or a clip is missing. Without it such an answer is UNDECIDED.
	Single bool
	// PositiveLabel is the label that the late score is about, if both models have it; if they have others it is what the score of their
	// positive labels is called. "" is the models' own.
	PositiveLabel string
	Threshold     float64 // from which the late score is positive
}

// errNoLateScore says that the scores of two models can't be put together.
var errNoLateScore = errors.New("the late score can't be computed")

func (l *Late) check() error {
	const slack = 1e-9
	switch {
	case l == nil:
		return nil
	case l.Fusion == "" || l.Text == "" || l.Video == "" || l.Fusion == l.Text || l.Fusion == l.Video || l.Text == l.Video:
		return fmt.Errorf("the late score needs three models of different names, not %q, %q and %q", l.Fusion, l.Text, l.Video)
	case !probability(l.TextWeight) || !probability(l.VideoWeight) || math.Abs(l.TextWeight+l.VideoWeight-1) > slack:
		return fmt.Errorf("the weights of the late score are %v and %v: each must be from 0 to 1, both together 1", l.TextWeight, l.VideoWeight)
	case !probability(l.Threshold):
		return fmt.Errorf("the threshold of the late score is %v: it must be from 0 to 1", l.Threshold)
	}
	return nil
}

// judge lets the right one of the pinned versions answer.
func (s *Server) judge(ctx context.Context, p *pinned, req *pb.PredictRequest, in inference.Input) (*pb.PredictResponse, error) {
	one := (in.Text == nil) != (in.Video == nil)
	switch {
	case p.late == nil, p.own != nil && !one:
		return own(ctx, p.own, req, in)
	case one:
		return single(ctx, p, req, in)
	case in.Text == nil:
		return nil, fmt.Errorf("%w: this model takes a text and a clip, and neither is given", inference.ErrInput)
	case p.text.err != nil:
		return nil, p.text.err
	case p.video.err != nil:
		return nil, p.video.err
	}
	return lateScore(ctx, p, req, in)
}

// own is the answer of the model's own version.
func own(ctx context.Context, h *handle, req *pb.PredictRequest, in inference.Input) (*pb.PredictResponse, error) {
	p, err := h.Model().Predict(ctx, in)
	if err != nil {
		return nil, err
	}
	return response(req, h.Version(), p)
}

// single is the answer of the one model whose part is given.
func single(ctx context.Context, p *pinned, req *pb.PredictRequest, in inference.Input) (*pb.PredictResponse, error) {
	from, path, missing := p.text, pb.Path_PATH_TEXT_ONLY, "clip"
	if in.Text == nil {
		from, path, missing = p.video, pb.Path_PATH_VIDEO_ONLY, "text"
	}
	switch {
	case from.err != nil && p.own != nil:
		return own(ctx, p.own, req, in) // it says what is missing
	case from.err != nil:
		return nil, from.err
	}
	resp, err := own(ctx, from.h, req, in)
	if err != nil {
		return nil, err
	}
	resp.Path, resp.Parts = path, []*pb.Part{{Model: resp.GetModel(), Version: resp.GetVersion(), Digest: resp.GetDigest(), Label: resp.GetLabel(),
		Score: resp.GetScore(), PositiveLabel: resp.GetPositiveLabel(), Weight: 1}}
	if !p.late.Single {
		resp.Decision = pb.Decision_DECISION_UNDECIDED
		resp.Reason = fmt.Sprintf("%s needs a %s too, and none is given: this is the score of %s alone", p.model, missing, resp.GetModel())
	}
	return resp, nil
}

// lateScore asks both models at once and puts their scores together. The first error ends it.
func lateScore(ctx context.Context, p *pinned, req *pb.PredictRequest, in inference.Input) (*pb.PredictResponse, error) {
	text, video := contribution{h: p.text.h, weight: p.late.TextWeight}, contribution{h: p.video.h, weight: p.late.VideoWeight}
	g, both := errgroup.WithContext(ctx)
	g.Go(func() error { return text.ask(both, inference.Input{Text: in.Text, Beside: true, Patient: in.Patient}) })
	g.Go(func() error {
		return video.ask(both, inference.Input{Video: in.Video, Beside: true, Patient: in.Patient})
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	classes, positive, err := combine(&text, &video, p.late.PositiveLabel)
	if err != nil {
		return nil, err
	}
	resp := &pb.PredictResponse{Model: p.model, Id: req.GetId(), Label: classes[0].GetLabel(), Score: classes[0].GetScore(), PositiveLabel: positive,
		Decision: pb.Decision_DECISION_UNDECIDED, Truncated: text.said.Truncated, FramesRepeated: video.said.FramesRepeated, Path: pb.Path_PATH_LATE_SCORE,
		Parts: []*pb.Part{text.proto(), video.proto()}, Timings: slower(text.said.Timings, video.said.Timings)}
	if i := slices.IndexFunc(classes, func(c *pb.Class) bool { return c.GetLabel() == positive }); i >= 0 {
		resp.Score, resp.Threshold, resp.Decision = classes[i].GetScore(), p.late.Threshold, pb.Decision_DECISION_BELOW_THRESHOLD
		if resp.GetScore() >= resp.GetThreshold() {
			resp.Decision = pb.Decision_DECISION_AT_OR_ABOVE_THRESHOLD
		}
	}
	resp.Classes = classes[:topK(req, len(classes))]
	return resp, nil
}

// A contribution is what one model adds to a late score.
type contribution struct {
	h        *handle
	weight   float64
	said     inference.Prediction
	positive string // its label that counts as positive; "": none
}

// ask gets the prediction. A panic would end the process here: it is one of this request only.
func (c *contribution) ask(ctx context.Context, in inference.Input) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked(r)
		}
	}()
	c.said, err = c.h.Model().Predict(ctx, in)
	if err != nil {
		return fmt.Errorf("%s: %w", c.h.Version().Model, err)
	}
	c.positive = c.said.PositiveLabel
	return sane(c.h.Version(), c.said)
}

func (c *contribution) score(label string) (float64, bool) {
	i := slices.IndexFunc(c.said.Classes, func(k inference.Class) bool { return k.Label == label })
	if i < 0 {
		return 0, false
	}
	return c.said.Classes[i].Score, true
}

func hasLabel(c *contribution, label string) bool {
	_, ok := c.score(label)
	return ok
}

func (c *contribution) proto() *pb.Part {
	v, label := c.h.Version(), c.positive
	if label == "" {
		label = c.said.Label
	}
	score, _ := c.score(label) // a model has its own labels
	return &pb.Part{Model: v.Model, Version: v.ID(), Digest: v.Digest, Label: c.said.Label, Score: score, PositiveLabel: c.positive, Weight: c.weight}
}

// combine gives the classes of the late score, best first, and what its positive label is called, "" where none is positive.
// Models of the same labels are averaged label by label. Of others only the positive labels can be.
func combine(text, video *contribution, called string) (classes []*pb.Class, positive string, err error) {
	if hasLabel(text, called) && hasLabel(video, called) {
		text.positive, video.positive = called, called // the fusion's own says what its score is about
	}
	adoptLabel(text, video)
	adoptLabel(video, text)
	if text.positive == video.positive && sameLabels(text, video) {
		for _, c := range text.said.Classes {
			other, _ := video.score(c.Label) // it has the same labels
			classes = append(classes, &pb.Class{Label: c.Label, Score: mean(text, video, c.Score, other)})
		}
		return best(classes), text.positive, nil
	}
	if text.positive == "" || video.positive == "" {
		return nil, "", fmt.Errorf("%w: %s and %s have different labels, and not both have a positive one: set models.%s.positive_label and models.%s.positive_label",
			errNoLateScore, text.h.Version().Model, video.h.Version().Model, text.h.Version().Model, video.h.Version().Model)
	}
	a, _ := text.score(text.positive)
	b, _ := video.score(video.positive)
	score := mean(text, video, a, b)
	positive = called
	if positive == "" {
		positive = joined(text.positive, video.positive)
	}
	return best([]*pb.Class{{Label: positive, Score: score}, {Label: "not " + positive, Score: 1 - score}}), positive, nil
}

// adoptLabel gives a model without a positive label that of the other, if it has that label.
func adoptLabel(to, from *contribution) {
	if to.positive == "" && hasLabel(to, from.positive) {
		to.positive = from.positive
	}
}

func sameLabels(a, b *contribution) bool {
	return len(a.said.Classes) == len(b.said.Classes) && !slices.ContainsFunc(a.said.Classes, func(c inference.Class) bool {
		return !hasLabel(b, c.Label)
	})
}

// mean is at most 1, whatever the weights are rounded to.
func mean(text, video *contribution, a, b float64) float64 {
	return min(1, text.weight*a+video.weight*b)
}

func joined(a, b string) string {
	if a == b {
		return a
	}
	return a + " or " + b
}

func best(classes []*pb.Class) []*pb.Class {
	slices.SortStableFunc(classes, func(a, b *pb.Class) int {
		switch {
		case a.GetScore() > b.GetScore():
			return -1
		case a.GetScore() < b.GetScore():
			return 1
		}
		return strings.Compare(a.GetLabel(), b.GetLabel())
	})
	return classes
}

func slower(a, b inference.Timings) *pb.Timings {
	return timings(inference.Timings{Decode: max(a.Decode, b.Decode), Queue: max(a.Queue, b.Queue), Compute: max(a.Compute, b.Compute)})
}
