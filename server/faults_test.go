package server_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"modelgate/inference/batch"
	"modelgate/inference/engine"
	pb "modelgate/proto/modelgate/v1"
)

// fault is one way in which a run can go wrong.
type fault struct {
	name   string
	before func(context.Context) error
	after  func([]engine.Tensor)
}

func faults() []fault {
	fill := func(x float32) func([]engine.Tensor) {
		return func(out []engine.Tensor) {
			if row, ok := out[0].Data.([]float32); ok {
				row[0] = x
			}
		}
	}
	shape := func(change func(*engine.Tensor)) func([]engine.Tensor) {
		return func(out []engine.Tensor) { change(&out[0]) }
	}
	var all []fault
	for _, err := range []error{errors.New("out of memory"), engine.ErrClosed, engine.ErrInput, engine.ErrGraph, batch.ErrFull, batch.ErrClosed,
		context.Canceled, context.DeadlineExceeded} {
		all = append(all, fault{err.Error(), func(context.Context) error { return err }, nil})
	}
	return append(all,
		fault{"panic", func(context.Context) error { panic("a fault of ours") }, nil},
		fault{"NaN", nil, fill(float32(math.NaN()))},
		fault{"infinity", nil, fill(float32(math.Inf(1)))},
		fault{"negative infinity", nil, fill(float32(math.Inf(-1)))},
		fault{"other type", nil, shape(func(t *engine.Tensor) { t.Data = []string{"0.5", "0.5"} })},
		fault{"no data", nil, shape(func(t *engine.Tensor) { t.Data = []float32{} })},
		fault{"fewer classes", nil, shape(func(t *engine.Tensor) { t.Shape, t.Data = []int64{t.Shape[0], 1}, make([]float32, t.Shape[0]) })},
		fault{"more rows", nil, shape(func(t *engine.Tensor) {
			t.Shape, t.Data = []int64{t.Shape[0] + 1, 2}, make([]float32, 2*(t.Shape[0]+1))
		})},
	)
}

// An error is never a verdict: whatever goes wrong, wherever it is asked, there is a status and no prediction.
func TestErrorIsNeverAVerdict(t *testing.T) {
	g := start(t)
	all := faults()
	rapid.Check(t, func(rt *rapid.T) {
		f := rapid.SampledFrom(all).Draw(rt, "fault")
		words := rapid.SliceOfN(rapid.SampledFrom([]string{"good", "bad", "film"}), 1, 20).Draw(rt, "words")
		g.engine.hook(f.before, f.after)
		defer g.engine.hook(nil, nil)
		req := &pb.PredictRequest{Model: "text", Text: ptr(strings.Join(words, " ")), Id: "1"}
		if err := g.ask(rapid.SampledFrom([]string{"single", "batch", "stream", "rest"}).Draw(rt, "way"), req); err != nil {
			rt.Fatalf("%s: %v", f.name, err)
		}
	})
	if resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")}); err != nil || resp.GetDecision() == pb.Decision_DECISION_UNSPECIFIED {
		t.Errorf("after the faults: %v, %v", resp, err)
	}
}

// ask asks for a prediction that can't succeed, and says what is wrong with the answer.
func (g *gateway) ask(way string, req *pb.PredictRequest) error {
	ctx := g.t.Context()
	switch way {
	case "single":
		resp, err := g.predict.Predict(ctx, req)
		return refused(resp, status.Code(err))
	case "batch":
		resp, err := g.predict.PredictBatch(ctx, &pb.PredictBatchRequest{Model: "text", Requests: []*pb.PredictRequest{req}})
		if err != nil || len(resp.GetResponses()) != 1 {
			return fmt.Errorf("the batch: %w, %v", err, resp)
		}
		item := resp.GetResponses()[0]
		return refused(item.GetPrediction(), codes.Code(item.GetError().GetCode()))
	case "stream":
		s, err := g.predict.PredictStream(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(s.Send(&pb.PredictStreamRequest{Request: req}), s.CloseSend()); err != nil {
			return err
		}
		resp, err := s.Recv()
		if err != nil {
			return fmt.Errorf("the stream ended: %w", err)
		}
		_, _ = s.Recv() // its end
		return refused(resp.GetPrediction(), codes.Code(resp.GetError().GetCode()))
	}
	a := g.call(http.MethodPost, "/v1/models/text:predict", fmt.Sprintf(`{"text": %q}`, req.GetText()))
	if a.code < 400 || a.json["decision"] != nil || a.json["score"] != nil || a.json["code"] == nil {
		return fmt.Errorf("%d %s", a.code, a.raw)
	}
	return nil
}

func refused(resp *pb.PredictResponse, code codes.Code) error {
	if resp != nil || code == codes.OK {
		return fmt.Errorf("there is a prediction: %v, %v", resp, code)
	}
	if code == codes.InvalidArgument || code == codes.NotFound {
		return fmt.Errorf("%v blames the caller", code)
	}
	return nil
}

// A full queue is said as such, and is worth another try.
func TestQueueFull(t *testing.T) {
	g := start(t, func(c *config) { c.workers, c.maxQueue = 1, 1 })
	running, release := make(chan struct{}, 10), make(chan struct{})
	g.engine.hook(func(context.Context) error {
		running <- struct{}{}
		<-release
		return nil
	}, nil)
	items := make([]*pb.PredictRequest, 20)
	for i := range items {
		items[i] = &pb.PredictRequest{Text: ptr("good")}
	}
	answer := make(chan *pb.PredictBatchResponse, 1)
	go func() {
		resp, err := g.predict.PredictBatch(t.Context(), &pb.PredictBatchRequest{Model: "text", Requests: items})
		if err != nil {
			t.Error(err)
		}
		answer <- resp
	}()
	<-running
	// One is computed and one waits at the most: of twenty, some are refused before the first ends, however they are scheduled.
	var err error
	for err == nil || status.Code(err) == codes.DeadlineExceeded {
		ctx, cancel := context.WithTimeout(t.Context(), 1e7)
		_, err = g.predict.Predict(ctx, &pb.PredictRequest{Model: "text", Text: ptr("good")})
		cancel()
	}
	checkStatus(t, err, codes.ResourceExhausted, "too many requests are waiting", "QUEUE_FULL")
	close(release)
	full := 0
	for _, item := range (<-answer).GetResponses() {
		if codes.Code(item.GetError().GetCode()) == codes.ResourceExhausted {
			full++
		} else if item.GetPrediction() == nil {
			t.Errorf("%v", item)
		}
	}
	if full == 0 || full == 20 {
		t.Errorf("%d of 20 were refused", full)
	}
}
