package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

type predictStream = grpc.BidiStreamingServer[pb.PredictStreamRequest, pb.PredictStreamResponse]

// PredictStream answers messages as they are ready. At most Limits.StreamWindow are in flight: no further message is read meanwhile,
// so that HTTP/2 flow control slows the caller down. When there is too much to do, a message that comes while others are in flight waits
// for its turn, and one that comes alone is refused, as a single call is. A message that was read gets its answer, unless the caller leaves.
// When the server drains, and DrainDelay is over, the stream ends with UNAVAILABLE after the answers in flight; what wasn't answered
// may be sent again.
func (p predictions) PredictStream(stream predictStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	a := &answers{stream: stream, cancel: cancel}
	err := p.readAndAnswer(ctx, stream, a)
	a.wg.Wait()
	if a.err != nil { // nobody sends any more
		return p.fail(ctx, a.err, ofPrediction())
	}
	return err
}

// readAndAnswer starts the answer to each message, until the caller sends no more, leaves, or the server drains.
func (p predictions) readAndAnswer(ctx context.Context, stream predictStream, a *answers) error {
	places := make(chan struct{}, p.o.Limits.StreamWindow)
	messages := receive(ctx, stream.Recv)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return p.fail(ctx, ctx.Err(), ofPrediction())
		}
		select {
		case m := <-messages:
			if errors.Is(m.err, io.EOF) {
				return nil
			}
			if m.err != nil {
				return m.err
			}
			p.start(ctx, m.req, a, places)
		case <-p.ending:
			return p.fail(ctx, errDraining, ofPrediction())
		case <-ctx.Done():
			return p.fail(ctx, ctx.Err(), ofPrediction())
		}
	}
}

// start pins what serves now and answers m's request with it on a goroutine of its own.
func (p predictions) start(ctx context.Context, m *pb.PredictStreamRequest, a *answers, places <-chan struct{}) {
	began, req := time.Now(), m.GetRequest()
	var with *pinned
	err := unreadable(m)
	if err == nil {
		with, err = p.pin(ctx, req.GetModel())
	}
	patient := len(places) > 1 // others of this stream are in flight
	a.wg.Go(func() {
		defer func() { <-places }()
		out := &pb.PredictStreamResponse{Id: req.GetId()}
		var resp *pb.PredictResponse
		if err != nil {
			p.count(req.GetModel(), nil, began, err)
		} else {
			resp, err = p.answer(ctx, with, req, began, patient)
			with.release()
		}
		if err != nil {
			out.Result = &pb.PredictStreamResponse_Error{Error: status.Convert(err).Proto()}
		} else {
			out.Result = &pb.PredictStreamResponse_Prediction{Prediction: resp}
		}
		a.send(out)
	})
}

// answers are the ones in flight on one stream.
type answers struct {
	stream predictStream
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex // held while sending, which may wait for the caller to read: that is the back-pressure
	err error      // guarded by mu: the first answer that couldn't be sent
}

func (a *answers) send(out *pb.PredictStreamResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return
	}
	if a.err = a.stream.Send(out); a.err != nil {
		a.cancel()
	}
}

type message[M any] struct {
	req M
	err error
}

// receive reads messages on a goroutine, one ahead, so that the handler can also notice the drain. The goroutine ends with the
// first error; grpc fails next, the stream's Recv, when the handler returns, so there is always one.
func receive[M any](ctx context.Context, next func() (M, error)) <-chan message[M] {
	messages := make(chan message[M])
	go func() {
		for {
			m, err := next()
			select {
			case messages <- message[M]{m, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return messages
}
