package modelgate

import (
	"context"
	"fmt"
	"unicode/utf8"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// A Request is one input.
type Request struct {
	// ID comes back with the answer. At most 256 bytes by default. In a stream it should be unique among what is in flight.
	ID string
	// Text is what to score, as its author wrote it, in UTF-8.
	Text string
	// TopK is how many classes to return, best first. 0 returns all.
	TopK int32
}

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
	// Model and Version say what answered.
	Model, Version string
	// ID is the request's.
	ID string
	// Truncated says that the text was longer than the model takes and was cut.
	Truncated bool
}

// A Class is one label and its score, from 0 to 1.
type Class struct {
	Label string
	Score float64
}

// A Decision compares a score with the threshold.
type Decision int

// The decisions, with the numbers that they have on the wire. A newer server may send others.
const (
	BelowThreshold     Decision = 1
	AtOrAboveThreshold Decision = 2
	Undecided          Decision = 3 // no label is positive
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

// A Result is what became of one request of a batch or a stream. Prediction is nil exactly if Err is not.
type Result struct {
	ID         string
	Prediction *Prediction
	Err        error
}

// A RequestOption sets what most requests leave out.
type RequestOption func(*Request)

// ID has the answer carry id.
func ID(id string) RequestOption { return func(r *Request) { r.ID = id } }

// TopK asks for the k best classes only.
func TopK(k int32) RequestOption { return func(r *Request) { r.TopK = k } }

// Predict scores one text with the version of model that serves now.
func (c *Client) Predict(ctx context.Context, model, text string, options ...RequestOption) (*Prediction, error) {
	r := Request{Text: text}
	for _, o := range options {
		o(&r)
	}
	if err := r.check(); err != nil {
		return nil, c.explain(err, "predict with "+model)
	}
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	resp, err := c.predictions.Predict(ctx, r.message(model))
	if err != nil {
		return nil, c.explain(err, "predict with "+model)
	}
	return prediction(resp), nil
}

// PredictBatch scores several texts. The results come in the order of the requests; one that failed has an Err and doesn't fail
// the others. Servers take 256 requests by default.
func (c *Client) PredictBatch(ctx context.Context, model string, requests []Request) ([]Result, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	results := make([]Result, len(requests))
	batch := &modelgatev1.PredictBatchRequest{Model: model}
	var sent []int // their places in results
	for i, r := range requests {
		if err := r.check(); err != nil {
			results[i] = c.failed(r.ID, model, err)
			continue
		}
		batch.Requests = append(batch.Requests, r.message(model))
		sent = append(sent, i)
	}
	if len(sent) == 0 && len(requests) > 0 {
		return results, nil
	}
	resp, err := c.predictions.PredictBatch(ctx, batch)
	if err == nil && len(resp.GetResponses()) != len(sent) {
		err = status.Errorf(codes.Internal, "the server gave %d answers to %d requests", len(resp.GetResponses()), len(sent))
	}
	if err != nil {
		return nil, c.explain(err, "predict a batch with "+model)
	}
	for i, item := range resp.GetResponses() {
		results[sent[i]] = c.result(model, item.GetId(), item)
	}
	return results, nil
}

// check finds what can't be sent at all. Whether a text is too long or empty is the server's to say.
func (r Request) check() error {
	if !utf8.ValidString(r.Text) {
		return status.Error(codes.InvalidArgument, "the text is not valid UTF-8")
	}
	if !utf8.ValidString(r.ID) {
		return status.Error(codes.InvalidArgument, "the id is not valid UTF-8")
	}
	return nil
}

func (r Request) message(model string) *modelgatev1.PredictRequest {
	return &modelgatev1.PredictRequest{Model: model, Text: &r.Text, Id: r.ID, TopK: r.TopK}
}

// item is an answer of a batch or of a stream.
type item interface {
	GetPrediction() *modelgatev1.PredictResponse
	GetError() *rpcstatus.Status
}

func (c *Client) result(model, id string, it item) Result {
	switch {
	case it.GetError() != nil:
		err := status.FromProto(it.GetError()).Err()
		if err == nil {
			err = status.Error(codes.Internal, "the server sent an error with the code OK")
		}
		return c.failed(id, model, err)
	case it.GetPrediction() == nil:
		return c.failed(id, model, status.Error(codes.Internal, "the server sent neither a prediction nor an error"))
	}
	return Result{ID: id, Prediction: prediction(it.GetPrediction())}
}

func (c *Client) failed(id, model string, err error) Result {
	return Result{ID: id, Err: c.explain(err, fmt.Sprintf("predict with %s, request %q", model, id))}
}

func prediction(p *modelgatev1.PredictResponse) *Prediction {
	classes := make([]Class, len(p.GetClasses()))
	for i, class := range p.GetClasses() {
		classes[i] = Class{Label: class.GetLabel(), Score: class.GetScore()}
	}
	return &Prediction{
		Classes: classes, Label: p.GetLabel(), Score: p.GetScore(),
		Decision: Decision(p.GetDecision()), Threshold: p.GetThreshold(), PositiveLabel: p.GetPositiveLabel(),
		Model: p.GetModel(), Version: p.GetVersion(), ID: p.GetId(), Truncated: p.GetTruncated(),
	}
}
