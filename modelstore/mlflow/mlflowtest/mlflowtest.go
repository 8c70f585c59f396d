// Package mlflowtest starts real MLflow servers for tests.
package mlflowtest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A Server keeps everything in a folder of its own.
type Server struct {
	URL  string // http://127.0.0.1:port
	stop func()
}

// Stop ends the server and removes its folder.
func (s *Server) Stop() { s.stop() }

// Options say which server.
type Options struct {
	Venv    string   // its virtual environment in .cache; "" means "venv", which is MLflow 3
	Target  string   // what makes that; "" means "make python"
	Env     []string // beside that of the test
	Storage []string // flags that say where artifacts are; nil means in its folder, through its proxy
}

// Bin finds a program of a virtual environment in the checkout's .cache, from the test's folder upwards.
func Bin(venv, program, target string) (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		bin := filepath.Join(dir, ".cache", venv, "bin", program)
		if _, serr := os.Stat(bin); serr == nil {
			return bin, nil
		}
	}
	return "", errors.Join(fmt.Errorf(".cache/%s/bin/%s is missing: run `%s`", venv, program, target), err)
}

// Start runs a server until Stop.
func Start(o Options) (*Server, error) {
	if o.Venv == "" {
		o.Venv, o.Target = "venv", "make python"
	}
	bin, err := Bin(o.Venv, "mlflow", o.Target)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mlflow-test-")
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ { // another program may take the port first
		url, stop, err := startOnce(bin, dir, o)
		if err == nil {
			return &Server{url, func() { stop(); _ = os.RemoveAll(dir) }}, nil
		}
		if try == 2 {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
}

func startOnce(bin, dir string, o Options) (url string, stop func(), err error) {
	storage := o.Storage
	if len(storage) == 0 {
		storage = []string{"--artifacts-destination", filepath.Join(dir, "artifacts"), "--serve-artifacts"}
	}
	addr, port, err := freeAddr()
	if err != nil {
		return "", nil, err
	}
	// The shell leads a process group and ends it when its standard input does, thus also when this test dies.
	// Ending the mlflow command alone would leave its workers behind.
	cmd := exec.Command("sh", append([]string{"-c", `"$@" </dev/null & cat >/dev/null; kill -KILL 0`, "sh", //nolint:gosec,noctx // all of it is ours; it is ended by stop
		bin, "server", "--host", "127.0.0.1", "--port", port, "--workers", "1",
		"--backend-store-uri", "sqlite:///" + filepath.Join(dir, "mlflow.db")}, storage...)...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH")), o.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", nil, err
	}
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		_ = out.Close()
	}
	if err := healthy("http://" + addr); err != nil {
		stop()
		logs, _ := os.ReadFile(out.Name())
		return "", nil, fmt.Errorf("start %s: %w\n%s", bin, err, logs)
	}
	return "http://" + addr, stop, nil
}

func freeAddr() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return "", "", err
	}
	defer func() { _ = l.Close() }()
	_, port, err = net.SplitHostPort(l.Addr().String())
	return l.Addr().String(), port, err
}

// healthy asks until the server answers.
func healthy(base string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(5 * time.Minute)
	for range tick.C {
		resp, err := http.Get(base + "/health") //nolint:noctx // there is a deadline
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not healthy after 5 minutes: %w", err)
		}
	}
	return nil
}
