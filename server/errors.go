package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"modelgate/inference"
	"modelgate/inference/batch"
	"modelgate/inference/engine"
	"modelgate/modelstore"
)

// domain is the domain of every ErrorInfo that this server sends.
const domain = "modelgate"

var (
	errDraining = errors.New("the server is shutting down; try again on another connection")
	errBroken   = errors.New("the model gave an answer that can't be right")
)

// kind is how one sort of error goes over the wire.
type kind struct {
	code   codes.Code
	reason string        // ErrorInfo.reason: a stable word for programs
	retry  time.Duration // RetryInfo; 0 sends none
	hide   bool          // the text is for the log only
}

// A row of the table says what an error that wraps is becomes.
type row struct {
	is error
	kind
}

// table turns errors into statuses; the first row that fits is the one. Nothing else in this program makes a status from an error.
func table() []row {
	const soon, later = time.Second, 5 * time.Second
	return []row{
		{inference.ErrInput, kind{codes.InvalidArgument, "BAD_INPUT", 0, false}},
		{batch.ErrFull, kind{codes.ResourceExhausted, "QUEUE_FULL", soon, false}},
		{modelstore.ErrUnknownModel, kind{codes.NotFound, "UNKNOWN_MODEL", 0, false}},
		{modelstore.ErrNotReady, kind{codes.Unavailable, "NOT_READY", later, false}},
		{modelstore.ErrNoPrevious, kind{codes.FailedPrecondition, "NO_PREVIOUS_VERSION", 0, false}},
		{modelstore.ErrStillDraining, kind{codes.Unavailable, "STILL_DRAINING", later, false}},
		{modelstore.ErrNoModel, kind{codes.NotFound, "NOT_REGISTERED", 0, false}},
		{modelstore.ErrNoVersion, kind{codes.NotFound, "NO_SUCH_VERSION", 0, false}},
		{modelstore.ErrSlowWatcher, kind{codes.Aborted, "SLOW_WATCHER", soon, false}},
		{modelstore.ErrPermanent, kind{codes.FailedPrecondition, "VERSION_UNUSABLE", 0, false}},
		{inference.ErrBundle, kind{codes.FailedPrecondition, "VERSION_UNUSABLE", 0, false}},
		{errDraining, kind{codes.Unavailable, "DRAINING", soon, false}},
		{modelstore.ErrClosed, kind{codes.Unavailable, "DRAINING", soon, false}},
		{batch.ErrClosed, kind{codes.Unavailable, "DRAINING", soon, false}},
		{engine.ErrClosed, kind{codes.Unavailable, "DRAINING", soon, false}},
		// What the caller sent was checked before it got this far: these are faults of the version or of this program.
		{engine.ErrInput, kind{codes.Internal, "MODEL_FAILED", 0, true}},
		{engine.ErrGraph, kind{codes.Internal, "MODEL_FAILED", 0, true}},
		{errBroken, kind{codes.Internal, "MODEL_FAILED", 0, true}},
	}
}

// What errors outside the table become.
var (
	// A prediction's: the caller can do nothing with the text, which may name files and addresses.
	otherwiseInternal = kind{codes.Internal, "INTERNAL", 0, true}
	// An operator's order: "try again later" is what every other error of a Source means, and the operator needs the text.
	otherwiseRegistry = kind{codes.Unavailable, "REGISTRY_OR_VERSION_FAILED", 5 * time.Second, false}
)

// classify finds the row of err. The end of the caller's own context goes before everything else.
func classify(ctx context.Context, err error, otherwise kind) kind {
	switch ctx.Err() {
	case nil:
	case context.DeadlineExceeded:
		return kind{codes.DeadlineExceeded, "DEADLINE_EXCEEDED", 0, false}
	default:
		return kind{codes.Canceled, "CANCELLED", 0, false}
	}
	for _, r := range table() {
		if errors.Is(err, r.is) {
			return r.kind
		}
	}
	return otherwise
}

// fail makes the status of err, and logs what the caller isn't told.
func (s *Server) fail(ctx context.Context, err error, otherwise kind) error {
	if _, ok := status.FromError(err); ok {
		return err // nil, or made here before, or by grpc
	}
	k := classify(ctx, err, otherwise)
	text, meta := err.Error(), map[string]string(nil)
	if k.hide {
		id := requestID()
		s.o.Logger.ErrorContext(ctx, "a request failed", "request_id", id, "error", err)
		text = "the request could not be answered because of a fault in the server; its log says more under request id " + id
		meta = map[string]string{"request_id": id}
	}
	return newStatus(k, text, meta)
}

// invalid is the status of a request that can't be answered as it is.
func invalid(reason, text string) error {
	return newStatus(kind{code: codes.InvalidArgument, reason: reason}, text, nil)
}

func newStatus(k kind, text string, meta map[string]string) error {
	st := status.New(k.code, text)
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
