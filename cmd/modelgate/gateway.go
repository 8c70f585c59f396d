package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"modelgate/cmd/modelgate/config"
	"modelgate/inference"
	"modelgate/inference/engine"
	"modelgate/inference/text/hf"
	"modelgate/inference/video"
	"modelgate/modelstore"
	"modelgate/modelstore/disk"
	"modelgate/s3"
	"modelgate/server"
)

// gateway is everything that serves, wired together.
type gateway struct {
	config   *config.Loaded
	registry *registry
	data     *disk.Data
	objects  *s3.Endpoint   // nil without an object store
	decoder  *video.Decoder // nil without ffmpeg
	store    *modelstore.Store[*inference.Model]
	updater  *modelstore.Updater
	server   *server.Server
	log      *slog.Logger
}

// newGateway opens what a configuration names, from the engine up to the ports. Nothing is served before run.
func newGateway(ctx context.Context, c *config.Loaded, s *screen, log *slog.Logger) (g *gateway, err error) {
	g = &gateway{config: c, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close(ctx))
		}
	}()

	metrics, gatherer, err := newMetrics()
	if err != nil {
		return g, err
	}
	if g.objects, err = openObjects(ctx, c); err != nil {
		return g, err
	}
	if g.registry, err = openRegistry(ctx, c, g.objects, s, log); err != nil {
		return g, err
	}
	eng, err := openEngine(ctx, c, log)
	if err != nil {
		return g, err
	}
	if g.decoder, err = openDecoder(c, metrics.Clip, log); err != nil { //nolint:contextcheck // one short run of ffmpeg at the start
		return g, err
	}
	if g.data, err = disk.OpenData(c.DataDir, disk.DataOptions{Logger: log}); err != nil {
		return g, err
	}
	cache, err := disk.OpenCache(c.CacheDir, disk.CacheOptions{Keep: c.KeepVersions, Logger: log})
	if err != nil {
		return g, err
	}
	observe := func(e modelstore.Event) {
		metrics.Observe(e)
		logEvent(log, e)
	}
	memory := newAdmission(int64(c.MemoryLimit), log)
	g.store = modelstore.New(g.loader(eng, hf.NewPool(), metrics), modelstore.StoreOptions{
		KeepPrevious: time.Duration(c.KeepPrevious), DrainTimeout: time.Duration(c.DrainTimeout), Observe: observe,
		Permanent: func(err error) bool { return errors.Is(permanent(err), modelstore.ErrPermanent) },
		Admit:     memory.admit,
	})
	memory.process = func(model string) int {
		h, err := g.store.Acquire(model)
		if err != nil {
			return 0
		}
		defer h.Release()
		return h.Model().PID()
	}
	prepare, err := openPreparer(ctx, c, cache, memory, log)
	if err != nil {
		return g, err
	}
	g.updater = modelstore.NewUpdater(g.registry.Source, g.store, cache, g.data, modelstore.UpdaterOptions{
		Prepare: prepare.orNothing(), Models: g.registry.models, Discover: g.registry.discover, Interval: time.Duration(c.UpdateInterval), Observe: observe, Logger: log,
	})
	g.server, err = server.New(serverOptions(c, g, metrics, gatherer), g.store, g.updater) //nolint:contextcheck // it listens until it is told to drain
	return g, err
}

func newMetrics() (*server.Metrics, *prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m, err := server.NewMetrics(r)
	return m, r, err
}

// openDecoder makes what decodes clips for all models. Without ffmpeg there is none, and only models that take clips miss it; but one
// that a setting names must run.
func openDecoder(c *config.Loaded, observe func(video.Event), log *slog.Logger) (*video.Decoder, error) {
	v := c.Video
	waiting := v.Queue
	if waiting == 0 {
		waiting = 4 * max(c.Limits.BatchConcurrency, c.Limits.StreamWindow) // a few whole batches of clips
	}
	d, err := video.NewDecoder(video.DecoderOptions{
		FFmpeg: c.FFmpeg, Concurrent: v.Concurrent, Queue: waiting, MaxClipBytes: int64(v.ClipBytes), MaxPixels: int64(v.Pixels),
		MaxFrames: int64(v.Frames), MaxDuration: time.Duration(v.Duration), MaxMemory: int64(v.Memory), Timeout: time.Duration(v.Timeout),
		Logger: log, Observe: observe,
	})
	if err != nil && c.FFmpeg != "" {
		return nil, fmt.Errorf("ffmpeg (ffmpeg, MODELGATE_FFMPEG or --ffmpeg): %w", err)
	}
	if err != nil {
		log.Info("clips can't be decoded here: models that take them won't be opened", "reason", err)
	}
	return d, nil
}

// loader opens bundles. A bundle or graph that is at fault itself is a permanent failure: it goes into quarantine.
//
// What serves and turns out to be at fault is condemned. The updater is there by then: it alone has versions loaded.
func (g *gateway) loader(eng engine.Engine, tokenizers *hf.Pool, metrics *server.Metrics) modelstore.LoadFunc[*inference.Model] {
	c := g.config
	return func(ctx context.Context, b modelstore.Bundle) (*inference.Model, error) {
		v := b.Version
		if err := checkProvenance(c, v.Model, b.Dir, v.Declared != "" || c.ModelsDir != ""); err != nil {
			return nil, err
		}
		o := modelOptions(c, v.Model)
		o.Contract = v.Contract
		o.Tokenizers, o.Decoder = tokenizers, g.decoder
		o.Observed = func(n int, waits []time.Duration) { metrics.Batch(v.Model, n, waits) }
		o.Supervision = metrics.Supervise(v.Model, inference.Supervision{
			RefuseFor: time.Duration(c.Worker.RefuseFor), Killers: c.Worker.Killers,
			Charged: func(what string) { g.updater.Charge(v, what) },
			AtFault: func(why string) { g.updater.Condemn(v, why) }})
		return openModel(ctx, b, eng, o, g.log)
	}
}

// openModel opens a bundle in its prepared form, if there is one. Should that not work here, for whatever reason, though it did when it
// was prepared, the bundle itself has to do: what is wrong with that is the version's fault, or the machine's.
func openModel(ctx context.Context, b modelstore.Bundle, eng engine.Engine, o inference.Options, log *slog.Logger) (*inference.Model, error) {
	var err error
	if o.Rehearsal, err = readRehearsal(b.Prepared); err != nil {
		log.Error("what was prepared of a version can't be read; the bundle itself is loaded", "version", b.Version.String(), "folder", b.Prepared, "error", err)
	}
	m, err := inference.Open(ctx, b.Dir, eng, o)
	if err != nil && o.Rehearsal != nil && o.Rehearsal.Graph != "" && ctx.Err() == nil {
		log.Error("the prepared form of a version can't be loaded; the bundle itself is", "version", b.Version.String(), "folder", b.Prepared, "error", err)
		o.Rehearsal = nil
		m, err = inference.Open(ctx, b.Dir, eng, o)
	}
	return m, permanent(err)
}

func permanent(err error) error {
	if errors.Is(err, inference.ErrBundle) || errors.Is(err, engine.ErrGraph) {
		return modelstore.Permanent(err)
	}
	return err
}

func modelOptions(c *config.Loaded, name string) inference.Options {
	m := c.ModelFor(name)
	return inference.Options{
		PositiveLabel: m.PositiveLabel, Threshold: m.Threshold, MaxLength: m.MaxLength, SpecialAsText: m.SpecialAsText,
		MaxTextBytes: int(c.Limits.TextBytes), Threads: c.Threads, Workers: c.Workers, MaxBatch: c.Batch.MaxSize, MaxQueue: c.Batch.Queue,
		MaxWait: time.Duration(c.Batch.MaxWait), MaxRun: time.Duration(c.Batch.MaxRun), MaxWarmUp: time.Duration(c.LoadTimeout),
		AllowLabelChange: m.AllowLabelChange, MaxSlowdown: m.MaxSlowdown,
	}
}

// lateScore says what stands in for the fusion; nil: nothing does.
func lateScore(c *config.Loaded) *server.Late {
	f := c.Fusion
	if f.Fallback == "none" {
		return nil
	}
	m, threshold := c.ModelFor(f.Model), inference.DefaultThreshold
	if m.Threshold != nil {
		threshold = *m.Threshold
	}
	return &server.Late{Fusion: f.Model, Text: f.TextModel, Video: f.VideoModel, TextWeight: f.TextWeight, VideoWeight: f.VideoWeight,
		Single: f.OnMissing == "single", PositiveLabel: m.PositiveLabel, Threshold: threshold}
}

func serverOptions(c *config.Loaded, opened *gateway, m *server.Metrics, g prometheus.Gatherer) server.Options {
	l := c.Limits
	return server.Options{
		GRPCAddr: c.GRPCAddr, HTTPAddr: c.HTTPAddr,
		TLS:      server.TLSFiles{Cert: c.TLS.Cert, Key: c.TLS.Key, ClientCA: c.TLS.ClientCA},
		Insecure: c.Insecure, TokenFile: c.TokenFile, OpenPredictions: c.OpenPredictions, Proxied: c.Proxied, AllowedHosts: c.AllowedHosts,
		Late: lateScore(c), References: references(c, opened.objects), Hook: opened.registry.hook,
		Limits: server.Limits{MessageBytes: int(l.MessageBytes), IDBytes: l.IDBytes, BatchItems: l.BatchItems,
			BatchConcurrency: l.BatchConcurrency, StreamWindow: l.StreamWindow, Streams: l.Streams,
			UploadBytes: int(cmp.Or(l.UploadBytes, c.Video.ClipBytes)), UploadsBytes: int(l.UploadsBytes),
			UploadIdle: time.Duration(l.UploadIdle), UploadTime: time.Duration(l.UploadTime)},
		DrainDelay: time.Duration(c.DrainDelay), DrainTimeout: time.Duration(c.DrainTimeout),
		Reflection: c.Reflection, Version: thisBuild().Version, Logger: opened.log, Metrics: m, Gatherer: g,
	}
}

// logEvent logs what the updater doesn't: the steps of a swap, and what went wrong on the way out.
func logEvent(log *slog.Logger, e modelstore.Event) {
	switch e.Kind {
	case modelstore.PhaseEnded:
		log.Debug("phase", "version", e.Version.String(), "phase", string(e.Phase), "seconds", e.Duration.Seconds(), "error", e.Err)
	case modelstore.Compared:
		logCompared(log, e)
	case modelstore.CloseFailed:
		log.Warn("a version was closed with an error", "version", e.Version.String(), "error", e.Err)
	}
}

// logCompared tells how a candidate compares with what serves. A refusal is in the ledger, and in the log from there.
func logCompared(log *slog.Logger, e modelstore.Event) {
	if e.Before > 0 {
		log.Info("compared with the version that serves", "version", e.Version.String(), "slowdown", e.Duration.Seconds()/e.Before.Seconds(),
			"run_seconds", e.Duration.Seconds(), "run_seconds_before", e.Before.Seconds())
	}
	if e.Err != nil && e.Anyway {
		log.Warn("it is to serve all the same", "version", e.Version.String(), "found", e.Err)
	}
}

// run serves until ctx ends, then drains: the server first, so that every request in flight still finds its version, then the
// updater, then the store.
func (g *gateway) run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	updates := make(chan error, 1)
	go func() { updates <- g.updater.Run(work) }()
	err := g.server.Run(ctx)
	stop()
	return errors.Join(err, <-updates, g.close(ctx))
}

// close gives back what newGateway opened, last opened first, even if ctx has ended.
func (g *gateway) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(g.config.DrainTimeout))
	defer cancel()
	var errs []error
	if g.store != nil {
		errs = append(errs, g.store.Close(ctx))
	}
	if g.decoder != nil {
		errs = append(errs, g.decoder.Close())
	}
	if g.data != nil {
		errs = append(errs, g.data.Close())
	}
	if g.registry != nil {
		errs = append(errs, g.registry.close())
	}
	if g.objects != nil {
		errs = append(errs, g.objects.Close())
	}
	return errors.Join(errs...)
}
