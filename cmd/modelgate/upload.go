package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

const (
	uploadAbove = 4<<20 - 256<<10  // bytes of a clip that fits in a message beside a text, with the servers' default limit
	chunkBytes  = 256 << 10        // of a clip that are sent at once
	uploadTime  = 10 * time.Minute // that an upload may take in addition to --timeout
)

// A largeClip is one that is sent as it is read.
type largeClip struct {
	r    io.Reader
	size int64 // 0 if it isn't known
	file *os.File
}

// openClip reads a clip that fits in a message, and begins to read any other.
func openClip(path string) (clip []byte, large *largeClip, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	head, err := io.ReadAll(io.LimitReader(f, uploadAbove+1))
	if err != nil || len(head) <= uploadAbove {
		return head, nil, errors.Join(err, f.Close())
	}
	large = &largeClip{r: io.MultiReader(bytes.NewReader(head), f), file: f}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		large.size = info.Size()
	}
	return nil, large, nil
}

// upload sends a clip that is too large for a message, alone or beside a text, and prints the answer.
func (a *app) upload(ctx context.Context, c *client, output string, q question, next texts) error {
	text, err := next()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &sent{text: text, file: q.file, answer: &modelgatev1.PredictStreamResponse{Id: "0"}}
	resp, err := a.sendClip(ctx, c, q.request(text, "0"), q.large, filepath.Base(q.file))
	switch {
	case err == nil:
		s.answer.Result = &modelgatev1.PredictStreamResponse_Prediction{Prediction: resp.GetPrediction()}
	case aboutInput(err):
		s.answer.Result = &modelgatev1.PredictStreamResponse_Error{Error: status.Convert(err).Proto()}
	default:
		return err
	}
	p := newAnswers(a, output)
	if err := p.print(s); err != nil {
		return err
	}
	return p.result()
}

// aboutInput reports whether a server's error is an answer to the input, as the others in the output are, and not one of the call.
func aboutInput(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.ResourceExhausted, codes.FailedPrecondition, codes.Internal:
		return len(status.Convert(err).Details()) > 0
	}
	return false
}

// sendClip sends the header and the chunks. Once the server has ended the call, why it did is what it is received with.
func (a *app) sendClip(ctx context.Context, c *client, header *modelgatev1.PredictRequest, clip *largeClip, name string) (*modelgatev1.UploadPredictResponse, error) {
	s := a.screen()
	bar := s.start(name)
	defer s.end(bar)
	rpc, err := c.predictions.UploadPredict(ctx)
	if err != nil {
		return nil, err
	}
	err = rpc.Send(&modelgatev1.UploadPredictRequest{Part: &modelgatev1.UploadPredictRequest_Header{Header: header}})
	buf, done := make([]byte, chunkBytes), int64(0)
	for err == nil {
		n, rerr := io.ReadFull(clip.r, buf)
		if n > 0 {
			err = rpc.Send(&modelgatev1.UploadPredictRequest{Part: &modelgatev1.UploadPredictRequest_Chunk{Chunk: buf[:n]}})
			done += int64(n)
			s.move(bar, done, clip.size)
		}
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			break
		}
		if rerr != nil {
			return nil, rerr
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return rpc.CloseAndRecv()
}
