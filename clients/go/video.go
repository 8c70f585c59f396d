package modelgate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// chunkBytes is how much of a clip is sent at once.
const chunkBytes = 256 << 10

// PredictVideo scores an encoded clip with the version of model that serves now, alone or, with the option Text, beside a text.
// A clip larger than Options.UploadAbove, with the text, is uploaded in chunks; servers take 64 MiB by default. A server that was unavailable is
// asked again, with all of the clip.
func (c *Client) PredictVideo(ctx context.Context, model string, clip []byte, options ...RequestOption) (*Prediction, error) {
	r := with(options)
	if len(clip)+len(r.Text) > c.o.UploadAbove {
		// gRPC repeats a call while it still has what was sent, which is a copy of the clip.
		return c.uploadVideo(ctx, model, bytes.NewReader(clip), options, grpc.MaxRetryRPCBufferSize(2*len(clip)+1<<20))
	}
	if clip == nil {
		clip = []byte{} // empty, which the server refuses, and not absent
	}
	r.Video = clip
	return c.predict(ctx, model, r)
}

// PredictVideoFrom is PredictVideo for a clip that is read from r, to its end. A large one is never in memory as a whole, so that a
// call is repeated only until some of it was sent: the caller can do so with a new r. While r waits, the call can't end.
func (c *Client) PredictVideoFrom(ctx context.Context, model string, r io.Reader, options ...RequestOption) (*Prediction, error) {
	head, err := io.ReadAll(io.LimitReader(r, int64(c.o.UploadAbove)+1))
	if err != nil {
		return nil, c.explain(readError(err), "predict with "+model)
	}
	if len(head) <= c.o.UploadAbove {
		return c.PredictVideo(ctx, model, head, options...)
	}
	return c.uploadVideo(ctx, model, io.MultiReader(bytes.NewReader(head), r), options)
}

func (c *Client) uploadVideo(ctx context.Context, model string, clip io.Reader, options []RequestOption, more ...grpc.CallOption) (*Prediction, error) {
	r := with(options)
	r.Video = []byte{} // as for a text beside it
	if err := r.check(); err != nil {
		return nil, c.explain(err, "predict with "+model)
	}
	header := r.message(model)
	header.Video = nil
	ctx, cancel := within(ctx, c.o.UploadTimeout)
	defer cancel()
	ctx, leave := context.WithCancel(ctx) // ends what is half done
	defer leave()
	resp, err := c.upload(ctx, header, clip, more)
	if err == nil && resp.GetPrediction() == nil {
		err = status.Error(codes.Internal, "the server sent no prediction")
	}
	if err != nil {
		return nil, c.explain(err, "upload a clip for "+model)
	}
	return prediction(resp.GetPrediction()), nil
}

// upload sends the header and the clip. Once the server has ended the call, why it did is what it is received with.
func (c *Client) upload(ctx context.Context, header *modelgatev1.PredictRequest, clip io.Reader, more []grpc.CallOption) (*modelgatev1.UploadPredictResponse, error) {
	rpc, err := c.predictions.UploadPredict(ctx, more...)
	if err != nil {
		return nil, err
	}
	err = rpc.Send(&modelgatev1.UploadPredictRequest{Part: &modelgatev1.UploadPredictRequest_Header{Header: header}})
	for buf := make([]byte, chunkBytes); err == nil; {
		n, rerr := io.ReadFull(clip, buf)
		if n > 0 {
			err = rpc.Send(&modelgatev1.UploadPredictRequest{Part: &modelgatev1.UploadPredictRequest_Chunk{Chunk: buf[:n]}})
		}
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			break
		}
		if rerr != nil {
			return nil, readError(rerr)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return rpc.CloseAndRecv()
}

func readError(err error) error {
	return fmt.Errorf("%w: %w", status.Error(codes.Canceled, "the clip can't be read"), err)
}
