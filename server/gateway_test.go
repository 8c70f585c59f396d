package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"

	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/worker/workertest"
	"modelgate/inference/video"
	"modelgate/modelstore"
	"modelgate/modelstore/dir"
	"modelgate/modelstore/disk"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

func TestMain(m *testing.M) {
	workertest.BeWorker()
	goleak.VerifyTestMain(m)
}

// A faulty engine is ONNX Runtime with a hook before and after each run.
type faulty struct {
	engine.Engine
	mu     sync.Mutex
	before func(ctx context.Context) error
	after  func([]engine.Tensor)
}

func (f *faulty) hook(before func(context.Context) error, after func([]engine.Tensor)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *faulty) Open(ctx context.Context, path string, o engine.Options) (engine.Session, error) {
	s, err := f.Engine.Open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	return &faultySession{s, f}, nil
}

type faultySession struct {
	engine.Session
	f *faulty
}

func (s *faultySession) Live(ctx context.Context) error {
	if c, ok := s.Session.(engine.Candidate); ok {
		return c.Live(ctx)
	}
	return nil
}

func (s *faultySession) Run(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	s.f.mu.Lock()
	before, after := s.f.before, s.f.after
	s.f.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return nil, err
		}
	}
	out, err := s.Session.Run(ctx, in)
	if err == nil && after != nil {
		after(out)
	}
	return out, err
}

// A gateway is a whole one: folder source, disk cache, ONNX Runtime, updater, server.
type gateway struct {
	t       testing.TB
	dir     string // the models
	engine  *faulty
	store   *modelstore.Store[*inference.Model]
	updater *modelstore.Updater
	server  *server.Server
	reg     *prometheus.Registry
	metrics *server.Metrics
	log     *logBuffer

	conn    *grpc.ClientConn
	predict pb.PredictionServiceClient
	models  pb.ModelServiceClient
	health  healthpb.HealthClient
	url     string

	stop context.CancelFunc
	done chan error
}

// config is what a test can change about a gateway.
type config struct {
	options  server.Options
	models   []modelstore.ModelConfig
	versions []version // published before the start
	maxQueue int
	maxWait  time.Duration
	workers  int
	dial     grpc.DialOption
	scheme   string
	discover func(context.Context) ([]modelstore.ModelConfig, error)
	decoder  *video.Decoder
	positive map[string]string // positive labels by model; where there is no entry it is "positive"
	lame     bool              // don't wait until it is ready
}

// version is one to publish.
type version struct {
	model  string
	number int
	f1     float64
	bundle interface{ Write(dir string) error }
}

func text(number int, f1 float64) version {
	return version{"text", number, f1, enginetest.TextBundle{Seed: 1, Shift: float32(number)}}
}

func defaults() config {
	return config{
		options:  server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Version: "test"},
		models:   []modelstore.ModelConfig{{Name: "text"}, {Name: "video"}},
		versions: []version{text(1, 0.8)},
		dial:     grpc.WithTransportCredentials(insecure.NewCredentials()), scheme: "http",
	}
}

func start(t testing.TB, change ...func(*config)) *gateway {
	t.Helper()
	c := defaults()
	for _, f := range change {
		f(&c)
	}
	g := &gateway{t: t, dir: t.TempDir(), engine: &faulty{}, reg: prometheus.NewRegistry(), log: &logBuffer{}, done: make(chan error, 2)}
	for _, v := range c.versions {
		g.publish(v)
	}
	g.wire(c)
	g.dialTo(c)
	if !c.lame {
		g.await("", healthpb.HealthCheckResponse_SERVING)
	}
	return g
}

// wire builds what main builds.
func (g *gateway) wire(c config) {
	t := g.t
	t.Helper()
	g.engine.Engine = workertest.Engine(t, slog.New(slog.NewTextHandler(g.log, nil)))
	log := slog.New(slog.NewTextHandler(g.log, nil))
	metrics, err := server.NewMetrics(g.reg)
	must(t, err)
	g.metrics = metrics
	threshold := 0.5
	load := func(ctx context.Context, b modelstore.Bundle) (*inference.Model, error) {
		positive, other := c.positive[b.Version.Model]
		if !other {
			positive = "positive"
		}
		return inference.Open(ctx, b.Dir, g.engine, inference.Options{Supervision: metrics.Supervise(b.Version.Model, inference.Supervision{}), MaxQueue: c.maxQueue, MaxWait: c.maxWait, Workers: c.workers, PositiveLabel: positive, Threshold: &threshold, Decoder: c.decoder,
			Observed: func(n int, waits []time.Duration) { metrics.Batch(b.Version.Model, n, waits) }})
	}
	g.store = modelstore.New(load, modelstore.StoreOptions{KeepPrevious: time.Minute, DrainTimeout: 10 * time.Second, Observe: metrics.Observe})
	src, err := dir.New(dir.Options{Dir: g.dir})
	must(t, err)
	cache, err := disk.OpenCache(t.TempDir(), disk.CacheOptions{})
	must(t, err)
	data, err := disk.OpenData(t.TempDir(), disk.DataOptions{})
	must(t, err)
	g.updater = modelstore.NewUpdater(src, g.store, cache, data, modelstore.UpdaterOptions{Models: c.models, Discover: c.discover,
		Interval: time.Hour, Observe: metrics.Observe, Logger: log})
	c.options.Logger, c.options.Metrics, c.options.Gatherer = log, metrics, g.reg
	g.server, err = server.New(c.options, g.store, g.updater)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	g.stop = cancel
	var updating sync.WaitGroup
	updating.Go(func() { must(t, g.updater.Run(ctx)) })
	go func() { g.done <- g.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-g.done; err != nil {
			t.Errorf("the server ended with: %v", err)
		}
		updating.Wait()
		must(t, errors.Join(g.store.Close(context.Background()), data.Close(), src.Close()))
	})
}

func (g *gateway) dialTo(c config) {
	g.t.Helper()
	conn, err := grpc.NewClient(g.server.GRPCAddr().String(), c.dial)
	must(g.t, err)
	g.t.Cleanup(func() { _ = conn.Close() })
	g.conn, g.url = conn, c.scheme+"://"+g.server.HTTPAddr().String()
	g.predict, g.models, g.health = pb.NewPredictionServiceClient(conn), pb.NewModelServiceClient(conn), healthpb.NewHealthClient(conn)
}

// end stops the server and returns what Run returned.
func (g *gateway) end() error {
	g.stop()
	err := <-g.done
	g.done <- nil // for the clean-up
	return err
}

// publish puts a version where the source finds it, whole, by rename.
func (g *gateway) publish(v version) {
	g.t.Helper()
	tmp := filepath.Join(g.dir, v.model, ".partial")
	must(g.t, v.bundle.Write(tmp))
	must(g.t, os.WriteFile(filepath.Join(tmp, "metrics.json"), []byte(fmt.Sprintf(`{"eval_f1": %v}`, v.f1)), 0o600))
	must(g.t, os.Rename(tmp, filepath.Join(g.dir, v.model, strconv.Itoa(v.number))))
}

// await returns when the health of a service is want.
func (g *gateway) await(service string, want healthpb.HealthCheckResponse_ServingStatus) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	w, err := g.health.Watch(ctx, &healthpb.HealthCheckRequest{Service: service})
	must(g.t, err)
	for {
		st, err := w.Recv()
		if err != nil {
			g.t.Fatalf("%q did not become %v: %v\n%s", service, want, err, g.log)
		}
		if st.GetStatus() == want {
			return
		}
	}
}

// answer is an HTTP answer.
type answer struct {
	code   int
	header http.Header
	raw    string
	json   map[string]any
}

// call makes an HTTP call; change may change the request.
func (g *gateway) call(method, path, body string, change ...func(*http.Request)) answer {
	g.t.Helper()
	return g.callWith(http.DefaultClient, method, path, body, change...)
}

func (g *gateway) callWith(client *http.Client, method, path, body string, change ...func(*http.Request)) answer {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, bytes.NewBufferString(body))
	must(g.t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, f := range change {
		f(req)
	}
	resp, err := client.Do(req)
	must(g.t, err)
	raw, err := io.ReadAll(resp.Body)
	must(g.t, errors.Join(err, resp.Body.Close()))
	a := answer{code: resp.StatusCode, header: resp.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.json) // not every answer is JSON
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const serving, notServing = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING

func ptr[T any](v T) *T { return &v }

// logBuffer is a log that tests can read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// rawCodec sends and receives bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("a %T is not bytes", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a %T is not bytes", v)
	}
	*b = data.Materialize()
	return nil
}

func (rawCodec) Name() string { return "proto" }

func grpcRaw() grpc.CallOption { return grpc.ForceCodecV2(rawCodec{}) }
