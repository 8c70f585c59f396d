package mlflow_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"modelgate/modelstore"
	"modelgate/modelstore/mlflow"
)

const weights = "0123456789abcdefghijklmnopqrstuvwxyz"

// file serves content like a server that can resume; cut, if not 0, is after how many bytes it hangs up.
func file(content string, etag string, cut int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Accept-Ranges", "bytes")
		h.Set("ETag", etag)
		from, status := 0, http.StatusOK
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && (r.Header.Get("If-Range") == etag || r.Header.Get("If-Range") == "") {
			status = http.StatusPartialContent
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		} else {
			from = 0
		}
		rest := content[from:]
		h.Set("Content-Length", strconv.Itoa(len(rest)))
		w.WriteHeader(status)
		if cut > 0 && cut < len(rest) {
			_, _ = io.WriteString(w, rest[:cut])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, rest)
	}
}

// stream serves content as old servers do: no length, no range.
func stream(content string, cut int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		if cut == 0 {
			cut = len(content)
		}
		_, _ = io.WriteString(w, content[:cut])
		_ = http.NewResponseController(w).Flush()
		if cut < len(content) {
			panic(http.ErrAbortHandler)
		}
	}
}

// stall sends the beginning and then nothing.
func stall(content string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = io.WriteString(w, content[:3])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func listing(files string) []http.HandlerFunc {
	return []http.HandlerFunc{jsonBody(200, `{"files": [`+files+`]}`)}
}

func oneFile() []http.HandlerFunc {
	return listing(fmt.Sprintf(`{"path": "model.onnx", "is_dir": false, "file_size": %d}`, len(weights)))
}

// version3 is the script's part that says where version 3 is.
func version3(more paths) paths {
	p := paths{
		getVersion: {jsonBody(200, `{"model_version": `+versionJSON+`}`)},
		getURI:     {jsonBody(200, `{"artifact_uri": "mlflow-artifacts:/1/r/artifacts/m"}`)},
		proxy:      oneFile(),
	}
	for path, answers := range more {
		p[path] = answers
	}
	return p
}

func TestBadDownloads(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const tag = `"abc"`
	noFile := jsonBody(404, `{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No such artifact"}`)
	for name, c := range map[string]struct {
		proxy, version []http.HandlerFunc // answers for the file by either route
		opts           func(*mlflow.Options)
		want           string // of the error; "" for none
		proxied, other int    // how often either is asked; not checked if both are 0
	}{
		"whole":                                 {proxy: []http.HandlerFunc{file(weights, tag, 0)}, proxied: 1},
		"half, then resumed":                    {proxy: []http.HandlerFunc{file(weights, tag, 10), file(weights, tag, 0)}, proxied: 2},
		"changed between two halves":            {proxy: []http.HandlerFunc{file(strings.ToUpper(weights), `"old"`, 20), file(weights, tag, 0)}, proxied: 2},
		"half for ever":                         {proxy: []http.HandlerFunc{file(weights, tag, 10), noBytes(tag)}, want: "after 10 of 36 bytes"},
		"500, then whole":                       {proxy: []http.HandlerFunc{jsonBody(500, `{}`), file(weights, tag, 0)}, proxied: 2},
		"429 with Retry-After":                  {proxy: []http.HandlerFunc{with("Retry-After", "1", jsonBody(429, `{}`)), file(weights, tag, 0)}, proxied: 2},
		"no such file":                          {proxy: []http.HandlerFunc{noFile}, want: "No such artifact", proxied: 1},
		"wrong length, said":                    {proxy: []http.HandlerFunc{file(weights+"!", tag, 0)}, want: "sends 37 bytes of a file that it lists with 36", proxied: 1},
		"wrong length, longer":                  {proxy: []http.HandlerFunc{stream(weights+"!", 0)}, want: "more bytes than it lists (36)", proxied: 1},
		"wrong length, shorter":                 {proxy: []http.HandlerFunc{stream(weights[:35], 0)}, version: []http.HandlerFunc{stream(weights[:35], 0)}, want: "after 35 of 36 bytes"},
		"endless":                               {proxy: []http.HandlerFunc{endless("application/octet-stream")}, want: "more bytes than it lists (36)", proxied: 1},
		"wrong range":                           {proxy: []http.HandlerFunc{file(weights, tag, 10), with("Content-Range", "bytes 0-35/36", answer(206, "application/octet-stream", weights))}, want: "asked for was"},
		"range that wasn't asked for":           {proxy: []http.HandlerFunc{with("Content-Range", "bytes 0-35/36", answer(206, "application/octet-stream", weights))}, want: "asked for was"},
		"stalled":                               {proxy: []http.HandlerFunc{stall(weights)}, version: []http.HandlerFunc{stall(weights)}, opts: func(o *mlflow.Options) { o.IdleTimeout = 30 * time.Millisecond }, want: "sent nothing for 30ms"},
		"doesn't begin":                         {proxy: []http.HandlerFunc{hang}, opts: func(o *mlflow.Options) { o.HeaderTimeout = 20 * time.Millisecond }, want: "didn't begin to send within 20ms", proxied: 3},
		"HTML":                                  {proxy: []http.HandlerFunc{answer(200, "text/html", weights)}, want: "sends HTML instead of the file", proxied: 1},
		"compressed unasked":                    {proxy: []http.HandlerFunc{with("Content-Encoding", "br", file(weights, tag, 0))}, want: `encoded as "br"`},
		"redirect elsewhere":                    {proxy: []http.HandlerFunc{with("Location", "http://s3.example/x?sig=sesame", answer(307, "text/plain", ""))}, want: "redirects to http://s3.example, which"},
		"old proxy, whole":                      {proxy: []http.HandlerFunc{stream(weights, 0)}, proxied: 1},
		"old proxy cuts: get-artifact from 0":   {proxy: []http.HandlerFunc{stream(strings.ToUpper(weights), 20)}, version: []http.HandlerFunc{file(weights, tag, 0)}, proxied: 1, other: 1},
		"get-artifact is resumed":               {proxy: []http.HandlerFunc{stream(weights, 20)}, version: []http.HandlerFunc{file(weights, tag, 5), file(weights, tag, 5), file(weights, tag, 0)}, proxied: 1, other: 3},
		"large file: get-artifact at once":      {proxy: []http.HandlerFunc{stream(weights, 0)}, version: []http.HandlerFunc{file(weights, tag, 0)}, opts: func(o *mlflow.Options) { o.LargeFile = 30 }, proxied: 1, other: 1},
		"large file, get-artifact doesn't work": {proxy: []http.HandlerFunc{stream(weights, 0)}, version: []http.HandlerFunc{jsonBody(500, `{}`)}, opts: func(o *mlflow.Options) { o.LargeFile = 30 }, proxied: 2, other: 3},
		"500 for ever: get-artifact":            {proxy: []http.HandlerFunc{answer(500, "text/html", "")}, version: []http.HandlerFunc{file(weights, tag, 0)}, proxied: 3, other: 1},
		"500 for ever by both":                  {proxy: []http.HandlerFunc{answer(500, "text/html", "")}, version: []http.HandlerFunc{jsonBody(500, `{}`)}, want: "answers 500", proxied: 3, other: 3},
		"neither route works":                   {proxy: []http.HandlerFunc{stream(weights, 20)}, version: []http.HandlerFunc{noFile}, want: "after 20 of 36 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, version3(paths{onnxFile: c.proxy, getFile: c.version}))
			o := quick(s.URL)
			if c.opts != nil {
				c.opts(&o)
			}
			dir := t.TempDir()
			err := open(t, o).Fetch(t.Context(), judgedVersion, dir, nil)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case c.want == "":
				wantFile(t, dir, "model.onnx", []byte(weights))
			default:
				if _, err := os.Stat(filepath.Join(dir, "model.onnx")); err == nil {
					t.Error("a file that isn't right has its final name")
				}
			}
			if err != nil && (errors.Is(err, modelstore.ErrPermanent) || strings.Contains(err.Error(), "sesame")) {
				t.Errorf("%v: permanent or with a secret", err)
			}
			p, v := s.count(onnxFile), s.count(getFile)
			if c.proxied+c.other > 0 && (p != c.proxied || v != c.other) {
				t.Errorf("asked the proxy %d times and get-artifact %d times, want %d and %d", p, v, c.proxied, c.other)
			}
		})
	}
}

// noBytes answers a resumed download with the right head and hangs up.
func noBytes(tag string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Range", "bytes 10-35/36")
		w.Header().Set("Content-Length", "26")
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestHostileListings(t *testing.T) {
	f := func(path string) string { return fmt.Sprintf(`{"path": %s, "file_size": 1}`, path) }
	var many []string
	for i := range 1001 {
		many = append(many, f(strconv.Quote("f"+strconv.Itoa(i))))
	}
	for name, c := range map[string]struct{ files, want string }{
		"absolute":               {f(`"/etc/passwd"`), "no file name"},
		"parent":                 {f(`".."`), "no file name"},
		"below the parent":       {f(`"../x"`), "no file name"},
		"folders in a name":      {f(`"a/b"`), "hides a path"},
		"a backslash":            {f(`"a\\b"`), "hides a path"},
		"an encoded slash":       {f(`"..%2f..%2fx"`), "hides a path"},
		"an encoded parent":      {f(`"%2e%2e"`), "hides a path"},
		"NUL":                    {f(`"a\u0000b"`), "no file name"},
		"an escape sequence":     {f(`"a\u001b[2Jb"`), "no file name"},
		"empty":                  {f(`""`), "no file name"},
		"a long name":            {f(strconv.Quote(strings.Repeat("a", 256))), "no file name"},
		"our own folder":         {f(`".part"`), "is taken"},
		"twice":                  {f(`"a"`) + "," + f(`"a"`), "listed twice"},
		"a file and a folder":    {f(`"a"`) + `, {"path": "a", "is_dir": true}`, "listed twice"},
		"a negative size":        {`{"path": "a", "file_size": -1}`, "-1 bytes"},
		"a size as text":         {`{"path": "a", "file_size": "many"}`, "can't be read"},
		"sizes that overflow":    {`{"path": "a", "file_size": 9223372036854775807}, {"path": "b", "file_size": 9223372036854775807}`, "bytes together"},
		"too many files":         {strings.Join(many, ","), "more than 1000 files"},
		"folders without bottom": {`{"path": "d", "is_dir": true}`, "too deep"},
		"nothing":                {``, "there are none"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := open(t, quick(serve(t, version3(paths{proxy: listing(c.files)})).URL)).Fetch(t.Context(), judgedVersion, dir, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("something was written: %v, %v", entries, err)
			}
		})
	}
}

func TestWhereFilesAre(t *testing.T) {
	for name, c := range map[string]struct{ uri, want string }{
		"with the server's name":  {"mlflow-artifacts://HOST/1/r/artifacts/m", ""},
		"with an empty name":      {"mlflow-artifacts:///1/r/artifacts/m", ""},
		"as the proxy's address":  {"http://HOST/api/2.0/mlflow-artifacts/artifacts/1/r/artifacts/m", ""},
		"by run":                  {"runs:/r/m", ""},
		"on another server":       {"mlflow-artifacts://elsewhere.example/1/r/artifacts/m", "on another server"},
		"another server's proxy":  {"http://elsewhere.example/api/2.0/mlflow-artifacts/artifacts/1/r", `in "http" storage`},
		"in S3":                   {"s3://bucket/1/r/artifacts/m", `in S3, at "s3://bucket/1/r/artifacts/m", and no S3 endpoint is configured: set s3.endpoint (MLFLOW_S3_ENDPOINT_URL)`},
		"in a local folder":       {"/etc", "storage"},
		"up":                      {"mlflow-artifacts:/1/../../m", "no file name"},
		"up, encoded":             {"mlflow-artifacts:/1/..%2f..%2fm", "hides a path"},
		"nowhere":                 {"", "storage"},
		"the root":                {"mlflow-artifacts:/", "no file name"},
		"a run with a path as id": {"runs:/..%2f/m", "names no run"},
	} {
		t.Run(name, func(t *testing.T) {
			uri := c.uri
			p := version3(paths{onnxFile: {file(weights, `"a"`, 0)}, getRun: {jsonBody(200, `{"run": {"info": {"artifact_uri": "mlflow-artifacts:/1/r/artifacts"}}}`)}})
			p[getURI] = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
				jsonBody(200, fmt.Sprintf(`{"artifact_uri": %q}`, strings.Replace(uri, "HOST", r.Host, 1)))(w, r)
			}}
			err := open(t, quick(serve(t, p).URL)).Fetch(t.Context(), judgedVersion, t.TempDir(), nil)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// The run is deleted, and the version with it, between judging and fetching, or in the middle of the download.
func TestDeletedMidWay(t *testing.T) {
	gone := jsonBody(404, `{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}`)
	for name, c := range map[string]struct {
		change paths
		is     error
		want   string
	}{
		"the version before":   {paths{getVersion: {gone}}, modelstore.ErrNoVersion, "gone"},
		"the version, then":    {paths{getURI: {gone}}, modelstore.ErrNoVersion, "gone"},
		"its files, listed":    {paths{proxy: {jsonBody(200, `{}`)}}, nil, "there are none"},
		"its files, mid-way":   {paths{onnxFile: {file(weights, `"a"`, 10), gone}}, nil, "gone"},
		"made again meanwhile": {paths{getVersion: {jsonBody(200, `{"model_version": `+strings.Replace(versionJSON, "1700", "1800", 1)+`}`)}}, modelstore.ErrNoVersion, "another one by now"},
		"not ready":            {paths{getVersion: {jsonBody(200, `{"model_version": `+strings.Replace(versionJSON, "READY", "PENDING_REGISTRATION", 1)+`}`)}}, nil, "PENDING_REGISTRATION"},
	} {
		t.Run(name, func(t *testing.T) {
			err := open(t, quick(serve(t, version3(c.change)).URL)).Fetch(t.Context(), judgedVersion, t.TempDir(), nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %q (%v)", err, c.want, c.is)
			}
		})
	}
}

// What one Fetch began the next one continues, in another process too: the state is in the folder.
func TestResumeAcrossFetches(t *testing.T) {
	s := serve(t, version3(paths{onnxFile: {file(weights, `"abc"`, 10), jsonBody(403, `{}`), file(weights, `"abc"`, 0)}}))
	dir := t.TempDir()
	if err := open(t, quick(s.URL)).Fetch(t.Context(), judgedVersion, dir, nil); err == nil {
		t.Fatal("want the first Fetch to fail")
	}
	var first int64 = -1
	err := open(t, quick(s.URL)).Fetch(t.Context(), judgedVersion, dir, func(done, _ int64) {
		if first < 0 {
			first = done
		}
	})
	if err != nil || first < 10 {
		t.Errorf("the second Fetch began at %d: %v", first, err)
	}
	wantFile(t, dir, "model.onnx", []byte(weights))
}

func FuzzAnswers(f *testing.F) {
	for _, s := range []string{modelJSON, `{"model_version": ` + versionJSON + `}`, `{"model_versions": [` + versionJSON + `]}`,
		`{"run": {"data": {"metrics": [{"key": "eval_f1", "value": "NaN", "timestamp": "1", "step": 0}]}}}`,
		`{"files": [{"path": "a", "is_dir": true}, {"path": "b", "file_size": 1}]}`, `{"artifact_uri": "mlflow-artifacts:/1/r"}`, `[`, `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o := quick("http://registry.example")
		o.Tries = 1
		o.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
		})
		s := open(t, o)
		if v, err := s.Latest(t.Context(), "text"); err == nil && (v.Number < 1 || v.Pointer == "" || v.Registered != "text_classification_model") {
			t.Errorf("Latest: %+v", v)
		}
		vs, err := s.Versions(t.Context(), "text")
		for i, v := range vs {
			if err != nil || v.Number < 1 || i > 0 && vs[i-1].Number < v.Number {
				t.Errorf("Versions: %+v, %v", vs, err)
			}
		}
		if x, err := s.F1(t.Context(), judgedVersion); err == nil && x.Known && !(x.Value >= 0 && x.Value <= 1) {
			t.Errorf("F1: %+v", x)
		}
		if err := s.Fetch(t.Context(), judgedVersion, t.TempDir(), nil); err == nil {
			t.Error("one answer can't be a version, its place and a listing")
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
