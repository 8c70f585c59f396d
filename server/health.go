package server

import (
	"context"
	"maps"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
)

// modelHealth is the name under which a model's health is asked for.
func modelHealth(model string) string { return "models/" + model }

// health is grpc.health.v1. grpc-go's own would keep Watch streams open through a graceful stop, and so hold it up:
// this one tells watchers NOT_SERVING and then ends their streams.
type health struct {
	healthpb.UnimplementedHealthServer

	mu       sync.Mutex // guards what follows
	statuses map[string]healthpb.HealthCheckResponse_ServingStatus
	draining bool
	changed  chan struct{} // closed and replaced at each change
}

func newHealth() *health {
	return &health{statuses: map[string]healthpb.HealthCheckResponse_ServingStatus{}, changed: make(chan struct{})}
}

// set replaces a service's status, unless the server drains.
func (h *health) set(service string, up bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := notServing
	if up {
		st = serving
	}
	if h.draining || h.statuses[service] == st {
		return
	}
	h.statuses[service] = st
	h.tellLocked()
}

// drain makes every status NOT_SERVING, for good.
func (h *health) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	for service := range h.statuses {
		h.statuses[service] = notServing
	}
	h.tellLocked()
}

func (h *health) tellLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *health) get(service string) (st healthpb.HealthCheckResponse_ServingStatus, known, draining bool, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	st, known = h.statuses[service]
	return st, known, h.draining, h.changed
}

// Check tells the status of a service now.
func (h *health) Check(_ context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	st, known, _, _ := h.get(req.GetService())
	if !known {
		return nil, newStatus(kind{code: codes.NotFound, reason: "UNKNOWN_SERVICE"},
			`no such service; ask for "" (the server), a service's full name, or "models/" and a model's name`, nil)
	}
	return &healthpb.HealthCheckResponse{Status: st}, nil
}

// List tells every status.
func (h *health) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	h.mu.Lock()
	all := maps.Clone(h.statuses)
	h.mu.Unlock()
	resp := &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse, len(all))}
	for service, st := range all {
		resp.Statuses[service] = &healthpb.HealthCheckResponse{Status: st}
	}
	return resp, nil
}

// Watch tells the status of a service now and whenever it changes. A service that isn't known may become so.
func (h *health) Watch(req *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	last := healthpb.HealthCheckResponse_ServingStatus(-1)
	for {
		st, known, draining, changed := h.get(req.GetService())
		if !known {
			st = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		}
		if st != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: st}); err != nil {
				return err
			}
			last = st
		}
		if draining {
			return status.Error(codes.Unavailable, errDraining.Error())
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}
