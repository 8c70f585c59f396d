package modelgate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	modelgate "modelgate/clients/go"
	"modelgate/examples"
	"modelgate/inference"
	"modelgate/inference/engine/ort"
	"modelgate/modelstore"
	"modelgate/modelstore/dir"
	"modelgate/modelstore/disk"
	modelgatev1 "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

// startGateway runs a whole gateway in this process, with the committed text bundle, and returns when it serves.
// stop ends it and says what went wrong, if anything did.
func startGateway() (addr string, stop func() error, err error) {
	scratch, err := os.MkdirTemp("", "modelgate-client-")
	if err != nil {
		return "", nil, err
	}
	models := filepath.Join(scratch, "models")
	if err := os.CopyFS(models, examples.Models()); err != nil {
		return "", nil, err
	}
	library, err := findRuntime()
	if err != nil {
		return "", nil, err
	}
	engine, err := ort.Open(ort.Options{LibraryPath: library})
	if err != nil {
		return "", nil, err
	}
	source, err := dir.New(dir.Options{Dir: models})
	if err != nil {
		return "", nil, err
	}
	cache, err := disk.OpenCache(filepath.Join(scratch, "cache"), disk.CacheOptions{})
	if err != nil {
		return "", nil, err
	}
	data, err := disk.OpenData(filepath.Join(scratch, "data"), disk.DataOptions{})
	if err != nil {
		return "", nil, err
	}
	store := modelstore.New(func(ctx context.Context, b modelstore.Bundle) (*inference.Model, error) {
		return inference.Open(ctx, b.Dir, engine, inference.Options{})
	}, modelstore.StoreOptions{})
	updater := modelstore.NewUpdater(source, store, cache, data, modelstore.UpdaterOptions{Models: []modelstore.ModelConfig{{Name: "text"}}})
	srv, err := server.New(server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0"}, store, updater)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- updater.Run(ctx) }()
	go func() { ended <- srv.Run(ctx) }()
	stop = func() error {
		cancel()
		return errors.Join(<-ended, <-ended, store.Close(context.Background()), data.Close(), source.Close(), os.RemoveAll(scratch))
	}
	if err := updater.Refresh(ctx, "text"); err != nil {
		return "", nil, errors.Join(err, stop())
	}
	return srv.GRPCAddr().String(), stop, nil
}

// findRuntime is where `make onnxruntime` puts the library, seen from this folder.
func findRuntime() (string, error) {
	place := os.Getenv("MODELGATE_ONNXRUNTIME")
	if place == "" {
		place = filepath.Join("..", "..", ".cache", "onnxruntime", "lib")
	}
	path, err := ort.FindLibrary(place)
	if err != nil {
		return "", fmt.Errorf("%w: run `make onnxruntime`", err)
	}
	return path, nil
}

// The client and the server of this repository understand each other.
func TestAgainstTheGateway(t *testing.T) {
	addr, stop, err := startGateway()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	ctx, c := dial(t, addr, modelgate.Options{StreamWindow: 8})

	t.Run("errors", func(t *testing.T) {
		for name, test := range map[string]struct {
			model, text string
			code        codes.Code
		}{
			"an empty text":    {"text", "", codes.InvalidArgument},
			"an unknown model": {"txt", "hello", codes.NotFound},
			"a text too long":  {"text", strings.Repeat("long ", 20_000), codes.InvalidArgument},
			"not UTF-8":        {"text", "\xff", codes.InvalidArgument},
		} {
			if _, err := c.Predict(ctx, test.model, test.text); status.Code(err) != test.code {
				t.Errorf("%s: %v, want %v", name, err, test.code)
			}
		}
	})
	t.Run("batch", func(t *testing.T) {
		results, err := c.PredictBatch(ctx, "text", []modelgate.Request{{ID: "a", Text: "a lovely day", TopK: 1}, {ID: "b"}})
		if err != nil {
			t.Fatal(err)
		}
		if a, b := results[0], results[1]; a.ID != "a" || a.Err != nil || len(a.Prediction.Classes) != 1 || b.ID != "b" || status.Code(b.Err) != codes.InvalidArgument {
			t.Errorf("got %+v", results)
		}
	})
	t.Run("stream", func(t *testing.T) {
		answered := map[string]bool{}
		for r, err := range c.PredictStream(ctx, "text", filled(100)) {
			if err != nil || r.Err != nil {
				t.Fatal(err, r.Err)
			}
			answered[r.ID] = true
		}
		if len(answered) != 100 {
			t.Errorf("%d of 100 requests were answered", len(answered))
		}
	})
	t.Run("models", func(t *testing.T) {
		resp, err := c.Models().GetModel(ctx, &modelgatev1.GetModelRequest{Model: "text"})
		if err != nil || resp.GetModel().GetActive().GetVersion() != "2" {
			t.Errorf("got %v, %v", resp, err)
		}
	})
}
