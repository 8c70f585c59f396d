package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "modelgate/proto/modelgate/v1"
)

var (
	errClipTooLarge = errors.New("the clip is too large")
	errUploadsFull  = errors.New("too many bytes of uploads are in memory; try again later")
	errUploadSlow   = errors.New("the upload is too slow")
)

type uploadStream = grpc.ClientStreamingServer[pb.UploadPredictRequest, pb.UploadPredictResponse]

// UploadPredict scores a clip that comes in chunks. What serves is pinned when the clip is whole, so that a slow upload holds up no
// swap and gets the newest version. When the server drains, and DrainDelay is over, an upload that isn't whole ends with UNAVAILABLE
// and may be sent again.
//
// Clips in the messages of other calls count against no budget of memory: they are bounded by Limits.MessageBytes, and by how many
// calls a connection may have at once.
func (p predictions) UploadPredict(stream uploadStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	u := &upload{p: p, clip: &incoming{budget: p.uploads, most: int64(p.o.Limits.UploadBytes)}}
	defer u.clip.free()
	began := time.Now()
	if err := u.receive(ctx, stream); err != nil {
		err = p.fail(ctx, err, ofPrediction())
		p.count(u.req.GetModel(), nil, began, err)
		return err
	}
	u.req.Video = &pb.Video{Source: &pb.Video_Clip{Clip: u.clip.join()}}
	resp, err := p.Predict(ctx, u.req)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&pb.UploadPredictResponse{Prediction: resp})
}

// An upload is a request in the making.
type upload struct {
	p     predictions
	req   *pb.PredictRequest // nil until the header is there
	clip  *incoming
	begun bool // a chunk is there
}

// receive takes messages until the caller sends no more. A caller has Limits.UploadIdle for each, and Limits.UploadTime for all.
func (u *upload) receive(ctx context.Context, stream uploadStream) error {
	l := u.p.o.Limits
	messages := receive(ctx, stream.Recv)
	idle, end := time.NewTimer(l.UploadIdle), time.NewTimer(l.UploadTime)
	defer idle.Stop()
	defer end.Stop()
	for {
		select {
		case m := <-messages:
			if errors.Is(m.err, io.EOF) {
				return u.whole()
			}
			if m.err != nil {
				return m.err
			}
			if err := u.take(ctx, m.req); err != nil {
				return err
			}
			idle.Reset(l.UploadIdle)
		case <-idle.C:
			return fmt.Errorf("%w: nothing came for %v", errUploadSlow, l.UploadIdle)
		case <-end.C:
			return fmt.Errorf("%w: after %v the clip isn't whole", errUploadSlow, l.UploadTime)
		case <-u.p.ending:
			return errDraining
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take adds one message.
func (u *upload) take(ctx context.Context, m *pb.UploadPredictRequest) error {
	if err := unreadable(m); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.p.o.Limits.UploadIdle) // for memory, at most
	defer cancel()
	switch part := m.GetPart().(type) {
	case *pb.UploadPredictRequest_Header:
		return u.header(ctx, part.Header)
	case *pb.UploadPredictRequest_Chunk:
		if u.req == nil {
			return invalid("HEADER_MISSING", "the first message is a chunk: send the header first")
		}
		u.begun = true
		return u.clip.add(ctx, part.Chunk)
	}
	return invalid("EMPTY_MESSAGE", "a message of the upload has neither a header nor a chunk")
}

// header refuses what can't be answered before the caller sends the clip.
func (u *upload) header(ctx context.Context, h *pb.PredictRequest) error {
	switch {
	case u.req != nil && !u.p.fromREST:
		return invalid("SECOND_HEADER", "there is a second header: only the first message has one")
	case h.GetVideo() != nil:
		return invalid("HEADER_WITH_VIDEO", "the header has a video: send the clip in chunks, or call Predict")
	}
	u.req = h
	if err := u.p.uploads.take(ctx, u.clip, int64(proto.Size(h))); err != nil {
		return err
	}
	if err := u.p.check(h); err != nil {
		return err
	}
	now, err := u.p.pin(ctx, h.GetModel())
	if err != nil {
		return err
	}
	now.release() // what answers is what serves when the clip is whole
	return nil
}

// whole is nil if the caller may stop here.
func (u *upload) whole() error {
	switch {
	case u.req == nil:
		return invalid("HEADER_MISSING", "the upload ended before its header")
	case !u.begun:
		return invalid("NO_CHUNKS", "the upload ended without a chunk: there is no clip")
	}
	return nil
}
