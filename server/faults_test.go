package server_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"modelgate/inference/batch"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/modelstore"
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

// An error is never a verdict: whatever goes wrong, for whichever model, wherever it is asked, there is a status and no prediction.
// A late score needs two runs: one of them that fails is enough.
func TestErrorIsNeverAVerdict(t *testing.T) {
	g := startLate(t, func(c *config) {
		c.models = append(c.models, modelstore.ModelConfig{Name: "both"})
		c.versions = append(c.versions, version{"both", 1, 0.9, enginetest.VideoBundle{Fusion: true, Seed: 3}})
	})
	g.awaitServing("text", "video", "both")
	all := faults()
	rapid.Check(t, func(rt *rapid.T) {
		f := rapid.SampledFrom(all).Draw(rt, "fault")
		req := &pb.PredictRequest{Model: rapid.SampledFrom([]string{"text", "video", "both", "fusion"}).Draw(rt, "model"), Id: "1"}
		text, clip := req.GetModel() != "video", req.GetModel() != "text"
		if req.GetModel() == "fusion" { // it takes either, too
			text = rapid.Bool().Draw(rt, "text")
			clip = !text || rapid.Bool().Draw(rt, "clip")
		}
		if text {
			req.Text = ptr(strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"good", "bad", "film"}), 1, 20).Draw(rt, "words"), " "))
		}
		if clip {
			req.Video = redClip()
		}
		if req.GetModel() == "fusion" && text && clip {
			f = f.inRun(rapid.Int64Range(0, 1).Draw(rt, "run"))
		}
		g.engine.hook(f.before, f.after)
		defer g.engine.hook(nil, nil)
		if err := g.ask(rapid.SampledFrom([]string{"single", "batch", "stream", "rest"}).Draw(rt, "way"), req); err != nil {
			rt.Fatalf("%s: %v", f.name, err)
		}
	})
	if resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")}); err != nil || resp.GetDecision() == pb.Decision_DECISION_UNSPECIFIED {
		t.Errorf("after the faults: %v, %v", resp, err)
	}
}

// inRun is f in the run of that number only, counted from 0.
func (f fault) inRun(number int64) fault {
	var begun, ended atomic.Int64
	one := fault{name: fmt.Sprintf("%s in run %d", f.name, number)}
	if f.before != nil {
		one.before = func(ctx context.Context) error {
			if begun.Add(1)-1 != number {
				return nil
			}
			return f.before(ctx)
		}
	}
	if f.after != nil {
		one.after = func(out []engine.Tensor) {
			if ended.Add(1)-1 == number {
				f.after(out)
			}
		}
	}
	return one
}

// ask asks for a prediction that can't succeed, and says what is wrong with the answer.
func (g *gateway) ask(way string, req *pb.PredictRequest) error {
	ctx := g.t.Context()
	switch way {
	case "single":
		resp, err := g.predict.Predict(ctx, req)
		return refused(resp, status.Code(err))
	case "batch":
		resp, err := g.predict.PredictBatch(ctx, &pb.PredictBatchRequest{Model: req.GetModel(), Requests: []*pb.PredictRequest{req}})
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
	a := g.call(http.MethodPost, "/v1/models/"+req.GetModel()+":predict", bodyOf(g.t, req))
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

// A full queue is said as such, and is worth another try. It refuses no item of a batch that was admitted.
func TestQueueFull(t *testing.T) {
	g := start(t, func(c *config) { c.workers, c.maxQueue = 1, 1 })
	running, release := make(chan struct{}, 100), make(chan struct{})
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
	// One is computed and one waits at the most: who comes beside the batch is refused before the first ends, however they are scheduled.
	var err error
	for err == nil || status.Code(err) == codes.DeadlineExceeded {
		ctx, cancel := context.WithTimeout(t.Context(), 1e7)
		_, err = g.predict.Predict(ctx, &pb.PredictRequest{Model: "text", Text: ptr("good")})
		cancel()
	}
	checkStatus(t, err, codes.ResourceExhausted, "too many requests are waiting", "QUEUE_FULL")
	close(release)
	for _, item := range (<-answer).GetResponses() { // the batch's other items wait outside
		if item.GetPrediction() == nil {
			t.Errorf("an item of a batch: %v", item)
		}
	}
}
