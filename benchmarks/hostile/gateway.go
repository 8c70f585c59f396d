package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"modelgate/benchmarks/minilm"
	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/text/hf"
	"modelgate/inference/video"
	"modelgate/modelstore"
	"modelgate/modelstore/dir"
	"modelgate/modelstore/disk"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

// A gateway is a whole one in this process, with a text and a video model, on a port of loopback.
type gateway struct {
	client  pb.PredictionServiceClient
	conn    *grpc.ClientConn
	source  *dir.Source
	data    *disk.Data
	store   *modelstore.Store[*inference.Model]
	updater *modelstore.Updater
	server  *server.Server
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newGateway(ctx context.Context, eng engine.Engine, decoder *video.Decoder, scratch string) (g *gateway, err error) {
	models := filepath.Join(scratch, "models")
	for name, write := range map[string]func(string) error{"text": minilm.Write, "video": writeVideo} {
		if err := write(filepath.Join(models, name, "1")); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(models, name, "1", "metrics.json"), []byte(`{"eval_f1": 0.9}`), 0o600); err != nil {
			return nil, err
		}
	}
	g = &gateway{stop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if err := g.wire(eng, decoder, models, scratch); err != nil { //nolint:contextcheck // it listens until it is told to drain
		return g, err
	}
	running, stop := context.WithCancel(ctx)
	g.stop = stop
	g.running.Go(func() { _ = g.updater.Run(running) }) // its errors are those of Refresh
	g.running.Go(func() { _ = g.server.Run(running) })
	for _, name := range []string{"text", "video"} {
		if err := g.updater.Refresh(ctx, name); err != nil {
			return g, err
		}
		if active, _ := g.store.Serving(name); active.IsZero() {
			return g, fmt.Errorf("the model %s was not taken", name)
		}
	}
	return g, nil
}

// wire builds what `modelgate serve --models` builds.
func (g *gateway) wire(eng engine.Engine, decoder *video.Decoder, models, scratch string) (err error) {
	if g.source, err = dir.New(dir.Options{Dir: models}); err != nil {
		return err
	}
	cache, err := disk.OpenCache(filepath.Join(scratch, "cache"), disk.CacheOptions{})
	if err != nil {
		return err
	}
	if g.data, err = disk.OpenData(filepath.Join(scratch, "data"), disk.DataOptions{}); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	metrics, err := server.NewMetrics(registry)
	if err != nil {
		return err
	}
	tokenizers := hf.NewPool()
	load := func(ctx context.Context, b modelstore.Bundle) (*inference.Model, error) {
		return inference.Open(ctx, b.Dir, eng, inference.Options{Tokenizers: tokenizers, Decoder: decoder,
			Observed: func(n int, waits []time.Duration) { metrics.Batch(b.Version.Model, n, waits) }})
	}
	g.store = modelstore.New(load, modelstore.StoreOptions{Observe: metrics.Observe})
	log := slog.New(slog.DiscardHandler)
	g.updater = modelstore.NewUpdater(g.source, g.store, cache, g.data, modelstore.UpdaterOptions{
		Models: []modelstore.ModelConfig{{Name: "text"}, {Name: "video"}}, Interval: time.Hour, Observe: metrics.Observe, Logger: log,
	})
	g.server, err = server.New(server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Version: "benchmark", Logger: log,
		Limits: server.Limits{MessageBytes: mostClip}, Metrics: metrics, Gatherer: registry}, g.store, g.updater)
	if err != nil {
		return err
	}
	if g.conn, err = grpc.NewClient(g.server.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return err
	}
	g.client = pb.NewPredictionServiceClient(g.conn)
	return nil
}

// mostClip is the largest message: all clips here are smaller.
const mostClip = 32 << 20

func (g *gateway) close() error {
	var errs []error
	if g.conn != nil {
		errs = append(errs, g.conn.Close())
	}
	g.stop()
	g.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if g.store != nil {
		errs = append(errs, g.store.Close(ctx))
	}
	if g.data != nil {
		errs = append(errs, g.data.Close())
	}
	if g.source != nil {
		errs = append(errs, g.source.Close())
	}
	return errors.Join(errs...)
}
