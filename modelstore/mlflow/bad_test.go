package mlflow_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"modelgate/modelstore"
	"modelgate/modelstore/mlflow"
)

// script is a server that follows a script: for each path, the answers in order, the last one for ever.
type script struct {
	*httptest.Server
	mu    sync.Mutex // guards asked
	asked map[string]int
	paths map[string][]http.HandlerFunc
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := s.asked[r.URL.Path]
	s.asked[r.URL.Path]++
	s.mu.Unlock()
	answers := s.paths[r.URL.Path]
	if len(answers) == 0 {
		answers = s.paths["*"]
	}
	if len(answers) == 0 {
		jsonBody(404, `{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not in the script"}`)(w, r)
		return
	}
	answers[min(n, len(answers)-1)](w, r)
}

func (s *script) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

type paths = map[string][]http.HandlerFunc

func serve(t *testing.T, p paths) *script {
	t.Helper()
	s := &script{asked: map[string]int{}, paths: p}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func jsonBody(status int, body string) http.HandlerFunc {
	return answer(status, "application/json", body)
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func with(header, value string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(header, value)
		h(w, r)
	}
}

// hang answers nothing until the client leaves.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// endless never stops sending.
func endless(contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		chunk := []byte(strings.Repeat(" ", 64<<10))
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
}

const (
	getModel   = "/api/2.0/mlflow/registered-models/get"
	getVersion = "/api/2.0/mlflow/model-versions/get"
	getRun     = "/api/2.0/mlflow/runs/get"
	getURI     = "/api/2.0/mlflow/model-versions/get-download-uri"
	search     = "/api/2.0/mlflow/model-versions/search"
	proxy      = "/api/2.0/mlflow-artifacts/artifacts"
	getFile    = "/model-versions/get-artifact"
	onnxFile   = proxy + "/1/r/artifacts/m/model.onnx"

	versionJSON = `{"name": "text_classification_model", "version": "3", "creation_timestamp": 1700000000000, "current_stage": "Production",
		"source": "mlflow-artifacts:/1/r/artifacts/m", "run_id": "r", "status": "READY"}`
	modelJSON = `{"registered_model": {"name": "text_classification_model", "latest_versions": [` + versionJSON + `]}}`
)

var judgedVersion = modelstore.Version{
	Model: "text", Number: 3, Registered: "text_classification_model", Created: time.UnixMilli(1700000000000).UTC(),
	Source: "mlflow-artifacts:/1/r/artifacts/m", Run: "r",
}

// quick are options under which nothing takes long.
func quick(uri string) mlflow.Options {
	return mlflow.Options{
		TrackingURI: uri, Tries: 3, RetryWait: time.Millisecond, MaxRetryWait: 2 * time.Second,
		Timeout: 10 * time.Second, HeaderTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second,
	}
}

func TestBadAnswers(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	html := answer(200, "text/html; charset=utf-8", "<html>Log in</html>")
	good := jsonBody(200, modelJSON)
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		opts    func(*mlflow.Options)
		want    string // of the error; "" for none
		is      error
		asked   int // 0: not checked
		up      bool
	}{
		"good":                       {answers: []http.HandlerFunc{good}, asked: 1, up: true},
		"500, then good":             {answers: []http.HandlerFunc{jsonBody(500, `{}`), good}, asked: 2, up: true},
		"500 for ever":               {answers: []http.HandlerFunc{jsonBody(500, `{"error_code": "INTERNAL_ERROR", "message": "database is locked"}`)}, want: "database is locked", asked: 3},
		"502 from a proxy":           {answers: []http.HandlerFunc{answer(502, "text/html", "<h1>Bad Gateway</h1>")}, want: "answers 502 Bad Gateway (text/html)", asked: 3},
		"429 with Retry-After":       {answers: []http.HandlerFunc{with("Retry-After", "1", jsonBody(429, `{}`)), good}, asked: 2, up: true},
		"429 for ever":               {answers: []http.HandlerFunc{with("Retry-After", "86400", jsonBody(429, `{}`))}, want: "429", asked: 1},
		"slow":                       {answers: []http.HandlerFunc{hang}, opts: func(o *mlflow.Options) { o.Timeout = 20 * time.Millisecond }, want: "no answer within 20ms", asked: 3},
		"HTML":                       {answers: []http.HandlerFunc{html}, want: "answers with text/html instead of JSON", asked: 1},
		"no content type":            {answers: []http.HandlerFunc{answer(200, "", modelJSON)}, want: "instead of JSON", asked: 1},
		"truncated JSON, then good":  {answers: []http.HandlerFunc{jsonBody(200, modelJSON[:100]), good}, asked: 2, up: true},
		"truncated JSON":             {answers: []http.HandlerFunc{jsonBody(200, modelJSON[:100])}, want: "can't be read: unexpected end of JSON", asked: 3},
		"connection cut":             {answers: []http.HandlerFunc{with("Content-Length", "500", jsonBody(200, `{"reg`))}, want: "unexpected EOF", asked: 3},
		"wrong type":                 {answers: []http.HandlerFunc{jsonBody(200, `{"registered_model": [1]}`)}, want: "can't be read", asked: 1},
		"a list":                     {answers: []http.HandlerFunc{jsonBody(200, `[]`)}, want: "can't be read", asked: 1},
		"null":                       {answers: []http.HandlerFunc{jsonBody(200, `null`)}, want: "answers something else", asked: 1, up: true},
		"version as a number":        {answers: []http.HandlerFunc{jsonBody(200, strings.Replace(modelJSON, `"3"`, `3`, 1))}, want: "is not text", asked: 1},
		"version not decimal":        {answers: []http.HandlerFunc{jsonBody(200, strings.Replace(modelJSON, `"3"`, `"3; drop"`, 1))}, want: "not a whole number from 1", asked: 1},
		"version 03":                 {answers: []http.HandlerFunc{jsonBody(200, strings.Replace(modelJSON, `"3"`, `"03"`, 1))}, want: "not a whole number from 1"},
		"version over 64 bits":       {answers: []http.HandlerFunc{jsonBody(200, strings.Replace(modelJSON, `"3"`, `"9223372036854775808"`, 1))}, want: "not a whole number from 1"},
		"another model":              {answers: []http.HandlerFunc{jsonBody(200, `{"registered_model": {"name": "../../etc"}}`)}, want: "answers something else", up: true},
		"another model's version":    {answers: []http.HandlerFunc{jsonBody(200, strings.Replace(modelJSON, `{"name": "text_classification_model", "version"`, `{"name": "x", "version"`, 1))}, want: `answers about "x"`, up: true},
		"creation time out of range": {answers: []http.HandlerFunc{jsonBody(200, strings.Replace(modelJSON, `1700000000000`, `9223372036854775807`, 1))}, want: "out of range", up: true},
		"a run id with a path":       {answers: []http.HandlerFunc{jsonBody(200, strings.Replace(modelJSON, `"run_id": "r"`, `"run_id": "../r"`, 1))}, want: "is not an id", up: true},
		"a NUL in the source":        {answers: []http.HandlerFunc{jsonBody(200, strings.Replace(modelJSON, `artifacts/m`, `artifacts/\u0000m`, 1))}, want: "not printable", up: true},
		"endless body":               {answers: []http.HandlerFunc{endless("application/json")}, want: "larger than 8 MiB", asked: 1},
		"no such model":              {answers: []http.HandlerFunc{jsonBody(404, `{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model with name=x not found"}`)}, is: modelstore.ErrNoModel, want: "not found", asked: 1, up: true},
		"nothing promoted":           {answers: []http.HandlerFunc{jsonBody(200, `{"registered_model": {"name": "text_classification_model"}}`)}, is: modelstore.ErrNoVersion, want: `no alias "production", none in stage "Production"`, up: true},
		"alias of a deleted version": {answers: []http.HandlerFunc{jsonBody(200, `{"registered_model": {"name": "text_classification_model", "aliases": [{"alias": "production", "version": "7"}]}}`)}, is: modelstore.ErrNoVersion, want: "version 7", up: true},
		"404 of another server":      {answers: []http.HandlerFunc{answer(404, "text/html", "<h1>Not Found</h1>")}, want: "there is no MLflow API at", asked: 1},
		"host header":                {answers: []http.HandlerFunc{answer(403, "text/plain", "Invalid Host header - possible DNS rebinding attack detected")}, want: "--allowed-hosts", asked: 1},
		"401 in HTML, no login":      {answers: []http.HandlerFunc{answer(401, "text/html", "You are not authenticated.")}, want: "set MLFLOW_TRACKING_USERNAME", asked: 1},
		"401 with a login":           {answers: []http.HandlerFunc{answer(401, "text/html", "You are not authenticated.")}, opts: func(o *mlflow.Options) { o.Token = "sesame" }, want: "refuses the login", asked: 1},
		"403 in HTML":                {answers: []http.HandlerFunc{answer(403, "text/html", "Permission denied")}, want: "doesn't permit this", asked: 1},
		"redirect to a login page":   {answers: []http.HandlerFunc{with("Location", "https://sso.example/?token=sesame", answer(302, "text/html", ""))}, want: "redirects to https://sso.example, which is not followed", asked: 1},
		"redirect for ever":          {answers: []http.HandlerFunc{with("Location", getModel, answer(302, "text/html", ""))}, want: "redirects to itself"},
		"a secret where a long answer is cut": {answers: []http.HandlerFunc{jsonBody(400, `{"error_code": "BAD_REQUEST", "message": "`+strings.Repeat("x", 296)+` sesame"}`)},
			opts: func(o *mlflow.Options) { o.Token = "sesame" }, want: "xxx [re...", up: true},
		"the server repeats secrets": {answers: []http.HandlerFunc{jsonBody(400, `{"error_code": "BAD_REQUEST", "message": "bad token sesame\u001b[2J"}`)}, opts: func(o *mlflow.Options) { o.Token = "sesame" }, want: "bad token [redacted] [2J", up: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, paths{getModel: c.answers})
			o := quick(s.URL)
			up := false
			o.Observe = func(u bool) { up = u }
			if c.opts != nil {
				c.opts(&o)
			}
			v, err := open(t, o).Latest(t.Context(), "text")
			switch {
			case c.want == "" && (err != nil || v.Number != 3):
				t.Errorf("got %v, %v; want v3", v, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case c.is != nil && !errors.Is(err, c.is):
				t.Errorf("got %v, want %v", err, c.is)
			case c.is == nil && (errors.Is(err, modelstore.ErrNoModel) || errors.Is(err, modelstore.ErrNoVersion) || errors.Is(err, modelstore.ErrPermanent)):
				t.Errorf("%v says more than is known", err)
			case err != nil && (strings.Contains(err.Error(), "sesame") || len(err.Error()) > 600):
				t.Errorf("%v holds a secret or is too long", err)
			}
			if n := s.count(getModel); c.asked != 0 && n != c.asked {
				t.Errorf("asked %d times, want %d", n, c.asked)
			}
			if up != c.up {
				t.Errorf("observed up = %v, want %v", up, c.up)
			}
		})
	}
}

func TestServerIsDown(t *testing.T) {
	s := serve(t, nil)
	s.Close()
	o := quick(strings.Replace(s.URL, "http://", "http://ann:sesame@", 1))
	up := true
	o.Observe = func(u bool) { up = u }
	_, err := open(t, o).Latest(t.Context(), "text")
	if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "sesame") || up {
		t.Errorf("got %v, up %v; want connection refused, without the password", err, up)
	}
}

// Retry-After is obeyed, but a cancelled caller doesn't wait for it.
func TestCancelDuringRetryAfter(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, paths{getModel: {func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
		time.AfterFunc(10*time.Millisecond, cancel)
	}}})
	o := quick(s.URL)
	o.MaxRetryWait = time.Hour
	if _, err := open(t, o).Latest(ctx, "text"); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v, want the cancellation and what was waited for", err)
	}
}

func TestLoginIsSent(t *testing.T) {
	for name, c := range map[string]struct {
		opts func(*mlflow.Options)
		want string
	}{
		"basic":            {func(o *mlflow.Options) { o.Username, o.Password = "ann", "sesame" }, "Basic YW5uOnNlc2FtZQ=="},
		"bearer":           {func(o *mlflow.Options) { o.Token = "sesame" }, "Bearer sesame"},
		"basic wins":       {func(o *mlflow.Options) { o.Username, o.Password, o.Token = "ann", "sesame", "t" }, "Basic YW5uOnNlc2FtZQ=="},
		"in the URI":       {func(o *mlflow.Options) { o.TrackingURI = strings.Replace(o.TrackingURI, "//", "//ann:sesame@", 1) }, "Basic YW5uOnNlc2FtZQ=="},
		"none":             {func(*mlflow.Options) {}, ""},
		"a prefix and a /": {func(o *mlflow.Options) { o.TrackingURI += "/" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := "never asked"
			s := serve(t, paths{getModel: {func(w http.ResponseWriter, r *http.Request) {
				got = r.Header.Get("Authorization")
				jsonBody(200, modelJSON)(w, r)
			}}})
			o := quick(s.URL)
			c.opts(&o)
			if _, err := open(t, o).Latest(t.Context(), "text"); err != nil || got != c.want {
				t.Errorf("sent %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestVersionsAcrossPages(t *testing.T) {
	page := func(n int, next string) http.HandlerFunc {
		v := strings.Replace(versionJSON, `"3"`, strconv.Quote(strconv.Itoa(n)), 1)
		return jsonBody(200, fmt.Sprintf(`{"model_versions": [%s], "next_page_token": %q}`, v, next))
	}
	vs, err := open(t, quick(serve(t, paths{search: {page(9, "a"), page(10, "b"), page(2, "")}}).URL)).Versions(t.Context(), "text")
	if err != nil || len(vs) != 3 || vs[0].Number != 10 || vs[1].Number != 9 || vs[2].Number != 2 {
		t.Errorf("got %v, %v; want 10, 9, 2", vs, err)
	}
	_, err = open(t, quick(serve(t, paths{search: {page(1, "again")}}).URL)).Versions(t.Context(), "text")
	if err == nil || !strings.Contains(err.Error(), "without end") {
		t.Errorf("got %v, want an end to endless pages", err)
	}
}

func TestRunAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		why    string
		absent bool
		err    string
	}{
		"deleted":        {answer: jsonBody(200, `{"run": {"info": {"lifecycle_stage": "deleted"}, "data": {"metrics": [{"key": "eval_f1", "value": 0.9}]}}}`), why: "was deleted"},
		"gone":           {answer: jsonBody(404, `{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Run not found"}`), why: "no longer exists"},
		"text":           {answer: jsonBody(200, `{"run": {"data": {"metrics": [{"key": "eval_f1", "value": "good"}]}}}`), why: `is "good"`},
		"no metric":      {answer: jsonBody(200, `{"run": {"data": {}}}`), why: "no metric eval_f1 or f1", absent: true},
		"an object":      {answer: jsonBody(200, `{"run": {"data": {"metrics": [{"key": "eval_f1", "value": {}}]}}}`), why: "is \"{}\""},
		"no run":         {answer: jsonBody(200, `{}`), err: "holds no run"},
		"server trouble": {answer: jsonBody(500, `{}`), err: "500"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := open(t, quick(serve(t, paths{getRun: {c.answer}}).URL)).F1(t.Context(), judgedVersion)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || f.Known || f.Absent != c.absent || !strings.Contains(f.Why, c.why) {
				t.Errorf("got %+v, %v; want %q", f, err, c.why)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		o    mlflow.Options
		want string
	}{
		"no URI":            {mlflow.Options{}, "MLFLOW_TRACKING_URI"},
		"a folder":          {mlflow.Options{TrackingURI: "file:///x"}, "only http:// and https://"},
		"unreadable URI":    {mlflow.Options{TrackingURI: "http://ann:sesame@ho st"}, "not a valid URL"},
		"a name with /":     {mlflow.Options{TrackingURI: "http://h", Models: map[string]string{"text": "a/b"}}, "slash"},
		"a name with NUL":   {mlflow.Options{TrackingURI: "http://h", Models: map[string]string{"text": "a\x00"}}, "printable"},
		"an unknown kind":   {mlflow.Options{TrackingURI: "http://h", Via: []mlflow.Via{"tag"}}, `"tag"`},
		"three at once":     {mlflow.Options{TrackingURI: "http://h", ParallelFiles: 3}, "at most 2"},
		"negative":          {mlflow.Options{TrackingURI: "http://h", MaxBytes: -1}, "negative"},
		"no CA file":        {mlflow.Options{TrackingURI: "https://h", CACertFile: "/none"}, "MLFLOW_TRACKING_SERVER_CERT_PATH"},
		"token with a line": {mlflow.Options{TrackingURI: "http://h", Token: "sesame\r\nX: y"}, "line break"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mlflow.New(c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sesame") {
				t.Errorf("got %v, want %q and no secret", err, c.want)
			}
		})
	}
}
