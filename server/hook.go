package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
)

// A Hook is an address where the registry says that something changed. What it says is a hint to look, and never what to load.
type Hook struct {
	Path string // such as "/hooks/mlflow"
	Most int64  // bytes of a delivery
	// Accept says which models a delivery concerns; nil means that it may be any. An error refuses the delivery; if it has a method
	// Reason() string, that is one of a few words, for metrics. It may be called by several goroutines at once.
	Accept func(h http.Header, body []byte) (models []string, err error)
}

// What becomes of a delivery, beside the reasons that Accept has.
const (
	hookAccepted   = "accepted"
	hookRefused    = "refused"
	hookTooLarge   = "too_large"
	hookIncomplete = "incomplete"
)

// hookLogGap is the time between two lines in the log about deliveries of which the same became: anybody can send what is refused.
const hookLogGap = 10 * time.Second

// hookHandler takes deliveries. They carry no token: the sender has none, and signs instead.
func (s *Server) hookHandler(k *Hook) http.Handler {
	said := &quietLog{log: s.o.Logger, gap: hookLogGap, kept: make(map[string]*quietLine)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			routingError(r.Context(), nil, nil, w, r, http.StatusMethodNotAllowed)
			return
		}
		result, models, err := s.deliver(k, w, r)
		s.o.Metrics.hook(result)
		if err != nil {
			said.say(r.Context(), slog.LevelWarn, result, "a delivery of the registry's webhook was refused", "result", result, "error", err)
			return
		}
		said.say(r.Context(), slog.LevelInfo, result, "the registry says that something changed", "models", models)
		w.WriteHeader(http.StatusNoContent)
	})
}

// deliver reads and judges one delivery, and wakes the updater. If it is refused, the answer has been written.
func (s *Server) deliver(k *Hook, w http.ResponseWriter, r *http.Request) (result string, models []string, err error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, k.Most))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		refuse(w, http.StatusRequestEntityTooLarge, codes.ResourceExhausted, "BODY_TOO_LARGE", "the delivery is too large")
		return hookTooLarge, nil, err
	case err != nil:
		refuse(w, http.StatusBadRequest, codes.InvalidArgument, "BODY_INCOMPLETE", "the body could not be read to its end")
		return hookIncomplete, nil, err
	}
	models, err = k.Accept(r.Header, body)
	if err != nil {
		result = hookRefused
		if why := hookReason(nil); errors.As(err, &why) {
			result = why.Reason()
		}
		w.Header().Set("WWW-Authenticate", "Signature")
		refuse(w, http.StatusUnauthorized, codes.Unauthenticated, "DELIVERY_REFUSED", "the delivery is refused: signature, time or id; the server's log says which")
		return result, nil, err
	}
	if models == nil {
		s.updater.WakeAll()
	}
	for _, m := range models {
		s.updater.Wake(m)
	}
	return hookAccepted, models, nil
}

type hookReason interface {
	error
	Reason() string
}

// A quietLog says the same thing once in a while, and how often it was so meanwhile.
type quietLog struct {
	log *slog.Logger
	gap time.Duration

	mu   sync.Mutex // guards kept
	kept map[string]*quietLine
}

type quietLine struct {
	said   time.Time
	unsaid int
}

// say logs a line unless one with the same key, of which there are few, was logged less than gap ago.
func (q *quietLog) say(ctx context.Context, level slog.Level, key, msg string, args ...any) {
	q.mu.Lock()
	l := q.kept[key]
	if l == nil {
		l = &quietLine{}
		q.kept[key] = l
	}
	if !l.said.IsZero() && time.Since(l.said) < q.gap {
		l.unsaid++
		q.mu.Unlock()
		return
	}
	unsaid := l.unsaid
	l.said, l.unsaid = time.Now(), 0
	q.mu.Unlock()
	if unsaid > 0 {
		args = append(args, "more_of_these_before", unsaid)
	}
	q.log.Log(ctx, level, msg, args...)
}
