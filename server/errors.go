package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"modelgate/inference"
	"modelgate/inference/batch"
	"modelgate/inference/engine"
	"modelgate/inference/text"
	"modelgate/inference/video"
	"modelgate/modelstore"
	"modelgate/s3"
)

// domain is the domain of every ErrorInfo that this server sends.
const domain = "modelgate"

var (
	errDraining = errors.New("the server is shutting down; try again on another connection")
	errBroken   = errors.New("the model gave an answer that can't be right")
	errPanic    = errors.New("panic")
)

// kind is how one sort of error goes over the wire.
type kind struct {
	code   codes.Code
	reason string        // ErrorInfo.reason: a stable word for programs
	retry  time.Duration // RetryInfo; 0 sends none
	hide   bool          // the text, which may name files and addresses, is for the log only
}

const soon, later = time.Second, 5 * time.Second

// A row says what an error that wraps is becomes.
type row struct {
	is error
	kind
}

// A table turns errors into statuses: the first row that fits is the one. The two tables below are the only place in this program
// where an error becomes a status.
type table struct {
	rows      []row
	otherwise kind
}

// ofPrediction is for errors of predictions. What the caller sent was checked before a graph saw it: what a graph says is the
// version's fault or ours, and tells the caller nothing.
func ofPrediction() table {
	return table{append([]row{
		{text.ErrVocabulary, kind{codes.Internal, "MODEL_FAILED", 0, true}},
		{text.ErrTooLong, kind{codes.InvalidArgument, "TEXT_TOO_LONG", 0, false}},
		{text.ErrInvalidUTF8, kind{codes.InvalidArgument, "TEXT_NOT_UTF8", 0, false}},
		{video.ErrClip, kind{codes.InvalidArgument, "BAD_CLIP", 0, false}},
		{inference.ErrInput, kind{codes.InvalidArgument, "BAD_INPUT", 0, false}},
		{s3.ErrURI, kind{codes.InvalidArgument, "BAD_REFERENCE", 0, false}},
		{s3.ErrNotAllowed, kind{codes.PermissionDenied, "REFERENCE_NOT_ALLOWED", 0, false}},
		{s3.ErrNotFound, kind{codes.NotFound, "REFERENCE_NOT_FOUND", 0, false}},
		{s3.ErrTooLarge, kind{codes.InvalidArgument, "REFERENCE_TOO_LARGE", 0, false}},
		{s3.ErrUnavailable, kind{codes.Unavailable, "REFERENCE_UNAVAILABLE", later, false}},
		{errReferencesFull, kind{codes.ResourceExhausted, "QUEUE_FULL", soon, false}},
		{batch.ErrFull, kind{codes.ResourceExhausted, "QUEUE_FULL", soon, false}},
		{video.ErrBusy, kind{codes.ResourceExhausted, "QUEUE_FULL", soon, false}},
		{batch.ErrSlowRun, kind{codes.DeadlineExceeded, "RUN_TOO_LONG", 0, false}},
		{batch.ErrClosed, kind{codes.Unavailable, "DRAINING", soon, false}},
		{engine.ErrClosed, kind{codes.Unavailable, "DRAINING", soon, false}},
		{video.ErrClosed, kind{codes.Unavailable, "DRAINING", soon, false}},
		{inference.ErrKiller, kind{codes.Internal, "INPUT_ENDED_WORKER", 0, false}},
		{video.ErrConfig, kind{codes.Internal, "MODEL_FAILED", 0, true}},
		{engine.ErrInput, kind{codes.Internal, "MODEL_FAILED", 0, true}},
		{engine.ErrGraph, kind{codes.Internal, "MODEL_FAILED", 0, true}},
		{engine.ErrCrashed, kind{codes.Internal, "MODEL_FAILED", 0, true}},
		{inference.ErrBundle, kind{codes.Internal, "MODEL_FAILED", 0, true}},
		{errClipTooLarge, kind{codes.InvalidArgument, "CLIP_TOO_LARGE", 0, false}},
		{errUploadsFull, kind{codes.ResourceExhausted, "UPLOADS_FULL", soon, false}},
		{errUploadSlow, kind{codes.DeadlineExceeded, "UPLOAD_TOO_SLOW", 0, false}},
		{errNoLateScore, kind{codes.FailedPrecondition, "NO_LATE_SCORE", 0, false}},
		{errBroken, kind{codes.Internal, "MODEL_FAILED", 0, true}},
	}, ofStore()...), kind{codes.Internal, "INTERNAL", 0, true}}
}

// ofOrder is for errors of the Updater. The operator needs their text. What isn't in the table comes from the registry or a
// download, and means "try again later".
func ofOrder() table {
	return table{append([]row{
		{modelstore.ErrPermanent, kind{codes.FailedPrecondition, "VERSION_UNUSABLE", 0, false}},
		{inference.ErrBundle, kind{codes.FailedPrecondition, "VERSION_UNUSABLE", 0, false}},
		{engine.ErrGraph, kind{codes.FailedPrecondition, "VERSION_UNUSABLE", 0, false}},
	}, ofStore()...), kind{codes.Unavailable, "REGISTRY_OR_VERSION_FAILED", later, false}}
}

func ofStore() []row {
	return []row{
		{modelstore.ErrUnknownModel, kind{codes.NotFound, "UNKNOWN_MODEL", 0, false}},
		{modelstore.ErrNotReady, kind{codes.Unavailable, "NOT_READY", later, false}},
		{modelstore.ErrNoPrevious, kind{codes.FailedPrecondition, "NO_PREVIOUS_VERSION", 0, false}},
		{modelstore.ErrStillDraining, kind{codes.Unavailable, "STILL_DRAINING", later, false}},
		{modelstore.ErrNoMemory, kind{codes.ResourceExhausted, "TOO_LITTLE_MEMORY", later, false}},
		{modelstore.ErrNoModel, kind{codes.NotFound, "NOT_REGISTERED", 0, false}},
		{modelstore.ErrNoVersion, kind{codes.NotFound, "NO_SUCH_VERSION", 0, false}},
		{modelstore.ErrSlowWatcher, kind{codes.Aborted, "SLOW_WATCHER", soon, false}},
		{modelstore.ErrClosed, kind{codes.Unavailable, "DRAINING", soon, false}},
		{errDraining, kind{codes.Unavailable, "DRAINING", soon, false}},
	}
}

// panicked is the error of a panic, with the stack.
func panicked(p any) error { return fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack()) }

// find is what err becomes. The end of the caller's own context goes before everything else but a panic; a deadline of our own doesn't.
func (t table) find(ctx context.Context, err error) kind {
	ended := ctx.Err()
	if errors.Is(err, errPanic) {
		ended = nil
	}
	switch ended {
	case nil:
	case context.DeadlineExceeded:
		return kind{codes.DeadlineExceeded, "DEADLINE_EXCEEDED", 0, false}
	default:
		return kind{codes.Canceled, "CANCELLED", 0, false}
	}
	for _, r := range t.rows {
		if errors.Is(err, r.is) {
			r.retry = whenToRetry(err, r.retry)
			return r.kind
		}
	}
	return t.otherwise
}

// whenToRetry is as long as what is in the way will take, where that is known, and up to twice as long: so that those that were
// refused together don't come back together.
func whenToRetry(err error, otherwise time.Duration) time.Duration {
	var full *batch.FullError
	if !errors.As(err, &full) || full.Wait <= 0 {
		return otherwise
	}
	return min(max(full.Wait, leastRetry)+rand.N(max(full.Wait, leastRetry)), mostRetry)
}

const leastRetry, mostRetry = 10 * time.Millisecond, time.Minute

// fail makes the status of err, and logs what the caller isn't told.
func (s *Server) fail(ctx context.Context, err error, t table) error {
	if _, ok := status.FromError(err); ok {
		return err // nil, or made here before, or by grpc
	}
	k := t.find(ctx, err)
	say, meta := err.Error(), map[string]string(nil)
	switch {
	case t.otherwise.hide && ctx.Err() != nil && (k.code == codes.Canceled || k.code == codes.DeadlineExceeded):
		say = ctx.Err().Error() // what was going on may have said what isn't for callers
	case k.hide:
		id := requestID()
		s.o.Logger.ErrorContext(ctx, "a request failed", "request_id", id, "error", err)
		say = "the request could not be answered because of a fault in the server; its log says more under request id " + id
		meta = map[string]string{"request_id": id}
	}
	return newStatus(k, say, meta)
}

// invalid is the status of a request that can't be answered as it is.
func invalid(reason, say string) error {
	return newStatus(kind{code: codes.InvalidArgument, reason: reason}, say, nil)
}

func newStatus(k kind, say string, meta map[string]string) error {
	st := status.New(k.code, say)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: k.reason, Domain: domain, Metadata: meta}}
	if k.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(k.retry)})
	}
	with, err := st.WithDetails(details...)
	if err != nil { // only an OK status or an unmarshalable detail, which these are not
		return st.Err()
	}
	return with.Err()
}
