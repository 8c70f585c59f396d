package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"golang.org/x/sys/unix"

	"modelgate/inference/engine/enginetest"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// serveDeadly serves a version that the word "hate" kills.
func serveDeadly(t *testing.T) *process {
	t.Helper()
	w := newTestbed(t)
	dir := filepath.Join(w.models(), "text", "1")
	if err := (enginetest.TextBundle{Deadly: []string{"hate"}}).Write(dir); err != nil {
		t.Fatal(err)
	}
	rate(t, dir, 0.9)
	return w.ready(t, "--isolation", "process")
}

func rate(t *testing.T, dir string, f1 float64) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "metrics.json"), fmt.Appendf(nil, `{"eval_f1": %v}`, f1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A candidate that kills whoever loads it, or warms it up, is refused for good. What serves goes on.
func TestCandidateThatKills(t *testing.T) {
	one := func(v int64) enginetest.Tensor { return enginetest.Tensor{Shape: []int64{1}, Data: []int64{v}} }
	atLoad := func() *enginetest.Graph {
		return enginetest.DeadlyText(len(enginetest.Words())+2, 1).Init("least", one(math.MinInt64)).Init("minus", one(-1)).
			Node("Div", []string{"least", "minus"}, []string{"never"}).Output("never", enginetest.Int64, 1)
	}
	always := func() *enginetest.Graph { return enginetest.DeadlyText(len(enginetest.Words()) + 2) }
	for name, graph := range map[string]func() *enginetest.Graph{"load": atLoad, "warm-up": always} {
		t.Run(name, func(t *testing.T) {
			w := newTestbed(t)
			if err := publish("1", filepath.Join(w.models(), "text", "1"), "0.8"); err != nil {
				t.Fatal(err)
			}
			p := w.ready(t, "--isolation", "process")
			next := filepath.Join(w.dir, "next")
			if err := (enginetest.TextBundle{}).Write(next); err != nil {
				t.Fatal(err)
			}
			if err := graph().WriteFile(filepath.Join(next, "model.onnx")); err != nil {
				t.Fatal(err)
			}
			rate(t, next, 0.99)
			if err := os.Rename(next, filepath.Join(w.models(), "text", "2")); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := p.await(ctx, func(m *modelgatev1.Model) bool {
				d := m.GetLastDecision()
				return d.GetCandidate().GetVersion() == "2" && d.GetCode() == "quarantined" && m.GetActive().GetVersion() == "1" && strings.Contains(d.String(), "SIGFPE")
			})
			if err != nil {
				t.Fatalf("%v\n%s", err, p.log())
			}
			conn, err := p.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := say(modelgatev1.NewPredictionServiceClient(conn), "nice day"); err != nil {
				t.Error(err)
			}
		})
	}
}

// workerOf is the process that p started, of which there is one.
func workerOf(t *testing.T, p *process) int {
	t.Helper()
	list, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", p.cmd.Process.Pid))
	all := string(list)
	tasks, globErr := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil || globErr != nil {
		t.Fatal(err, globErr)
	}
	for _, path := range tasks {
		if more, err := os.ReadFile(path); err == nil {
			all += " " + string(more)
		}
	}
	for _, field := range strings.Fields(all) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		if line, err := os.ReadFile("/proc/" + field + "/cmdline"); err == nil && strings.Contains(string(line), "\x00worker\x00") {
			return pid
		}
	}
	return 0
}

func say(c modelgatev1.PredictionServiceClient, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := c.Predict(ctx, &modelgatev1.PredictRequest{Model: "text", Text: proto.String(text)})
	return err
}

// Under load a request kills the worker, again and again, and so does somebody with kill -9. Only that request fails. When the gateway
// is killed, its worker is gone too.
func TestIsolation(t *testing.T) {
	p := serveDeadly(t)
	conn, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := modelgatev1.NewPredictionServiceClient(conn)
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var answered atomic.Int64
	for i := range 8 {
		callers.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				if err := say(client, strings.Repeat("a good film ", 1+n%4)); err != nil {
					t.Errorf("a harmless request: %v", err)
					return
				}
				answered.Add(1)
			}
		})
	}
	for range 3 {
		if err := say(client, "they hate this film"); status.Code(err) != codes.Internal {
			t.Errorf("a request that kills: %v, want INTERNAL", err)
		}
		if pid := workerOf(t, p); pid != 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if err := say(client, "nice day"); err != nil {
			t.Errorf("after a kill: %v", err)
		}
	}
	stop()
	callers.Wait()
	t.Logf("%d harmless requests answered", answered.Load())
	pid := workerOf(t, p)
	fd, err := unix.PidfdOpen(pid, 0)
	if pid == 0 || err != nil {
		t.Fatalf("worker %d: %v\n%s", pid, err, p.log())
	}
	defer func() { _ = unix.Close(fd) }()
	p.kill()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((10 * time.Second).Milliseconds())); n != 1 {
		t.Errorf("worker %d outlives the gateway: %v", pid, err)
	}
}
