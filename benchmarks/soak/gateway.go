package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "modelgate/proto/modelgate/v1"
)

// patience is far above what anything here takes on a busy machine.
const patience = 2 * time.Minute

// A gateway is `modelgate serve` in a process of its own, over a folder of models.
type gateway struct {
	dir    string // everything of it is below
	cmd    *exec.Cmd
	http   string
	conn   *grpc.ClientConn
	client pb.PredictionServiceClient
	models pb.ModelServiceClient
	ended  chan struct{} // closed when the process has ended
	err    error         // how it ended; set once ended is closed

	mu     sync.Mutex   // guards all below
	log    bytes.Buffer // what it said last
	phases []phase      // of its versions, in their order; none where its log level leaves them out
}

// A phase of a version has ended.
type phase struct {
	Version, Phase string
	Seconds        float64
	Time           time.Time // of its end
}

// startGateway starts a gateway with an isolation over the models below dir/models, and waits until the models that it has serve. Two of
// different isolation may have one dir.
func startGateway(ctx context.Context, s settings, dir, isolation string, models ...string) (*gateway, error) {
	g := &gateway{dir: dir, ended: make(chan struct{})}
	g.cmd = exec.Command(s.program, "serve", "--models", filepath.Join(dir, "models"), "--isolation", isolation) //nolint:gosec,noctx // close ends it
	g.cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "MODELGATE_ONNXRUNTIME=" + s.library, "MODELGATE_DATA_DIR=" + filepath.Join(dir, "data-"+isolation), "MODELGATE_CACHE_DIR=" + filepath.Join(dir, "cache"),
		"MODELGATE_GRPC_ADDR=127.0.0.1:0", "MODELGATE_HTTP_ADDR=127.0.0.1:0", "MODELGATE_LOG_FORMAT=json", "MODELGATE_LOG_LEVEL=" + s.logLevel, "MODELGATE_UPDATE_INTERVAL=1h"}
	// Its own group: what a terminal sends to us isn't for it. Killed with SIGKILL, we leave it behind.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	listening := make(chan string, 1)
	go g.follow(stderr, listening)
	select {
	case addr, ok := <-listening:
		if !ok {
			return nil, fmt.Errorf("the gateway ended: %w\n%s", g.err, g.said())
		}
		if g.conn, err = grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			return nil, errors.Join(err, g.close())
		}
	case <-time.After(patience):
		return nil, errors.Join(fmt.Errorf("the gateway doesn't listen after %v\n%s", patience, g.said()), g.close())
	}
	g.client, g.models = pb.NewPredictionServiceClient(g.conn), pb.NewModelServiceClient(g.conn)
	for _, model := range models {
		if err := g.refresh(ctx, model, 1); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	return g, nil
}

// follow reads the log until the process has ended.
func (g *gateway) follow(stderr io.Reader, listening chan<- string) {
	defer close(listening)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		g.mu.Lock()
		if g.log.Len() > 1<<20 {
			g.log.Reset()
		}
		g.log.Write(append(lines.Bytes(), '\n'))
		g.mu.Unlock()
		var l struct {
			phase
			Msg, GRPC, HTTP string
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue
		}
		switch l.Msg {
		case "listening":
			g.http = l.HTTP
			listening <- l.GRPC
		case "phase":
			g.mu.Lock()
			g.phases = append(g.phases, l.phase)
			g.mu.Unlock()
		}
	}
	g.err = g.cmd.Wait()
	close(g.ended)
}

func (g *gateway) said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.log.String()
	return all[max(0, len(all)-4<<10):]
}

// close ends the gateway, which must end well.
func (g *gateway) close() error {
	var err error
	if g.conn != nil {
		err = g.conn.Close()
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-g.ended:
	case <-time.After(patience):
		_ = g.cmd.Process.Kill()
		<-g.ended
	}
	if g.err != nil {
		err = errors.Join(err, fmt.Errorf("the gateway ended with %w\n%s", g.err, g.said()))
	}
	return err
}

// publish puts version n of a model into the folder of models, whole, with a better F1 than that of the version before.
func publish(dir, model string, n int, write func(dir string) error) error {
	models := filepath.Join(dir, "models", model)
	staged := filepath.Join(models, ".staged")
	if err := write(staged); err != nil {
		return err
	}
	f1 := fmt.Appendf(nil, `{"eval_f1": %.6f}`, 0.8+float64(n)*1e-5)
	if err := os.WriteFile(filepath.Join(staged, "metrics.json"), f1, 0o600); err != nil {
		return err
	}
	return os.Rename(staged, filepath.Join(models, strconv.Itoa(n)))
}

// refresh has the gateway look at the folder; version n must serve then.
func (g *gateway) refresh(ctx context.Context, model string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := g.models.Refresh(ctx, &pb.RefreshRequest{Model: model})
	if err != nil {
		return fmt.Errorf("refresh %s: %w\n%s", model, err, g.said())
	}
	if got := r.GetModel().GetActive().GetVersion(); got != strconv.Itoa(n) {
		return fmt.Errorf("version %d of %s was not taken, %q serves: %s", n, model, got, r.GetModel().GetLastDecision().GetReason())
	}
	return nil
}

// metric is one number of /metrics.
func (g *gateway) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("the gateway has no metric %s", name)
}
