package onnxgo_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"modelgate/inference/engine/enginetest"
)

// patience is far above what anything here takes on a busy machine.
const patience = 60 * time.Second

// program is the gateway: MODELGATE_TEST_PROGRAM, or what `make build` made.
func program(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("MODELGATE_TEST_PROGRAM"); path != "" {
		return path
	}
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", "modelgate"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("the gateway isn't there: run `make build`: %v", err)
	}
	return path
}

// clipNetwork is a small convolutional network over the clips of an enginetest.VideoBundle, whose frames are its channels.
func clipNetwork() *enginetest.Graph {
	const channels, side = 3 * enginetest.ClipFrames, enginetest.ClipSide
	return enginetest.NewGraph().
		Input("pixel_values", enginetest.Float, "batch", enginetest.ClipFrames, 3, side, side).
		Init("shape", enginetest.Tensor{Shape: []int64{4}, Data: []int64{0, channels, side, side}}).
		Init("w1", weight(8, channels, 3, 3)).Init("b1", weight(8)).Init("w2", weight(8, 2)).Init("b2", weight(2)).
		Node("Reshape", []string{"pixel_values", "shape"}, []string{"image"}).
		Node("Conv", []string{"image", "w1", "b1"}, []string{"c"}, enginetest.IntsAttr("pads", 1, 1, 1, 1)).
		Node("Relu", []string{"c"}, []string{"r"}).
		Node("GlobalAveragePool", []string{"r"}, []string{"mean"}).
		Node("Flatten", []string{"mean"}, []string{"flat"}).
		Node("Gemm", []string{"flat", "w2", "b2"}, []string{"logits"}).
		Output("logits", enginetest.Float, "batch", 2)
}

// workerProgram is this program, which is a worker if it is started as one.
func workerProgram(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func environment(t *testing.T, dir string) []string {
	t.Helper()
	return []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "MODELGATE_ONNXRUNTIME=" + enginetest.Library(t),
		"MODELGATE_DATA_DIR=" + filepath.Join(dir, "data"), "MODELGATE_GRPC_ADDR=127.0.0.1:0", "MODELGATE_HTTP_ADDR=127.0.0.1:0"}
}

// serve starts a gateway and returns its address once a version serves. It ends with the test.
func serve(t *testing.T, models string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(program(t), append([]string{"serve", "--models", models, "--drain-delay", "0s"}, args...)...)
	cmd.Env = environment(t, dir)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, ended := make(chan string, 1), make(chan struct{})
	var log bytes.Buffer
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log.Write(append(lines.Bytes(), '\n'))
			var l struct{ Msg, HTTP string }
			if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "listening" {
				address <- l.HTTP
			}
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if t.Failed() {
			t.Log(log.String())
		}
	})
	var at string
	select {
	case at = <-address:
	case <-ended:
		t.Fatal("the gateway ended")
	case <-time.After(patience):
		t.Fatal("the gateway doesn't listen")
	}
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		r, err := http.Get("http://" + at + "/readyz")
		if err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return at
			}
		}
		if time.Since(begun) > patience {
			t.Fatalf("nothing serves: %v", err)
		}
	}
}

// score is what the gateway says of a clip of one colour that changes from frame to frame.
func score(t *testing.T, at string, colour byte) float64 {
	t.Helper()
	rgb := make([]byte, enginetest.ClipFrames*3*enginetest.ClipSide*enginetest.ClipSide)
	for i := range rgb {
		rgb[i] = colour * byte(1+i%3) * byte(1+i%7)
	}
	body, err := json.Marshal(map[string]any{"video": map[string]any{"raw": map[string]any{"rgb": rgb, "width": enginetest.ClipSide, "height": enginetest.ClipSide}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.Post("http://"+at+"/v1/models/video:predict", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	var answer struct {
		Classes []struct {
			Label string
			Score float64
		}
	}
	text, err := io.ReadAll(r.Body)
	if err := errors.Join(err, json.Unmarshal(text, &answer)); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s (%v)", r.Status, text, err)
	}
	for _, c := range answer.Classes {
		if c.Label == "positive" {
			return c.Score
		}
	}
	t.Fatalf("no positive class in %s", text)
	return 0
}

// A gateway whose workers are this engine's says of clips what a gateway with ONNX Runtime says.
func TestGateway(t *testing.T) {
	models := t.TempDir()
	bundle := filepath.Join(models, "video", "1")
	if err := (enginetest.VideoBundle{}).Write(bundle); err != nil {
		t.Fatal(err)
	}
	if err := clipNetwork().WriteFile(filepath.Join(bundle, "model.onnx")); err != nil {
		t.Fatal(err)
	}
	ours := serve(t, models, "--isolation", "process", "--worker-program", workerProgram(t))
	theirs := serve(t, models)
	scores := map[string]bool{}
	for colour := range byte(20) {
		got, want := score(t, ours, colour), score(t, theirs, colour)
		if math.Abs(got-want) > tolerance {
			t.Errorf("colour %d: %v, with ONNX Runtime %v", colour, got, want)
		}
		scores[fmt.Sprintf("%.3f", got)] = true
	}
	if len(scores) < 3 {
		t.Errorf("all clips have one of the scores %v: nothing was compared", scores)
	}
}

// A version that this engine doesn't compute is refused, with the operator's name.
func TestGatewayRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "text")
	if err := (enginetest.TextBundle{}).Write(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), "validate", dir, "--isolation", "process", "--worker-program", workerProgram(t))
	cmd.Env = environment(t, t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "operator Gather isn't supported") {
		t.Errorf("%v: %s", err, out)
	}
}
