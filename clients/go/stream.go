package modelgate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// PredictStream scores requests as they come and yields the results as they are ready, which is not the order of the requests:
// match them by ID. It ends when requests is closed and everything is answered, or with an error, which comes last and says that the
// stream broke off: what has no result then may be sent again in a new stream. A result's own Err doesn't end the stream.
// Until the first answer, a stream moves to another server by itself if its server becomes unavailable.
//
// At most Options.StreamWindow requests are without an answer, and one more is read ahead. Then requests isn't read until an answer comes, so that a
// slow server or a slow loop body slows its producer down. Requests come over a channel, and not from an iterator, so that a
// stream that breaks off never has to wait for its producer. A producer should watch ctx, too: nobody reads requests after the end.
func (c *Client) PredictStream(ctx context.Context, model string, requests <-chan Request) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		s := &stream{c: c, model: model, places: make(chan struct{}, c.o.StreamWindow), out: make(chan outcome), left: make(chan struct{})}
		defer s.running.Wait()
		defer close(s.left)
		defer cancel()
		rpc, err := c.predictions.PredictStream(ctx)
		if err != nil {
			yield(Result{}, c.explain(err, "predict a stream with "+model))
			return
		}
		s.running.Go(func() { s.send(ctx, rpc, requests) })
		s.running.Go(func() { s.receive(rpc) })
		for {
			o := <-s.out
			if o.end || !yield(o.Result, o.err) || o.err != nil {
				return
			}
		}
	}
}

// A stream is one PredictStream in progress: a goroutine that sends, one that receives, and the caller's, which yields.
type stream struct {
	c       *Client
	model   string
	running sync.WaitGroup
	places  chan struct{} // one a request without an answer
	out     chan outcome
	left    chan struct{} // closed when nobody reads out any more
	allSent atomic.Bool
}

// An outcome is what the caller's goroutine is told: a result, the error that ended the stream, or its good end.
type outcome struct {
	Result
	err error
	end bool
}

func (s *stream) tell(o outcome) {
	select {
	case s.out <- o:
	case <-s.left:
	}
}

type predictStream = grpc.BidiStreamingClient[modelgatev1.PredictStreamRequest, modelgatev1.PredictStreamResponse]

// send sends requests until there are no more or the stream has ended; why it ended is receive's to tell.
func (s *stream) send(ctx context.Context, rpc predictStream, requests <-chan Request) {
	for {
		var (
			r  Request
			ok bool
		)
		select {
		case r, ok = <-requests:
		case <-ctx.Done():
			return
		}
		if !ok {
			s.allSent.Store(true)
			_ = rpc.CloseSend() // never fails, says gRPC
			return
		}
		if err := r.check(); err != nil {
			s.tell(outcome{Result: s.c.failed(r.ID, s.model, err)})
			continue
		}
		select {
		case s.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if rpc.Send(&modelgatev1.PredictStreamRequest{Request: r.message(s.model)}) != nil {
			return
		}
	}
}

// receive passes the answers on until the stream ends, and says how it ended.
func (s *stream) receive(rpc predictStream) {
	for {
		m, err := rpc.Recv()
		if err != nil {
			s.tell(s.ending(err))
			return
		}
		select {
		case <-s.places:
		default:
			s.tell(s.broke(status.Errorf(codes.Internal, "the server answered a request that it never got, %q", m.GetId())))
			return
		}
		s.tell(outcome{Result: s.c.result(s.model, m.GetId(), m)})
	}
}

func (s *stream) ending(err error) outcome {
	if !errors.Is(err, io.EOF) {
		return s.broke(err)
	}
	if !s.allSent.Load() || len(s.places) > 0 {
		return s.broke(status.Error(codes.Unavailable, "the server ended the stream before everything was answered"))
	}
	return outcome{end: true}
}

func (s *stream) broke(err error) outcome {
	doing := fmt.Sprintf("predict a stream with %s, which broke off with %d requests unanswered,", s.model, len(s.places))
	return outcome{err: s.c.explain(err, doing)}
}
