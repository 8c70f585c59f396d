package faults_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"modelgate/modelstore/mlflow/mlflowtest"
)

// theMLflow is one real server for all rows, started by the first that wants it.
type theMLflow struct {
	once   sync.Once
	server *mlflowtest.Server
	err    error
}

var server theMLflow

func mlflowServer() (string, error) {
	server.once.Do(func() { server.server, server.err = mlflowtest.Start(mlflowtest.Options{}) })
	if server.err != nil {
		return "", server.err
	}
	return server.server.URL, nil
}

func stopMLflow() {
	if server.server != nil {
		server.server.Stop()
	}
}

// A registry is one registered model on the real server, which is reached through a proxy of its own.
type registry struct {
	*proxy
	t                *testing.T
	base             string // the server's own address
	name, experiment string
	versions         int
}

type object = map[string]any

// mlflow gives the row a registry, empty, and points its gateways there.
func (b *bed) mlflow() *registry {
	b.t.Helper()
	base, err := mlflowServer()
	if err != nil {
		b.t.Fatal(err)
	}
	r := &registry{t: b.t, base: base, name: strings.ReplaceAll(b.t.Name(), "/", "-") + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	if r.proxy, err = newProxy(base); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(r.down)
	r.experiment = text(b.t, r.post("experiments/create", object{"name": r.name}), "experiment_id")
	r.post("registered-models/create", object{"name": r.name})
	b.env = append(b.env, "MLFLOW_TRACKING_URI=http://"+r.addr, "MODELGATE_MODELS_TEXT_REGISTERED_NAME="+r.name,
		"MODELGATE_MODELS_VIDEO_ENABLED=false", "MODELGATE_MODELS_FUSION_ENABLED=false", "MODELGATE_FUSION_FALLBACK=none", "MODELGATE_MLFLOW_TIMEOUT=2s")
	return r
}

// publish makes the next version, of that F1, and returns its number. It is nobody's candidate before alias.
func (r *registry) publish(f1 float64, extra ...string) int {
	r.t.Helper()
	r.versions++
	files, err := bundle{n: r.versions}.files(filepath.Join(r.t.TempDir(), "bundle"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range extra { // a file of a megabyte
		files[name] = bytes.Repeat([]byte{byte(r.versions)}, 1<<20)
	}
	return r.publishFiles(files, []object{{"key": "eval_f1", "value": f1, "timestamp": 1, "step": 0}})
}

// publishFiles makes a version of files and metrics.
func (r *registry) publishFiles(files map[string][]byte, metrics []object) int {
	r.t.Helper()
	run := r.post("runs/create", object{"experiment_id": r.experiment})
	id := text(r.t, run, "run", "info", "run_id")
	if len(metrics) > 0 {
		r.post("runs/log-batch", object{"run_id": id, "metrics": metrics})
	}
	source := text(r.t, run, "run", "info", "artifact_uri") + "/model"
	root, ok := strings.CutPrefix(source, "mlflow-artifacts:/")
	if !ok {
		r.t.Fatalf("artifact URI %q", source)
	}
	for name, content := range files {
		r.send(http.MethodPut, "/api/2.0/mlflow-artifacts/artifacts/"+root+"/"+url.PathEscape(name), content)
	}
	made := text(r.t, r.post("model-versions/create", object{"name": r.name, "source": source, "run_id": id}), "model_version", "version")
	n, err := strconv.Atoi(made)
	if err != nil {
		r.t.Fatal(err)
	}
	r.versions = n
	return n
}

// promote points the alias to version n.
func (r *registry) promote(n int) int {
	r.t.Helper()
	r.post("registered-models/alias", object{"name": r.name, "alias": "production", "version": strconv.Itoa(n)})
	return n
}

// remove deletes version n.
func (r *registry) remove(n int) {
	r.t.Helper()
	r.call(http.MethodDelete, "model-versions/delete", object{"name": r.name, "version": strconv.Itoa(n)})
}

func (r *registry) post(method string, in object) object {
	r.t.Helper()
	return r.call(http.MethodPost, method, in)
}

// call asks the server itself, not the proxy.
func (r *registry) call(httpMethod, method string, in object) object {
	r.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		r.t.Fatal(err)
	}
	out := object{}
	if err := json.Unmarshal(r.send(httpMethod, "/api/2.0/mlflow/"+method, b), &out); err != nil {
		r.t.Fatalf("%s: %v", method, err)
	}
	return out
}

func (r *registry) send(method, path string, body []byte) []byte {
	r.t.Helper()
	req, err := http.NewRequest(method, r.base+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true // the server closes idle connections after 5 s, and a POST that meets that isn't repeated
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s %s: %s %v %s", method, path, resp.Status, err, b)
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
