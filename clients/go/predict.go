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
	// Text is what to score, as its author wrote it, in UTF-8. Beside a Video, "" is no text.
	Text string
	// Video is an encoded clip: mp4, mov, webm, mkv, avi or gif. In a batch or a stream it must fit in a message, 4 MiB by default;
	// PredictVideo has no such limit.
	Video []byte
	// EmptyText says that there is a text beside the Video although Text is "". A text that is empty isn't one that is missing.
	EmptyText bool
	// TopK is how many classes to return, best first. 0 returns all.
	TopK int32
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

// Text adds a text, which may be empty, to a clip.
func Text(text string) RequestOption {
	return func(r *Request) { r.Text, r.EmptyText = text, text == "" }
}

// TopK asks for the k best classes only.
func TopK(k int32) RequestOption { return func(r *Request) { r.TopK = k } }

// Predict scores one text with the version of model that serves now.
func (c *Client) Predict(ctx context.Context, model, text string, options ...RequestOption) (*Prediction, error) {
	r := with(options)
	r.Text = text
	return c.predict(ctx, model, r)
}

func with(options []RequestOption) Request {
	var r Request
	for _, o := range options {
		o(&r)
	}
	return r
}

func (c *Client) predict(ctx context.Context, model string, r Request) (*Prediction, error) {
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
	m := &modelgatev1.PredictRequest{Model: model, Id: r.ID, TopK: r.TopK}
	if r.Video == nil || r.Text != "" || r.EmptyText {
		m.Text = &r.Text
	}
	if r.Video != nil {
		m.Video = &modelgatev1.Video{Source: &modelgatev1.Video_Clip{Clip: r.Video}}
	}
	return m
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
