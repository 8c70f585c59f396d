// Package config finds the settings of a gateway: flags before the environment before a file before defaults, and where each came from.
package config

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Config is every setting of a gateway. Its JSON names are the keys of the file; Load fills it.
type Config struct {
	GRPCAddr        string   `json:"grpc_addr" jsonschema_description:"Address of the gRPC port."`
	HTTPAddr        string   `json:"http_addr" jsonschema_description:"Address of the REST, health, metrics and docs port."`
	ModelsDir       string   `json:"models_dir" flag:"models" jsonschema_description:"Folder to serve and watch: DIR/<served name>/<version number>/. In place of MLflow."`
	DataDir         string   `json:"data_dir" jsonschema_description:"Folder for state and ledger, locked by one gateway. Default: $XDG_STATE_HOME/modelgate, or ~/.local/state/modelgate."`
	CacheDir        string   `json:"cache_dir" jsonschema_description:"Folder for downloaded versions; gateways may share it. Default: cache in data_dir."`
	UpdateInterval  Duration `json:"update_interval" jsonschema_description:"Time between two looks at the registry. Default: 30m; 2s for a folder of models."`
	KeepPrevious    Duration `json:"keep_previous" jsonschema_description:"How long the version before stays in memory after a swap, for an instant rollback."`
	KeepVersions    int      `json:"keep_versions" jsonschema_description:"How many versions of a model stay on disk."`
	LoadTimeout     Duration `json:"load_timeout" jsonschema_description:"How long a version may take to load, for its first run, and for its warm-up, each. One that takes longer is refused."`
	DrainTimeout    Duration `json:"drain_timeout" jsonschema_description:"How long requests in progress may take to end at a swap or at the end of the program."`
	DrainDelay      Duration `json:"drain_delay" jsonschema_description:"Time between \"not ready\" and the end of listening, for load balancers to notice."`
	TokenFile       string   `json:"token_file" jsonschema_description:"File with the bearer tokens that callers may send, one a line."`
	OpenPredictions bool     `json:"open_predictions" jsonschema_description:"Let callers without a token predict; everything else still needs one."`
	Proxied         bool     `json:"proxied" jsonschema_description:"A proxy on this machine hands on what other machines send: an address on loopback is then as public as any."`
	AllowedHosts    []string `json:"allowed_hosts" jsonschema_description:"Names, besides localhost and loopback addresses, that a Host header may give to a port on loopback."`
	Insecure        bool     `json:"insecure" jsonschema_description:"Allow addresses off loopback without TLS."`
	Reflection      *bool    `json:"reflection,omitempty" jsonschema_description:"Answer gRPC reflection, for grpcurl and its like. Default: on loopback only."`
	ONNXRuntime     string   `json:"onnxruntime" jsonschema_description:"Path of the ONNX Runtime library. Default: libonnxruntime.so beside the program."`
	FFmpeg          string   `json:"ffmpeg" jsonschema_description:"Path of the ffmpeg program, which decodes clips. Default: the one on the PATH. Only models that take clips need it."`
	Threads         int      `json:"threads" jsonschema_description:"Threads inside one run of a model; 0 is the engine's choice."`
	Isolation       string   `json:"isolation" jsonschema:"enum=none,enum=process" jsonschema_description:"Where models compute. process: each version in a process of its own, shut in, which may crash without the gateway; none: in the gateway, which saves a tenth of a millisecond a run, and ends with a graph that crashes. Default: process on Linux, none elsewhere."`
	WorkerProgram   string   `json:"worker_program" jsonschema_description:"Path of a program that computes in the worker processes in place of this one, with another engine, such as modelgate-onnxgo. Needs isolation: process."`
	Prepare         string   `json:"prepare" jsonschema:"enum=auto,enum=off" jsonschema_description:"Whether a version is opened and tried in a process of its own before it is swapped in, and its graph kept in a form that loads faster, which takes up to one and a half times its size on disk. off: the swap is the first to open it."`
	MemoryLimit     Bytes    `json:"memory_limit" jsonschema_description:"Most memory that the gateway and its worker processes may take together when a version is loaded: one that needs more is refused for now. Default: what the limits of the cgroup and the machine's memory leave."`
	Workers         int      `json:"workers" jsonschema_description:"Runs of a version at the same time; 0 is one a core."`

	TLS    TLS    `json:"tls" jsonschema_description:"Certificates, read again when they change."`
	Batch  Batch  `json:"batch" jsonschema_description:"How requests are gathered into runs of a model."`
	Limits Limits `json:"limits" jsonschema_description:"What a request may ask for."`
	Worker Worker `json:"worker" jsonschema_description:"The processes of versions, with isolation: process."`
	Video  Video  `json:"video" jsonschema_description:"How clips are decoded. Each is decoded by an ffmpeg of its own."`
	Log    Log    `json:"log" jsonschema_description:"What is logged, and how."`
	Fusion Fusion `json:"fusion" jsonschema_description:"How requests for text and clip together are answered while no version of the fusion can."`
	MLflow MLflow `json:"mlflow" jsonschema_description:"The registry."`
	S3     S3     `json:"s3" jsonschema_description:"The object store: for clips by reference, and for a registry that keeps its artifacts there."`

	Models map[string]*Model `json:"models" jsonschema_description:"Models by served name."`
}

// TLS names the files of the transport's security.
type TLS struct {
	Cert     string `json:"cert" jsonschema_description:"Certificate chain, PEM. Together with key it turns TLS on."`
	Key      string `json:"key" jsonschema_description:"Private key, PEM."`
	ClientCA string `json:"client_ca" jsonschema_description:"Certificates that sign callers' certificates, PEM. Turns mutual TLS on."`
}

// Batch bounds batches.
type Batch struct {
	MaxSize int      `json:"max_size" jsonschema_description:"Most requests in one run; 0 is the default for a CPU."`
	MaxRun  Duration `json:"max_run" jsonschema_description:"Longest run of a model. One that takes longer is ended, and its request gets DEADLINE_EXCEEDED."`
	Queue   int      `json:"queue" jsonschema_description:"Most requests of a version that may wait; 0 is the default."`

	MaxWait Duration `json:"max_wait" jsonschema_description:"Longest time that a request in a burst may be expected to wait for its run, before it is refused; under lasting overload it is about one run. 0: a quarter of a second, or 32 times what a request takes."`
}

// Limits bound requests.
type Limits struct {
	TextBytes        Bytes `json:"text_bytes" jsonschema_description:"Longest text."`
	MessageBytes     Bytes `json:"message_bytes" jsonschema_description:"Largest message in either direction."`
	IDBytes          int   `json:"id_bytes" jsonschema_description:"Longest id of a request."`
	BatchItems       int   `json:"batch_items" jsonschema_description:"Most inputs in one PredictBatch."`
	BatchConcurrency int   `json:"batch_concurrency" jsonschema_description:"Most inputs of one PredictBatch that are computed at the same time."`
	StreamWindow     int   `json:"stream_window" jsonschema_description:"Most messages of one stream in flight."`
	Streams          int   `json:"streams" jsonschema_description:"Most calls in progress on one connection."`

	UploadBytes  Bytes    `json:"upload_bytes" jsonschema_description:"Largest clip that may be uploaded; 0 is video.clip_bytes."`
	UploadsBytes Bytes    `json:"uploads_bytes" jsonschema_description:"Memory for all uploads in progress together; 0 is four times the largest clip and message."`
	UploadIdle   Duration `json:"upload_idle" jsonschema_description:"Longest time in which nothing of an upload arrives."`
	UploadTime   Duration `json:"upload_time" jsonschema_description:"Longest time for a clip to arrive."`
}

// Worker bounds the process that computes a version, and says what follows when it ends.
type Worker struct {
	Grace     Duration `json:"grace" jsonschema_description:"Longest time for a process to end a run that was cancelled, to take a request, and to end itself, before it is killed."`
	RefuseFor Duration `json:"refuse_for" jsonschema_description:"How long an input that ended a version's process isn't tried again."`
	Killers   int      `json:"killers" jsonschema_description:"How many different inputs must have ended a version's process for the version before it to take over by itself."`
}

// Video bounds the decoding of clips.
type Video struct {
	Concurrent int      `json:"concurrent" jsonschema_description:"Most clips decoded at the same time; 0 is one for every two cores."`
	Queue      int      `json:"queue" jsonschema_description:"Most clips that may wait to be decoded; 0 is enough for a few whole batches."`
	ClipBytes  Bytes    `json:"clip_bytes" jsonschema_description:"Largest clip."`
	Pixels     int      `json:"pixels" jsonschema_description:"Most pixels of a frame, its width times its height."`
	Frames     int      `json:"frames" jsonschema_description:"Most frames of a clip, whether the model takes them or not."`
	Duration   Duration `json:"duration" jsonschema_description:"Longest clip."`
	Memory     Bytes    `json:"memory" jsonschema_description:"Most address space of one ffmpeg."`
	Timeout    Duration `json:"timeout" jsonschema_description:"Longest time that one clip may be decoded, without the wait for its turn."`
}

// Log says what is logged.
type Log struct {
	Level  string `json:"level" jsonschema:"enum=debug,enum=info,enum=warn,enum=error" jsonschema_description:"Least level that is logged."`
	Format string `json:"format" jsonschema:"enum=auto,enum=text,enum=json" jsonschema_description:"auto is text on a terminal and JSON otherwise."`
}

// Fusion says what stands in for a fusion.
type Fusion struct {
	Fallback    string  `json:"fallback" jsonschema:"enum=late_score,enum=none" jsonschema_description:"What answers while no version of the fusion serves: the weighted mean of the text model's and the video model's scores, or nothing."`
	OnMissing   string  `json:"on_missing" jsonschema:"enum=undecided,enum=single" jsonschema_description:"What the score of the one model decides where only a text or only a clip is given: nothing, or as much as that model alone."`
	TextWeight  float64 `json:"text_weight" jsonschema:"minimum=0,maximum=1" jsonschema_description:"Share of the text's score in the late score."`
	VideoWeight float64 `json:"video_weight" jsonschema:"minimum=0,maximum=1" jsonschema_description:"Share of the clip's score in the late score. The two shares are 1 together."`
	Model       string  `json:"model" jsonschema_description:"Served name of the fusion. Its threshold and positive_label hold for the late score too."`
	TextModel   string  `json:"text_model" jsonschema_description:"Served name of the model for texts."`
	VideoModel  string  `json:"video_model" jsonschema_description:"Served name of the model for clips."`
}

// MLflow says how the registry is reached and read.
type MLflow struct {
	Enabled     bool     `json:"enabled" jsonschema_description:"false serves what is in the cache and asks no registry."`
	TrackingURI string   `json:"tracking_uri" jsonschema_description:"Address of the MLflow server, such as http://127.0.0.1:5000."`
	Pointer     string   `json:"pointer" jsonschema:"enum=alias,enum=stage,enum=both" jsonschema_description:"What promotes a version. With both, the alias wins."`
	Alias       string   `json:"alias" jsonschema_description:"Name of the alias."`
	Stage       string   `json:"stage" jsonschema_description:"Name of the stage."`
	Metrics     []string `json:"metrics" jsonschema_description:"Exact names of the metric that is the F1; the first that exists counts."`
	Username    string   `json:"username" jsonschema_description:"Name for basic authentication."`
	Password    string   `json:"password" secret:"true" jsonschema_description:"Password for basic authentication. Environment or file only."`
	Token       string   `json:"token" secret:"true" jsonschema_description:"Bearer token. Environment or file only."`
	InsecureTLS bool     `json:"insecure_tls" jsonschema_description:"Don't check the server's certificate."`
	ServerCert  string   `json:"server_cert" jsonschema_description:"Certificates that sign the server's certificate, PEM."`
	ClientCert  string   `json:"client_cert" jsonschema_description:"Our own certificate and key for the server, PEM."`
	Timeout     Duration `json:"timeout" jsonschema_description:"Longest wait for an answer to one request."`

	WebhookSecret string `json:"webhook_secret" secret:"true" jsonschema_description:"Secret of MLflow 3's webhook for POST /hooks/mlflow, which has the registry asked at once when something changed there; several are separated by spaces. Default: none, and no such address. Environment or file only."`
}

// WebhookSecrets are the secrets of which any may sign.
func (m MLflow) WebhookSecrets() []string { return strings.Fields(m.WebhookSecret) }

// S3 says which object store may be read, and what of it for whom.
type S3 struct {
	Endpoint         string   `json:"endpoint" jsonschema_description:"Address of the S3 server, such as http://127.0.0.1:9000 or https://s3.eu-north-1.amazonaws.com. Objects are read from nowhere else. Default: none, and no S3."`
	Region           string   `json:"region" jsonschema_description:"Region that requests are signed for. Default: the one in an address of AWS, else us-east-1, which servers without regions take."`
	AccessKey        string   `json:"access_key" jsonschema_description:"Access key. Without one, requests are anonymous."`
	SecretKey        string   `json:"secret_key" secret:"true" jsonschema_description:"Secret key. Environment or file only."`
	SessionToken     string   `json:"session_token" secret:"true" jsonschema_description:"Token of temporary keys. Environment or file only."`
	CACert           string   `json:"ca_cert" jsonschema_description:"Certificates that sign the server's certificate, PEM."`
	Networks         []string `json:"networks" jsonschema_description:"Private networks where the endpoint's name may lead, such as 172.18.0.0/16. Default: the addresses that it has at the start, and public ones."`
	Prefixes         []string `json:"prefixes" jsonschema_description:"Folders of which requests may name clips: bucket/folder, or bucket for all of it. Default: none, and no references."`
	ArtifactPrefixes []string `json:"artifact_prefixes" jsonschema_description:"Folders where the registry may say that a version's files are. Default: none."`
	Timeout          Duration `json:"timeout" jsonschema_description:"Longest time for reading one clip."`
	Concurrent       int      `json:"concurrent" jsonschema_description:"Most clips that are read at the same time."`
	Memory           Bytes    `json:"memory" jsonschema_description:"Most bytes of clips by reference that are in memory together. Default: four of the largest size."`
}

// Model is one served name and the rules for it.
type Model struct {
	Enabled            bool     `json:"enabled" jsonschema_description:"false leaves the model out."`
	RegisteredName     string   `json:"registered_name" jsonschema_description:"Name in the registry."`
	F1Threshold        float64  `json:"f1_threshold" jsonschema:"minimum=0,maximum=1" jsonschema_description:"What the F1 of a version must exceed."`
	MinImprovement     float64  `json:"min_improvement" jsonschema:"minimum=0,maximum=1" jsonschema_description:"By how much the F1 must exceed that of the version that serves."`
	OnRegistryRollback string   `json:"on_registry_rollback" jsonschema:"enum=follow,enum=ignore" jsonschema_description:"What to do when the registry's pointer is moved back."`
	Candidates         string   `json:"candidates" jsonschema:"enum=promoted,enum=newest" jsonschema_description:"Which versions are considered."`
	PositiveLabel      string   `json:"positive_label" jsonschema_description:"Label that a decision speaks of. Default: the bundle's."`
	Threshold          *float64 `json:"threshold,omitempty" jsonschema:"minimum=0,maximum=1" jsonschema_description:"Score from which the decision is positive. Default: the bundle's, or 0.5."`
	Provenance         string   `json:"provenance" jsonschema:"enum=any,enum=manifest" jsonschema_description:"What a version must prove. manifest: it has a manifest.json and, in a registry, the tag modelgate.digest, as modelgate.publish writes them."`
	MaxLength          int      `json:"max_length" jsonschema_description:"Tokens after which a text is cut. Default: the bundle's."`
	AllowLabelChange   bool     `json:"allow_label_change" jsonschema_description:"Let a version with other labels, another positive label or of another kind replace the one that serves."`
	MaxSlowdown        float64  `json:"max_slowdown" jsonschema:"minimum=0" jsonschema_description:"How many times as long as one of the version that serves a run of a new one may take, 1 or more; 0: any number, which is logged."`
	SpecialAsText      bool     `json:"special_as_text" jsonschema_description:"Special tokens that a user types are text, whatever the bundle says."`
}

// defaults are the settings that nobody made.
func defaults(env func(string) string) *Config {
	return &Config{
		GRPCAddr: "127.0.0.1:8001", HTTPAddr: "127.0.0.1:8000",
		DataDir:        defaultDataDir(env),
		UpdateInterval: Duration(30 * time.Minute), KeepPrevious: Duration(10 * time.Minute), KeepVersions: 3,
		Batch: Batch{MaxRun: Duration(time.Minute)}, LoadTimeout: Duration(5 * time.Minute), DrainTimeout: Duration(20 * time.Second), Isolation: isolation(runtime.GOOS), Prepare: "auto",
		Limits: Limits{TextBytes: 64 << 10, MessageBytes: 4 << 20, IDBytes: 256, BatchItems: 256, BatchConcurrency: 32, StreamWindow: 64, Streams: 1024,
			UploadIdle: Duration(30 * time.Second), UploadTime: Duration(10 * time.Minute)},
		Worker: Worker{Grace: Duration(5 * time.Second), RefuseFor: Duration(10 * time.Minute), Killers: 3},
		Video:  Video{ClipBytes: 64 << 20, Pixels: 9 << 20, Frames: 18000, Duration: Duration(10 * time.Minute), Memory: 1 << 30, Timeout: Duration(30 * time.Second)},
		Log:    Log{Level: "info", Format: "auto"},
		Fusion: Fusion{Fallback: "late_score", OnMissing: "undecided", TextWeight: 0.3, VideoWeight: 0.7, Model: "fusion", TextModel: "text", VideoModel: "video"},
		MLflow: MLflow{Enabled: true, Pointer: "both", Alias: "production", Stage: "Production",
			Metrics: []string{"eval_f1", "f1"}, Timeout: Duration(30 * time.Second)},
		S3: S3{Timeout: Duration(30 * time.Second), Concurrent: 8},
		Models: map[string]*Model{
			"text":   defaultModel("text"),
			"video":  defaultModel("video"),
			"fusion": defaultModel("fusion"),
		},
	}
}

// isolation is where models compute if nobody says so: what shuts a process in is Linux's.
func isolation(system string) string {
	if system == "linux" {
		return "process"
	}
	return "none"
}

// ModelFor is the configuration of a served name, or the one that names without any have.
func (c *Config) ModelFor(name string) *Model {
	if m := c.Models[name]; m != nil {
		return m
	}
	return defaultModel(name)
}

func defaultModel(name string) *Model {
	m := &Model{Enabled: true, RegisteredName: name, OnRegistryRollback: "follow", Candidates: "promoted", Provenance: "any"}
	switch name {
	case "text":
		m.RegisteredName, m.F1Threshold = "text_classification_model", 0.75
	case "video":
		m.RegisteredName, m.F1Threshold = "video_classification_model", 0.70
	case "fusion":
		m.RegisteredName, m.F1Threshold = "fusion_multimodal_model", 0.80
	}
	return m
}

// defaultDataDir follows the XDG base directories: state that a user would miss, but that is no document.
func defaultDataDir(env func(string) string) string {
	if state := env("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "modelgate")
	}
	home := env("HOME")
	if home == "" {
		return filepath.Join(os.TempDir(), "modelgate")
	}
	return filepath.Join(home, ".local", "state", "modelgate")
}
