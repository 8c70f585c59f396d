package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"modelgate/cmd/modelgate/config"
	"modelgate/modelstore"
	"modelgate/modelstore/dir"
	"modelgate/modelstore/mlflow"
	"modelgate/s3"
	"modelgate/server"
)

// registry is where versions come from: a source, the models to take from it, and how people call it.
type registry struct {
	modelstore.Source
	name     string
	models   []modelstore.ModelConfig
	discover func(context.Context) ([]modelstore.ModelConfig, error) // nil: the models are all configured
	hook     *server.Hook                                            // nil: it doesn't say when something changes
	close    func() error
}

// openRegistry chooses the source. It is the only place that knows their names.
func openRegistry(ctx context.Context, c *config.Loaded, objects *s3.Endpoint, s *screen, log *slog.Logger) (*registry, error) {
	if len(c.MLflow.WebhookSecrets()) > 0 && (c.ModelsDir != "" || !c.MLflow.Enabled) {
		log.Warn("MLflow isn't asked, so its webhook is not taken", "secret_from", c.Origin("mlflow.webhook_secret"))
	}
	switch {
	case c.ModelsDir != "":
		if c.MLflow.TrackingURI != "" {
			log.Warn("models_dir is set, so MLflow is not asked", "models_dir", c.ModelsDir, "tracking_uri_from", c.Origin("mlflow.tracking_uri"))
		}
		return openFolder(ctx, c)
	case !c.MLflow.Enabled:
		return &registry{Source: offline{}, name: "the cache only (MLFLOW_ENABLED=false)", models: modelConfigs(c), close: func() error { return nil }}, nil
	case c.MLflow.TrackingURI == "":
		return nil, &usageError{config.ErrNothingToServe}
	}
	return openMLflow(c, objects, s, log)
}

func openMLflow(c *config.Loaded, objects *s3.Endpoint, s *screen, log *slog.Logger) (*registry, error) {
	registered := make(map[string]string)
	for name, m := range c.Models {
		if m.Enabled {
			registered[name] = m.RegisteredName
		}
	}
	m := c.MLflow
	prefixes, err := s3.ParsePrefixes(c.S3.ArtifactPrefixes)
	if err != nil {
		return nil, fmt.Errorf("%s: s3.artifact_prefixes: %w", c.Origin("s3.artifact_prefixes"), err)
	}
	src, err := mlflow.New(mlflow.Options{
		TrackingURI: m.TrackingURI, Username: m.Username, Password: m.Password, Token: m.Token,
		InsecureTLS: m.InsecureTLS, CACertFile: m.ServerCert, ClientCertFile: m.ClientCert,
		Models: registered, Alias: m.Alias, Stage: m.Stage, Via: via(m.Pointer), MetricNames: m.Metrics,
		Timeout: time.Duration(m.Timeout), S3: objects, S3Prefixes: prefixes, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	hook, err := mlflowHook(m.WebhookSecrets(), registered)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: mlflow.webhook_secret: %w", c.Origin("mlflow.webhook_secret"), err), src.Close())
	}
	where := "MLflow"
	for _, setting := range c.Settings {
		if setting.Path == "mlflow.tracking_uri" {
			where += " at " + setting.Text()
		}
	}
	return &registry{Source: shownSource{src, s}, name: where, models: modelConfigs(c), hook: hook, close: src.Close}, nil
}

// mlflowHook takes what MLflow sends when something changed, if there is a secret to know it by.
func mlflowHook(secrets []string, registered map[string]string) (*server.Hook, error) {
	if len(secrets) == 0 {
		return nil, nil //nolint:nilnil // no secret, no hook
	}
	w, err := mlflow.NewWebhook(secrets, registered)
	if err != nil {
		return nil, err
	}
	return &server.Hook{Path: "/hooks/mlflow", Most: mlflow.WebhookBytes, Accept: w.Accept}, nil
}

func via(pointer string) []mlflow.Via {
	switch pointer {
	case "alias":
		return []mlflow.Via{mlflow.ViaAlias}
	case "stage":
		return []mlflow.Via{mlflow.ViaStage}
	}
	return []mlflow.Via{mlflow.ViaAlias, mlflow.ViaStage}
}

// openFolder serves a folder. What it holds is what is served, in the order of the version numbers.
func openFolder(ctx context.Context, c *config.Loaded) (*registry, error) {
	if _, err := os.Stat(c.ModelsDir); err != nil {
		return nil, fmt.Errorf("%s: models_dir: %w; it is a folder with DIR/<served name>/<version number>/model.onnx in it", c.Origin("models_dir"), err)
	}
	src, err := dir.New(dir.Options{Dir: c.ModelsDir, MetricNames: c.MLflow.Metrics})
	if err != nil {
		return nil, err
	}
	find := func(context.Context) ([]modelstore.ModelConfig, error) {
		names, err := src.Models()
		var found []modelstore.ModelConfig
		for _, name := range names {
			m := c.ModelFor(name)
			if !m.Enabled {
				continue
			}
			r := rules(m)
			r.Newest, r.AcceptUnknownFirst = true, true
			found = append(found, modelstore.ModelConfig{Name: name, Registered: name, Rules: r})
		}
		return found, err
	}
	models, err := find(ctx)
	if err != nil {
		return nil, err
	}
	return &registry{Source: src, name: "the folder " + c.ModelsDir, models: models, discover: find, close: src.Close}, nil
}

func modelConfigs(c *config.Loaded) []modelstore.ModelConfig {
	var all []modelstore.ModelConfig
	for _, name := range slices.Sorted(maps.Keys(c.Models)) {
		if m := c.Models[name]; m.Enabled {
			all = append(all, modelstore.ModelConfig{Name: name, Registered: m.RegisteredName, Rules: rules(m)})
		}
	}
	return all
}

func rules(m *config.Model) modelstore.Rules {
	return modelstore.Rules{
		Threshold: m.F1Threshold, MinImprovement: m.MinImprovement,
		IgnoreRegistryRollback: m.OnRegistryRollback == "ignore", Newest: m.Candidates == "newest",
	}
}

// offline is a registry that is switched off: it offers nothing, so that what is in the cache goes on serving.
type offline struct{}

func (offline) off(what string) error {
	return fmt.Errorf("%s: %w: MLflow is switched off (MLFLOW_ENABLED=false)", what, modelstore.ErrNoModel)
}

func (o offline) Latest(_ context.Context, model string) (modelstore.Version, error) {
	return modelstore.Version{}, o.off("latest version of " + model)
}

func (o offline) Versions(_ context.Context, model string) ([]modelstore.Version, error) {
	return nil, o.off("versions of " + model)
}

func (o offline) F1(_ context.Context, v modelstore.Version) (modelstore.F1, error) {
	return modelstore.F1{}, o.off("F1 of " + v.String())
}

func (o offline) Fetch(_ context.Context, v modelstore.Version, _ string, _ func(done, total int64)) error {
	return o.off("fetch " + v.String())
}
