package mlflow

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"modelgate/s3"
)

// Via is a kind of pointer by which a registry promotes a version.
type Via string

// The kinds of pointers.
const (
	ViaAlias Via = "alias"
	ViaStage Via = "stage"
)

// Options say which server, which models and within which limits. The zero value of every field but TrackingURI is usable.
// The environment variables in the comments are those of MLflow's own clients; reading them is the caller's business.
type Options struct {
	TrackingURI string // MLFLOW_TRACKING_URI: http or https; a user and password in it are used as Username and Password
	Username    string // MLFLOW_TRACKING_USERNAME: basic auth, wins over Token
	Password    string // MLFLOW_TRACKING_PASSWORD
	Token       string // MLFLOW_TRACKING_TOKEN: sent as a bearer token

	InsecureTLS    bool   // MLFLOW_TRACKING_INSECURE_TLS: accept any certificate
	CACertFile     string // MLFLOW_TRACKING_SERVER_CERT_PATH: PEM, trusted instead of the system's authorities
	ClientCertFile string // MLFLOW_TRACKING_CLIENT_CERT_PATH: PEM with certificate and key

	Models      map[string]string // served name -> registered name; nil means DefaultModels
	Alias       string            // default "production"
	Stage       string            // default "Production"
	Via         []Via             // what may choose a version; nil means both. With both, an alias that exists wins
	MetricNames []string          // exact names, the first that is there counts; default eval_f1, f1

	Timeout       time.Duration // for one question to the API, default 30 s
	HeaderTimeout time.Duration // until a download begins, default 2 min: the server may have to get the file itself first
	IdleTimeout   time.Duration // without a byte during a download, default 30 s
	Tries         int           // per question, and per file without progress; default 4
	RetryWait     time.Duration // before the first retry, doubled and jittered from there; default 250 ms
	MaxRetryWait  time.Duration // longest wait within a call; a longer Retry-After ends the call, and the Updater waits; default 30 s

	MaxBytes      int64 // of all files of one version together, default 16 GiB
	MaxFiles      int   // of one version, default 1000
	LargeFile     int64 // from this size on, a route that can't be resumed is left for one that can; default 32 MiB
	ParallelFiles int   // downloads at once, at most 2, which is the default: more only queue up in MLflow

	// S3 is where files are fetched from that aren't behind the registry's artifact proxy, and S3Prefixes are the folders there that
	// the registry may name; nil: none. The endpoint stays the caller's.
	S3         *s3.Endpoint
	S3Prefixes s3.Prefixes

	Transport http.RoundTripper // instead of ours; the TLS options must then be empty
	Logger    *slog.Logger      // nil: no logs
	// Observe, if not nil, is told after each question whether the registry is usable: it answered, and as MLflow does.
	Observe func(up bool)
}

// DefaultModels maps the names that are served to those that the pipeline registers.
func DefaultModels() map[string]string {
	return map[string]string{
		"text":   "text_classification_model",
		"video":  "video_classification_model",
		"fusion": "fusion_multimodal_model",
	}
}

const (
	maxNameLen     = 256
	maxListPages   = 100
	maxDepth       = 16
	maxPathLen     = 1024
	versionsAPage  = 500
	maxBody        = 8 << 20
	maxErrorText   = 300
	maxIdleConns   = 4
	maxConnsAHost  = 8
	maxRedirects   = 3
	maxParallel    = 2
	progressEnough = 1 << 20
)

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func (o Options) withDefaults() Options {
	if o.Models == nil {
		o.Models = DefaultModels()
	}
	o.Models = maps.Clone(o.Models)
	o.Alias = orElse(o.Alias, "production")
	o.Stage = orElse(o.Stage, "Production")
	o.Via = slices.Clone(o.Via)
	if len(o.Via) == 0 {
		o.Via = []Via{ViaAlias, ViaStage}
	}
	slices.Sort(o.Via) // "alias" comes first: where both are allowed it wins
	o.Via = slices.Compact(o.Via)
	o.MetricNames = slices.Clone(o.MetricNames)
	if len(o.MetricNames) == 0 {
		o.MetricNames = []string{"eval_f1", "f1"}
	}
	o.Timeout = orElse(o.Timeout, 30*time.Second)
	o.HeaderTimeout = orElse(o.HeaderTimeout, 2*time.Minute)
	o.IdleTimeout = orElse(o.IdleTimeout, 30*time.Second)
	o.Tries = orElse(o.Tries, 4)
	o.RetryWait = orElse(o.RetryWait, 250*time.Millisecond)
	o.MaxRetryWait = orElse(o.MaxRetryWait, 30*time.Second)
	o.MaxBytes = orElse(o.MaxBytes, 16<<30)
	o.MaxFiles = orElse(o.MaxFiles, 1000)
	o.LargeFile = orElse(o.LargeFile, 32<<20)
	o.ParallelFiles = orElse(o.ParallelFiles, maxParallel)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(bool) {}
	}
	return o
}

func (o Options) check() error {
	var errs []error
	for _, via := range o.Via {
		if via != ViaAlias && via != ViaStage {
			errs = append(errs, fmt.Errorf("pointer kind %q is neither %q nor %q", via, ViaAlias, ViaStage))
		}
	}
	for served, name := range o.Models {
		if err := checkRegistered(name); err != nil {
			errs = append(errs, fmt.Errorf("registered name of %q: %w", served, err))
		}
	}
	for _, s := range append([]string{o.Alias, o.Stage}, o.MetricNames...) {
		if s == "" || !plain(s, maxNameLen) {
			errs = append(errs, fmt.Errorf("alias, stage or metric name %q: must be 1 to %d printable characters", s, maxNameLen))
		}
	}
	negative := o.Timeout < 0 || o.HeaderTimeout < 0 || o.IdleTimeout < 0 || o.RetryWait < 0 || o.MaxRetryWait < 0 ||
		o.Tries < 0 || o.MaxBytes < 0 || o.MaxFiles < 0 || o.LargeFile < 0 || o.ParallelFiles < 0
	if negative {
		errs = append(errs, errors.New("a time, size or count is negative"))
	}
	if o.ParallelFiles > maxParallel {
		errs = append(errs, fmt.Errorf("%d parallel downloads: at most %d", o.ParallelFiles, maxParallel))
	}
	if o.Transport != nil && (o.InsecureTLS || o.CACertFile != "" || o.ClientCertFile != "") {
		errs = append(errs, errors.New("TLS options and a transport exclude each other"))
	}
	return errors.Join(errs...)
}

// checkRegistered keeps names away that MLflow itself refuses, and those that can't be written in a search filter.
func checkRegistered(name string) error {
	switch {
	case name == "" || !plain(name, maxNameLen):
		return fmt.Errorf("%q must be 1 to %d printable characters", name, maxNameLen)
	case strings.ContainsAny(name, "/:"):
		return fmt.Errorf("%q contains a slash or a colon, which MLflow doesn't allow", name)
	case strings.Contains(name, "'") && strings.Contains(name, `"`):
		return fmt.Errorf("%q contains both kinds of quotes, which a search can't express", name)
	}
	return nil
}

// plain reports whether s is valid text of at most n bytes without control characters.
func plain(s string, n int) bool {
	return len(s) <= n && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// baseURL reads the tracking URI and takes user and password out of it, so that no URL of ours ever holds a secret.
func (o *Options) baseURL() (*url.URL, error) {
	if o.TrackingURI == "" {
		return nil, errors.New("no tracking URI: set MLFLOW_TRACKING_URI to the server's address, such as http://127.0.0.1:5000")
	}
	u, err := url.Parse(o.TrackingURI)
	if err != nil { // the error would quote the URI, password and all
		return nil, errors.New("the tracking URI (MLFLOW_TRACKING_URI) is not a valid URL")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("tracking URI with scheme %q: only http:// and https:// servers are supported (MLFLOW_TRACKING_URI)", u.Scheme)
	}
	if u.User != nil && o.Username == "" {
		o.Username = u.User.Username()
		o.Password, _ = u.User.Password()
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u, nil
}
