package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"modelgate/inference/engine/enginetest"
)

// Somebody copies what the demo says to try.
func TestRequestThatTheDemoSuggestsIsAnswered(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "demo", "--seconds", "3", "--rate", "50", "--dir", t.TempDir())
	cmd.Args[0] = "modelgate"
	cmd.Env = append(os.Environ(), "MODELGATE_ONNXRUNTIME="+enginetest.Library(t))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	curl := regexp.MustCompile(`curl -s(?: -H '([^:]+): ([^']+)')? (\S+) -d '([^']+)'`)
	var found []string
	lines := bufio.NewScanner(out)
	for found == nil && lines.Scan() {
		found = curl.FindStringSubmatch(lines.Text())
	}
	if found == nil {
		t.Fatalf("the demo suggests no curl command: %v\n%s", cmd.Wait(), &stderr)
	}
	post(t, found[3], found[1], found[2], found[4])
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out) // what is left of it
	if err := cmd.Wait(); err != nil {
		t.Errorf("the demo ended with %v", err)
	}
}

// post sends what curl would.
func post(t *testing.T, url, header, value, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if header != "" {
		req.Header.Set(header, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(answer), `"version":"2"`) {
		t.Errorf("%s: %s", resp.Status, answer)
	}
}
