package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// validate checks what one setting's type can't: ranges, and settings that need or exclude each other.
func (l *Loaded) validate() error {
	var errs []error
	bad := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %s", l.Origin(path), path, fmt.Sprintf(format, args...)))
	}
	l.validateAddresses(bad)
	l.validateFiles(bad)
	l.validateNumbers(bad)
	l.validateWorker(bad, runtime.GOOS)
	l.validateVideo(bad)
	l.validateUploads(bad)
	l.validateFusion(bad)
	l.validateMLflow(bad)
	l.validateS3(bad)
	for _, name := range slices.Sorted(maps.Keys(l.Models)) {
		l.validateModel(name, l.Models[name], bad)
	}
	return errors.Join(errs...)
}

type complain func(path, format string, args ...any)

// Origin says where the value of a setting comes from.
func (l *Loaded) Origin(path string) string {
	for _, s := range l.Settings {
		if s.Path == path {
			return s.Origin
		}
	}
	return "default"
}

func (l *Loaded) validateAddresses(bad complain) {
	for _, a := range []struct{ path, addr string }{{"grpc_addr", l.GRPCAddr}, {"http_addr", l.HTTPAddr}} {
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			bad(a.path, "%q is not an address; write host:port, such as 127.0.0.1:8001, or 127.0.0.1:0 for any free port", a.addr)
		}
	}
	_, port, _ := net.SplitHostPort(l.GRPCAddr)
	if l.GRPCAddr == l.HTTPAddr && port != "0" {
		bad("http_addr", "is the same as grpc_addr, %s; give each a port of its own", l.GRPCAddr)
	}
}

func (l *Loaded) validateFiles(bad complain) {
	t := l.TLS
	switch {
	case t.Cert != "" && t.Key == "":
		bad("tls.cert", "needs its private key in tls.key")
	case t.Key != "" && t.Cert == "":
		bad("tls.key", "needs its certificate in tls.cert")
	case t.ClientCA != "" && t.Cert == "":
		bad("tls.client_ca", "needs tls.cert and tls.key: callers can only show certificates over TLS")
	}
	if l.OpenPredictions && l.TokenFile == "" {
		bad("open_predictions", "means nothing without token_file")
	}
	if l.WorkerProgram != "" && l.Isolation != "process" {
		bad("worker_program", "needs isolation: process; without it models compute in the gateway, with ONNX Runtime")
	}
	if l.DataDir == "" {
		bad("data_dir", "must not be empty; it is where state and ledger are kept")
	} else if abs, err := filepath.Abs(l.DataDir); err == nil && l.ModelsDir != "" {
		if models, err := filepath.Abs(l.ModelsDir); err == nil && models == abs {
			bad("data_dir", "is the folder of models, %s; give state and ledger a folder of their own", l.ModelsDir)
		}
	}
}

func (l *Loaded) validateNumbers(bad complain) {
	atLeast := func(path string, value, least int64) {
		if value < least {
			bad(path, "%d is too small; the least is %d", value, least)
		}
	}
	atLeast("keep_versions", int64(l.KeepVersions), 1)
	atLeast("threads", int64(l.Threads), 0)
	atLeast("workers", int64(l.Workers), 0)
	atLeast("batch.max_size", int64(l.Batch.MaxSize), 0)
	atLeast("batch.queue", int64(l.Batch.Queue), 0)
	atLeast("limits.text_bytes", int64(l.Limits.TextBytes), 1)
	atLeast("limits.message_bytes", int64(l.Limits.MessageBytes), 1<<10)
	atLeast("limits.batch_items", int64(l.Limits.BatchItems), 1)
	atLeast("limits.id_bytes", int64(l.Limits.IDBytes), 1)
	atLeast("limits.batch_concurrency", int64(l.Limits.BatchConcurrency), 1)
	atLeast("limits.stream_window", int64(l.Limits.StreamWindow), 1)
	atLeast("limits.streams", int64(l.Limits.Streams), 1)
	if l.Batch.MaxWait < 0 {
		bad("batch.max_wait", "must be 0 or more")
	}
	if l.UpdateInterval <= 0 {
		bad("update_interval", "must be more than 0")
	}
	if l.Batch.MaxRun <= 0 {
		bad("batch.max_run", "must be more than 0")
	}
	if l.LoadTimeout <= 0 {
		bad("load_timeout", "must be more than 0")
	}
	if l.DrainTimeout <= 0 {
		bad("drain_timeout", "must be more than 0")
	}
}

func (l *Loaded) validateWorker(bad complain, system string) {
	if l.Isolation == "process" && system != "linux" {
		bad("isolation", "process works on Linux only; write none, and serve only graphs that you trust")
	}
	w := l.Worker
	for _, s := range []struct {
		path  string
		value Duration
	}{{"worker.grace", w.Grace}, {"worker.refuse_for", w.RefuseFor}} {
		if s.value < Duration(time.Millisecond) {
			bad(s.path, "must be 1ms or more")
		}
	}
	if w.Killers < 1 {
		bad("worker.killers", "%d is too small; the least is 1", w.Killers)
	}
}

func (l *Loaded) validateFusion(bad complain) {
	const slack = 1e-9
	f := l.Fusion
	if f.Fallback == "none" {
		return
	}
	for _, w := range []struct {
		path  string
		value float64
	}{{"fusion.text_weight", f.TextWeight}, {"fusion.video_weight", f.VideoWeight}} {
		if !(w.value >= 0 && w.value <= 1) {
			bad(w.path, "%v is not from 0 to 1", w.value)
		}
	}
	if sum := f.TextWeight + f.VideoWeight; math.Abs(sum-1) > slack {
		bad("fusion.video_weight", "%v and fusion.text_weight, %v, are %v together; they must be 1", f.VideoWeight, f.TextWeight, sum)
	}
	if f.Model == f.TextModel || f.Model == f.VideoModel || f.TextModel == f.VideoModel {
		bad("fusion.model", "%q, fusion.text_model, %q, and fusion.video_model, %q, must be three models", f.Model, f.TextModel, f.VideoModel)
	}
}

// Bounds of what decodes clips: three bytes of each pixel are counted in 31 bits, and an ffmpeg needs some memory to start at all.
const (
	mostPixels  = 1 << 28
	leastMemory = 320 << 20
)

func (l *Loaded) validateVideo(bad complain) {
	v := l.Video
	for _, s := range []struct {
		path         string
		value, least int64
	}{
		{"video.concurrent", int64(v.Concurrent), 0},
		{"video.queue", int64(v.Queue), 0},
		{"video.clip_bytes", int64(v.ClipBytes), 1},
		{"video.pixels", int64(v.Pixels), 1},
		{"video.frames", int64(v.Frames), 1},
	} {
		if s.value < s.least {
			bad(s.path, "%d is too small; the least is %d", s.value, s.least)
		}
	}
	if v.Pixels > mostPixels {
		bad("video.pixels", "%d is too large; the most is %d", v.Pixels, mostPixels)
	}
	if v.Memory < leastMemory {
		bad("video.memory", "%v is too small: ffmpeg needs %v to start and for small clips", v.Memory, Bytes(leastMemory))
	}
	if v.Duration <= 0 {
		bad("video.duration", "must be more than 0")
	}
	if v.Timeout < Duration(time.Millisecond) {
		bad("video.timeout", "must be 1ms or more")
	}
}

// validateUploads keeps a clip from being taken that couldn't be decoded, or couldn't be in memory.
func (l *Loaded) validateUploads(bad complain) {
	u := l.Limits
	most := cmp.Or(u.UploadBytes, l.Video.ClipBytes)
	switch {
	case u.UploadBytes < 0:
		bad("limits.upload_bytes", "must be 0 or more")
	case u.UploadBytes > l.Video.ClipBytes:
		bad("limits.upload_bytes", "%v is more than video.clip_bytes, %v, which is what can be decoded: raise that too", u.UploadBytes, l.Video.ClipBytes)
	case u.UploadsBytes < 0 || u.UploadsBytes > 0 && u.UploadsBytes < most+u.MessageBytes:
		bad("limits.uploads_bytes", "%v is too small; the least is %v, one clip and one message", u.UploadsBytes, most+u.MessageBytes)
	}
	if u.UploadIdle <= 0 {
		bad("limits.upload_idle", "must be more than 0")
	}
	if u.UploadTime <= 0 {
		bad("limits.upload_time", "must be more than 0")
	}
}

func (l *Loaded) validateMLflow(bad complain) {
	m := l.MLflow
	if m.TrackingURI != "" {
		u, err := url.Parse(m.TrackingURI)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			bad("mlflow.tracking_uri", "is not the address of an MLflow server; write http://host:port or https://host. Files and databases have to be put behind `mlflow server`")
		}
	}
	if m.Alias == "" && m.Pointer != "stage" {
		bad("mlflow.alias", "must not be empty while mlflow.pointer is %s", m.Pointer)
	}
	if m.Stage == "" && m.Pointer != "alias" {
		bad("mlflow.stage", "must not be empty while mlflow.pointer is %s", m.Pointer)
	}
	if len(m.Metrics) == 0 {
		bad("mlflow.metrics", "must name at least one metric, such as eval_f1")
	}
	if m.Timeout <= 0 {
		bad("mlflow.timeout", "must be more than 0")
	}
}

func (l *Loaded) validateS3(bad complain) {
	s := l.S3
	if s.Endpoint == "" {
		for path, list := range map[string][]string{"s3.prefixes": s.Prefixes, "s3.artifact_prefixes": s.ArtifactPrefixes} {
			if len(list) > 0 {
				bad(path, "means nothing without s3.endpoint, the address of the S3 server")
			}
		}
		return // keys in the environment are often there for other programs
	}
	u, err := url.Parse(s.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
		bad("s3.endpoint", "is not the address of an S3 server; write http://host:port or https://host, and keys as settings of their own")
	}
	if (s.AccessKey == "") != (s.SecretKey == "") {
		bad("s3.access_key", "needs s3.secret_key, and the other way round")
	}
	if s.Timeout <= 0 {
		bad("s3.timeout", "must be more than 0")
	}
	if s.Concurrent < 1 {
		bad("s3.concurrent", "%d is too small; the least is 1", s.Concurrent)
	}
	if s.Memory != 0 && s.Memory < l.Video.ClipBytes {
		bad("s3.memory", "%v is less than one clip may have, %v (video.clip_bytes)", s.Memory, l.Video.ClipBytes)
	}
}

func (l *Loaded) validateModel(name string, m *Model, bad complain) {
	prefix := "models." + name + "."
	share := func(key string, x float64) {
		if x < 0 || x > 1 {
			bad(prefix+key, "%v is not from 0 to 1", x)
		}
	}
	share("f1_threshold", m.F1Threshold)
	share("min_improvement", m.MinImprovement)
	if m.Threshold != nil {
		share("threshold", *m.Threshold)
	}
	if m.RegisteredName == "" {
		bad(prefix+"registered_name", "must not be empty")
	}
	if m.MaxSlowdown != 0 && !(m.MaxSlowdown >= 1) {
		bad(prefix+"max_slowdown", "%v is less than 1, which would refuse what is as fast; 0 refuses nothing", m.MaxSlowdown)
	}
	if m.MaxLength < 0 {
		bad(prefix+"max_length", "%d is less than 0", m.MaxLength)
	}
}
