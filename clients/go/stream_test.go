package modelgate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	modelgate "modelgate/clients/go"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// filled is a closed channel with n requests, 0 to n-1.
func filled(n int) <-chan modelgate.Request {
	ch := make(chan modelgate.Request, n)
	for i := range n {
		ch <- modelgate.Request{ID: fmt.Sprint(i), Text: "text " + fmt.Sprint(i)}
	}
	close(ch)
	return ch
}

func answer(r *modelgatev1.PredictRequest) *modelgatev1.PredictStreamResponse {
	return &modelgatev1.PredictStreamResponse{Id: r.GetId(), Result: &modelgatev1.PredictStreamResponse_Prediction{
		Prediction: &modelgatev1.PredictResponse{Id: r.GetId(), Label: r.GetText()}}}
}

// The peer answers only when it has four requests: a smaller window would never end, a larger one would show.
func TestStreamWindow(t *testing.T) {
	const window, total = 4, 40
	var most atomic.Int64
	p := (&peer{stream: func(s peerStream) error { return answerInFours(s, window, &most) }}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{StreamWindow: window})
	seen := map[string]string{}
	for r, err := range c.PredictStream(ctx, "text", filled(total)) {
		if err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
		seen[r.ID] = r.Prediction.Label
	}
	for i := range total {
		if id := fmt.Sprint(i); seen[id] != "text "+id {
			t.Errorf("request %s was answered with %q", id, seen[id])
		}
	}
	if most.Load() != window {
		t.Errorf("%d requests were in flight, want %d", most.Load(), window)
	}
}

// answerInFours reads as fast as it can and answers requests in groups, the last one first.
func answerInFours(s peerStream, group int, most *atomic.Int64) error {
	var inFlight atomic.Int64
	received := make(chan *modelgatev1.PredictRequest, 1000)
	go func() {
		defer close(received)
		for {
			m, err := s.Recv()
			if err != nil {
				return
			}
			if n := inFlight.Add(1); n > most.Load() {
				most.Store(n)
			}
			received <- m.GetRequest()
		}
	}()
	var held []*modelgatev1.PredictRequest
	for r := range received {
		if held = append(held, r); len(held) < group {
			continue
		}
		for i := len(held) - 1; i >= 0; i-- {
			inFlight.Add(-1)
			if err := s.Send(answer(held[i])); err != nil {
				return err
			}
		}
		held = nil
	}
	return nil
}

// each runs f for every request.
func each(s peerStream, f func(*modelgatev1.PredictRequest) error) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(m.GetRequest()); err != nil {
			return err
		}
	}
}

func TestStreamItemErrorsDontEndIt(t *testing.T) {
	p := (&peer{stream: func(s peerStream) error {
		return each(s, func(r *modelgatev1.PredictRequest) error {
			if r.GetText() != "" {
				return s.Send(answer(r))
			}
			return s.Send(&modelgatev1.PredictStreamResponse{Id: r.GetId(), Result: &modelgatev1.PredictStreamResponse_Error{
				Error: status.New(codes.InvalidArgument, "the text is empty").Proto()}})
		})
	}}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{})
	requests := make(chan modelgate.Request)
	go func() {
		defer close(requests)
		for _, text := range []string{"good", "", "\xff", "fine"} {
			requests <- modelgate.Request{ID: text, Text: text}
		}
	}()
	got := map[string]codes.Code{}
	for r, err := range c.PredictStream(ctx, "text", requests) {
		if err != nil {
			t.Fatal(err)
		}
		if (r.Prediction == nil) == (r.Err == nil) {
			t.Errorf("%q has prediction %v and error %v", r.ID, r.Prediction, r.Err)
		}
		got[r.ID] = status.Code(r.Err)
	}
	want := map[string]codes.Code{"good": codes.OK, "": codes.InvalidArgument, "\xff": codes.InvalidArgument, "fine": codes.OK}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// However a stream breaks off, the caller is told once, last, and no goroutine stays behind.
func TestStreamBreaksOff(t *testing.T) {
	for _, test := range []struct {
		name string
		peer func(peerStream) error
		code codes.Code
		says string
	}{
		{"the server drains", func(s peerStream) error {
			m, err := s.Recv()
			if err == nil {
				err = s.Send(answer(m.GetRequest()))
			}
			if err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "the server is shutting down")
		}, codes.Unavailable, "shutting down"},
		{"the server ends it too soon", func(peerStream) error { return nil }, codes.Unavailable, "before everything was answered"},
		{"the server makes an answer up", func(s peerStream) error {
			if err := s.Send(answer(&modelgatev1.PredictRequest{Id: "made up"})); err != nil {
				return err
			}
			<-s.Context().Done()
			return nil
		}, codes.Internal, "made up"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := (&peer{stream: test.peer}).start(t)
			ctx, c := dial(t, p.addr, modelgate.Options{StreamWindow: 1})
			requests := make(chan modelgate.Request, 1) // stays open: nothing but the error can end the loop
			if test.code != codes.Internal {
				requests <- modelgate.Request{ID: "a"}
			}
			var last error
			for _, err := range c.PredictStream(ctx, "text", requests) {
				if last != nil {
					t.Errorf("something came after the error %v", last)
				}
				last = err
			}
			if ctx.Err() != nil {
				t.Error("the stream ended only when its context did")
			}
			if status.Code(last) != test.code || !strings.Contains(last.Error(), test.says) {
				t.Errorf("the stream ended with %v", last)
			}
		})
	}
}

func TestStreamEndsWithItsCaller(t *testing.T) {
	p := (&peer{}).start(t)
	ctx, c := dial(t, p.addr, modelgate.Options{})
	t.Run("the loop is left", func(t *testing.T) {
		for _, err := range c.PredictStream(ctx, "text", filled(1000)) {
			if err != nil {
				t.Error(err)
			}
			break
		}
		if ctx.Err() != nil {
			t.Error("the stream ended only when its context did")
		}
	})
	t.Run("the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		requests := make(chan modelgate.Request, 1)
		requests <- modelgate.Request{ID: "a"}
		var last error
		for _, err := range c.PredictStream(ctx, "text", requests) {
			last = err
			cancel()
		}
		if status.Code(last) != codes.Canceled {
			t.Errorf("the stream ended with %v", last)
		}
	})
}
