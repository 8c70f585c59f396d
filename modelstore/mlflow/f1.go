package mlflow

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"modelgate/modelstore"
)

// F1 reads the first configured metric that was recorded: from MLflow 3's logged model if the version comes from one, else from
// the run. Of several values the newest counts.
func (s *Source) F1(ctx context.Context, v modelstore.Version) (modelstore.F1, error) {
	if _, err := s.registered(v.Model); err != nil {
		return modelstore.F1{}, err
	}
	f1, err := s.f1(ctx, v)
	if err != nil {
		return modelstore.F1{}, fmt.Errorf("F1 of %v: %w", v, err)
	}
	return f1, nil
}

func (s *Source) f1(ctx context.Context, v modelstore.Version) (modelstore.F1, error) {
	m, found, err := s.modelMetric(ctx, v.Source)
	if err != nil {
		return modelstore.F1{}, err
	}
	// MLflow 3 tells a logged model's NaN as 0, while the run's own record still says NaN. So a 0 is looked up there too.
	if found && (m.Value.x != 0 || m.Value.text != "" || v.Run == "") {
		return m.f1(), nil
	}
	if !idLike(v.Run) {
		return modelstore.AbsentF1("the version names no run, so nothing says how good it is"), nil
	}
	f1, err := s.runF1(ctx, v.Run)
	if found && err == nil && f1.Absent {
		return m.f1(), nil
	}
	return f1, err
}

// modelMetric reads from MLflow 3's logged model, if that is what the source names.
func (s *Source) modelMetric(ctx context.Context, source string) (metric, bool, error) {
	id, ok := strings.CutPrefix(source, "models:/")
	if !ok || !strings.HasPrefix(id, "m-") || !idLike(id) {
		return metric{}, false, nil
	}
	lm, err := s.c.loggedModel(ctx, id)
	if err != nil {
		if isMissing(err) {
			return metric{}, false, nil
		}
		return metric{}, false, err
	}
	m, ok := newest(lm.Data.Metrics, s.o.MetricNames)
	return m, ok, nil
}

func (s *Source) runF1(ctx context.Context, id string) (modelstore.F1, error) {
	r, err := s.c.run(ctx, id)
	if err != nil {
		if isMissing(err) {
			return modelstore.InvalidF1("", fmt.Sprintf("run %s no longer exists", id)), nil
		}
		return modelstore.F1{}, err
	}
	m, ok := newest(r.Data.Metrics, s.o.MetricNames)
	switch {
	case r.Info.Lifecycle == "deleted": // it still answers, metrics and all
		return modelstore.InvalidF1(m.Key, fmt.Sprintf("run %s was deleted", id)), nil
	case !ok:
		return modelstore.AbsentF1(fmt.Sprintf("run %s has no metric %s", id, strings.Join(s.o.MetricNames, " or "))), nil
	}
	return m.f1(), nil
}

// newest finds the first name of which there is a value, and of its values the one with the latest time and step.
func newest(ms []metric, names []string) (metric, bool) {
	for _, name := range names {
		var best metric
		found := false
		for _, m := range ms {
			if m.Key != name {
				continue
			}
			if !found || cmp.Or(cmp.Compare(m.Timestamp, best.Timestamp), cmp.Compare(m.Step, best.Step)) >= 0 {
				best, found = m, true
			}
		}
		if found {
			return best, true
		}
	}
	return metric{}, false
}

func (m metric) f1() modelstore.F1 {
	if m.Value.text != "" {
		return modelstore.InvalidF1(m.Key, fmt.Sprintf("metric %s is %q, not a number from 0 to 1", m.Key, m.Value.text))
	}
	return modelstore.KnownF1(m.Key, m.Value.x)
}
