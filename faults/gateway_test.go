package faults_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"modelgate/inference/engine/enginetest"
	"modelgate/modelstore"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// patience is far above what anything here takes on a busy machine.
const patience = 90 * time.Second

// program is the gateway: what MODELGATE_FAULTS_PROGRAM names, or built once, plain, as it is shipped.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("MODELGATE_FAULTS_PROGRAM"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(scratch, "modelgate")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/modelgate").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return path, nil
})

// scratch is a folder for the whole run.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	scratch = dir
	code := m.Run()
	stopMLflow()
	if err := seen.write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// environment is that of a gateway. Its requests may wait for as long as anybody does: on a busy machine one that stands still for a
// moment would refuse some, and where overload isn't the fault, a refusal is a failure.
func environment(t *testing.T, dir string) []string {
	t.Helper()
	// Without a PATH there is no ffmpeg, whose version would be asked for at every start, where nobody else wants to run.
	return []string{"HOME=" + dir, "MODELGATE_ONNXRUNTIME=" + enginetest.Library(t), "MODELGATE_ISOLATION=process",
		"MODELGATE_DATA_DIR=" + filepath.Join(dir, "data"), "MODELGATE_GRPC_ADDR=127.0.0.1:0", "MODELGATE_HTTP_ADDR=127.0.0.1:0",
		"MODELGATE_BATCH_MAX_WAIT=30s", "MODELGATE_LOG_LEVEL=debug", "MODELGATE_UPDATE_INTERVAL=200ms", "MODELGATE_DRAIN_TIMEOUT=5s"}
}

// A gateway is a `modelgate serve` in a process of its own.
type gateway struct {
	t          *testing.T
	cmd        *exec.Cmd
	grpc, http string        // where it listens; set once listening is closed
	listening  chan struct{} // closed when it listens, or has ended
	ended      chan struct{} // closed when it has ended
	err        error         // how it ended; set once ended is closed

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

// start runs `modelgate serve ARGS`, under the command in wrap if there is one, and waits until it listens. It is killed when the
// test ends, if it hasn't ended by itself.
func (b *bed) start(args ...string) *gateway {
	b.t.Helper()
	g := b.launch(nil, args...)
	select {
	case <-g.listening:
	case <-time.After(patience):
		b.t.Fatalf("the gateway doesn't listen after %v\n%s", patience, g.log())
	}
	if g.grpc == "" {
		b.t.Fatalf("the gateway ended: %v\n%s", g.err, g.log())
	}
	return g
}

// launch doesn't wait.
func (b *bed) launch(wrap []string, args ...string) *gateway {
	b.t.Helper()
	exe, err := program()
	if err != nil {
		b.t.Fatal(err)
	}
	line := append(append(append([]string{}, wrap...), exe, "serve"), args...)
	g := &gateway{t: b.t, listening: make(chan struct{}), ended: make(chan struct{})}
	g.cmd = exec.Command(line[0], line[1:]...)
	g.cmd.Env, g.cmd.Dir, g.cmd.SysProcAttr = b.env, b.dir, &syscall.SysProcAttr{Setpgid: true}
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go g.follow(stderr)
	b.t.Cleanup(g.kill)
	return g
}

// follow reads the log until the process has ended.
func (g *gateway) follow(stderr io.Reader) {
	found := false
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		g.mu.Lock()
		g.out.Write(append(lines.Bytes(), '\n'))
		g.mu.Unlock()
		var l struct{ Msg, GRPC, HTTP string }
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "listening" && !found {
			g.grpc, g.http, found = l.GRPC, l.HTTP, true
			close(g.listening)
		}
	}
	g.err = g.cmd.Wait()
	close(g.ended)
	if !found {
		close(g.listening)
	}
}

func (g *gateway) log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out.String()
}

// kill ends the gateway, and what it runs under, with SIGKILL, and waits until it is gone.
func (g *gateway) kill() {
	select {
	case <-g.ended:
		return
	default:
	}
	_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	<-g.ended
}

// terminate ends the gateway with SIGTERM; it has to end well.
func (g *gateway) terminate() {
	g.t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	select {
	case <-g.ended:
	case <-time.After(patience):
		g.t.Fatalf("it did not end within %v of SIGTERM\n%s", patience, g.log())
	}
	if g.err != nil {
		g.t.Errorf("after SIGTERM it ended with %v\n%s", g.err, g.log())
	}
}

// models asks the gateway's own API.
func (g *gateway) models() (modelgatev1.ModelServiceClient, func()) {
	g.t.Helper()
	conn, err := grpc.NewClient(g.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		g.t.Fatal(err)
	}
	return modelgatev1.NewModelServiceClient(conn), func() { _ = conn.Close() }
}

// await waits until the text model is as wanted. what says it for people.
func (g *gateway) await(what string, wanted func(*modelgatev1.Model) bool) {
	g.t.Helper()
	client, leave := g.models()
	defer leave()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	watch, err := client.WatchModels(ctx, &modelgatev1.WatchModelsRequest{})
	if err != nil {
		g.t.Fatal(err)
	}
	last := "nothing"
	for {
		r, err := watch.Recv()
		if err != nil {
			g.t.Fatalf("wait for %s: %v; the last state was %s\n%s", what, err, last, g.log())
		}
		if m := r.GetModel(); m.GetName() == "text" && wanted(m) {
			return
		}
		last = r.String()
	}
}

// serves waits until version n serves.
func (g *gateway) serves(n int) {
	g.t.Helper()
	g.await(fmt.Sprintf("version %d", n), func(m *modelgatev1.Model) bool { return m.GetActive().GetVersion() == strconv.Itoa(n) })
}

// decided waits until the newest decision about version n has that code.
func (g *gateway) decided(n int, code string) *modelgatev1.LedgerEntry {
	g.t.Helper()
	var d *modelgatev1.LedgerEntry
	g.await(fmt.Sprintf("%s about version %d", code, n), func(m *modelgatev1.Model) bool {
		d = m.GetLastDecision()
		return d.GetCandidate().GetVersion() == strconv.Itoa(n) && d.GetCode() == code
	})
	return d
}

// metric is the sum of the samples of a metric whose labels hold all of these, such as `model="text"`.
func (g *gateway) metric(name string, labels ...string) float64 {
	g.t.Helper()
	resp, err := http.Get("http://" + g.http + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	sum := 0.0
lines:
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, name); !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(line, l) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			g.t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// peak is the most memory that the gateway ever had, in bytes, its workers apart.
func (g *gateway) peak() int64 {
	g.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return kb << 10
		}
	}
	g.t.Fatal("no VmHWM")
	return 0
}

// dial connects for predictions.
func dial(t *testing.T, g *gateway) (*grpc.ClientConn, modelgatev1.PredictionServiceClient) {
	t.Helper()
	conn, err := grpc.NewClient(g.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return conn, modelgatev1.NewPredictionServiceClient(conn)
}

// savedVersion is the version that the state on disk says serves; 0 if there is no state.
func savedVersion(data string) (int, error) {
	content, err := os.ReadFile(filepath.Join(data, "state", "text.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var f struct{ State json.RawMessage }
	if err := json.Unmarshal(content, &f); err != nil {
		return 0, err
	}
	var s modelstore.Saved
	err = json.Unmarshal(f.State, &s)
	return int(s.Active.Number), err
}

// refresh has the gateway look at the registry now, and waits until it has. Whether that went well is not its matter.
func (g *gateway) refresh() {
	g.t.Helper()
	client, leave := g.models()
	defer leave()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, _ = client.Refresh(ctx, &modelgatev1.RefreshRequest{Model: "text"})
}

// awaitFailure waits until version n was tried and couldn't be had, and returns why.
func (g *gateway) awaitFailure(n int) (why string) {
	g.t.Helper()
	g.await(fmt.Sprintf("a failure of version %d", n), func(m *modelgatev1.Model) bool {
		d := m.GetLastDecision()
		why = d.GetReason()
		return d.GetCandidate().GetVersion() == strconv.Itoa(n) && d.GetOutcome() == "failed"
	})
	return why
}

// noFile sees that no file below the row's folder, or beside it, has that in its name.
func (b *bed) noFile(name string) {
	b.t.Helper()
	err := filepath.WalkDir(filepath.Dir(b.dir), func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.Contains(e.Name(), name) {
			b.t.Errorf("%s was written", path)
		}
		return err
	})
	if err != nil {
		b.t.Error(err)
	}
	for _, dir := range []string{"/", os.TempDir()} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			b.t.Errorf("%s was written", filepath.Join(dir, name))
		}
	}
}
