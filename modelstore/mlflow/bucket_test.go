package mlflow_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
	"modelgate/modelstore/mlflow"
	"modelgate/modelstore/sourcetest"
	"modelgate/s3"
	"modelgate/s3/s3test"
)

// bucketRegistry is a registry that keeps no artifacts: clients read and write them in S3.
func bucketRegistry(t *testing.T) *registry {
	t.Helper()
	store := s3test.Start(t)
	store.Bucket(t, "models")
	r, err := testServers.start("venv", "make python", "--default-artifact-root", "s3://models/mlflow", "--no-serve-artifacts")
	if err != nil {
		t.Fatal(err)
	}
	r.store = store
	return r
}

// fromBucket opens a source that may fetch from a folder of the endpoint.
func fromBucket(t *testing.T, m *model, endpoint, prefix string, o mlflow.Options) *mlflow.Source {
	t.Helper()
	e, err := s3.Open(t.Context(), s3.Options{Endpoint: endpoint, AccessKey: "me", SecretKey: "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	o.S3 = e
	if o.S3Prefixes, err = s3.ParsePrefixes([]string{prefix}); err != nil {
		t.Fatal(err)
	}
	return source(t, m, o)
}

func TestArtifactsInS3(t *testing.T) {
	t.Parallel()
	r := bucketRegistry(t)
	t.Run("suite", func(t *testing.T) {
		sourcetest.Run(t, sourcetest.Harness{New: func(t *testing.T) sourcetest.Subject {
			m := r.newModel(t)
			s := fromBucket(t, m, r.store.URL, "models/mlflow", mlflow.Options{})
			registered := false
			return sourcetest.Subject{Source: s, Model: "text", Publish: func(t *testing.T, files map[string][]byte, metrics map[string]float64) modelstore.Version {
				if !registered {
					m.register(t)
					registered = true
				}
				var ms []object
				for k, x := range metrics {
					ms = append(ms, value(k, x))
				}
				return find(t, s, m.publish(t, files, ms))
			}, Promote: func(t *testing.T, v modelstore.Version) { m.alias(t, "production", v.ID()) }}
		}})
	})
	t.Run("the same digest as behind the proxy", func(t *testing.T) { sameDigest(t, r) })
	t.Run("resumed after cuts", func(t *testing.T) { resumedFromBucket(t, r) })
	t.Run("resumed by the next fetch", func(t *testing.T) { resumedByNextFetch(t, r) })
	t.Run("replaced in the middle", func(t *testing.T) { replacedInBucket(t, r) })
	t.Run("not allowed", func(t *testing.T) { notAllowed(t, r) })
}

// published is a model with one version: a large file, a small one in a folder, an empty one, and an object that marks a folder.
func published(t *testing.T, r *registry) (*model, map[string][]byte) {
	t.Helper()
	m := r.newModel(t)
	m.register(t)
	files := map[string][]byte{"model.onnx": bytes.Repeat([]byte("0123456789abcdef"), 300_000), "data/Nhãn 1.txt": []byte("one"), "empty": nil}
	m.publish(t, files, nil)
	return m, files
}

func wantAll(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		wantFile(t, dir, name, b)
	}
	if _, err := os.Stat(filepath.Join(dir, ".part")); err == nil {
		t.Error("the folder of begun files is left")
	}
}

// sameDigest publishes the same files behind a registry's proxy too: what is cached is the same.
func sameDigest(t *testing.T, r *registry) {
	m, files := published(t, r)
	direct := fromBucket(t, m, r.store.URL, "models/mlflow", mlflow.Options{})
	behind := started(t, testServers.v3).newModel(t)
	behind.register(t)
	behind.publish(t, files, nil)
	var digests []string
	for _, s := range []*mlflow.Source{direct, source(t, behind, mlflow.Options{})} {
		c, err := disk.OpenCache(t.TempDir(), disk.CacheOptions{})
		if err != nil {
			t.Fatal(err)
		}
		v := find(t, s, "1")
		b, err := c.Add(t.Context(), v, func(ctx context.Context, dir string) error { return s.Fetch(ctx, v, dir, nil) }, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantAll(t, b.Dir, files)
		digests = append(digests, b.Version.Digest)
		b.Release()
	}
	if digests[0] == "" || digests[0] != digests[1] {
		t.Errorf("the digests are %q", digests)
	}
}

// cutting is a way to the store that ends answers early.
type cutting struct {
	url   string
	cuts  atomic.Int32 // how many answers are still to be cut
	after int64
	hold  atomic.Bool // all are cut, and the cut ones wait until the client has left

	mu      sync.Mutex // guards resumed
	resumed []string   // Range and If-Match of requests that continue
	between func()     // called after a cut
}

func cut(t *testing.T, store string, after int64) *cutting {
	t.Helper()
	u, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	c := &cutting{after: after, between: func() {}}
	transport := &http.Transport{}
	p := &httputil.ReverseProxy{Transport: transport, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ModifyResponse: func(resp *http.Response) error {
			if hold := c.hold.Load(); strings.HasSuffix(resp.Request.URL.Path, "model.onnx") && (hold || c.cuts.Add(-1) >= 0) {
				resp.Body = cutAfter(resp, c.after, hold)
				c.between()
			}
			return nil
		}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Range"); got != "" {
			c.mu.Lock()
			c.resumed = append(c.resumed, got+" "+r.Header.Get("If-Match"))
			c.mu.Unlock()
		}
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.Close(); transport.CloseIdleConnections() })
	c.url = s.URL
	return c
}

func resumedFromBucket(t *testing.T, r *registry) {
	m, files := published(t, r)
	c := cut(t, r.store.URL, 1_500_000)
	c.cuts.Store(3)
	s := fromBucket(t, m, c.url, "models", mlflow.Options{RetryWait: 1})
	dir := t.TempDir()
	var last int64
	if err := s.Fetch(t.Context(), find(t, s, "1"), dir, func(done, _ int64) { last = done }); err != nil {
		t.Fatal(err)
	}
	wantAll(t, dir, files)
	if len(c.resumed) != 3 || strings.HasPrefix(c.resumed[0], "bytes=0-") || !strings.Contains(c.resumed[0], `"`) {
		t.Errorf("continued with %q, want 3 that begin in the middle and name an ETag", c.resumed)
	}
	if want := int64(len(files["model.onnx"]) + 3); last != want {
		t.Errorf("progress ends at %d, want %d", last, want)
	}
}

func resumedByNextFetch(t *testing.T, r *registry) {
	m, files := published(t, r)
	c := cut(t, r.store.URL, 1_500_000)
	s := fromBucket(t, m, c.url, "models/mlflow", mlflow.Options{RetryWait: 1})
	v, dir := find(t, s, "1"), t.TempDir()
	fetchInTwo(t, s, v, dir, &c.hold)
	wantAll(t, dir, files)
	if len(c.resumed) != 1 {
		t.Errorf("continued with %q, want once", c.resumed)
	}
}

// A file that is replaced while it is fetched is an error; the next fetch gets the new one whole, from the start.
func replacedInBucket(t *testing.T, r *registry) {
	m, files := published(t, r)
	c := cut(t, r.store.URL, 1_500_000)
	c.cuts.Store(1)
	s := fromBucket(t, m, c.url, "models/mlflow", mlflow.Options{RetryWait: 1})
	v, dir := find(t, s, "1"), t.TempDir()
	key := strings.TrimPrefix(v.Source, "s3://models/") + "/model.onnx"
	files["model.onnx"] = bytes.Repeat([]byte("fedcba9876543210"), 300_000)
	c.between = func() { r.store.Put(t, "models", key, files["model.onnx"]) }
	if err := s.Fetch(t.Context(), v, dir, nil); !errors.Is(err, s3.ErrChanged) {
		t.Fatalf("got %v, want ErrChanged", err)
	}
	if err := s.Fetch(t.Context(), v, dir, nil); err != nil {
		t.Fatal(err)
	}
	wantAll(t, dir, files)
	if len(c.resumed) != 1 {
		t.Errorf("continued with %q, want once", c.resumed)
	}
}

func notAllowed(t *testing.T, r *registry) {
	m, _ := published(t, r)
	for name, c := range map[string]struct{ prefix, want string }{
		"another bucket":  {"clips", "s3.artifact_prefixes"},
		"another folder":  {"models/ml", "s3.artifact_prefixes"},
		"a deeper folder": {"models/mlflow/999999", "s3.artifact_prefixes"},
	} {
		dir := t.TempDir()
		s := fromBucket(t, m, r.store.URL, c.prefix, mlflow.Options{})
		err := s.Fetch(t.Context(), find(t, s, "1"), dir, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want something about %s", name, err, c.want)
		}
	}
}
