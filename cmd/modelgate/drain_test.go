package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"modelgate/inference/engine/enginetest"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// testbed is a folder of models and the environment of gateways that serve it.
type testbed struct {
	dir string
	env []string
}

func newTestbed(t *testing.T) testbed {
	t.Helper()
	w := testbed{dir: t.TempDir()}
	w.env = []string{"HOME=" + w.dir, "PATH=" + os.Getenv("PATH"), "MODELGATE_ONNXRUNTIME=" + enginetest.Library(t), "MODELGATE_MODELS_DIR=" + w.models(),
		"MODELGATE_DATA_DIR=" + filepath.Join(w.dir, "data"), "MODELGATE_GRPC_ADDR=127.0.0.1:0", "MODELGATE_HTTP_ADDR=127.0.0.1:0"}
	if err := os.MkdirAll(filepath.Join(w.models(), "text"), 0o700); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w testbed) models() string { return filepath.Join(w.dir, "models") }

// serve starts a gateway that is killed when the test ends, if it hasn't ended by itself.
func (w testbed) serve(t *testing.T, args ...string) *process {
	t.Helper()
	p, err := start(w.env, w.dir, append([]string{"serve"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (w testbed) ready(t *testing.T, args ...string) *process {
	t.Helper()
	p := w.serve(t, args...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.awaitReady(ctx); err != nil {
		t.Fatalf("%v\n%s", err, p.log())
	}
	return p
}

// SIGTERM under load, at any moment of it: not ready any more, so that callers who heed it go elsewhere; whoever asked before is
// answered; exit code 0. MODELGATE_TERMS says how often.
func TestTerminateUnderLoad(t *testing.T) {
	w := newTestbed(t)
	if err := publish("1", filepath.Join(w.models(), "text", "1"), ""); err != nil {
		t.Fatal(err)
	}
	answered := int64(0)
	for n := range times(t, "MODELGATE_TERMS", 2) {
		// From the first answer on to a load that has run for a while.
		answered += terminateUnderLoad(t, w.ready(t, "--drain-delay", "1s"), int64(1+(n*97)%400))
		if t.Failed() {
			t.Fatalf("at the %dth SIGTERM", n+1)
		}
	}
	t.Logf("%d requests answered", answered)
}

// terminateUnderLoad sends SIGTERM once so many requests are answered, and requests until the health says that it isn't serving. It
// returns how many were answered.
func terminateUnderLoad(t *testing.T, p *process, after int64) int64 {
	t.Helper()
	conn, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()

	var answered atomic.Int64
	var workers sync.WaitGroup
	ctx, stopLoad := context.WithCancel(t.Context())
	defer stopLoad()
	enough := make(chan struct{}) // closed when the load runs, or nobody asks any more
	var once sync.Once
	ask := func(one func() error) {
		for ctx.Err() == nil {
			if err := one(); err != nil {
				t.Errorf("a request failed: %v", err)
				once.Do(func() { close(enough) })
				return
			}
			if answered.Add(1) >= after {
				once.Do(func() { close(enough) })
			}
		}
	}
	client := modelgatev1.NewPredictionServiceClient(conn)
	for range 4 {
		workers.Go(func() { ask(func() error { return overGRPC(client) }) })
		workers.Go(func() { ask(func() error { return overREST(p.http) }) })
	}
	<-enough
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.terminate(); err != nil {
		t.Fatal(err)
	}
	awaitNotServing(t, watch)
	stopLoad() // what a load balancer does
	workers.Wait()
	if err := p.wait(patience); err != nil {
		t.Errorf("it ended with %v\n%s", err, p.log())
	}
	return answered.Load()
}

// A request isn't bound to the load's context: what was begun has to be answered.
func overGRPC(c modelgatev1.PredictionServiceClient) error {
	_, err := c.Predict(context.Background(), &modelgatev1.PredictRequest{Model: "text", Text: proto.String("worst service ever")})
	return err
}

func overREST(addr string) error {
	r, err := http.Post("http://"+addr+"/v1/models/text:predict", "application/json", bytes.NewReader([]byte(`{"text": "worst service ever"}`)))
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, body)
	}
	return err
}

// A second signal doesn't wait for the end of the drain.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	w := newTestbed(t)
	if err := publish("1", filepath.Join(w.models(), "text", "1"), ""); err != nil {
		t.Fatal(err)
	}
	p := w.ready(t, "--drain-delay", "10m")
	conn, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.terminate(); err != nil {
		t.Fatal(err)
	}
	awaitNotServing(t, watch)
	if err := p.terminate(); err != nil {
		t.Fatal(err)
	}
	err = p.wait(patience)
	select {
	case <-p.ended:
	default:
		t.Fatalf("%v\n%s", err, p.log())
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v\n%s", err, p.log())
	}
}

func awaitNotServing(t *testing.T, watch grpc.ServerStreamingClient[grpc_health_v1.HealthCheckResponse]) {
	t.Helper()
	for {
		r, err := watch.Recv()
		if err != nil {
			t.Fatalf("watch the health: %v", err)
		}
		if r.GetStatus() == grpc_health_v1.HealthCheckResponse_NOT_SERVING {
			return
		}
	}
}
