package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sources are the places where settings are looked for.
type Sources struct {
	Flags map[string]string            // by setting path: what was given on the command line
	Set   []string                     // "path=value": the flag --set
	Env   []string                     // "NAME=value", as os.Environ has them
	File  string                       // path of the file; "" looks at MODELGATE_CONFIG
	Read  func(string) ([]byte, error) // nil is os.ReadFile
}

// Loaded is a configuration and where it comes from.
type Loaded struct {
	*Config
	Settings []Setting // in the order of the documentation
	Warnings []string  // what is odd but harmless, such as an environment variable that no setting has
}

// Load finds the effective configuration. An error says what is wrong, where, and what to do.
func Load(from Sources) (*Loaded, error) {
	env := lookup(from.Env)
	l := &loader{config: defaults(env), origins: make(map[string]string)}
	if err := l.file(from, env); err != nil {
		return nil, err
	}
	warnings, err := l.environment(from.Env)
	if err != nil {
		return nil, err
	}
	if err := l.flags(from); err != nil {
		return nil, err
	}
	l.derive()
	loaded := &Loaded{Config: l.config, Settings: settings(l.config), Warnings: warnings}
	for i, s := range loaded.Settings {
		loaded.Settings[i].Origin = "default"
		if o := l.origins[s.Path]; o != "" {
			loaded.Settings[i].Origin = o
		}
	}
	return loaded, loaded.validate()
}

func lookup(environ []string) func(string) string {
	m := make(map[string]string, len(environ))
	for _, e := range environ {
		k, v, _ := strings.Cut(e, "=")
		m[k] = v
	}
	return func(name string) string { return m[name] }
}

// loader puts one layer over the other.
type loader struct {
	config  *Config
	origins map[string]string
}

func (l *loader) put(v value) error {
	if name, ok := strings.CutPrefix(v.path, "models."); ok {
		name, _, _ = strings.Cut(name, ".")
		if l.config.Models[name] == nil {
			l.config.Models[name] = defaultModel(name)
		}
	}
	all := settings(l.config)
	i := slices.IndexFunc(all, func(s Setting) bool { return s.Path == v.path })
	if i < 0 {
		return fmt.Errorf("%s: no setting is called %q%s", v.origin, v.path, didYouMean(v.path, paths(all)))
	}
	if err := all[i].assign(v.text); err != nil {
		if all[i].Secret {
			return fmt.Errorf("%s: %s can't be read", v.origin, v.path)
		}
		return fmt.Errorf("%s: %s: %w", v.origin, v.path, err)
	}
	l.origins[v.path] = v.origin
	return nil
}

func paths(all []Setting) []string {
	p := make([]string, len(all))
	for i, s := range all {
		p[i] = s.Path
	}
	return p
}

func (l *loader) file(from Sources, env func(string) string) error {
	name, how := from.File, "--config"
	if name == "" {
		name, how = env("MODELGATE_CONFIG"), "MODELGATE_CONFIG"
	}
	if name == "" {
		return nil
	}
	read := from.Read
	if read == nil {
		read = os.ReadFile
	}
	content, err := read(name)
	if err != nil {
		return fmt.Errorf("read the configuration that %s names: %w", how, err)
	}
	values, err := readFile(name, content)
	if err != nil {
		return err
	}
	for _, v := range values {
		if err := l.put(v); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) flags(from Sources) error {
	for _, s := range settings(l.config) {
		text, ok := from.Flags[s.Path]
		if !ok {
			continue
		}
		if err := l.put(value{s.Path, text, "--" + s.Flags[0]}); err != nil {
			return err
		}
	}
	for _, kv := range from.Set {
		path, text, ok := strings.Cut(kv, "=")
		if !ok {
			return fmt.Errorf("--set %s: write --set path=value, such as --set models.text.f1_threshold=0.8", kv)
		}
		if err := l.put(value{path, text, "--set"}); err != nil {
			return err
		}
	}
	return nil
}

// derive fills in the defaults that follow from other settings.
func (l *loader) derive() {
	c := l.config
	origin := l.origins["update_interval"]
	if c.ModelsDir != "" && (origin == "" || strings.HasPrefix(origin, "MLFLOW_")) {
		c.UpdateInterval = Duration(2 * time.Second)
		l.origins["update_interval"] = "default for models_dir"
	}
	if c.CacheDir == "" && c.DataDir != "" {
		c.CacheDir = filepath.Join(c.DataDir, "cache")
		l.origins["cache_dir"] = "in data_dir"
	}
	// AWS_SESSION_TOKEN goes with AWS_ACCESS_KEY_ID, and with no other key.
	if key := l.origins["s3.access_key"]; key != "" && key != "AWS_ACCESS_KEY_ID" && l.origins["s3.session_token"] == "AWS_SESSION_TOKEN" {
		c.S3.SessionToken = ""
		delete(l.origins, "s3.session_token")
	}
}

// registryVariables are the names that MLflow's own tools and the pipeline's updater use for our settings.
func registryVariables() []struct{ name, path string } {
	return []struct{ name, path string }{
		{"MLFLOW_TRACKING_URI", "mlflow.tracking_uri"},
		{"MLFLOW_TRACKING_USERNAME", "mlflow.username"},
		{"MLFLOW_TRACKING_PASSWORD", "mlflow.password"},
		{"MLFLOW_TRACKING_TOKEN", "mlflow.token"},
		{"MLFLOW_TRACKING_INSECURE_TLS", "mlflow.insecure_tls"},
		{"MLFLOW_TRACKING_SERVER_CERT_PATH", "mlflow.server_cert"},
		{"MLFLOW_TRACKING_CLIENT_CERT_PATH", "mlflow.client_cert"},
		{"MLFLOW_HTTP_REQUEST_TIMEOUT", "mlflow.timeout"},
		{"MLFLOW_ENABLED", "mlflow.enabled"},
		{"MLFLOW_S3_ENDPOINT_URL", "s3.endpoint"},
		{"AWS_ACCESS_KEY_ID", "s3.access_key"},
		{"AWS_SECRET_ACCESS_KEY", "s3.secret_key"},
		{"AWS_SESSION_TOKEN", "s3.session_token"},
		{"AWS_DEFAULT_REGION", "s3.region"},
		{"AWS_CA_BUNDLE", "s3.ca_cert"},
		{"MLFLOW_UPDATE_INTERVAL_MINUTES", "update_interval"},
		{"MLFLOW_TEXT_F1_THRESHOLD", "models.text.f1_threshold"},
		{"MLFLOW_VIDEO_F1_THRESHOLD", "models.video.f1_threshold"},
		{"MLFLOW_FUSION_F1_THRESHOLD", "models.fusion.f1_threshold"},
	}
}

// environment applies MLFLOW_* and AWS_*, and then MODELGATE_*, which win. An empty variable is as good as none.
func (l *loader) environment(environ []string) (warnings []string, err error) {
	env := lookup(environ)
	for _, v := range registryVariables() {
		text := env(v.name)
		if text == "" {
			continue
		}
		if text, err = inOurUnit(v.name, text); err != nil {
			return nil, err
		}
		if err := l.put(value{v.path, text, v.name}); err != nil {
			return nil, err
		}
	}
	known := make(map[string]string)
	for _, s := range settings(l.config) {
		known[s.Env] = s.Path
	}
	for _, e := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "MODELGATE_") || text == "" || isOther(name) {
			continue
		}
		path, ok := known[name]
		if !ok {
			path, ok = newModelPath(name)
		}
		if !ok {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is no setting of modelgate%s", name, didYouMean(name, envNames(known))))
			continue
		}
		if err := l.put(value{path, text, name}); err != nil {
			return nil, err
		}
	}
	return warnings, nil
}

// inOurUnit adds the unit that a registry variable's name implies.
func inOurUnit(name, text string) (string, error) {
	unit := time.Second
	switch name {
	case "MLFLOW_UPDATE_INTERVAL_MINUTES":
		unit = time.Minute
	case "MLFLOW_HTTP_REQUEST_TIMEOUT":
	default:
		return text, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n > 0) || n > 1e6 {
		return "", fmt.Errorf("%s: %q is not a number of %s above 0", name, text, strings.ToLower(map[time.Duration]string{time.Second: "seconds", time.Minute: "minutes"}[unit]))
	}
	return time.Duration(n * float64(unit)).String(), nil
}

// isOther tells variables that are ours but no setting of a gateway: the clients', and those that Kubernetes makes for a
// service called modelgate.
func isOther(name string) bool {
	switch name {
	case "MODELGATE_CONFIG", "MODELGATE_ADDR", "MODELGATE_TLS_CA", "MODELGATE_PORT":
		return true
	}
	return strings.HasPrefix(name, "MODELGATE_PORT_") || strings.HasPrefix(name, "MODELGATE_SERVICE_")
}

// newModelPath reads MODELGATE_MODELS_SPAM_F1_THRESHOLD, where no file has named a model "spam".
func newModelPath(name string) (path string, ok bool) {
	rest, ok := strings.CutPrefix(name, "MODELGATE_MODELS_")
	if !ok {
		return "", false
	}
	longest := ""
	for _, s := range settings(&Config{Models: map[string]*Model{"x": {}}}) {
		field, isModel := strings.CutPrefix(s.Path, "models.x.")
		if suffix := "_" + strings.ToUpper(field); isModel && len(rest) > len(suffix) && strings.HasSuffix(rest, suffix) && len(field) > len(longest) {
			longest = field
		}
	}
	if longest == "" {
		return "", false
	}
	model := strings.ToLower(strings.TrimSuffix(rest, "_"+strings.ToUpper(longest)))
	return "models." + model + "." + longest, modelName.MatchString(model)
}

func envNames(known map[string]string) []string {
	names := []string{"MODELGATE_CONFIG", "MODELGATE_ADDR", "MODELGATE_TLS_CA"}
	for n := range known {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Defaults lists every setting with its default, for help texts.
func Defaults(environ []string) []Setting {
	return settings(defaults(lookup(environ)))
}

// ErrNothingToServe says that neither a folder nor a registry was named.
var ErrNothingToServe = errors.New(`there is nothing to serve: no models were named. One of these does:

  modelgate demo                                                  a small model that is part of this program
  modelgate serve --models DIR                                    a folder with DIR/<served name>/<version number>/model.onnx ...
  MLFLOW_TRACKING_URI=http://127.0.0.1:5000 modelgate serve       the models that an MLflow registry promotes
  MLFLOW_ENABLED=false modelgate serve                            what an earlier run left in the cache`)
