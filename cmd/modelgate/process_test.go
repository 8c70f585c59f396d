package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// patience is far above what anything here takes on a busy machine.
const patience = 60 * time.Second

// process is a gateway in a process of its own: this binary under the name modelgate.
type process struct {
	cmd        *exec.Cmd
	grpc, http string        // where it listens; set once listening is closed
	listening  chan struct{} // closed when it listens, or has ended
	ended      chan struct{} // closed when it has ended
	err        error         // how it ended; set once ended is closed

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

// start runs a command of the program. It has a process group of its own, so that it doesn't get the signals that we get.
func start(env []string, dir string, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if isolation := os.Getenv("MODELGATE_ISOLATION"); isolation != "" { // make test-in-process
		env = append(slices.Clip(env), "MODELGATE_ISOLATION="+isolation)
	}
	p := &process{listening: make(chan struct{}), ended: make(chan struct{})}
	p.cmd = &exec.Cmd{Path: exe, Args: append([]string{"modelgate"}, args...), Env: env, Dir: dir, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.follow(stderr)
	return p, nil
}

// follow reads the log until the process has ended.
func (p *process) follow(stderr io.Reader) {
	found := false
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		p.mu.Lock()
		p.out.Write(append(lines.Bytes(), '\n'))
		p.mu.Unlock()
		var l struct{ Msg, GRPC, HTTP string }
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "listening" && !found {
			p.grpc, p.http, found = l.GRPC, l.HTTP, true
			close(p.listening)
		}
	}
	p.err = p.cmd.Wait()
	close(p.ended)
	if !found {
		close(p.listening)
	}
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func (p *process) terminate() error { return p.cmd.Process.Signal(syscall.SIGTERM) }

// kill ends the process at once, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

func (p *process) wait(limit time.Duration) error {
	select {
	case <-p.ended:
		return p.err
	case <-time.After(limit):
		return fmt.Errorf("it did not end within %v", limit)
	}
}

func (p *process) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// awaitReady waits until health says SERVING.
func (p *process) awaitReady(ctx context.Context) error {
	select {
	case <-p.listening:
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.grpc == "" {
		return fmt.Errorf("the gateway ended: %w", p.err)
	}
	conn, err := p.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	for {
		r, err := watch.Recv()
		if err != nil {
			return fmt.Errorf("wait for readiness: %w", err)
		}
		if r.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return nil
		}
	}
}

// await waits until some model is as wanted.
func (p *process) await(ctx context.Context, wanted func(*modelgatev1.Model) bool) error {
	conn, err := p.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	watch, err := modelgatev1.NewModelServiceClient(conn).WatchModels(ctx, &modelgatev1.WatchModelsRequest{})
	if err != nil {
		return err
	}
	last := "nothing"
	for {
		r, err := watch.Recv()
		if err != nil {
			return errors.Join(fmt.Errorf("wait for a change: %w", err), errors.New("the last one was "+last))
		}
		if wanted(r.GetModel()) {
			return nil
		}
		last = r.String()
	}
}
