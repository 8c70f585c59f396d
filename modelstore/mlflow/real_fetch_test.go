package mlflow_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"modelgate/modelstore"
	"modelgate/modelstore/mlflow"
)

// cutter ends the body of downloads early and counts those that were asked to continue.
type cutter struct {
	after   int64
	cuts    atomic.Int32 // how many downloads are still to be cut
	hold    atomic.Bool  // all are cut, and the cut ones wait until the reader has left
	resumed atomic.Int32
}

func (c *cutter) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("Range") != "" {
		c.resumed.Add(1)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	isFile := strings.Contains(req.URL.Path, "get-artifact") || strings.HasSuffix(req.URL.Path, "model.onnx")
	if hold := c.hold.Load(); err == nil && isFile && (hold || c.cuts.Add(-1) >= 0) {
		resp.Body = cutAfter(resp, c.after, hold)
	}
	return resp, err
}

type cutBody struct {
	io.Reader
	io.Closer
	held <-chan struct{} // nil, or waited for at the cut
}

// cutAfter is a body that breaks off after n bytes: at once, or with hold when the one who reads it has left.
func cutAfter(resp *http.Response, n int64, hold bool) io.ReadCloser {
	b := &cutBody{Reader: io.LimitReader(resp.Body, n), Closer: resp.Body}
	if hold {
		b.held = resp.Request.Context().Done()
	}
	return b
}

func (c *cutBody) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if errors.Is(err, io.EOF) {
		if c.held != nil {
			<-c.held
		}
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestCutDownloadIsResumed(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		big := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
		m.publish(t, map[string][]byte{"model.onnx": big}, nil)
		c := &cutter{after: 1_500_000}
		c.cuts.Store(3)
		s := source(t, m, mlflow.Options{Transport: c, RetryWait: 1, LargeFile: 1 << 20})
		v, dir := find(t, s, "1"), t.TempDir()
		if err := s.Fetch(t.Context(), v, dir, nil); err != nil {
			t.Fatal(err)
		}
		wantFile(t, dir, "model.onnx", big)
		if c.resumed.Load() == 0 {
			t.Error("no download was resumed")
		}
	})
}

func TestInterruptedFetchIsResumedByTheNext(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		big := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
		m.publish(t, map[string][]byte{"model.onnx": big, "config.json": []byte("{}")}, nil)
		c := &cutter{after: 1_500_000}
		s := source(t, m, mlflow.Options{Transport: c, RetryWait: 1, LargeFile: 1 << 20})
		v, dir := find(t, s, "1"), t.TempDir()
		fetchInTwo(t, s, v, dir, &c.hold)
		wantFile(t, dir, "model.onnx", big)
		if c.resumed.Load() == 0 {
			t.Error("the second Fetch began at 0")
		}
	})
}

func TestHostHeaderRefusedByMLflow3(t *testing.T) {
	testServers.begin()
	t.Parallel()
	r := started(t, testServers.v3)
	addr := strings.TrimPrefix(r.base, "http://")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	s := open(t, mlflow.Options{TrackingURI: "http://mlflow.example:5000", Transport: transport})
	_, err := s.Latest(t.Context(), "text")
	if err == nil || !strings.Contains(err.Error(), `--allowed-hosts "mlflow.example,mlflow.example:*"`) {
		t.Errorf("got %v, want what to start the server with", err)
	}
}

func wantFile(t *testing.T, dir, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want the %d that were published", name, len(got), err, len(want))
	}
}

// fetchInTwo ends a fetch of v after a mebibyte, where hold keeps its file from being whole, and then fetches the rest.
func fetchInTwo(t *testing.T, s *mlflow.Source, v modelstore.Version, dir string, hold *atomic.Bool) {
	t.Helper()
	hold.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.Fetch(ctx, v, dir, func(done, _ int64) {
		if done > 1<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it cancelled", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "model.onnx")); err == nil {
		t.Error("a half file has its final name")
	}
	hold.Store(false)
	if err := s.Fetch(t.Context(), v, dir, nil); err != nil {
		t.Fatal(err)
	}
}
