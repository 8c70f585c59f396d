package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"modelgate/cmd/modelgate/config"
)

// from makes sources without touching the disk.
func from(flags map[string]string, file string, env ...string) config.Sources {
	s := config.Sources{Flags: flags, Env: append([]string{"HOME=/home/somebody"}, env...), Read: func(name string) ([]byte, error) {
		if name != "gate.yaml" || file == "" {
			return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
		}
		return []byte(file), nil
	}}
	if file != "" {
		s.File = "gate.yaml"
	}
	return s
}

func TestPrecedence(t *testing.T) {
	flag := map[string]string{"grpc_addr": "127.0.0.1:1", "update_interval": "1m", "models.text.f1_threshold": "0.1"}
	file := "grpc_addr: 127.0.0.1:3\nupdate_interval: 3m\nmodels:\n  text:\n    f1_threshold: 0.3\n"
	ours := []string{"MODELGATE_GRPC_ADDR=127.0.0.1:2", "MODELGATE_UPDATE_INTERVAL=2m", "MODELGATE_MODELS_TEXT_F1_THRESHOLD=0.2"}
	theirs := []string{"MLFLOW_UPDATE_INTERVAL_MINUTES=25", "MLFLOW_TEXT_F1_THRESHOLD=0.25"}
	type want struct{ addr, addrFrom, interval, intervalFrom, f1, f1From string }
	for name, c := range map[string]struct {
		sources config.Sources
		want    want
	}{
		"defaults": {from(nil, ""), want{"127.0.0.1:8001", "default", "30m", "default", "0.75", "default"}},
		"file":     {from(nil, file), want{"127.0.0.1:3", "gate.yaml:1", "3m", "gate.yaml:2", "0.3", "gate.yaml:5"}},
		"MLflow's variables over the file": {from(nil, file, theirs...),
			want{"127.0.0.1:3", "gate.yaml:1", "25m", "MLFLOW_UPDATE_INTERVAL_MINUTES", "0.25", "MLFLOW_TEXT_F1_THRESHOLD"}},
		"our variables over MLflow's": {from(nil, file, append(theirs, ours...)...),
			want{"127.0.0.1:2", "MODELGATE_GRPC_ADDR", "2m", "MODELGATE_UPDATE_INTERVAL", "0.2", "MODELGATE_MODELS_TEXT_F1_THRESHOLD"}},
		"flags over everything": {from(flag, file, append(theirs, ours...)...),
			want{"127.0.0.1:1", "--grpc-addr", "1m", "--update-interval", "0.1", "--models-text-f1-threshold"}},
		"an empty variable is none": {from(nil, "", "MODELGATE_GRPC_ADDR=", "MLFLOW_TEXT_F1_THRESHOLD="),
			want{"127.0.0.1:8001", "default", "30m", "default", "0.75", "default"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := config.Load(c.sources)
			if err != nil {
				t.Fatal(err)
			}
			got := want{setting(t, l, "grpc_addr").Text(), l.Origin("grpc_addr"), setting(t, l, "update_interval").Text(), l.Origin("update_interval"),
				setting(t, l, "models.text.f1_threshold").Text(), l.Origin("models.text.f1_threshold")}
			if got != c.want {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
}

func setting(t *testing.T, l *config.Loaded, path string) config.Setting {
	t.Helper()
	for _, s := range l.Settings {
		if s.Path == path {
			return s
		}
	}
	t.Fatalf("no setting %s", path)
	return config.Setting{}
}

// A token belongs to the keys that it was issued with: beside others it would be refused, and shown to a server that it isn't for.
func TestTheTokenOfOtherKeysIsLeftOut(t *testing.T) {
	aws := []string{"MLFLOW_S3_ENDPOINT_URL=http://minio:9000", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=s", "AWS_SESSION_TOKEN=st"}
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"keys of AWS":        {aws, "st"},
		"our keys":           {append(aws, "MODELGATE_S3_ACCESS_KEY=m", "MODELGATE_S3_SECRET_KEY=ms"), ""},
		"our keys and token": {append(aws, "MODELGATE_S3_ACCESS_KEY=m", "MODELGATE_S3_SECRET_KEY=ms", "MODELGATE_S3_SESSION_TOKEN=mt"), "mt"},
		"keys in the file":   {[]string{"AWS_SESSION_TOKEN=st"}, ""},
	} {
		file := "s3: {endpoint: 'http://minio:9000', access_key: f, secret_key: fs}\n"
		l, err := config.Load(from(nil, file, c.env...))
		if err != nil || l.S3.SessionToken != c.want {
			t.Errorf("%s: %v, %v, want %q", name, l.S3, err, c.want)
		}
	}
}

// Every variable that the pipeline's updater or MLflow's clients read has its effect here.
func TestRegistryVariables(t *testing.T) {
	l, err := config.Load(from(nil, "",
		"MLFLOW_TRACKING_URI=http://mlflow:5000", "MLFLOW_ENABLED=False", "MLFLOW_UPDATE_INTERVAL_MINUTES=0.5",
		"MLFLOW_TEXT_F1_THRESHOLD=0.1", "MLFLOW_VIDEO_F1_THRESHOLD=0.2", "MLFLOW_FUSION_F1_THRESHOLD=0.3",
		"MLFLOW_TRACKING_USERNAME=u", "MLFLOW_TRACKING_PASSWORD=p", "MLFLOW_TRACKING_TOKEN=t", "MLFLOW_TRACKING_INSECURE_TLS=true",
		"MLFLOW_TRACKING_SERVER_CERT_PATH=/ca", "MLFLOW_TRACKING_CLIENT_CERT_PATH=/me", "MLFLOW_HTTP_REQUEST_TIMEOUT=7",
		"MLFLOW_S3_ENDPOINT_URL=http://minio:9000", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=s", "AWS_SESSION_TOKEN=st",
		"AWS_DEFAULT_REGION=eu-north-1", "AWS_CA_BUNDLE=/s3ca"))
	if err != nil {
		t.Fatal(err)
	}
	m := l.MLflow
	got := []any{m.TrackingURI, m.Enabled, time.Duration(l.UpdateInterval), l.Models["text"].F1Threshold, l.Models["video"].F1Threshold,
		l.Models["fusion"].F1Threshold, m.Username, m.Password, m.Token, m.InsecureTLS, m.ServerCert, m.ClientCert, time.Duration(m.Timeout),
		l.S3.Endpoint, l.S3.AccessKey, l.S3.SecretKey, l.S3.SessionToken, l.S3.Region, l.S3.CACert}
	want := []any{"http://mlflow:5000", false, 30 * time.Second, 0.1, 0.2, 0.3, "u", "p", "t", true, "/ca", "/me", 7 * time.Second,
		"http://minio:9000", "a", "s", "st", "eu-north-1", "/s3ca"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestDerived(t *testing.T) {
	for name, c := range map[string]struct {
		sources               config.Sources
		data, cache, interval string
	}{
		"XDG":                            {from(nil, "", "XDG_STATE_HOME=/state"), "/state/modelgate", "/state/modelgate/cache", "30m"},
		"home":                           {from(nil, ""), "/home/somebody/.local/state/modelgate", "/home/somebody/.local/state/modelgate/cache", "30m"},
		"a relative XDG path is ignored": {from(nil, "", "XDG_STATE_HOME=state"), "/home/somebody/.local/state/modelgate", "/home/somebody/.local/state/modelgate/cache", "30m"},
		"the cache follows the data":     {from(nil, "", "MODELGATE_DATA_DIR=/d"), "/d", "/d/cache", "30m"},
		"the cache elsewhere":            {from(nil, "", "MODELGATE_DATA_DIR=/d", "MODELGATE_CACHE_DIR=/c"), "/d", "/c", "30m"},
		"a folder is watched":            {from(map[string]string{"models_dir": "/m", "data_dir": "/d"}, ""), "/d", "/d/cache", "2s"},
		"a folder and MLflow's interval": {from(map[string]string{"models_dir": "/m", "data_dir": "/d"}, "", "MLFLOW_UPDATE_INTERVAL_MINUTES=5"), "/d", "/d/cache", "2s"},
		"a folder and our interval":      {from(map[string]string{"models_dir": "/m", "data_dir": "/d"}, "", "MODELGATE_UPDATE_INTERVAL=1h"), "/d", "/d/cache", "1h"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := config.Load(c.sources)
			if err != nil {
				t.Fatal(err)
			}
			if l.DataDir != c.data || l.CacheDir != c.cache || l.UpdateInterval.String() != c.interval {
				t.Errorf("got %s, %s, %s", l.DataDir, l.CacheDir, l.UpdateInterval)
			}
		})
	}
}

func TestNewModels(t *testing.T) {
	for name, s := range map[string]config.Sources{
		"in the file":         from(nil, "models: {spam: {registered_name: spam_clf}}"),
		"in the environment":  from(nil, "", "MODELGATE_MODELS_SPAM_REGISTERED_NAME=spam_clf"),
		"on the command line": {Set: []string{"models.spam.registered_name=spam_clf"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := config.Load(s)
			if err != nil {
				t.Fatal(err)
			}
			m := l.Models["spam"]
			if m == nil || m.RegisteredName != "spam_clf" || m.F1Threshold != 0 || !m.Enabled || m.OnRegistryRollback != "follow" || len(l.Models) != 4 {
				t.Errorf("got %+v of %d models", m, len(l.Models))
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		sources config.Sources
		want    []string
	}{
		"unknown key":             {from(nil, "grpc_addr: 127.0.0.1:1\ngrpc_adr: x\n"), []string{"gate.yaml:2: ", `unknown key "grpc_adr"`, `did you mean "grpc_addr"?`}},
		"unknown key in section":  {from(nil, "mlflow:\n  # where\n  traking_uri: x\n"), []string{"gate.yaml:3: ", `unknown key "traking_uri" in mlflow`, `"tracking_uri"`}},
		"unknown key of a model":  {from(nil, "models:\n  text:\n    f1_treshold: 1\n"), []string{"gate.yaml:3: ", "in models.text", `"f1_threshold"`}},
		"nothing like it":         {from(nil, "zzzzzzzzzzzz: 1\n"), []string{"gate.yaml:1: ", "the keys here are allowed_hosts, "}},
		"not YAML":                {from(nil, "a: [1\nb: 2\n"), []string{"gate.yaml is not YAML"}},
		"a key twice":             {from(nil, "threads: 1\nthreads: 2\n"), []string{"gate.yaml", "threads"}},
		"two documents":           {from(nil, "threads: 1\n---\nthreads: 2\n"), []string{"2 YAML documents"}},
		"a section as a value":    {from(nil, "tls: yes\n"), []string{"gate.yaml:1: tls is a section"}},
		"a value as a section":    {from(nil, "threads:\n  x: 1\n"), []string{"gate.yaml:2: threads is a single value"}},
		"a list as a value":       {from(nil, "mlflow:\n  metrics: eval_f1\n"), []string{"gate.yaml:2: mlflow.metrics is a list"}},
		"a model's name":          {from(nil, "models:\n  ../x:\n    f1_threshold: 0\n"), []string{"gate.yaml:2: model name"}},
		"a wrong duration":        {from(nil, "update_interval: 30\n"), []string{"gate.yaml:1: update_interval:", `"30" is not a duration`, "30s, 10m"}},
		"a wrong size":            {from(nil, "limits: {text_bytes: 64kb}\n"), []string{"limits.text_bytes", "64KiB"}},
		"a wrong choice":          {from(nil, "mlflow: {pointer: alais}\n"), []string{"mlflow.pointer", "alias, stage, both", `did you mean "alias"?`}},
		"NaN":                     {from(nil, "models: {text: {f1_threshold: .nan}}\n"), []string{"models.text.f1_threshold", "not a number"}},
		"out of range":            {from(nil, "", "MLFLOW_TEXT_F1_THRESHOLD=75"), []string{"MLFLOW_TEXT_F1_THRESHOLD: models.text.f1_threshold: 75 is not from 0 to 1"}},
		"minutes in words":        {from(nil, "", "MLFLOW_UPDATE_INTERVAL_MINUTES=often"), []string{"MLFLOW_UPDATE_INTERVAL_MINUTES", "number of minutes"}},
		"a flag":                  {from(map[string]string{"keep_versions": "0"}, ""), []string{"--keep-versions: keep_versions: 0 is too small"}},
		"--set without a value":   {config.Sources{Set: []string{"threads"}}, []string{"--set threads: write --set path=value"}},
		"--set of nothing":        {config.Sources{Set: []string{"tread=1"}}, []string{"no setting is called", `did you mean "threads"?`}},
		"no such file":            {config.Sources{Env: []string{"MODELGATE_CONFIG=/nowhere/x.yaml"}}, []string{"MODELGATE_CONFIG", "/nowhere/x.yaml", "no such file"}},
		"an address without port": {from(map[string]string{"grpc_addr": "localhost"}, ""), []string{"--grpc-addr", "host:port"}},
		"one port for both":       {from(map[string]string{"http_addr": "127.0.0.1:8001"}, ""), []string{"same as grpc_addr"}},
		"another engine, nowhere": {from(map[string]string{"worker_program": "/opt/other", "isolation": "none"}, ""), []string{"--worker-program: worker_program: needs isolation: process"}},
		"no killers":              {from(map[string]string{"worker.killers": "0"}, ""), []string{"--worker-killers: worker.killers: 0 is too small; the least is 1"}},
		"no time to end":          {from(nil, "worker: {grace: 0s}\n"), []string{"gate.yaml:1: worker.grace: must be 1ms or more"}},
		"half of TLS":             {from(map[string]string{"tls.cert": "x"}, ""), []string{"--tls-cert: tls.cert: needs its private key"}},
		"a database as registry":  {from(nil, "", "MLFLOW_TRACKING_URI=sqlite:///x.db"), []string{"MLFLOW_TRACKING_URI", "mlflow server"}},
		"weights of 1.1":          {from(nil, "fusion: {text_weight: 0.4}\n"), []string{"fusion.video_weight: 0.7 and fusion.text_weight, 0.4, are 1.1 together"}},
		"a weight below 0":        {from(nil, "fusion: {text_weight: -0.5, video_weight: 1.5}\n"), []string{"fusion.text_weight: -0.5 is not from 0 to 1"}},
		"a fusion of itself":      {from(nil, "fusion: {video_model: text}\n"), []string{"fusion.model", "must be three models"}},
		"no such fallback":        {from(nil, "fusion: {fallback: late}\n"), []string{"fusion.fallback", "late_score, none"}},
		"decodes below none":      {from(nil, "video: {concurrent: -1}\n"), []string{"gate.yaml:1: video.concurrent: -1 is too small"}},
		"a queue below none":      {from(nil, "", "MODELGATE_VIDEO_QUEUE=-1"), []string{"MODELGATE_VIDEO_QUEUE: video.queue: -1 is too small"}},
		"clips of no bytes":       {from(map[string]string{"video.clip_bytes": "0"}, ""), []string{"--video-clip-bytes: video.clip_bytes: 0 is too small"}},
		"frames of no pixels":     {from(map[string]string{"video.pixels": "0"}, ""), []string{"--video-pixels: video.pixels: 0 is too small"}},
		"frames too large":        {from(map[string]string{"video.pixels": "268435457"}, ""), []string{"video.pixels: 268435457 is too large; the most is 268435456"}},
		"clips of no frames":      {from(map[string]string{"video.frames": "0"}, ""), []string{"--video-frames: video.frames: 0 is too small"}},
		"clips of no length":      {from(map[string]string{"video.duration": "0s"}, ""), []string{"--video-duration: video.duration: must be more than 0"}},
		"no time for a clip":      {from(map[string]string{"video.timeout": "0s"}, ""), []string{"--video-timeout: video.timeout: must be 1ms or more"}},
		"no memory for a clip":    {from(map[string]string{"video.memory": "64MiB"}, ""), []string{"--video-memory: video.memory: 64MiB is too small", "320MiB"}},
		"no S3 endpoint":          {from(nil, "s3: {prefixes: [clips/in]}\n"), []string{"gate.yaml:1: s3.prefixes", "s3.endpoint"}},
		"no S3 address":           {from(nil, "", "MLFLOW_S3_ENDPOINT_URL=minio:9000"), []string{"MLFLOW_S3_ENDPOINT_URL: s3.endpoint", "http://host:port"}},
		"half a key":              {from(nil, "", "MLFLOW_S3_ENDPOINT_URL=http://minio", "AWS_ACCESS_KEY_ID=a"), []string{"AWS_ACCESS_KEY_ID: s3.access_key"}},
		"memory for half a clip":  {from(nil, "s3: {endpoint: http://minio, memory: 1MiB}\n"), []string{"s3.memory", "video.clip_bytes"}},
		"uploads no one decodes":  {from(nil, "limits: {upload_bytes: 65MiB}\n"), []string{"gate.yaml:1: limits.upload_bytes: 65MiB is more than video.clip_bytes, 64MiB"}},
		"clips below uploads":     {from(nil, "video: {clip_bytes: 1MiB}\nlimits: {upload_bytes: 2MiB}\n"), []string{"gate.yaml:2: limits.upload_bytes: 2MiB is more than video.clip_bytes, 1MiB"}},
		"no room for an upload":   {from(map[string]string{"limits.uploads_bytes": "67MiB"}, ""), []string{"--limits-uploads-bytes: limits.uploads_bytes: 67MiB is too small; the least is 68MiB"}},
		"no time for an upload":   {from(nil, "limits: {upload_time: 0s, upload_idle: 0s}\n"), []string{"limits.upload_time: must be more than 0", "limits.upload_idle: must be more than 0"}},
		"two mistakes":            {from(map[string]string{"keep_versions": "0", "threads": "-1"}, ""), []string{"--keep-versions", "--threads"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(c.sources)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in:\n%v", want, err)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	l, err := config.Load(from(nil, "", "MODELGATE_GRCP_ADDR=x", "MODELGATE_ADDR=fine", "MODELGATE_SERVICE_HOST=kubernetes", "MODELGATE_PORT_8001_TCP=kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], `did you mean "MODELGATE_GRPC_ADDR"?`) {
		t.Errorf("got %q", l.Warnings)
	}
}

func TestSecretsAreHidden(t *testing.T) {
	const secret = "hunter2"
	l, err := config.Load(from(nil, "mlflow:\n  token: "+secret+"\n", "MLFLOW_TRACKING_PASSWORD="+secret, "MLFLOW_TRACKING_URI=http://me:"+secret+"@mlflow:5000/x",
		"AWS_SECRET_ACCESS_KEY="+secret, "AWS_SESSION_TOKEN="+secret))
	if err != nil {
		t.Fatal(err)
	}
	if l.MLflow.Password != secret || l.MLflow.Token != secret || l.S3.SecretKey != secret || l.S3.SessionToken != secret {
		t.Errorf("the secrets have to arrive: %+v", l.MLflow)
	}
	for _, s := range l.Settings {
		b, err := json.Marshal(s.Value())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(s.Text()+string(b), secret) {
			t.Errorf("%s shows %s, %s", s.Path, s.Text(), b)
		}
		if s.Secret && len(s.Flags) > 0 {
			t.Errorf("%s has the flag %s: a command line is no place for a secret", s.Path, s.Flags)
		}
	}
	if got := setting(t, l, "mlflow.tracking_uri").Text(); got != "http://***@mlflow:5000/x" {
		t.Errorf("the address reads %s", got)
	}
	if _, err := config.Load(from(nil, "mlflow:\n  password: {x: "+secret+"}\n")); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v", err)
	}
}

func TestEverySettingHasItsNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range config.Defaults(nil) {
		for _, name := range append(s.Flags, s.Env) {
			if seen[name] {
				t.Errorf("%s is used twice", name)
			}
			seen[name] = true
		}
		if s.Help == "" || s.Kind == "" || !strings.HasPrefix(s.Env, "MODELGATE_") {
			t.Errorf("%+v", s)
		}
	}
}

func TestSchemaIsUpToDate(t *testing.T) {
	want, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "..", "docs", "config.schema.json")
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is out of date: run `go run ./cmd/modelgate config --schema > docs/config.schema.json`", path)
	}
}
