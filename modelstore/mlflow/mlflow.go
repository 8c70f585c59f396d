// Package mlflow takes model versions from an MLflow registry through its REST API.
package mlflow

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"modelgate/modelstore"
)

// Source is a modelstore.Source and modelstore.Promoter over one MLflow server. It keeps no state about versions:
// every answer is what the registry says now. Safe for concurrent use.
type Source struct {
	o Options
	c *client
}

var (
	_ modelstore.Source   = (*Source)(nil)
	_ modelstore.Promoter = (*Source)(nil)
)

// New checks the options and returns a Source. It doesn't talk to the server yet, so a server that is down is no error here.
func New(o Options) (*Source, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("mlflow: %w", err)
	}
	c, err := newClient(o)
	if err != nil {
		return nil, fmt.Errorf("mlflow: %w", err)
	}
	return &Source{o: o, c: c}, nil
}

// Close closes idle connections. Calls in progress go on.
func (s *Source) Close() error {
	s.c.http.CloseIdleConnections()
	return nil
}

// Latest is the version that the alias or the stage names now. Where both are allowed and the alias exists, the alias decides;
// Pointer says which of them it was.
func (s *Source) Latest(ctx context.Context, model string) (modelstore.Version, error) {
	name, err := s.registered(model)
	if err != nil {
		return modelstore.Version{}, err
	}
	rm, err := s.c.registeredModel(ctx, name)
	if err != nil {
		return modelstore.Version{}, fmt.Errorf("latest version of %s: %w", model, missing(err, modelstore.ErrNoModel))
	}
	v, err := s.pointed(ctx, model, name, rm)
	if err != nil {
		return modelstore.Version{}, fmt.Errorf("latest version of %s: %w", model, err)
	}
	return v, nil
}

// pointed follows the first pointer that is allowed and exists.
func (s *Source) pointed(ctx context.Context, model, name string, rm registeredModel) (modelstore.Version, error) {
	for _, via := range s.o.Via {
		follow := s.byStage
		if via == ViaAlias {
			follow = s.byAlias
		}
		if v, ok, err := follow(ctx, model, name, rm); err != nil || ok {
			return v, err
		}
	}
	return modelstore.Version{}, fmt.Errorf("%w: of %q none is promoted (%s); set the pointer in MLflow to serve one",
		modelstore.ErrNoVersion, name, s.wanted())
}

// wanted says for people what is looked for.
func (s *Source) wanted() string {
	var parts []string
	for _, via := range s.o.Via {
		if via == ViaAlias {
			parts = append(parts, fmt.Sprintf("no alias %q", s.o.Alias))
		} else {
			parts = append(parts, fmt.Sprintf("none in stage %q", s.o.Stage))
		}
	}
	return strings.Join(parts, ", ")
}

func (s *Source) byAlias(ctx context.Context, model, name string, rm registeredModel) (modelstore.Version, bool, error) {
	i := slices.IndexFunc(rm.Aliases, func(a alias) bool { return a.Alias == s.o.Alias })
	if i < 0 {
		return modelstore.Version{}, false, nil
	}
	number := int64(rm.Aliases[i].Version)
	// The answer carries the newest version of each stage, which is often the one; else it costs another question.
	j := slices.IndexFunc(rm.LatestVersions, func(mv modelVersion) bool { return int64(mv.Version) == number })
	var mv modelVersion
	if j >= 0 {
		mv = rm.LatestVersions[j]
	} else {
		var err error
		if mv, err = s.c.modelVersion(ctx, name, number); err != nil {
			return modelstore.Version{}, false, fmt.Errorf("version %d, which alias %q names: %w",
				number, s.o.Alias, missing(err, modelstore.ErrNoVersion))
		}
	}
	v, err := mv.version(model, name)
	v.Pointer = "alias:" + s.o.Alias
	return v, true, err
}

// byStage takes the highest number in the stage, compared as a number.
func (s *Source) byStage(_ context.Context, model, name string, rm registeredModel) (modelstore.Version, bool, error) {
	var best modelstore.Version
	for _, mv := range rm.LatestVersions {
		if !strings.EqualFold(mv.Stage, s.o.Stage) {
			continue
		}
		v, err := mv.version(model, name)
		if err != nil {
			return modelstore.Version{}, false, err
		}
		if best.IsZero() || v.Compare(best) > 0 {
			best = v
		}
	}
	best.Pointer = "stage:" + s.o.Stage
	return best, best.Number != 0, nil
}

// Versions lists all versions of a model, the highest number first.
func (s *Source) Versions(ctx context.Context, model string) ([]modelstore.Version, error) {
	name, err := s.registered(model)
	if err != nil {
		return nil, err
	}
	list, err := s.c.searchVersions(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("versions of %s: %w", model, err)
	}
	if len(list) == 0 { // a search finds nothing where there is no model, too
		if _, err := s.c.registeredModel(ctx, name); err != nil {
			return nil, fmt.Errorf("versions of %s: %w", model, missing(err, modelstore.ErrNoModel))
		}
	}
	vs := make([]modelstore.Version, 0, len(list))
	for _, mv := range list {
		v, err := mv.version(model, name)
		if err != nil {
			return nil, fmt.Errorf("versions of %s: %w", model, err)
		}
		vs = append(vs, v)
	}
	slices.SortFunc(vs, func(a, b modelstore.Version) int { return b.Compare(a) })
	return vs, nil
}

// MarkPromoted sets the alias, or moves v to the stage and archives what was there: the first kind of pointer that is allowed.
func (s *Source) MarkPromoted(ctx context.Context, v modelstore.Version) error {
	mv, err := s.same(ctx, v)
	if err != nil {
		return fmt.Errorf("promote %v in the registry: %w", v, err)
	}
	if s.o.Via[0] == ViaAlias {
		err = s.c.post(ctx, "registered-models/alias", map[string]any{"name": mv.Name, "alias": s.o.Alias, "version": v.ID()})
	} else {
		err = s.c.post(ctx, "model-versions/transition-stage", map[string]any{
			"name": mv.Name, "version": v.ID(), "stage": s.o.Stage, "archive_existing_versions": true,
		})
	}
	if err != nil {
		return fmt.Errorf("promote %v in the registry: %w", v, err)
	}
	return nil
}

// same asks the registry for v and checks that it is still the very version that was judged: when a model is deleted and made
// again, its numbers start again at 1.
func (s *Source) same(ctx context.Context, v modelstore.Version) (modelVersion, error) {
	name, err := s.registered(v.Model)
	if err != nil {
		return modelVersion{}, err
	}
	if v.Number < 1 {
		return modelVersion{}, fmt.Errorf("%w: %d", modelstore.ErrNoVersion, v.Number)
	}
	mv, err := s.c.modelVersion(ctx, name, v.Number)
	if err != nil {
		return modelVersion{}, missing(err, modelstore.ErrNoVersion)
	}
	now, err := mv.version(v.Model, name)
	if err != nil {
		return modelVersion{}, err
	}
	if !now.Same(v) {
		return modelVersion{}, fmt.Errorf("%w: its version %d is another one by now (created %v from %s)",
			modelstore.ErrNoVersion, v.Number, now.Created, now.Source)
	}
	return mv, nil
}

// registered is what the registry calls a model.
func (s *Source) registered(model string) (string, error) {
	name, ok := s.o.Models[model]
	if !ok {
		return "", fmt.Errorf("%w: no registered name is configured for %q", modelstore.ErrNoModel, model)
	}
	return name, nil
}
