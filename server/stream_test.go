package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"modelgate/inference/engine"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

type clientStream = grpc.BidiStreamingClient[pb.PredictStreamRequest, pb.PredictStreamResponse]

func send(t testing.TB, s clientStream, req *pb.PredictRequest) {
	t.Helper()
	must(t, s.Send(&pb.PredictStreamRequest{Request: req}))
}

func receive(t testing.TB, s clientStream) *pb.PredictStreamResponse {
	t.Helper()
	resp, err := s.Recv()
	must(t, err)
	return resp
}

func TestStream(t *testing.T) {
	g := start(t)
	s, err := g.predict.PredictStream(t.Context())
	must(t, err)
	const n = 300
	go func() {
		for i := range n {
			req := &pb.PredictRequest{Model: "text", Id: fmt.Sprint(i), Text: ptr("a good film")}
			switch i % 5 {
			case 1:
				req.Text = nil
			case 2:
				req.Model = "txt"
			}
			if err := s.Send(&pb.PredictStreamRequest{Request: req}); err != nil {
				t.Error(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
	}()
	seen := map[string]bool{}
	for range n {
		resp := receive(t, s)
		if seen[resp.GetId()] {
			t.Errorf("%s was answered twice", resp.GetId())
		}
		seen[resp.GetId()] = true
		var i int
		_, err := fmt.Sscan(resp.GetId(), &i)
		must(t, err)
		want := codes.OK
		switch i % 5 {
		case 1:
			want = codes.InvalidArgument
		case 2:
			want = codes.NotFound
		}
		got := codes.Code(resp.GetError().GetCode())
		if got != want || (want == codes.OK) != (resp.GetPrediction() != nil) || want == codes.OK && resp.GetPrediction().GetId() != resp.GetId() {
			t.Errorf("%v, want %v", resp, want)
		}
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v, want the end", err)
	}
}

// A message with nothing in it, or that can't be decoded, is answered with an error; the stream goes on.
func TestStreamSurvivesBadMessages(t *testing.T) {
	g := start(t)
	raw, err := g.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.PredictionService_PredictStream_FullMethodName)
	must(t, err)
	s := &grpc.GenericClientStream[pb.PredictStreamRequest, pb.PredictStreamResponse]{ClientStream: raw}
	must(t, s.Send(&pb.PredictStreamRequest{}))
	if resp := receive(t, s); codes.Code(resp.GetError().GetCode()) != codes.InvalidArgument {
		t.Errorf("%v", resp)
	}
	send(t, s, &pb.PredictRequest{Model: "text", Text: ptr("good"), Id: "after"})
	if resp := receive(t, s); resp.GetPrediction() == nil || resp.GetId() != "after" {
		t.Errorf("%v", resp)
	}
	must(t, s.CloseSend())
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

// The window bounds what is in flight: the server stops reading while it is full. While the one worker is busy with the first
// message, only one more may wait, so no run ever has more than two rows.
func TestStreamWindow(t *testing.T) {
	g := start(t, func(c *config) { c.options.Limits = server.Limits{StreamWindow: 2}; c.workers = 1 })
	running, release := make(chan struct{}, 100), make(chan struct{})
	var most atomic.Int64
	g.engine.hook(func(context.Context) error {
		running <- struct{}{}
		<-release
		return nil
	}, func(out []engine.Tensor) { most.Store(max(most.Load(), out[0].Shape[0])) })
	s, err := g.predict.PredictStream(t.Context())
	must(t, err)
	const n = 20
	for i := range n {
		send(t, s, &pb.PredictRequest{Model: "text", Id: fmt.Sprint(i), Text: ptr("good")})
	}
	<-running
	for range 20 { // on the same connection, so that the messages have arrived, and were read if the window let them
		_, err := g.health.Check(t.Context(), &healthpb.HealthCheckRequest{})
		must(t, err)
	}
	close(release)
	for range n {
		if resp := receive(t, s); resp.GetPrediction() == nil {
			t.Errorf("%v", resp)
		}
	}
	if most.Load() > 2 {
		t.Errorf("a run had %d messages, more than the window of 2", most.Load())
	}
	must(t, s.CloseSend())
	_, err = s.Recv()
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// A caller that leaves takes its runs with it. That no goroutine stays behind is what the package's TestMain checks.
func TestStreamCancelled(t *testing.T) {
	g := start(t)
	running := make(chan struct{}, 10)
	hold := make(chan struct{})
	g.engine.hook(func(ctx context.Context) error {
		running <- struct{}{}
		select {
		case <-hold:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := g.predict.PredictStream(ctx)
	must(t, err)
	send(t, s, &pb.PredictRequest{Model: "text", Id: "1", Text: ptr("good")})
	<-running
	cancel()
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
	close(hold)
	g.engine.hook(nil, nil)
	_, err = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")})
	must(t, err)
}

// A swap reaches a stream that is open: each message is answered by the version that serves when it comes.
func TestStreamOverSwap(t *testing.T) {
	g := start(t)
	s, err := g.predict.PredictStream(t.Context())
	must(t, err)
	ask := func() string {
		send(t, s, &pb.PredictRequest{Model: "text", Text: ptr("good")})
		return receive(t, s).GetPrediction().GetVersion()
	}
	if v := ask(); v != "1" {
		t.Errorf("version %q answers", v)
	}
	g.publish(text(2, 0.9))
	resp, err := g.models.Refresh(t.Context(), &pb.RefreshRequest{Model: "text"})
	must(t, err)
	if !resp.GetSwapped() {
		t.Fatalf("%v", resp)
	}
	if v := ask(); v != "2" {
		t.Errorf("version %q answers after the swap", v)
	}
	must(t, s.CloseSend())
	_, _ = s.Recv()
}

// A drain answers what is in flight on a stream, and then ends it with a status that says that it may be opened anew.
func TestStreamDrained(t *testing.T) {
	g := start(t)
	running, release := make(chan struct{}, 10), make(chan struct{})
	g.engine.hook(func(context.Context) error {
		running <- struct{}{}
		<-release
		return nil
	}, func([]engine.Tensor) {})
	s, err := g.predict.PredictStream(t.Context())
	must(t, err)
	send(t, s, &pb.PredictRequest{Model: "text", Id: "1", Text: ptr("good")})
	<-running
	w, err := g.health.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	must(t, err)
	_, err = w.Recv()
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- g.end() }()
	if st, err := w.Recv(); err != nil || st.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v, %v", st, err)
	}
	close(release)
	if resp := receive(t, s); resp.GetPrediction() == nil {
		t.Errorf("%v", resp)
	}
	_, err = s.Recv()
	checkStatus(t, err, codes.Unavailable, "shutting down", "DRAINING")
	must(t, <-ended)
}
