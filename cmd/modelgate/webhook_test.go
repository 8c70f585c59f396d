package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"modelgate/modelstore/mlflow/mlflowtest"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// An MLflow server says that an alias was set, and the version is live: the gateway would have looked by itself ten hours later.
func TestWebhookOfARealServer(t *testing.T) {
	const secret = "the-secret-of-the-webhook"
	registry, err := mlflowtest.Start(mlflowtest.Options{Env: []string{
		"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
		"MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true", // it would only speak TLS, and not to this machine
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.Stop)
	w := newTestbed(t)
	w.env = append(w.env, "MODELGATE_MODELS_DIR=", "MLFLOW_TRACKING_URI="+registry.URL,
		"MODELGATE_MLFLOW_WEBHOOK_SECRET=the-secret-that-comes-after "+secret)
	p := w.serve(t, "--update-interval", "10h")
	publisher := startPublisher(t, registry.URL, p.httpURL(t)+"/hooks/mlflow", secret)

	var tested struct {
		Refused, Accepted int
		Error             string
	}
	publisher.read(t, &tested)
	if tested.Refused != http.StatusUnauthorized || tested.Accepted != http.StatusNoContent || tested.Error != "" {
		t.Fatalf("MLflow's own tests of its webhooks: %+v\n%s", tested, p.log())
	}
	for i, f1 := range []string{"0.8", "0.85"} {
		folder := filepath.Join(w.dir, fmt.Sprint("bundle", i))
		if err := writeExample(exampleOf(i+1), folder, false); err != nil {
			t.Fatal(err)
		}
		var published struct{ Version any }
		publisher.write(t, folder+" "+f1)
		publisher.read(t, &published)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		version := fmt.Sprint(published.Version)
		if err := p.await(ctx, func(m *modelgatev1.Model) bool {
			return m.GetName() == "text" && m.GetActive().GetVersion() == version
		}); err != nil {
			t.Fatalf("version %s isn't live: %v\n%s", version, err, p.log())
		}
		t.Logf("version %s was live %v after its alias was set", version, time.Since(began).Round(time.Millisecond))
	}
	page := p.metrics(t)
	for _, want := range []string{`modelgate_hook_deliveries_total{result="signature"} 1`, `modelgate_hook_deliveries_total{result="accepted"}`} {
		if !strings.Contains(page, want) {
			t.Errorf("the metrics don't say %s", want)
		}
	}
	if log := p.log(); strings.Contains(log, secret) || !strings.Contains(log, "the registry says that something changed") {
		t.Errorf("the log says\n%s", log)
	}
}

// httpURL is where REST listens, whether the gateway is ready or not.
func (p *process) httpURL(t *testing.T) string {
	t.Helper()
	select {
	case <-p.listening:
	case <-time.After(patience):
	}
	if p.http == "" {
		t.Fatalf("the gateway doesn't listen\n%s", p.log())
	}
	return "http://" + p.http
}

func (p *process) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(p.httpURL(t) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// publisher is testdata/webhook.py.
type publisher struct {
	in  io.Writer
	out *bufio.Scanner
}

func startPublisher(t *testing.T, args ...string) publisher {
	t.Helper()
	python, err := mlflowtest.Bin("venv", "python", "make python")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, append([]string{filepath.Join("testdata", "webhook.py")}, args...)...)
	cmd.Env = append(os.Environ(), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false")
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return publisher{in, bufio.NewScanner(out)}
}

func (p publisher) write(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// read reads one object; MLflow prints lines of its own between them.
func (p publisher) read(t *testing.T, into any) {
	t.Helper()
	for p.out.Scan() {
		if strings.HasPrefix(p.out.Text(), "{") {
			if err := json.Unmarshal(p.out.Bytes(), into); err != nil {
				t.Fatalf("%v: %s", err, p.out.Text())
			}
			return
		}
	}
	t.Fatalf("the publisher ended: %v", p.out.Err())
}
