package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"golang.org/x/sys/unix"

	"modelgate/inference/engine/enginetest"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// deadlyVersion writes a version of the text model that some words kill, or none, as folder.
func deadlyVersion(t *testing.T, folder string, f1 float64, words ...string) {
	t.Helper()
	tmp := filepath.Join(filepath.Dir(folder), ".new-"+filepath.Base(folder))
	if err := (enginetest.TextBundle{Deadly: words}).Write(tmp); err != nil {
		t.Fatal(err)
	}
	rate(t, tmp, f1)
	if err := os.Rename(tmp, folder); err != nil {
		t.Fatal(err)
	}
}

// serveDeadly serves a version that the word "hate" kills, isolated by default.
func serveDeadly(t *testing.T) *process {
	t.Helper()
	w := newTestbed(t)
	deadlyVersion(t, filepath.Join(w.models(), "text", "1"), 0.9, "hate")
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

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func modelOf(t *testing.T, conn *grpc.ClientConn) *modelgatev1.Model {
	t.Helper()
	r, err := modelgatev1.NewModelServiceClient(conn).GetModel(t.Context(), &modelgatev1.GetModelRequest{Model: "text"})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetModel()
}

// Three different inputs that kill, among many that don't, and the version before serves again by itself. Nobody but the three fails;
// ledger, metrics and status say what happened. A worker killed by hand is charged to nobody.
func TestKillersBringBackTheVersionBefore(t *testing.T) {
	for name, standby := range map[string]string{"from memory": "10m", "from the cache": "0s"} {
		t.Run(name, func(t *testing.T) {
			w := newTestbed(t)
			deadlyVersion(t, filepath.Join(w.models(), "text", "1"), 0.8)
			p := w.ready(t, "--isolation", "process", "--keep-previous", standby)
			deadlyVersion(t, filepath.Join(w.models(), "text", "2"), 0.9, "hate", "awful", "sad")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			until := func(wanted func(*modelgatev1.Model) bool) {
				t.Helper()
				if err := p.await(ctx, wanted); err != nil {
					t.Fatalf("%v\n%s", err, p.log())
				}
			}
			until(func(m *modelgatev1.Model) bool { return m.GetActive().GetVersion() == "2" })
			conn, err := p.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			client := modelgatev1.NewPredictionServiceClient(conn)
			calm := harmless(t, client)
			if pid := workerOf(t, p); name == "from the cache" && pid != 0 { // of the one version in memory
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			for i, text := range []string{"they hate this film", "awful", "a sad day"} {
				if m := modelOf(t, conn); m.GetActive().GetVersion() != "2" || m.GetWorker().GetKillers() != int64(i) {
					t.Errorf("before killer %d: %v", i+1, m)
				}
				if err := say(client, text); status.Code(err) != codes.Internal {
					t.Errorf("%q: %v, want INTERNAL", text, err)
				}
			}
			until(func(m *modelgatev1.Model) bool {
				return m.GetActive().GetVersion() == "1" && m.GetState() == modelgatev1.ModelState_MODEL_STATE_SERVING
			})
			if err := say(client, "they hate this film"); err != nil {
				t.Errorf("what killed version 2, of version 1: %v", err)
			}
			calm()
			m := modelOf(t, conn)
			if q := m.GetQuarantined(); len(q) != 1 || q[0].GetVersion() != "2" || !strings.Contains(q[0].GetWhy(), "3 different inputs") {
				t.Errorf("in quarantine: %v", q)
			}
			checkCondemned(t, p, conn)
		})
	}
}

// harmless keeps asking until what it returns is called. No request may fail.
func harmless(t *testing.T, client modelgatev1.PredictionServiceClient) (end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var answered atomic.Int64
	loaded := make(chan struct{})
	for i := range 8 {
		callers.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				if err := say(client, strings.Repeat("a good film ", 1+n%4)); err != nil {
					t.Errorf("a harmless request: %v", err)
				}
				if answered.Add(1) == 50 {
					close(loaded)
				}
			}
		})
	}
	<-loaded
	return func() {
		stop()
		callers.Wait()
		t.Logf("%d harmless requests answered", answered.Load())
	}
}

// checkCondemned looks at the ledger and the metrics after one version was condemned.
func checkCondemned(t *testing.T, p *process, conn *grpc.ClientConn) {
	t.Helper()
	r, err := modelgatev1.NewModelServiceClient(conn).History(t.Context(), &modelgatev1.HistoryRequest{Model: "text"})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, e := range r.GetEntries() {
		if e.GetCode() == "condemned" && e.GetActor() == "supervisor" && e.GetOutcome() == "rolled_back" && e.GetActive().GetVersion() == "2" && e.GetCandidate().GetVersion() == "1" {
			found++
		}
	}
	if found != 1 {
		t.Errorf("the ledger tells of it %d times: %v", found, r)
	}
	resp, err := http.Get("http://" + p.http + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`modelgate_versions_condemned_total{model="text"} 1`, `modelgate_worker_deaths_total{cause="crashed",model="text"} `,
		`modelgate_worker_deaths_total{cause="hung",model="text"} 0`, `modelgate_worker_restarts_total{model="text"} `, `modelgate_refused_inputs_total{model="text"} 0`} {
		if !strings.Contains(string(all), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
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
	for i := range 3 {
		killer := strings.Repeat("they hate this film ", 1+i)
		for n, reason := range []string{"MODEL_FAILED", "INPUT_ENDED_WORKER", "INPUT_ENDED_WORKER"} {
			if err := say(client, killer); status.Code(err) != codes.Internal || reasonOf(err) != reason {
				t.Errorf("a request that kills, time %d: %v (%s), want INTERNAL (%s)", n+1, err, reasonOf(err), reason)
			}
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
	m := modelOf(t, conn)
	if w := m.GetWorker(); w.GetKillers() != 3 || w.GetRefused() != 3 || w.GetDeaths() < 6 || m.GetActive().GetVersion() != "1" {
		t.Errorf("%v: want version 1, which 3 inputs ended and 3 kills by hand", m)
	}
	if d := m.GetLastDecision(); d.GetCode() != "last_good_version" || d.GetActor() != "supervisor" || d.GetOutcome() != "noted" {
		t.Errorf("the newest decision is %v, want that the last good version stays", d)
	}
	r, err := modelgatev1.NewModelServiceClient(conn).History(t.Context(), &modelgatev1.HistoryRequest{Model: "text"})
	if err != nil {
		t.Fatal(err)
	}
	charged := 0
	for _, e := range r.GetEntries() {
		if e.GetCode() == "charged" && e.GetActor() == "supervisor" && e.GetOutcome() == "noted" && strings.Contains(e.GetReason(), "SIGFPE") {
			charged++
		}
	}
	if charged != 2 {
		t.Errorf("the ledger tells of %d inputs that were charged, want those before the last good version was found to stay: %v", charged, r)
	}
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
