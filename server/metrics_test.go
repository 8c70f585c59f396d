package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

// metric is the value of one series, as /metrics shows it; "" if it isn't there.
func metric(t testing.TB, g *gateway, series string) string {
	t.Helper()
	for line := range strings.Lines(g.call(http.MethodGet, "/metrics", "").raw) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func TestMetrics(t *testing.T) {
	g := start(t)
	for range 3 {
		_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")})
		must(t, err)
	}
	_, _ = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text"})
	_, _ = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "video", Text: ptr("good")})
	for i := range 50 {
		_, _ = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: fmt.Sprint("unknown", i), Text: ptr("good")})
	}
	g.publish(text(2, 0.9))
	_, err := g.models.Refresh(t.Context(), &pb.RefreshRequest{Model: "text"})
	must(t, err)
	for series, want := range map[string]string{
		`modelgate_requests_total{code="OK",model="text",version="1"}`:                                    "3",
		`modelgate_requests_total{code="InvalidArgument",model="text",version="1"}`:                       "1",
		`modelgate_requests_total{code="Unavailable",model="video",version=""}`:                           "1",
		`modelgate_requests_total{code="NotFound",model="",version=""}`:                                   "50",
		`modelgate_request_duration_seconds_count{code="OK",model="text",version="1"}`:                    "3",
		`modelgate_requests_in_flight{model="text"}`:                                                      "0",
		`modelgate_batch_size_count{model="text"}`:                                                        "3",
		`modelgate_queue_duration_seconds_count{model="text"}`:                                            "3",
		`modelgate_swaps_total{model="text",outcome="swapped",reason="first_version"}`:                    "1",
		`modelgate_swaps_total{model="text",outcome="swapped",reason="improved"}`:                         "1",
		`modelgate_swap_phase_duration_seconds_count{model="text",phase="publish_held",result="ok"}`:      "2",
		`modelgate_swap_phase_duration_seconds_count{model="text",phase="fetch",result="ok"}`:             "2",
		`modelgate_registry_up{model="text"}`:                                                             "1",
		`modelgate_serving_f1{model="text"}`:                                                              "0.9",
		`modelgate_serving_version{model="text"}`:                                                         "2",
		`modelgate_rpcs_total{code="OK",method="Refresh",service="modelgate.v1.ModelService"}`:            "1",
		`modelgate_rpcs_total{code="NotFound",method="Predict",service="modelgate.v1.PredictionService"}`: "50",
		`modelgate_rpc_duration_seconds_count{method="Refresh",service="modelgate.v1.ModelService"}`:      "1",
	} {
		if got := metric(t, g, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
	problems, err := testutil.GatherAndLint(g.reg)
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if page := g.call(http.MethodGet, "/metrics", "").raw; strings.Contains(page, "unknown1") {
		t.Error("a name that no model has became a series")
	}
}

// However many versions come and go, only the last few have series.
func TestMetricsOfOldVersions(t *testing.T) {
	g := start(t)
	const swaps = 12
	for i := 2; i <= swaps; i++ {
		g.publish(text(i, 0.8+float64(i)/100))
		_, err := g.models.Refresh(t.Context(), &pb.RefreshRequest{Model: "text"})
		must(t, err)
		_, err = g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")})
		must(t, err)
	}
	if n, err := testutil.GatherAndCount(g.reg, "modelgate_requests_total"); err != nil || n != 8 {
		t.Errorf("%d series, %v", n, err)
	}
	if metric(t, g, fmt.Sprintf(`modelgate_requests_total{code="OK",model="text",version="%d"}`, swaps)) != "1" {
		t.Error("the version that serves has no series")
	}
}

// Events that tests can't easily bring about.
func TestMetricsOfEvents(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := server.NewMetrics(reg)
	must(t, err)
	v := modelstore.Version{Model: "text", Number: 3, F1: modelstore.KnownF1("eval_f1", 0.8)}
	m.Observe(modelstore.Event{Kind: modelstore.Decided, Version: v, Entry: &modelstore.Entry{Model: "text", Candidate: v, Outcome: modelstore.Restored, Code: "restored"}})
	v.F1 = modelstore.AbsentF1("no metrics.json")
	m.Observe(modelstore.Event{Kind: modelstore.Decided, Version: v, Entry: &modelstore.Entry{Model: "text", Candidate: v, Outcome: modelstore.RolledBack, Code: "promoted"}})
	m.Observe(modelstore.Event{Kind: modelstore.CloseFailed, Version: v, Err: http.ErrAbortHandler})
	m.Observe(modelstore.Event{Kind: modelstore.CheckFailed, Version: modelstore.Version{Model: "text"}, Err: http.ErrAbortHandler})
	m.Observe(modelstore.Event{Kind: modelstore.PhaseEnded, Version: v, Phase: modelstore.PhaseLoad, Duration: time.Second, Err: http.ErrAbortHandler})
	m.Observe(modelstore.Event{Kind: modelstore.Progressed, Version: v, Done: 1 << 20, Total: 4 << 20})
	const want = `
# HELP modelgate_fetch_size_bytes Bytes that the newest download has in all; 0 if the registry doesn't say.
# TYPE modelgate_fetch_size_bytes gauge
modelgate_fetch_size_bytes{model="text"} 4.194304e+06
# HELP modelgate_fetched_bytes Bytes of the newest download that have arrived.
# TYPE modelgate_fetched_bytes gauge
modelgate_fetched_bytes{model="text"} 1.048576e+06
# HELP modelgate_close_errors_total Old versions that said that something went wrong when they were closed.
# TYPE modelgate_close_errors_total counter
modelgate_close_errors_total{model="text"} 1
# HELP modelgate_registry_up 1 if the newest check of the registry for this model went well, else 0.
# TYPE modelgate_registry_up gauge
modelgate_registry_up{model="text"} 0
# HELP modelgate_serving_version The number of the version that serves.
# TYPE modelgate_serving_version gauge
modelgate_serving_version{model="text"} 3
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "modelgate_close_errors_total", "modelgate_registry_up", "modelgate_serving_version", "modelgate_serving_f1", "modelgate_fetched_bytes", "modelgate_fetch_size_bytes"); err != nil {
		t.Error(err)
	}
	if _, err := server.NewMetrics(reg); err == nil {
		t.Error("the same registry took the metrics twice")
	}
}
