package server

import (
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/modelstore"
)

// versionsMeasured is how many versions of a model have series; the oldest are deleted as new ones come.
const versionsMeasured = 8

// Metrics are modelgate's Prometheus metrics. Every label has a bounded number of values. A nil *Metrics must not be used.
type Metrics struct {
	requests    *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	inflight    *prometheus.GaugeVec
	rpcs        *prometheus.CounterVec
	rpcLatency  *prometheus.HistogramVec
	batchSize   *prometheus.HistogramVec
	queue       *prometheus.HistogramVec
	decisions   *prometheus.CounterVec
	phases      *prometheus.HistogramVec
	closeErrors *prometheus.CounterVec
	registryUp  *prometheus.GaugeVec
	lastCheck   *prometheus.GaugeVec
	servingF1   *prometheus.GaugeVec
	version     *prometheus.GaugeVec
	fetched     *prometheus.GaugeVec
	toFetch     *prometheus.GaugeVec
	slowdown    *prometheus.GaugeVec
	deaths      *prometheus.CounterVec
	restarts    *prometheus.CounterVec
	refused     *prometheus.CounterVec
	condemned   *prometheus.CounterVec
	uploads     prometheus.Gauge
	hooks       *prometheus.CounterVec
	clips       clipMetrics

	mu       sync.Mutex          // guards versions
	versions map[string][]string // by model: the versions that have series, oldest first
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{versions: make(map[string][]string)}
	m.makeRequestMetrics()
	m.makeModelMetrics()
	m.uploads = prometheus.NewGauge(prometheus.GaugeOpts(opts("upload_bytes", "Bytes of uploads that are in memory, being received or answered.")))
	m.hooks = counter("hook_deliveries_total", "Deliveries of the registry's webhook, by what became of them (accepted, headers, window, signature, replay, too_large, incomplete).",
		"result")
	m.clips = newClipMetrics()
	for _, c := range append(m.clips.all(), m.requests, m.latency, m.inflight, m.rpcs, m.rpcLatency, m.batchSize, m.queue,
		m.decisions, m.phases, m.closeErrors, m.registryUp, m.lastCheck, m.servingF1, m.version, m.fetched, m.toFetch, m.slowdown,
		m.deaths, m.restarts, m.refused, m.condemned, m.uploads, m.hooks) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) makeRequestMetrics() {
	latency := []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}
	m.requests = counter("requests_total", "Predictions asked for: single ones, items of batches and messages of streams.", "model", "version", "code")
	m.latency = histogram("request_duration_seconds", "Time from a prediction's arrival to its answer.", latency, "model", "version", "code")
	m.inflight = gauge("requests_in_flight", "Predictions being computed or waiting.", "model")
	m.rpcs = counter("rpcs_total", "Calls over gRPC and REST.", "service", "method", "code")
	m.rpcLatency = histogram("rpc_duration_seconds", "Time from a call's arrival to its end; streams end when they are closed.", latency, "service", "method")
	m.batchSize = histogram("batch_size", "Requests in one run of the model.", []float64{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64}, "model")
	m.queue = histogram("queue_duration_seconds", "Time that a request waited for its run.",
		[]float64{.00001, .0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5}, "model")
}

func (m *Metrics) makeModelMetrics() {
	m.decisions = counter("swaps_total", "Decisions about versions, by outcome (swapped, rolled_back, refused, failed, restored, noted) and why.",
		"model", "outcome", "reason")
	m.phases = histogram("swap_phase_duration_seconds", "Time that one phase of a swap took.",
		[]float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 1e-3, 1e-2, .1, .5, 1, 5, 10, 30, 60, 300, 1800}, "model", "phase", "result")
	m.closeErrors = counter("close_errors_total", "Old versions that said that something went wrong when they were closed.", "model")
	m.registryUp = gauge("registry_up", "1 if the newest check of the registry for this model went well, else 0.", "model")
	m.lastCheck = gauge("last_check_timestamp_seconds", "When the registry was last checked with success, in seconds since 1970.", "model")
	m.servingF1 = gauge("serving_f1", "The F1 of the version that serves; absent if it is unknown.", "model")
	m.version = gauge("serving_version", "The number of the version that serves.", "model")
	m.fetched = gauge("fetched_bytes", "Bytes of the newest download that have arrived.", "model")
	m.slowdown = gauge("candidate_slowdown", "How many times as long as one of the version that served a run of the newest candidate took.", "model")
	m.deaths = counter("worker_deaths_total", "Processes of versions that ended without being told to, by cause: crashed, hung (and was killed), killed (by somebody else, as where memory runs out).",
		"model", "cause")
	m.restarts = counter("worker_restarts_total", "Processes of versions that were started in place of one that ended.", "model")
	m.refused = counter("refused_inputs_total", "Predictions that were refused since the very same input ended the process that computes the version.", "model")
	m.condemned = counter("versions_condemned_total", "Versions that were put into quarantine while they served, since inputs ended their process.", "model")
	m.toFetch = gauge("fetch_size_bytes", "Bytes that the newest download has in all; 0 if the registry doesn't say.", "model")
}

func opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: "modelgate", Name: name, Help: help}
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts(opts(name, help)), labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "modelgate", Name: name, Help: help, Buckets: buckets}, labels)
}

// Observe takes events from the Store and the Updater: pass it to both.
func (m *Metrics) Observe(e modelstore.Event) {
	model := e.Version.Model
	switch e.Kind {
	case modelstore.PhaseEnded:
		result := "ok"
		if e.Err != nil {
			result = "error"
		}
		m.phases.WithLabelValues(model, string(e.Phase), result).Observe(e.Duration.Seconds())
	case modelstore.CloseFailed:
		m.closeErrors.WithLabelValues(model).Inc()
	case modelstore.Checked:
		m.registryUp.WithLabelValues(model).Set(1)
		m.lastCheck.WithLabelValues(model).SetToCurrentTime()
	case modelstore.Progressed:
		m.fetched.WithLabelValues(model).Set(float64(e.Done))
		m.toFetch.WithLabelValues(model).Set(float64(e.Total))
	case modelstore.Compared:
		if e.Before > 0 {
			m.slowdown.WithLabelValues(model).Set(e.Duration.Seconds() / e.Before.Seconds())
		}
	case modelstore.CheckFailed:
		m.registryUp.WithLabelValues(model).Set(0)
	case modelstore.Decided:
		m.decided(e.Entry)
	}
}

func (m *Metrics) decided(e *modelstore.Entry) {
	m.decisions.WithLabelValues(e.Model, string(e.Outcome), e.Code).Inc()
	if e.Code == modelstore.CodeCondemned {
		m.condemned.WithLabelValues(e.Model).Inc()
	}
	switch e.Outcome {
	case modelstore.Swapped, modelstore.RolledBack, modelstore.Restored:
	default:
		return
	}
	m.version.WithLabelValues(e.Model).Set(float64(e.Candidate.Number))
	if e.Candidate.F1.Known {
		m.servingF1.WithLabelValues(e.Model).Set(e.Candidate.F1.Value)
	} else {
		m.servingF1.DeleteLabelValues(e.Model)
	}
}

// Batch notes that one run of a model has begun, with so many requests, each of which waited for so long.
func (m *Metrics) Batch(model string, requests int, waits []time.Duration) {
	m.batchSize.WithLabelValues(model).Observe(float64(requests))
	for _, w := range waits {
		m.queue.WithLabelValues(model).Observe(w.Seconds())
	}
}

// Supervise is s with what happens to the processes of a model counted.
func (m *Metrics) Supervise(model string, s inference.Supervision) inference.Supervision {
	for _, c := range []engine.Cause{engine.Crashed, engine.Hung, engine.Killed} {
		m.deaths.WithLabelValues(model, string(c)) // 0, so that a first one shows as a rise
	}
	restarts, refused := m.restarts.WithLabelValues(model), m.refused.WithLabelValues(model)
	s.Died = func(c engine.Cause) { m.deaths.WithLabelValues(model, string(c)).Inc() }
	s.Restarted, s.Refused = restarts.Inc, refused.Inc
	return s
}

// request notes a prediction's end. model is "" if there is no such model, version if none answered.
func (m *Metrics) request(model, version string, code codes.Code, took time.Duration) {
	m.keepVersion(model, version)
	m.requests.WithLabelValues(model, version, code.String()).Inc()
	m.latency.WithLabelValues(model, version, code.String()).Observe(took.Seconds())
}

// keepVersion makes sure that only the last few versions of a model have series.
func (m *Metrics) keepVersion(model, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.versions[model]
	if version == "" || slices.Contains(kept, version) {
		return
	}
	kept = append(kept, version)
	if len(kept) > versionsMeasured {
		old := prometheus.Labels{"model": model, "version": kept[0]}
		m.requests.DeletePartialMatch(old)
		m.latency.DeletePartialMatch(old)
		kept = kept[1:]
	}
	m.versions[model] = kept
}

// inFlight counts a prediction in, and out when the function that it returns is called.
func (m *Metrics) inFlight(model string) func() {
	g := m.inflight.WithLabelValues(model)
	g.Inc()
	return g.Dec
}

// rpc notes the end of a call of a method that exists: grpc runs no interceptor for others.
func (m *Metrics) rpc(fullMethod string, code codes.Code, took time.Duration) {
	service, method := path.Split(fullMethod)
	service = strings.Trim(service, "/")
	m.rpcs.WithLabelValues(service, method, code.String()).Inc()
	m.rpcLatency.WithLabelValues(service, method).Observe(took.Seconds())
}

// hook notes what became of a delivery of the registry's webhook.
func (m *Metrics) hook(result string) { m.hooks.WithLabelValues(result).Inc() }

// uploadsHeld notes how many bytes of uploads are in memory.
func (m *Metrics) uploadsHeld(bytes int64) { m.uploads.Set(float64(bytes)) }
