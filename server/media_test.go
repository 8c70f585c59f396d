package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

// A mediaRequest is a predictMedia in the making.
type mediaRequest struct {
	path, kind string
	body       io.Reader
	change     []func(*http.Request)
}

func raw(clip []byte, query ...string) mediaRequest {
	return mediaRequest{path: "/v1/models/video:predictMedia?" + strings.Join(query, "&"), kind: "video/mp4", body: bytes.NewReader(clip)}
}

func (r mediaRequest) to(model string) mediaRequest {
	r.path = strings.Replace(r.path, "/video:", "/"+url.PathEscape(model)+":", 1)
	return r
}

// field is one part of a form.
type field struct{ name, value string }

func form(t testing.TB, fields ...field) mediaRequest {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, f := range fields {
		create := w.CreateFormField
		if f.name == "video" {
			create = func(name string) (io.Writer, error) { return w.CreateFormFile(name, "clip.mp4") }
		}
		part, err := create(f.name)
		must(t, err)
		_, err = io.WriteString(part, f.value)
		must(t, err)
	}
	must(t, w.Close())
	return mediaRequest{path: "/v1/models/fusion:predictMedia", kind: w.FormDataContentType(), body: &b}
}

func (g *gateway) media(r mediaRequest) answer {
	g.t.Helper()
	return g.mediaWith(http.DefaultClient, r)
}

func (g *gateway) mediaWith(client *http.Client, r mediaRequest) answer {
	g.t.Helper()
	return g.callWith(client, http.MethodPost, r.path, "", append([]func(*http.Request){func(req *http.Request) {
		req.Header.Set("Content-Type", r.kind)
		req.Body, req.ContentLength = io.NopCloser(r.body), -1
		if c, ok := r.body.(io.ReadCloser); ok {
			req.Body = c
		}
		if sized, ok := r.body.(interface{ Len() int }); ok {
			req.ContentLength = int64(sized.Len())
		}
	}}, r.change...)...)
}

// A clip over REST is answered as over gRPC, as the body or in a form, whatever the order of the form's fields.
func TestPredictMedia(t *testing.T) {
	g := startClips(t)
	data := smallClip(t)
	file := field{"video", string(data)}
	ask := func(model string, text *string) *pb.PredictResponse {
		resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: model, Text: text, Video: encoded(data), Id: "7", TopK: 1})
		must(t, err)
		return resp
	}
	alone, good, empty := ask("video", nil), ask("fusion", ptr("good")), ask("fusion", ptr(""))
	octets := raw(data, "id=7", "top_k=1")
	octets.kind = "application/octet-stream"
	for name, c := range map[string]struct {
		request mediaRequest
		want    *pb.PredictResponse
	}{
		"the clip":                   {raw(data, "id=7", "top_k=1"), alone},
		"bytes":                      {octets, alone},
		"the clip of no known size":  {mediaRequest{"/v1/models/video:predictMedia?id=7&top_k=1", "video/mp4; codecs=avc1", io.LimitReader(bytes.NewReader(data), 1<<20), nil}, alone},
		"the clip with a text":       {raw(data, "id=7", "top_k=1", "text=good").to("fusion"), good},
		"the clip with none in it":   {raw(data, "id=7", "top_k=1", "text=").to("fusion"), empty},
		"a form":                     {form(t, field{"text", "good"}, field{"id", "7"}, field{"top_k", "1"}, file), good},
		"a form with the clip first": {form(t, file, field{"text", "good"}, field{"id", "7"}, field{"top_k", "1"}), good},
		"a form with no text in it":  {form(t, field{"id", "7"}, file, field{"text", ""}, field{"top_k", "1"}), empty},
		"a form of a clip":           {form(t, field{"id", "7"}, field{"top_k", "1"}, file).to("fusion"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if c.want == nil {
				c.request.path, c.want = strings.Replace(c.request.path, "fusion", "video", 1), alone
			}
			a := g.media(c.request)
			if a.code != 200 || a.json["label"] != "positive" || a.json["score"] != c.want.GetScore() || a.json["id"] != "7" || a.json["path"] != c.want.GetPath().String() {
				t.Errorf("%d %s, want %v", a.code, a.raw, c.want)
			}
			if classes, ok := a.json["classes"].([]any); !ok || len(classes) != 1 {
				t.Errorf("classes: %v", a.json["classes"])
			}
			if !strings.HasPrefix(a.raw, `{"classes":[{"label":`) || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("not the form of other answers: %v %s", a.header, a.raw)
			}
		})
	}
	nothingHeld(t, g)
}

// What people type.
func TestPredictMediaWithCurl(t *testing.T) {
	g := startClips(t)
	small := filepath.Join(t.TempDir(), "clip.mp4")
	must(t, os.WriteFile(small, smallClip(t), 0o600))
	large := filepath.Join(t.TempDir(), "large.mp4")
	data := clip(t, "mp4", "red", 34, "-vf", "scale=1280:720,noise=alls=60:allf=t+u", "-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv420p")
	if len(data) < 30<<20 || len(data) > 64<<20 {
		t.Fatalf("the large clip has %d bytes", len(data))
	}
	must(t, os.WriteFile(large, data, 0o600))
	for name, args := range map[string][]string{
		"a form":        {"-F", "video=@" + small, "-F", "text=hello", g.url + "/v1/models/fusion:predictMedia"},
		"a body":        {"--data-binary", "@" + small, "-H", "Content-Type: video/mp4", g.url + "/v1/models/video:predictMedia"},
		"a large form":  {"-F", "video=@" + large, "-F", "text=hello", g.url + "/v1/models/fusion:predictMedia"},
		"a large body":  {"--data-binary", "@" + large, "-H", "Content-Type: video/mp4", g.url + "/v1/models/video:predictMedia"},
		"a file as is":  {"-T", large, "-X", "POST", "-H", "Content-Type: video/mp4", g.url + "/v1/models/video:predictMedia"},
		"an empty file": {"--data-binary", "@/dev/null", "-H", "Content-Type: video/mp4", g.url + "/v1/models/video:predictMedia"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sS"}, args...)...).CombinedOutput()
			must(t, err)
			var got struct{ Label, Message string }
			must(t, json.Unmarshal(out, &got))
			if got.Label != "positive" && (name != "an empty file" || !strings.Contains(got.Message, "empty")) {
				t.Errorf("%s", out)
			}
		})
	}
	nothingHeld(t, g)
}

// endless is a body without an end.
type endless struct{ b byte }

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.b
	}
	return len(p), nil
}

func TestBadMedia(t *testing.T) {
	const most = 200 << 10
	g := startClips(t, smallUploads)
	data := smallClip(t)
	file, name := field{"video", string(data)}, "/v1/models/fusion:predictMedia"
	with := func(r mediaRequest, change func(*mediaRequest)) mediaRequest { change(&r); return r }
	kind := func(kind string) mediaRequest { return with(raw(data), func(r *mediaRequest) { r.kind = kind }) }
	cut := func(n int) mediaRequest {
		return with(form(t, file, field{"text", "good"}), func(r *mediaRequest) {
			b, err := io.ReadAll(r.body)
			must(t, err)
			r.body = bytes.NewReader(b[:len(b)-n])
		})
	}
	encodedPart := func(encoding string) mediaRequest {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		p, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="text"`}, "Content-Transfer-Encoding": {encoding}})
		must(t, err)
		_, err = io.WriteString(p, "Z29vZA==")
		must(t, errors.Join(err, w.Close()))
		return mediaRequest{path: name, kind: w.FormDataContentType(), body: &b}
	}
	vast := strings.Repeat("x", 20<<10)
	for _, c := range []struct {
		name    string
		request mediaRequest
		bad
	}{
		{"JSON", kind("application/json"), bad{code: codes.InvalidArgument, http: 415, says: "video/mp4", reason: "NO_MEDIA"}},
		{"curl without a type", kind("application/x-www-form-urlencoded"), bad{code: codes.InvalidArgument, http: 415, says: "video/mp4", reason: "NO_MEDIA"}},
		{"no type", kind(""), bad{code: codes.InvalidArgument, http: 415, says: "multipart/form-data", reason: "NO_MEDIA"}},
		{"a form without a boundary", kind("multipart/form-data"), bad{code: codes.InvalidArgument, http: 415, says: "multipart/form-data", reason: "NO_MEDIA"}},
		{"no such model", raw(data).to("vidoe"), bad{code: codes.NotFound, http: 404, says: "vidoe", reason: "UNKNOWN_MODEL"}},
		{"an odd name", raw(data).to("a b/ü:x"), bad{code: codes.NotFound, http: 404, says: `no such model`, reason: "UNKNOWN_MODEL"}},
		{"a name that isn't UTF-8", with(raw(data), func(r *mediaRequest) { r.path = "/v1/models/%ff:predictMedia" }), bad{code: codes.InvalidArgument, http: 400, says: "UTF-8", reason: "BAD_PATH"}},
		{"text as a clip", raw([]byte("hello, world")), bad{code: codes.InvalidArgument, http: 400, says: "text/plain", reason: "BAD_CLIP"}},
		{"an empty body", raw(nil), bad{code: codes.InvalidArgument, http: 400, says: "empty", reason: "BAD_CLIP"}},
		{"a text for a model that takes none", raw(data, "text=a"), bad{code: codes.InvalidArgument, http: 400, says: "takes a clip only", reason: "BAD_INPUT"}},
		{"a field that isn't there", raw(data, "topk=1"), bad{code: codes.InvalidArgument, http: 400, says: `"topk"`, reason: "UNKNOWN_FIELD"}},
		{"a field twice in the query", raw(data, "text=a", "text=b"), bad{code: codes.InvalidArgument, http: 400, says: "text is given twice", reason: "FIELD_TWICE"}},
		{"a clip in the query", raw(data, "video=x"), bad{code: codes.InvalidArgument, http: 400, says: "can't be in the query", reason: "UNKNOWN_FIELD"}},
		{"a query that can't be read", raw(data, "text=%zz"), bad{code: codes.InvalidArgument, http: 400, says: "can't be read", reason: "BAD_QUERY"}},
		{"a query that isn't UTF-8", raw(data, "text=%ff"), bad{code: codes.InvalidArgument, http: 400, says: "text is not UTF-8", reason: "UNREADABLE_MESSAGE"}},
		{"top_k in words", raw(data, "top_k=two"), bad{code: codes.InvalidArgument, http: 400, says: `"two"`, reason: "BAD_TOP_K"}},
		{"a negative top_k", raw(data, "top_k=-1"), bad{code: codes.InvalidArgument, http: 400, says: "top_k is -1", reason: "BAD_TOP_K"}},
		{"a long id", raw(data, "id="+vast[:300]), bad{code: codes.InvalidArgument, http: 400, says: "id has 300 bytes", reason: "ID_TOO_LONG"}},
		{"a vast id", form(t, field{"id", vast}, file), bad{code: codes.InvalidArgument, http: 413, says: "id has more than", reason: "FIELD_TOO_LARGE"}},
		{"a vast text", form(t, field{"text", strings.Repeat(vast, 10)}, file), bad{code: codes.InvalidArgument, http: 413, says: "text has more than", reason: "FIELD_TOO_LARGE"}},
		{"a form without a clip", form(t, field{"text", "a"}), bad{code: codes.InvalidArgument, http: 400, says: "no field video", reason: "FIELD_MISSING"}},
		{"an empty form", form(t), bad{code: codes.InvalidArgument, http: 400, says: "no field video", reason: "FIELD_MISSING"}},
		{"two clips", form(t, file, file), bad{code: codes.InvalidArgument, http: 400, says: "video is given twice", reason: "FIELD_TWICE"}},
		{"two texts", form(t, field{"text", "a"}, file, field{"text", "b"}), bad{code: codes.InvalidArgument, http: 400, says: "text is given twice", reason: "FIELD_TWICE"}},
		{"a text in form and query", with(form(t, file, field{"text", "b"}), func(r *mediaRequest) { r.path += "?text=a" }),
			bad{code: codes.InvalidArgument, http: 400, says: "text is given twice", reason: "FIELD_TWICE"}},
		{"another field", form(t, field{"model", "fusion"}, file), bad{code: codes.InvalidArgument, http: 400, says: `"model"`, reason: "UNKNOWN_FIELD"}},
		{"another field after the clip", form(t, file, field{"model", "fusion"}), bad{code: codes.InvalidArgument, http: 400, says: `"model"`, reason: "UNKNOWN_FIELD"}},
		{"a field without a name", form(t, field{"", "x"}, file), bad{code: codes.InvalidArgument, http: 400, says: "has no name", reason: "BAD_FORM"}},
		{"a field of a vast name", form(t, field{vast, "x"}, file), bad{code: codes.InvalidArgument, http: 413, says: "between two fields", reason: "BAD_FORM"}},
		{"base64", encodedPart("base64"), bad{code: codes.InvalidArgument, http: 400, says: "send it as it is", reason: "BAD_FORM"}},
		{"no form", with(form(t, file), func(r *mediaRequest) { r.body = bytes.NewReader(data) }), bad{code: codes.InvalidArgument, http: 400, says: "not a whole multipart form", reason: "BAD_FORM"}},
		{"a form without its end", cut(20), bad{code: codes.InvalidArgument, http: 400, says: "", reason: "BAD_FORM"}},
		{"a form that ends in the clip", cut(600), bad{code: codes.InvalidArgument, http: 400, says: "", reason: "BAD_FORM"}},
		{"junk before the form", with(form(t, file), func(r *mediaRequest) { r.body = endless{'\n'} }), bad{code: codes.InvalidArgument, http: 413, says: "between two fields", reason: "BAD_FORM"}},
		{"junk after the form", with(form(t, file), func(r *mediaRequest) { r.body = io.MultiReader(r.body, endless{'x'}) }), bad{code: codes.InvalidArgument, http: 413, says: "", reason: "BAD_FORM"}},
		{"one byte too many", raw(make([]byte, most+1)), bad{code: codes.InvalidArgument, http: 413, says: "more than 204800", reason: "CLIP_TOO_LARGE"}},
		{"no end", with(raw(nil), func(r *mediaRequest) { r.body = endless{0} }), bad{code: codes.InvalidArgument, http: 413, says: "more than 204800", reason: "CLIP_TOO_LARGE"}},
		{"a form with a clip too large", form(t, field{"video", string(make([]byte, most+1))}), bad{code: codes.InvalidArgument, http: 413, says: "more than 204800", reason: "CLIP_TOO_LARGE"}},
		{"a form that says that it is too large", form(t, field{"video", string(make([]byte, 4*most))}), bad{code: codes.InvalidArgument, http: 413, says: "the body has", reason: "CLIP_TOO_LARGE"}},
		{"a web page of others", with(form(t, file), func(r *mediaRequest) {
			r.change = append(r.change, func(req *http.Request) {
				req.Header.Set("Sec-Fetch-Site", "cross-site")
				req.Header.Set("Origin", "https://evil.example")
			})
		}), bad{code: codes.PermissionDenied, http: 403, says: "another origin", reason: "CROSS_ORIGIN"}},
	} {
		t.Run(c.name, func(t *testing.T) { checkAnswer(t, g.media(c.request), c.bad) })
	}
	t.Run("another method", func(t *testing.T) {
		checkAnswer(t, g.call(http.MethodPut, name, ""), bad{code: codes.Unimplemented, http: 405, says: "PUT", reason: "METHOD_NOT_ALLOWED"})
	})
	nothingHeld(t, g)
	if a := g.media(raw(data)); a.code != 200 {
		t.Errorf("afterwards: %d %s", a.code, a.raw)
	}
}

// The route asks for a token as the others do.
func TestMediaNeedsAToken(t *testing.T) {
	g := startClips(t, func(c *config) { tokenFile(t)(&c.options) })
	data := smallClip(t)
	checkAnswer(t, g.media(raw(data)), bad{code: codes.Unauthenticated, http: 401, says: "bearer token", reason: "TOKEN_MISSING"})
	r := raw(data)
	r.change = append(r.change, func(req *http.Request) { req.Header.Set("Authorization", "Bearer "+token) })
	if a := g.media(r); a.code != 200 {
		t.Errorf("with a token: %d %s", a.code, a.raw)
	}
}

// HTTP/2 has deadlines of its own kind, a stream each.
func TestMediaOverHTTP2(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t.TempDir(), 1)
	g := startClips(t, overTLS(server.TLSFiles{Cert: cert, Key: key}, &tls.Config{RootCAs: ca.pool}), func(c *config) {
		smallUploads(c)
		c.options.Limits.UploadIdle = 500 * time.Millisecond
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true) // and nothing else
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}, Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	data := smallClip(t)
	if a := g.mediaWith(client, form(t, field{"video", string(data)}, field{"text", "good"})); a.code != 200 || a.json["label"] != "positive" {
		t.Errorf("%d %s", a.code, a.raw)
	}
	vast := raw(nil)
	vast.body = endless{0}
	checkAnswer(t, g.mediaWith(client, vast), bad{code: codes.InvalidArgument, http: 413, says: "more than 204800", reason: "CLIP_TOO_LARGE"})
	slow, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	standing := raw(nil)
	standing.body = slow
	checkAnswer(t, g.mediaWith(client, standing), bad{code: codes.DeadlineExceeded, http: 408, says: "nothing came", reason: "UPLOAD_TOO_SLOW"})
}

// slowly sends the beginning of a raw upload on a connection of its own.
func (g *gateway) slowly(ctx context.Context, body string) net.Conn {
	g.t.Helper()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", g.server.HTTPAddr().String())
	must(g.t, err)
	g.t.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "POST /v1/models/video:predictMedia HTTP/1.1\r\nHost: localhost\r\nContent-Type: video/mp4\r\nContent-Length: 100000\r\n\r\n%s", body)
	must(g.t, err)
	return c
}

func answerOn(t testing.TB, c net.Conn) string {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	b, err := io.ReadAll(c)
	if !errors.Is(err, syscall.ECONNRESET) { // after the answer, for one who goes on sending
		must(t, err)
	}
	return string(b)
}

// Bodies that stand still, that trickle, that are left, and that are there when the server drains.
func TestSlowMedia(t *testing.T) {
	t.Run("standing still", func(t *testing.T) {
		g := startClips(t, func(c *config) { c.options.Limits.UploadIdle = 50 * time.Millisecond })
		if a := answerOn(t, g.slowly(t.Context(), "abc")); !strings.HasPrefix(a, "HTTP/1.1 408 ") || !strings.Contains(a, "UPLOAD_TOO_SLOW") {
			t.Error(a)
		}
		nothingHeld(t, g)
	})
	t.Run("trickling", func(t *testing.T) {
		g := startClips(t, func(c *config) { c.options.Limits.UploadTime = 300 * time.Millisecond })
		c := g.slowly(t.Context(), "abc")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for tick := time.NewTicker(20 * time.Millisecond); ; {
				select {
				case <-tick.C:
					_, _ = c.Write([]byte{1}) // until the other side has enough
				case <-stop:
					return
				}
			}
		}()
		a := answerOn(t, c)
		close(stop)
		<-stopped
		if !strings.HasPrefix(a, "HTTP/1.1 408 ") || !strings.Contains(a, "UPLOAD_TOO_SLOW") {
			t.Error(a)
		}
	})
	t.Run("a model that is slower than uploads may be", func(t *testing.T) {
		g := startClips(t, func(c *config) {
			c.options.Limits.UploadIdle, c.options.Limits.UploadTime = 100*time.Millisecond, 200*time.Millisecond
		})
		g.engine.hook(func(ctx context.Context) error {
			select {
			case <-time.After(500 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, nil)
		for name, r := range map[string]mediaRequest{"a body": raw(smallClip(t)), "a form": form(t, field{"video", string(smallClip(t))}, field{"text", "good"})} {
			if a := g.media(r); a.code != 200 {
				t.Errorf("%s: %d %s", name, a.code, a.raw)
			}
		}
	})
	t.Run("left", func(t *testing.T) {
		g := startClips(t)
		c := g.slowly(t.Context(), "abc")
		eventually(t, func() bool { return metric(t, g, "modelgate_upload_bytes") != "0" })
		must(t, c.Close())
		nothingHeld(t, g)
	})
	t.Run("drained", func(t *testing.T) {
		g := startClips(t)
		c := g.slowly(t.Context(), "abc")
		eventually(t, func() bool { return metric(t, g, "modelgate_upload_bytes") != "0" })
		must(t, g.end())
		if a := answerOn(t, c); !strings.HasPrefix(a, "HTTP/1.1 503 ") || !strings.Contains(a, "DRAINING") || !strings.Contains(a, "Retry-After") {
			t.Error(a)
		}
	})
}
