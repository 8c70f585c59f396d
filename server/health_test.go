package server_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	rpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

func TestHealth(t *testing.T) {
	g := start(t)
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": serving, "modelgate.v1.PredictionService": serving, "modelgate.v1.ModelService": serving,
		"models/text": serving, "models/video": notServing,
	} {
		resp, err := g.health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || resp.GetStatus() != want {
			t.Errorf("%q: %v, %v, want %v", service, resp, err, want)
		}
	}
	_, err := g.health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "text"})
	checkStatus(t, err, codes.NotFound, `"models/" and a model's name`, "UNKNOWN_SERVICE")
	list, err := g.health.List(t.Context(), &healthpb.HealthListRequest{})
	must(t, err)
	if len(list.GetStatuses()) != 5 {
		t.Errorf("%v", list)
	}
}

// A watcher is told when a model begins to serve, nothing over a swap (it serves throughout), and the drain.
func TestHealthWatch(t *testing.T) {
	g := start(t)
	watch := func(service string) healthpb.Health_WatchClient {
		w, err := g.health.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		must(t, err)
		return w
	}
	expect := func(w healthpb.Health_WatchClient, want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if resp, err := w.Recv(); err != nil || resp.GetStatus() != want {
			t.Errorf("%v, %v, want %v", resp, err, want)
		}
	}
	text1, video, unknown := watch("models/text"), watch("models/video"), watch("models/x")
	expect(text1, serving)
	expect(video, notServing)
	expect(unknown, healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
	g.publish(text(2, 0.9))
	_, err := g.models.Refresh(t.Context(), &pb.RefreshRequest{Model: "text"})
	must(t, err)
	g.publish(version{"video", 1, 0.9, text(1, 0).bundle})
	_, err = g.models.Refresh(t.Context(), &pb.RefreshRequest{Model: "video"})
	must(t, err)
	expect(video, serving)
	must(t, g.end())
	expect(text1, notServing) // the first news since it began to serve
	expect(video, notServing)
	for _, w := range []healthpb.Health_WatchClient{text1, video, unknown} {
		if _, err := w.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("after the drain: %v", err)
		}
	}
}

func TestNotReady(t *testing.T) {
	g := start(t, func(c *config) { c.versions, c.lame = nil, true })
	g.await("modelgate.v1.ModelService", serving)
	a := g.call(http.MethodGet, "/readyz", "")
	if a.code != http.StatusServiceUnavailable || a.json["status"] != "not ready" || a.json["reason"] == "" {
		t.Errorf("%d %s", a.code, a.raw)
	}
	if a := g.call(http.MethodGet, "/healthz", ""); a.code != http.StatusOK {
		t.Errorf("%d %s", a.code, a.raw)
	}
	g.publish(text(1, 0.8))
	_, err := g.models.Refresh(t.Context(), &pb.RefreshRequest{Model: "text"})
	must(t, err)
	g.await("", serving)
	if a := g.call(http.MethodGet, "/readyz", ""); a.code != http.StatusOK || a.json["status"] != "ready" {
		t.Errorf("%d %s", a.code, a.raw)
	}
}

func TestReflection(t *testing.T) {
	services := func(g *gateway) (string, error) {
		s, err := rpb.NewServerReflectionClient(g.conn).ServerReflectionInfo(t.Context())
		must(t, err)
		// An error of Send is told by Recv.
		_ = s.Send(&rpb.ServerReflectionRequest{MessageRequest: &rpb.ServerReflectionRequest_ListServices{}})
		_ = s.CloseSend()
		resp, err := s.Recv()
		if err == nil {
			_, _ = s.Recv()
		}
		return resp.String(), err
	}
	t.Run("on for loopback", func(t *testing.T) {
		got, err := services(start(t))
		if err != nil || !strings.Contains(got, "modelgate.v1.PredictionService") {
			t.Errorf("%s, %v", got, err)
		}
	})
	t.Run("switched off", func(t *testing.T) {
		if _, err := services(start(t, func(c *config) { c.options.Reflection = ptr(false) })); status.Code(err) != codes.Unimplemented {
			t.Errorf("%v", err)
		}
	})
}
