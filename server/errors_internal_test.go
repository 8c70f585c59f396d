package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/inference"
	"modelgate/inference/batch"
	"modelgate/inference/engine"
	"modelgate/inference/text"
	"modelgate/inference/video"
	"modelgate/modelstore"
	"modelgate/s3"
)

const secret = "/var/lib/modelgate/cache and password=hunter2"

// Every sentinel of the packages below has its row, in the table of predictions and in that of orders.
func TestTables(t *testing.T) {
	for _, c := range []struct {
		name       string
		err        error
		prediction codes.Code
		order      codes.Code
	}{
		{"inference.ErrInput", inference.ErrInput, codes.InvalidArgument, codes.Unavailable},
		{"inference.ErrBundle", inference.ErrBundle, codes.Internal, codes.FailedPrecondition},
		{"inference.ErrKiller", inference.ErrKiller, codes.Internal, codes.Unavailable},
		{"inference.ErrFull", inference.ErrFull, codes.ResourceExhausted, codes.Unavailable},
		{"inference.ErrClosed", inference.ErrClosed, codes.Unavailable, codes.Unavailable},
		{"batch.ErrFull", batch.ErrFull, codes.ResourceExhausted, codes.Unavailable},
		{"batch.ErrSlowRun", batch.ErrSlowRun, codes.DeadlineExceeded, codes.Unavailable},
		{"inference.ErrSlowRun", inference.ErrSlowRun, codes.DeadlineExceeded, codes.Unavailable},
		{"batch.ErrClosed", batch.ErrClosed, codes.Unavailable, codes.Unavailable},
		{"engine.ErrClosed", engine.ErrClosed, codes.Unavailable, codes.Unavailable},
		{"engine.ErrGraph", engine.ErrGraph, codes.Internal, codes.FailedPrecondition},
		{"engine.ErrCrashed", engine.ErrCrashed, codes.Internal, codes.Unavailable},
		{"engine.ErrInput", engine.ErrInput, codes.Internal, codes.Unavailable},
		{"text.ErrInvalidUTF8", text.ErrInvalidUTF8, codes.InvalidArgument, codes.Unavailable},
		{"text.ErrTooLong", text.ErrTooLong, codes.InvalidArgument, codes.Unavailable},
		{"text.ErrVocabulary", text.ErrVocabulary, codes.Internal, codes.Unavailable},
		{"video.ErrClip", video.ErrClip, codes.InvalidArgument, codes.Unavailable},
		{"video.ErrConfig", video.ErrConfig, codes.Internal, codes.Unavailable},
		{"video.ErrBusy", video.ErrBusy, codes.ResourceExhausted, codes.Unavailable},
		{"video.ErrClosed", video.ErrClosed, codes.Unavailable, codes.Unavailable},
		{"s3.ErrURI", s3.ErrURI, codes.InvalidArgument, codes.Unavailable},
		{"s3.ErrNotAllowed", s3.ErrNotAllowed, codes.PermissionDenied, codes.Unavailable},
		{"s3.ErrNotFound", s3.ErrNotFound, codes.NotFound, codes.Unavailable},
		{"s3.ErrTooLarge", s3.ErrTooLarge, codes.InvalidArgument, codes.Unavailable},
		{"s3.ErrUnavailable", s3.ErrUnavailable, codes.Unavailable, codes.Unavailable},
		{"errReferencesFull", errReferencesFull, codes.ResourceExhausted, codes.Unavailable},
		{"modelstore.ErrUnknownModel", modelstore.ErrUnknownModel, codes.NotFound, codes.NotFound},
		{"modelstore.ErrNotReady", modelstore.ErrNotReady, codes.Unavailable, codes.Unavailable},
		{"modelstore.ErrClosed", modelstore.ErrClosed, codes.Unavailable, codes.Unavailable},
		{"modelstore.ErrNoPrevious", modelstore.ErrNoPrevious, codes.FailedPrecondition, codes.FailedPrecondition},
		{"modelstore.ErrStillDraining", modelstore.ErrStillDraining, codes.Unavailable, codes.Unavailable},
		{"modelstore.ErrNoMemory", modelstore.ErrNoMemory, codes.ResourceExhausted, codes.ResourceExhausted},
		{"modelstore.ErrNoModel", modelstore.ErrNoModel, codes.NotFound, codes.NotFound},
		{"modelstore.ErrNoVersion", modelstore.ErrNoVersion, codes.NotFound, codes.NotFound},
		{"modelstore.ErrPermanent", modelstore.Permanent(errors.New("a bad digest")), codes.Internal, codes.FailedPrecondition},
		{"modelstore.ErrSlowWatcher", modelstore.ErrSlowWatcher, codes.Aborted, codes.Aborted},
		{"errClipTooLarge", errClipTooLarge, codes.InvalidArgument, codes.Unavailable},
		{"errUploadsFull", errUploadsFull, codes.ResourceExhausted, codes.Unavailable},
		{"errUploadSlow", errUploadSlow, codes.DeadlineExceeded, codes.Unavailable},
		{"errDraining", errDraining, codes.Unavailable, codes.Unavailable},
		{"errBroken", errBroken, codes.Internal, codes.Unavailable},
		{"a deadline of our own", context.DeadlineExceeded, codes.Internal, codes.Unavailable},
		{"anything else", errors.New("disk on fire"), codes.Internal, codes.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkKind(t, ofPrediction(), c.err, c.prediction)
			checkKind(t, ofOrder(), c.err, c.order)
		})
	}
}

// checkKind checks how an error that wraps err goes over the wire.
func checkKind(t *testing.T, tb table, err error, want codes.Code) {
	t.Helper()
	var log strings.Builder
	s := &Server{o: Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	st := status.Convert(s.fail(t.Context(), fmt.Errorf("read %s: %w", secret, err), tb))
	if st.Code() != want {
		t.Errorf("%v, want %v", st.Code(), want)
	}
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if info.GetReason() == "" || info.GetDomain() != "modelgate" {
		t.Errorf("ErrorInfo is %v", info)
	}
	retryable := want == codes.Unavailable || want == codes.ResourceExhausted || want == codes.Aborted
	if retryable != (retry.GetRetryDelay().AsDuration() > 0) {
		t.Errorf("%v has RetryInfo %v", want, retry)
	}
	hidden := want == codes.Internal && !errors.Is(err, inference.ErrKiller) // whose text is ours
	if hidden == strings.Contains(st.Message(), secret) {
		t.Errorf("the caller is told %q", st.Message())
	}
	id := info.GetMetadata()["request_id"]
	if hidden && (id == "" || !strings.Contains(st.Message(), id) || !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "hunter2")) {
		t.Errorf("the log doesn't say what the caller isn't told: %q, %q", st.Message(), log.String())
	}
	if !hidden && log.Len() > 0 {
		t.Errorf("logged although the caller is told: %s", log.String())
	}
}

// The end of the caller's context is the caller's, whatever the error is.
func TestCallerLeft(t *testing.T) {
	s := &Server{o: Options{Logger: slog.New(slog.DiscardHandler)}}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, batch.ErrFull, errors.New("run: terminated")} {
		if got := status.Code(s.fail(cancelled, err, ofPrediction())); got != codes.Canceled {
			t.Errorf("cancelled, %v: %v", err, got)
		}
		if got := status.Code(s.fail(late, err, ofOrder())); got != codes.DeadlineExceeded {
			t.Errorf("late, %v: %v", err, got)
		}
	}
	if err := s.fail(t.Context(), nil, ofPrediction()); err != nil {
		t.Errorf("no error became %v", err)
	}
}

// What isn't for callers isn't told to those whose time is over either, and a panic is in the log whoever has left.
func TestCallerLeftIsToldNothing(t *testing.T) {
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, c := range []struct {
		err    error
		code   codes.Code
		logged bool
	}{
		{engine.ErrGraph, codes.DeadlineExceeded, false},
		{errors.New("disk on fire"), codes.DeadlineExceeded, false},
		{context.DeadlineExceeded, codes.DeadlineExceeded, false},
		{panicked("out of range"), codes.Internal, true},
	} {
		var log strings.Builder
		s := &Server{o: Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
		st := status.Convert(s.fail(late, fmt.Errorf("read %s: %w", secret, c.err), ofPrediction()))
		if st.Code() != c.code || strings.Contains(st.Message(), secret) || strings.Contains(st.Message(), "errors_internal_test.go") {
			t.Errorf("%v: the caller is told %v", c.err, st)
		}
		if c.logged != strings.Contains(log.String(), "errors_internal_test.go") {
			t.Errorf("%v: the log says %q", c.err, log.String())
		}
	}
}
