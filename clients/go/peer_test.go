package modelgate_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	modelgate "modelgate/clients/go"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

const predictionService = "modelgate.v1.PredictionService"

// A peer is a server that does what a test scripts and counts what it is asked.
type peer struct {
	modelgatev1.UnimplementedPredictionServiceServer
	modelgatev1.UnimplementedModelServiceServer

	addr    string
	health  *health
	predict func(context.Context, *modelgatev1.PredictRequest) (*modelgatev1.PredictResponse, error) // nil: echo
	batch   func(*modelgatev1.PredictBatchRequest) (*modelgatev1.PredictBatchResponse, error)        // nil: echo
	stream  func(stream peerStream) error                                                            // nil: echo
	chunk   func(call, n int) error                                                                  // if not nil, says whether an upload ends with its nth chunk, from 0
	fail    func(call int) error                                                                     // if not nil, says how the nth call of a method ends, from 1

	mu    sync.Mutex
	calls map[string]int // guarded by mu: by the method's name
	token string         // guarded by mu: the last authorization seen
}

type peerUpload = grpc.ClientStreamingServer[modelgatev1.UploadPredictRequest, modelgatev1.UploadPredictResponse]

type peerStream = grpc.BidiStreamingServer[modelgatev1.PredictStreamRequest, modelgatev1.PredictStreamResponse]

// health is grpc.health.v1 for predictionService. It isn't gRPC's own, which would link what the client must link itself.
type health struct {
	healthpb.UnimplementedHealthServer
	mu      sync.Mutex
	serving bool          // guarded by mu
	changed chan struct{} // guarded by mu: closed and replaced at each change
}

func newHealth() *health { return &health{serving: true, changed: make(chan struct{})} }

func (h *health) set(serving bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serving = serving
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *health) Watch(r *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	for {
		h.mu.Lock()
		serving, changed := h.serving, h.changed
		h.mu.Unlock()
		st := healthpb.HealthCheckResponse_NOT_SERVING
		switch {
		case r.GetService() != predictionService:
			st = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		case serving:
			st = healthpb.HealthCheckResponse_SERVING
		}
		if err := s.Send(&healthpb.HealthCheckResponse{Status: st}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

// start serves p on a port of its own until the test ends.
func (p *peer) start(t *testing.T, options ...grpc.ServerOption) *peer {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr, p.calls, p.health = l.Addr().String(), map[string]int{}, newHealth()
	g := grpc.NewServer(append(options, grpc.UnaryInterceptor(p.countUnary), grpc.StreamInterceptor(p.countStream))...)
	modelgatev1.RegisterPredictionServiceServer(g, p)
	modelgatev1.RegisterModelServiceServer(g, p)
	healthpb.RegisterHealthServer(g, p.health)
	var running sync.WaitGroup
	running.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() {
		g.Stop()
		running.Wait()
	})
	return p
}

func (p *peer) countUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := p.note(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (p *peer) countStream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if strings.HasPrefix(info.FullMethod, "/grpc.health") {
		return handler(srv, s)
	}
	if err := p.note(s.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, s)
}

func (p *peer) note(ctx context.Context, method string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = strings.Join(md.Get("authorization"), ",")
	name := method[strings.LastIndexByte(method, '/')+1:]
	p.calls[name]++
	if p.fail == nil {
		return nil
	}
	return p.fail(p.calls[name])
}

func (p *peer) count(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[method]
}

func (p *peer) Predict(ctx context.Context, r *modelgatev1.PredictRequest) (*modelgatev1.PredictResponse, error) {
	if p.predict != nil {
		return p.predict(ctx, r)
	}
	return p.echo(r), nil
}

// echo answers with the peer's address as the version and the text as the label.
func (p *peer) echo(r *modelgatev1.PredictRequest) *modelgatev1.PredictResponse {
	return &modelgatev1.PredictResponse{Label: r.GetText(), Model: r.GetModel(), Version: p.addr, Id: r.GetId()}
}

func (p *peer) PredictBatch(_ context.Context, r *modelgatev1.PredictBatchRequest) (*modelgatev1.PredictBatchResponse, error) {
	if p.batch != nil {
		return p.batch(r)
	}
	out := &modelgatev1.PredictBatchResponse{}
	for _, one := range r.GetRequests() {
		out.Responses = append(out.Responses, &modelgatev1.PredictBatchItem{Id: one.GetId(),
			Result: &modelgatev1.PredictBatchItem_Prediction{Prediction: p.echo(one)}})
	}
	return out, nil
}

func (p *peer) PredictStream(stream peerStream) error {
	if p.stream != nil {
		return p.stream(stream)
	}
	return each(stream, func(r *modelgatev1.PredictRequest) error { return stream.Send(answer(r)) })
}

// UploadPredict answers with the clip as a digest in the label, and with how it was cut.
func (p *peer) UploadPredict(stream peerUpload) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	clip, chunks := sha256.New(), 0
	for ; ; chunks++ {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		_, _ = clip.Write(m.GetChunk()) // never fails
		if p.chunk != nil {
			if err := p.chunk(p.count("UploadPredict"), chunks); err != nil {
				return err
			}
		}
	}
	r := p.echo(first.GetHeader())
	r.Label, r.Reason = fmt.Sprintf("%x", clip.Sum(nil)), fmt.Sprintf("%v, %d chunks", first.GetHeader().Text != nil, chunks)
	return stream.SendAndClose(&modelgatev1.UploadPredictResponse{Prediction: r})
}

func (p *peer) ListModels(context.Context, *modelgatev1.ListModelsRequest) (*modelgatev1.ListModelsResponse, error) {
	return &modelgatev1.ListModelsResponse{}, nil
}

func (p *peer) Promote(context.Context, *modelgatev1.PromoteRequest) (*modelgatev1.PromoteResponse, error) {
	return &modelgatev1.PromoteResponse{}, nil
}

func (p *peer) Refresh(context.Context, *modelgatev1.RefreshRequest) (*modelgatev1.RefreshResponse, error) {
	return &modelgatev1.RefreshResponse{}, nil
}

func (p *peer) Rollback(context.Context, *modelgatev1.RollbackRequest) (*modelgatev1.RollbackResponse, error) {
	return &modelgatev1.RollbackResponse{}, nil
}

// dial connects until the test ends, which it does after half a minute at the latest.
func dial(t *testing.T, target string, o modelgate.Options) (context.Context, *modelgate.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	c, err := modelgate.Dial(target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, c
}
