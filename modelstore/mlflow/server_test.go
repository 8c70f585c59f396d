package mlflow_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"modelgate/modelstore"
	"modelgate/modelstore/mlflow/mlflowtest"
	"modelgate/s3/s3test"
)

// servers are real MLflow servers, one a version for the whole package, started both at once by the first test that wants one.
type servers struct {
	v3, v2   func() (*registry, error)
	warm     sync.Once
	starting sync.WaitGroup
	mu       sync.Mutex // guards stops
	stops    []func()
}

var testServers = newServers()

func newServers() *servers {
	s := &servers{}
	s.v3 = sync.OnceValues(func() (*registry, error) { return s.start("venv", "make python") })
	s.v2 = sync.OnceValues(func() (*registry, error) { return s.start("mlflow2-venv", "make mlflow2") })
	return s
}

func TestMain(m *testing.M) {
	code := m.Run()
	testServers.starting.Wait()
	for _, stop := range testServers.stops {
		stop()
	}
	os.Exit(code)
}

// forEachVersion runs a test against MLflow 3 and 2, at the same time.
func forEachVersion(t *testing.T, test func(t *testing.T, r *registry)) {
	testServers.begin()
	t.Parallel()
	for name, start := range map[string]func() (*registry, error){"MLflow 3": testServers.v3, "MLflow 2": testServers.v2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, started(t, start))
		})
	}
}

// begin has the servers start while tests that need none run.
func (s *servers) begin() {
	s.warm.Do(func() {
		for _, start := range []func() (*registry, error){s.v3, s.v2} {
			s.starting.Go(func() { _, _ = start() }) // started reports the error
		}
	})
}

func started(t *testing.T, start func() (*registry, error)) *registry {
	t.Helper()
	r, err := start()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs a server that lives as long as the package's tests.
func (s *servers) start(venv, target string, storage ...string) (*registry, error) {
	server, err := mlflowtest.Start(mlflowtest.Options{Venv: venv, Target: target, Storage: storage})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stops = append(s.stops, server.Stop)
	return &registry{base: server.URL}, nil
}

// registry publishes to a real server as a training job would.
type registry struct {
	base  string
	store *s3test.Server // where its artifacts are, if not behind it
}

type object = map[string]any

// call asks the API and returns the answer; a status other than 200 ends the test.
func (r *registry) call(t *testing.T, httpMethod, method string, in object) object {
	t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	out := object{}
	if err := json.Unmarshal(r.send(t, httpMethod, "/api/2.0/mlflow/"+method, b), &out); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return out
}

func (r *registry) post(t *testing.T, method string, in object) object {
	t.Helper()
	return r.call(t, http.MethodPost, method, in)
}

func (r *registry) send(t *testing.T, method, path string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.base+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true // the server closes idle connections after 5 s, and a POST that meets that isn't repeated
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %v %s", method, path, resp.Status, err, b)
	}
	return b
}

// text reads a field of nested objects.
func text(t *testing.T, o object, path ...string) string {
	t.Helper()
	for _, p := range path[:len(path)-1] {
		next, ok := o[p].(object)
		if !ok {
			t.Fatalf("no %s in %v", p, o)
		}
		o = next
	}
	s, ok := o[path[len(path)-1]].(string)
	if !ok {
		t.Fatalf("no text at %v in %v", path, o)
	}
	return s
}

// upload puts files below an artifact URI of the server's proxy.
func (r *registry) upload(t *testing.T, uri string, files map[string][]byte) {
	t.Helper()
	if key, ok := strings.CutPrefix(uri, "s3://models/"); ok {
		for name, b := range files {
			r.store.Put(t, "models", key+"/"+name, b)
		}
		return
	}
	root, ok := strings.CutPrefix(uri, "mlflow-artifacts:/")
	if !ok {
		t.Fatalf("artifact URI %q", uri)
	}
	for name, b := range files {
		parts := strings.Split(root+"/"+name, "/")
		for i := range parts {
			parts[i] = url.PathEscape(parts[i])
		}
		r.send(t, http.MethodPut, "/api/2.0/mlflow-artifacts/artifacts/"+strings.Join(parts, "/"), b)
	}
}

// model is a registered model on the server.
type model struct {
	*registry
	name, experiment string
}

// newModel prepares an experiment; the model itself is registered with its first version.
func (r *registry) newModel(t *testing.T) *model {
	t.Helper()
	name := strings.Map(func(c rune) rune {
		if c == '/' || c == ':' {
			return '-'
		}
		return c
	}, t.Name())
	return &model{r, name, text(t, r.post(t, "experiments/create", object{"name": name}), "experiment_id")}
}

// run makes a run with metrics and returns its id and artifact URI.
func (m *model) run(t *testing.T, metrics []object) (id, uri string) {
	t.Helper()
	run := m.post(t, "runs/create", object{"experiment_id": m.experiment})
	id = text(t, run, "run", "info", "run_id")
	if len(metrics) > 0 {
		m.post(t, "runs/log-batch", object{"run_id": id, "metrics": metrics})
	}
	return id, text(t, run, "run", "info", "artifact_uri")
}

func (m *model) register(t *testing.T) {
	t.Helper()
	m.post(t, "registered-models/create", object{"name": m.name})
}

func (m *model) version(t *testing.T, run, source string) string {
	t.Helper()
	return text(t, m.post(t, "model-versions/create", object{"name": m.name, "source": source, "run_id": run}), "model_version", "version")
}

// publish logs a run with files and metrics and makes a version of it.
func (m *model) publish(t *testing.T, files map[string][]byte, metrics []object) string {
	t.Helper()
	id, uri := m.run(t, metrics)
	m.upload(t, uri+"/best_checkpoint", files)
	return m.version(t, id, uri+"/best_checkpoint")
}

func (m *model) alias(t *testing.T, alias, version string) {
	t.Helper()
	m.post(t, "registered-models/alias", object{"name": m.name, "alias": alias, "version": version})
}

func (m *model) stage(t *testing.T, stage, version string) {
	t.Helper()
	m.post(t, "model-versions/transition-stage", object{"name": m.name, "version": version, "stage": stage})
}

func value(key string, x any) object {
	return object{"key": key, "value": x, "timestamp": 1, "step": 0}
}

func onnx(content string) map[string][]byte { return map[string][]byte{"model.onnx": []byte(content)} }

// find returns version n as the source lists it.
func find(t *testing.T, s modelstore.Source, n string) modelstore.Version {
	t.Helper()
	vs, err := s.Versions(t.Context(), "text")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		if v.ID() == n {
			return v
		}
	}
	t.Fatalf("version %s isn't listed: %v", n, vs)
	return modelstore.Version{}
}
