package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"modelgate/inference/video"
)

// clipMetrics are those of what decodes clips for all models.
type clipMetrics struct {
	waiting, decoding prometheus.Gauge
	shared            prometheus.Counter
	wait              prometheus.Histogram
	decode            *prometheus.HistogramVec
}

func newClipMetrics() clipMetrics {
	c := clipMetrics{
		waiting:  prometheus.NewGauge(prometheus.GaugeOpts(opts("clips_waiting", "Clips that wait for their turn to be decoded."))),
		decoding: prometheus.NewGauge(prometheus.GaugeOpts(opts("clips_decoding", "Clips being decoded."))),
		shared: prometheus.NewCounter(prometheus.CounterOpts(opts("decodes_shared_total",
			"Clips that were not decoded because the same one was being decoded, or waited for it, already."))),
		decode: histogram("decode_duration_seconds", "Time that a clip's decoding took, by outcome (ok, bad_clip, timeout, cancelled, error).",
			[]float64{.005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 30, 60}, "outcome"),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "modelgate", Name: "decode_queue_duration_seconds",
			Help: "Time that a clip waited for its turn to be decoded.", Buckets: []float64{.0001, .001, .01, .05, .1, .5, 1, 5, 10, 30, 60}}),
	}
	for _, o := range video.Outcomes() { // so that rates are right from the first one on
		c.decode.WithLabelValues(string(o))
	}
	return c
}

func (c clipMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{c.waiting, c.decoding, c.shared, c.decode, c.wait}
}

// Clip takes events from the Decoder: pass it to that.
func (m *Metrics) Clip(e video.Event) {
	c := m.clips
	switch e.Kind {
	case video.Queued:
		c.waiting.Inc()
	case video.Shared:
		c.shared.Inc()
	case video.Began:
		c.waiting.Dec()
		c.decoding.Inc()
		c.wait.Observe(e.Took.Seconds())
	case video.Left:
		c.waiting.Dec()
		c.wait.Observe(e.Took.Seconds())
	case video.Ended:
		c.decoding.Dec()
		c.decode.WithLabelValues(string(e.Outcome)).Observe(e.Took.Seconds())
	}
}
