package server_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/inference/engine/enginetest"
	"modelgate/inference/video"
	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/s3"
	"modelgate/s3/s3test"
	"modelgate/server"
)

// startReferring starts a gateway with a video, a fusion and a text model that reads references from an endpoint.
func startReferring(t *testing.T, endpoint string, change func(*server.References)) *gateway {
	t.Helper()
	e, err := s3.Open(t.Context(), s3.Options{Endpoint: endpoint, AccessKey: "me", SecretKey: "hunter2", Prefixes: []string{"clips/in"}, ReadTimeout: 20 * time.Second})
	must(t, err)
	t.Cleanup(func() { must(t, e.Close()) })
	d, err := video.NewDecoder(video.DecoderOptions{FFmpeg: enginetest.FFmpeg(t), Queue: 100})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return start(t, func(c *config) {
		c.decoder = d
		c.models = []modelstore.ModelConfig{{Name: "text"}, {Name: "video"}, {Name: "fusion"}}
		c.versions = append(c.versions, version{"video", 1, 0.9, enginetest.VideoBundle{}}, version{"fusion", 1, 0.9, enginetest.VideoBundle{Fusion: true, Seed: 3}})
		c.options.References = server.References{Endpoint: e}
		if change != nil {
			change(&c.options.References)
		}
	})
}

func byURI(uri string) *pb.Video { return &pb.Video{Source: &pb.Video_Uri{Uri: uri}} }

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func TestPredictByReference(t *testing.T) {
	m := s3test.Start(t)
	m.Bucket(t, "clips")
	m.Bucket(t, "private")
	red := clip(t, "mp4", "red", 10, "-c:v", "libx264", "-pix_fmt", "yuv420p")
	m.Put(t, "clips", "in/red.mp4", red)
	m.Put(t, "clips", "in/noise.mp4", []byte("no clip at all"))
	m.Put(t, "clips", "in/large.mp4", make([]byte, 1<<20+1))
	m.Put(t, "clips", "inside/red.mp4", red)
	m.Put(t, "private", "in/red.mp4", red)
	g := startReferring(t, m.URL, func(r *server.References) { r.ClipBytes = 1 << 20 })

	t.Run("as if it were sent", func(t *testing.T) {
		for _, model := range []string{"video", "fusion"} {
			req := &pb.PredictRequest{Model: model, Video: byURI("s3://clips/in/red.mp4")}
			if model == "fusion" {
				req.Text = ptr("good")
			}
			got, err := g.predict.Predict(t.Context(), req)
			must(t, err)
			req.Video = encoded(red)
			want, err := g.predict.Predict(t.Context(), req)
			must(t, err)
			if got.GetLabel() != "positive" || got.GetScore() != want.GetScore() {
				t.Errorf("%s: got %v, want %v", model, got, want)
			}
		}
	})
	for name, c := range map[string]struct {
		model, uri string
		code       codes.Code
		reason     string
	}{
		"not there":                  {"video", "s3://clips/in/none.mp4", codes.NotFound, "REFERENCE_NOT_FOUND"},
		"another folder":             {"video", "s3://clips/inside/red.mp4", codes.PermissionDenied, "REFERENCE_NOT_ALLOWED"},
		"another bucket":             {"video", "s3://private/in/red.mp4", codes.PermissionDenied, "REFERENCE_NOT_ALLOWED"},
		"another bucket, not there":  {"video", "s3://nowhere/in/red.mp4", codes.PermissionDenied, "REFERENCE_NOT_ALLOWED"},
		"out of the folder":          {"video", "s3://clips/in/../inside/red.mp4", codes.InvalidArgument, "BAD_REFERENCE"},
		"out of the folder, encoded": {"video", "s3://clips/in/%2e%2e/inside/red.mp4", codes.InvalidArgument, "BAD_REFERENCE"},
		"another scheme":             {"video", "file:///etc/passwd", codes.InvalidArgument, "BAD_REFERENCE"},
		"the web":                    {"video", "http://169.254.169.254/latest/meta-data", codes.InvalidArgument, "BAD_REFERENCE"},
		"a query":                    {"video", "s3://clips/in/red.mp4?versionId=1", codes.InvalidArgument, "BAD_REFERENCE"},
		"a user":                     {"video", "s3://me:pw@clips/in/red.mp4", codes.InvalidArgument, "BAD_REFERENCE"},
		"nothing":                    {"video", "", codes.InvalidArgument, "BAD_REFERENCE"},
		"too large":                  {"video", "s3://clips/in/large.mp4", codes.InvalidArgument, "REFERENCE_TOO_LARGE"},
		"no clip":                    {"video", "s3://clips/in/noise.mp4", codes.InvalidArgument, "BAD_CLIP"},
		"a model of texts":           {"text", "s3://clips/in/red.mp4", codes.InvalidArgument, "BAD_INPUT"},
	} {
		t.Run(name, func(t *testing.T) {
			req := &pb.PredictRequest{Model: c.model, Video: byURI(c.uri)}
			_, err := g.predict.Predict(t.Context(), req)
			if status.Code(err) != c.code || reasonOf(err) != c.reason || strings.Contains(err.Error(), m.URL) {
				t.Errorf("got %v (%s), want %v, %s", err, reasonOf(err), c.code, c.reason)
			}
			batch, err := g.predict.PredictBatch(t.Context(), &pb.PredictBatchRequest{Model: c.model, Requests: []*pb.PredictRequest{req}})
			must(t, err)
			if got := codes.Code(batch.GetResponses()[0].GetError().GetCode()); got != c.code {
				t.Errorf("in a batch: %v, want %v", got, c.code)
			}
		})
	}
}

// What the endpoint is, and what it says, is for the log.
func TestEndpointOfReferencesFails(t *testing.T) {
	var answer atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer.Load().(func(http.ResponseWriter, *http.Request))(w, r)
	}))
	t.Cleanup(s.Close)
	g := startReferring(t, s.URL, nil)
	for name, h := range map[string]func(http.ResponseWriter, *http.Request){
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://hunter2.internal/", http.StatusFound)
		},
		"is overloaded": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"refuses the key": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`<Error><Code>SignatureDoesNotMatch</Code><Message>hunter2</Message></Error>`))
		},
		"cuts the answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			answer.Store(h)
			_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "video", Video: byURI("s3://clips/in/a.mp4")})
			st := status.Convert(err)
			if st.Code() != codes.Unavailable || reasonOf(err) != "REFERENCE_UNAVAILABLE" || st.Message() != s3.ErrUnavailable.Error() {
				t.Errorf("got %v (%s)", err, reasonOf(err))
			}
			if !strings.Contains(g.log.String(), s.URL) {
				t.Error("the log doesn't say where")
			}
		})
	}
}

// slowStore is an endpoint that announces clips of a size and sends them when it is told to.
type slowStore struct {
	*httptest.Server
	asked atomic.Int32
	send  chan struct{} // closed: now
}

func newSlowStore(t *testing.T, size int) *slowStore {
	s := &slowStore{send: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Content-Length", "1000")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-s.send:
			_, _ = w.Write(make([]byte, size))
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestReferencesAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		limits          server.References
		most, fullAtAll int32 // reads at once; requests that are refused of 6
	}{
		"places":  {server.References{Concurrent: 2, Waiting: 1}, 2, 3},
		"waiting": {server.References{Concurrent: 2, Waiting: 10}, 2, 0},
		"memory":  {server.References{ClipBytes: 1000, TotalBytes: 2000, MemoryWait: 50 * time.Millisecond}, 6, 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSlowStore(t, 1000)
			g := startReferring(t, s.URL, func(r *server.References) { c.limits.Endpoint = r.Endpoint; *r = c.limits })
			var full, bad atomic.Int32
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "video", Video: byURI("s3://clips/in/a.mp4")})
					switch reasonOf(err) {
					case "QUEUE_FULL":
						full.Add(1)
					case "BAD_CLIP":
						bad.Add(1)
					default:
						t.Errorf("got %v", err)
					}
				})
			}
			eventually(t, func() bool { return s.asked.Load() == c.most && full.Load() == c.fullAtAll })
			close(s.send)
			wg.Wait()
			if full.Load() != c.fullAtAll || bad.Load() != 6-c.fullAtAll || s.asked.Load() != max(c.most, 6-c.fullAtAll) {
				t.Errorf("%d refused, %d read of %d asked for", full.Load(), bad.Load(), s.asked.Load())
			}
		})
	}
}

// A caller that leaves ends the reading, and what it held is free again.
func TestReferenceOfACallerThatLeaves(t *testing.T) {
	s := newSlowStore(t, 1000)
	g := startReferring(t, s.URL, func(r *server.References) { r.Concurrent, r.ClipBytes, r.TotalBytes = 1, 1000, 1000 })
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := g.predict.Predict(ctx, &pb.PredictRequest{Model: "video", Video: byURI("s3://clips/in/a.mp4")})
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
	}
	close(s.send)
	for range 3 {
		_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "video", Video: byURI("s3://clips/in/a.mp4")})
		if reasonOf(err) != "BAD_CLIP" {
			t.Errorf("got %v", err)
		}
	}
}

func TestReferenceLimitsAreChecked(t *testing.T) {
	for name, r := range map[string]server.References{
		"negative":             {Concurrent: -1},
		"less than one clip":   {ClipBytes: 100, TotalBytes: 99},
		"less than the normal": {TotalBytes: 1 << 20},
	} {
		if _, err := server.New(server.Options{References: r}, nil, nil); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: no error", name)
		}
	}
}
