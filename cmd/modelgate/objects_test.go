package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/inference/engine/enginetest"
	modelgatev1 "modelgate/proto/modelgate/v1"
	"modelgate/s3/s3test"
)

// A gateway that is started with the variables of MLflow's clients reads clips from where they say, in the folders that it may.
func TestClipsByReference(t *testing.T) {
	const secret = "hunter2"
	store := s3test.Start(t)
	store.Bucket(t, "clips")
	path := filepath.Join(t.TempDir(), "red.gif")
	out, err := exec.CommandContext(t.Context(), enginetest.FFmpeg(t), "-nostdin", "-v", "error", "-f", "lavfi", "-i", "color=red:s=64x48:r=10", "-frames:v", "6", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	clip, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	store.Put(t, "clips", "in/red.gif", clip)
	store.Put(t, "clips", "other/red.gif", clip)

	w := newTestbed(t)
	w.env = append(w.env, "MODELGATE_FFMPEG="+enginetest.FFmpeg(t), "MLFLOW_S3_ENDPOINT_URL="+store.URL, "AWS_ACCESS_KEY_ID=me",
		"AWS_SECRET_ACCESS_KEY="+secret, "MODELGATE_S3_PREFIXES=clips/in", "MODELGATE_LOG_LEVEL=debug")
	if err := (enginetest.VideoBundle{}).Write(filepath.Join(w.models(), "video", "1")); err != nil {
		t.Fatal(err)
	}
	p := w.ready(t)
	conn, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ask := func(uri string) (*modelgatev1.PredictResponse, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		video := &modelgatev1.Video{Source: &modelgatev1.Video_Uri{Uri: uri}}
		return modelgatev1.NewPredictionServiceClient(conn).Predict(ctx, &modelgatev1.PredictRequest{Model: "video", Video: video})
	}
	resp, err := ask("s3://clips/in/red.gif")
	if err != nil || resp.GetLabel() != "positive" {
		t.Errorf("got %v, %v\n%s", resp, err, p.log())
	}
	if _, err := ask("s3://clips/other/red.gif"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
	if _, err := ask("s3://clips/in/none.gif"); status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(p.terminate(), p.wait(patience)); err != nil {
		t.Error(err)
	}
	if strings.Contains(p.log(), secret) || !strings.Contains(p.log(), "s3://clips/in/none.gif") {
		t.Errorf("the log says\n%s", p.log())
	}
}
