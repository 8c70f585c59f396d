// Package s3test starts a real S3 server for tests.
package s3test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Server is moto, which keeps its objects in memory and takes any access key.
type Server struct {
	URL  string // http://127.0.0.1:port
	http *http.Client
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := find(t)
	var err error
	for range 3 { // another program may take the port first
		var s *Server
		if s, err = start(t, bin); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

// find walks up from the test's folder to the checkout's .cache.
func find(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		bin := filepath.Join(dir, ".cache", "moto-venv", "bin", "moto_server")
		if _, serr := os.Stat(bin); serr == nil {
			return bin
		}
	}
	t.Fatal(".cache/moto-venv/bin/moto_server is missing: run `make moto`")
	return ""
}

func start(t testing.TB, bin string) (*Server, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	// The shell leads a process group and ends it when its standard input does, thus also when this test dies.
	cmd := exec.Command("sh", "-c", `"$@" </dev/null & cat >/dev/null; kill -KILL 0`, "sh", bin, "-H", "127.0.0.1", "-p", port) //nolint:gosec,noctx // both are ours
	cmd.Env = append(os.Environ(), "S3_IGNORE_SUBDOMAIN_BUCKETNAME=true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	transport := &http.Transport{}
	s := &Server{URL: "http://" + addr, http: &http.Client{Transport: transport}}
	if err := s.ready(t); err != nil {
		stop()
		return nil, fmt.Errorf("start %s: %w\n%s", bin, err, log.String())
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
	})
	return s, nil
}

// ready asks until the server answers.
func (s *Server) ready(t testing.TB) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var err error
	for began := time.Now(); time.Since(began) < time.Minute; <-tick.C {
		if err = s.do(t, http.MethodGet, "/", nil); err == nil {
			return nil
		}
	}
	return err
}

func (s *Server) do(t testing.TB, method, path string, body []byte) error {
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	// Any key will do, but without one an object can't be replaced.
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return err
}

// Bucket makes a bucket.
func (s *Server) Bucket(t testing.TB, name string) {
	t.Helper()
	if err := s.do(t, http.MethodPut, "/"+name, nil); err != nil {
		t.Fatal(err)
	}
}

// Put stores an object.
func (s *Server) Put(t testing.TB, bucket, key string, data []byte) {
	t.Helper()
	parts := strings.Split(key, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	if err := s.do(t, http.MethodPut, "/"+bucket+"/"+strings.Join(parts, "/"), data); err != nil {
		t.Fatal(err)
	}
}
