package server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

// slowly has every run take a while, and lets the gateway see how long.
func slowly(t *testing.T, g *gateway) {
	t.Helper()
	g.engine.hook(func(context.Context) error { time.Sleep(20 * time.Millisecond); return nil }, nil)
	for range 10 {
		if _, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")}); err != nil {
			t.Fatal(err)
		}
	}
}

// flood asks, by many callers, until stop is called. It gives what was refused.
func flood(t *testing.T, g *gateway, callers int) (refused <-chan error, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for ctx.Err() == nil {
				_, err := g.predict.Predict(ctx, &pb.PredictRequest{Model: "text", Text: ptr("good")})
				if err == nil || ctx.Err() != nil {
					continue
				}
				if status.Code(err) != codes.ResourceExhausted {
					t.Errorf("in a flood: %v", err)
				}
				select {
				case errs <- err:
				default:
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	return errs, func() { cancel(); running.Wait() }
}

// More than can be done is refused, at once, with a time to come back, whoever asks in whichever way.
func TestFlood(t *testing.T) {
	g := start(t, func(c *config) { c.workers, c.maxWait = 1, 100*time.Millisecond })
	slowly(t, g)
	refused, stop := flood(t, g, 100)
	defer stop()
	err := <-refused
	checkStatus(t, err, codes.ResourceExhausted, "too many requests are waiting", "QUEUE_FULL")
	retry := time.Duration(0)
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			retry = r.GetRetryDelay().AsDuration()
		}
	}
	if retry < 10*time.Millisecond || retry > 2*time.Second {
		t.Errorf("RetryInfo says %v", retry)
	}

	batch := &pb.PredictBatchRequest{Model: "text", Requests: []*pb.PredictRequest{{Text: ptr("good")}, {Text: ptr("bad")}}}
	untilRefused(t, func() error {
		_, err := g.predict.PredictBatch(t.Context(), batch)
		return err
	})
	untilRefused(t, func() error {
		a := g.call(http.MethodPost, "/v1/models/text:predict", `{"text": "good"}`)
		if a.code != http.StatusTooManyRequests {
			return nil
		}
		if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
			t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
		}
		return status.Error(codes.ResourceExhausted, "")
	})
}

func untilRefused(t *testing.T, ask func() error) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		err := ask()
		if status.Code(err) == codes.ResourceExhausted {
			return
		}
		if err != nil {
			t.Errorf("%v", err)
		}
	}
	t.Error("nothing was refused")
}

// What one caller sends at once is more than may wait, and none of it is refused.
func TestOwnCompanyIsNoFlood(t *testing.T) {
	g := start(t, func(c *config) { c.workers, c.maxWait = 1, 100*time.Millisecond })
	slowly(t, g)
	const n = 256
	items := make([]*pb.PredictRequest, n)
	for i := range items {
		items[i] = &pb.PredictRequest{Text: ptr("good")}
	}
	resp, err := g.predict.PredictBatch(t.Context(), &pb.PredictBatchRequest{Model: "text", Requests: items})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range resp.GetResponses() {
		if item.GetPrediction() == nil {
			t.Fatalf("an item of a batch: %v", item.GetError())
		}
	}
	s, err := g.predict.PredictStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range n {
			if err := s.Send(&pb.PredictStreamRequest{Request: &pb.PredictRequest{Model: "text", Text: ptr("good")}}); err != nil {
				t.Errorf("send: %v", err)
			}
		}
		_ = s.CloseSend()
	}()
	for answers := 0; ; answers++ {
		out, err := s.Recv()
		if errors.Is(err, io.EOF) {
			if answers != n {
				t.Errorf("%d answers, want %d", answers, n)
			}
			return
		}
		if err != nil || out.GetPrediction() == nil {
			t.Fatalf("a message of a stream: %v, %v", out.GetError(), err)
		}
	}
}

// A batch that is under way gets to its end, however many others ask meanwhile.
func TestBatchInAFlood(t *testing.T) {
	g := start(t, func(c *config) { c.workers, c.maxWait = 1, 100*time.Millisecond })
	slowly(t, g)
	items := make([]*pb.PredictRequest, 100)
	for i := range items {
		items[i] = &pb.PredictRequest{Text: ptr("good")}
	}
	answer := make(chan *pb.PredictBatchResponse, 1)
	go func() {
		resp, err := g.predict.PredictBatch(t.Context(), &pb.PredictBatchRequest{Model: "text", Requests: items})
		if err != nil {
			t.Errorf("a batch that came before the flood: %v", err)
		}
		answer <- resp
	}()
	eventually(t, func() bool { return len(metric(t, g, `modelgate_requests_in_flight{model="text"}`)) > 1 }) // ten or more
	_, stop := flood(t, g, 50)
	defer stop()
	for _, item := range (<-answer).GetResponses() {
		if item.GetPrediction() == nil {
			t.Errorf("an item: %v", item.GetError())
		}
	}
}
