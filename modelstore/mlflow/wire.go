package mlflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"modelgate/modelstore"
)

// The answers of MLflow's REST API, as far as we read them. Everything is checked as it is decoded.

type registeredModel struct {
	Name           string         `json:"name"`
	LatestVersions []modelVersion `json:"latest_versions"`
	Aliases        []alias        `json:"aliases"`
}

type alias struct {
	Alias   string `json:"alias"`
	Version number `json:"version"`
}

type modelVersion struct {
	Name    string `json:"name"`
	Version number `json:"version"`
	Created int64x `json:"creation_timestamp"`
	Stage   string `json:"current_stage"`
	Source  string `json:"source"`
	Run     string `json:"run_id"`
	Status  string `json:"status"`
	Message string `json:"status_message"`
	Tags    []tag  `json:"tags"`
}

type run struct {
	Info struct {
		ArtifactURI string `json:"artifact_uri"`
		Lifecycle   string `json:"lifecycle_stage"`
	} `json:"info"`
	Data struct {
		Metrics []metric `json:"metrics"`
	} `json:"data"`
}

type loggedModel struct {
	Data struct {
		Metrics []metric `json:"metrics"`
	} `json:"data"`
}

type metric struct {
	Key       string      `json:"key"`
	Value     metricValue `json:"value"`
	Timestamp int64x      `json:"timestamp"`
	Step      int64x      `json:"step"`
}

type fileInfo struct {
	Path  string `json:"path"`
	IsDir bool   `json:"is_dir"`
	Size  int64x `json:"file_size"` // MLflow leaves it out where it is 0
}

// number is a version number: MLflow writes it as text.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("version %.40q is not text", b)
	}
	v, err := modelstore.ParseVersion(s)
	if err != nil {
		return errors.New(clip(err.Error()))
	}
	*n = number(v)
	return nil
}

// int64x is a 64-bit integer, as a number or, as protobuf's JSON has it, as text.
type int64x int64

func (n *int64x) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		return fmt.Errorf("%.40q is not a whole number", b)
	}
	*n = int64x(v)
	return nil
}

// metricValue is a number; MLflow writes "NaN" and the infinities as text. Other text is kept, to be told.
type metricValue struct {
	x    float64
	text string // set if it is no number
}

func (m *metricValue) UnmarshalJSON(b []byte) error {
	*m = metricValue{}
	if x, err := strconv.ParseFloat(string(b), 64); err == nil {
		m.x = x
		return nil
	}
	m.x = math.NaN()
	m.text = clip(strings.Trim(string(b), `"`))
	return nil
}

const maxMilli = 253402300799999 // the end of the year 9999, the last that can be written as JSON

// version checks what the registry says of a version and translates it.
func (mv modelVersion) version(model, name string) (modelstore.Version, error) {
	switch {
	case mv.Name != name:
		return modelstore.Version{}, fmt.Errorf("the registry was asked for %q and answers about %q", name, clip(mv.Name))
	case mv.Version < 1:
		return modelstore.Version{}, errors.New("the registry names a version without a number")
	case mv.Created < 0 || mv.Created > maxMilli:
		return modelstore.Version{}, fmt.Errorf("version %d: creation time %d is out of range", mv.Version, mv.Created)
	case !plain(mv.Source, 4096):
		return modelstore.Version{}, fmt.Errorf("version %d: its source is too long or not printable", mv.Version)
	case !idLike(mv.Run) && mv.Run != "":
		return modelstore.Version{}, fmt.Errorf("version %d: run id %q is not an id", mv.Version, clip(mv.Run))
	}
	return modelstore.Version{
		Model: model, Number: int64(mv.Version), Registered: name,
		Created: time.UnixMilli(int64(mv.Created)).UTC(), Source: mv.Source, Run: mv.Run,
		Declared: mv.declared(), Contract: mv.contract(),
	}, nil
}

// idLike reports whether s looks like an id of a run or a logged model.
func idLike(s string) bool {
	return s != "" && len(s) <= 128 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

func (c *client) registeredModel(ctx context.Context, name string) (registeredModel, error) {
	var a struct {
		Model *registeredModel `json:"registered_model"`
	}
	if err := c.get(ctx, "registered-models/get", url.Values{"name": {name}}, &a); err != nil {
		return registeredModel{}, err
	}
	if a.Model == nil || a.Model.Name != name {
		return registeredModel{}, fmt.Errorf("the registry was asked for model %q and answers something else", name)
	}
	return *a.Model, nil
}

func (c *client) modelVersion(ctx context.Context, name string, n int64) (modelVersion, error) {
	var a struct {
		Version *modelVersion `json:"model_version"`
	}
	q := url.Values{"name": {name}, "version": {strconv.FormatInt(n, 10)}}
	if err := c.get(ctx, "model-versions/get", q, &a); err != nil {
		return modelVersion{}, err
	}
	if a.Version == nil || int64(a.Version.Version) != n {
		return modelVersion{}, fmt.Errorf("the registry was asked for version %d of %q and answers something else", n, name)
	}
	return *a.Version, nil
}

// searchVersions reads all pages, within limits.
func (c *client) searchVersions(ctx context.Context, name string) ([]modelVersion, error) {
	quote := "'"
	if strings.Contains(name, quote) {
		quote = `"`
	}
	q := url.Values{"filter": {"name=" + quote + name + quote}, "max_results": {strconv.Itoa(versionsAPage)}}
	var all []modelVersion
	for range maxListPages {
		var a struct {
			Versions []modelVersion `json:"model_versions"`
			Next     string         `json:"next_page_token"`
		}
		if err := c.get(ctx, "model-versions/search", q, &a); err != nil {
			return nil, err
		}
		all = append(all, a.Versions...)
		if a.Next == "" {
			return all, nil
		}
		q.Set("page_token", a.Next)
	}
	return nil, fmt.Errorf("the registry lists versions of %q without end (%d pages)", name, maxListPages)
}

func (c *client) run(ctx context.Context, id string) (run, error) {
	var a struct {
		Run *run `json:"run"`
	}
	if err := c.get(ctx, "runs/get", url.Values{"run_id": {id}}, &a); err != nil {
		return run{}, err
	}
	if a.Run == nil {
		return run{}, errors.New("the registry's answer holds no run")
	}
	return *a.Run, nil
}

func (c *client) loggedModel(ctx context.Context, id string) (loggedModel, error) {
	var a struct {
		Model *loggedModel `json:"model"`
	}
	if err := c.get(ctx, "logged-models/"+url.PathEscape(id), nil, &a); err != nil {
		return loggedModel{}, err
	}
	if a.Model == nil {
		return loggedModel{}, errors.New("the registry's answer holds no logged model")
	}
	return *a.Model, nil
}

// downloadURI is where the files of a version are; for a logged model it isn't the version's source.
func (c *client) downloadURI(ctx context.Context, name string, n int64) (string, error) {
	var a struct {
		URI string `json:"artifact_uri"`
	}
	q := url.Values{"name": {name}, "version": {strconv.FormatInt(n, 10)}}
	err := c.get(ctx, "model-versions/get-download-uri", q, &a)
	return a.URI, err
}
