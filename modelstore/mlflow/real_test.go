package mlflow_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"modelgate/modelstore"
	"modelgate/modelstore/mlflow"
	"modelgate/modelstore/sourcetest"
)

// source opens a source on a registry that serves m as "text".
func source(t *testing.T, m *model, o mlflow.Options) *mlflow.Source {
	t.Helper()
	o.TrackingURI = m.base
	o.Models = map[string]string{"text": m.name}
	return open(t, o)
}

func open(t *testing.T, o mlflow.Options) *mlflow.Source {
	t.Helper()
	s, err := mlflow.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSuiteByAlias(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		suite(t, r, mlflow.ViaAlias, func(t *testing.T, m *model, v string) { m.alias(t, "production", v) })
	})
}

func TestSuiteByStage(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		suite(t, r, mlflow.ViaStage, func(t *testing.T, m *model, v string) { m.stage(t, "Production", v) })
	})
}

func suite(t *testing.T, r *registry, via mlflow.Via, promote func(*testing.T, *model, string)) {
	sourcetest.Run(t, sourcetest.Harness{New: func(t *testing.T) sourcetest.Subject {
		m := r.newModel(t)
		s := source(t, m, mlflow.Options{Via: []mlflow.Via{via}})
		registered := false
		return sourcetest.Subject{
			Source: s, Model: "text",
			Publish: func(t *testing.T, files map[string][]byte, metrics map[string]float64) modelstore.Version {
				if !registered {
					m.register(t)
					registered = true
				}
				var ms []object
				for k, x := range metrics {
					ms = append(ms, value(k, x))
				}
				return find(t, s, m.publish(t, files, ms))
			},
			Promote: func(t *testing.T, v modelstore.Version) { promote(t, m, v.ID()) },
		}
	}})
}

func TestDefect1TenIsNewerThanNine(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		id, uri := m.run(t, nil)
		for range 10 {
			m.stage(t, "Production", m.version(t, id, uri)) // without archiving: ten versions in the stage
		}
		v, err := source(t, m, mlflow.Options{}).Latest(t.Context(), "text")
		if err != nil || v.Number != 10 {
			t.Errorf("got %v, %v; want v10, since 10 > 9", v, err)
		}
	})
}

func TestDefect2UnstagedElevenDoesNotBeatProductionNine(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		id, uri := m.run(t, nil)
		for range 11 {
			m.version(t, id, uri)
		}
		m.stage(t, "Production", "9")
		m.stage(t, "Staging", "10")
		v, err := source(t, m, mlflow.Options{}).Latest(t.Context(), "text")
		if err != nil || v.Number != 9 || v.Pointer != "stage:Production" {
			t.Errorf("got %v by %q, %v; want v9 by stage", v, v.Pointer, err)
		}
	})
}

func TestDefect3TheJudgedVersionIsTheOneFetched(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		m.stage(t, "Production", m.publish(t, onnx("judged"), nil))
		s := source(t, m, mlflow.Options{})
		v, err := s.Latest(t.Context(), "text")
		if err != nil {
			t.Fatal(err)
		}
		m.stage(t, "Production", m.publish(t, onnx("promoted meanwhile"), nil))
		dir := t.TempDir()
		if err := s.Fetch(t.Context(), v, dir, nil); err != nil {
			t.Fatal(err)
		}
		wantFile(t, dir, "model.onnx", []byte("judged"))
	})
}

func TestDefect4MetricNamesAreExact(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		m.publish(t, onnx("x"), []object{value("weighted_f1", 0.99), value("eval_f1_weighted", 0.98), value("f1", 0.6)})
		s := source(t, m, mlflow.Options{})
		f, err := s.F1(t.Context(), find(t, s, "1"))
		if err != nil || f != modelstore.KnownF1("f1", 0.6) {
			t.Errorf("got %+v, %v; want f1, which is 0.6", f, err)
		}
		s = source(t, m, mlflow.Options{MetricNames: []string{"weighted_f1"}})
		f, err = s.F1(t.Context(), find(t, s, "1"))
		if err != nil || f != modelstore.KnownF1("weighted_f1", 0.99) {
			t.Errorf("got %+v, %v; want the metric that was configured", f, err)
		}
	})
}

func TestDefect8OneNameForFusion(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		for served, name := range map[string]string{
			"text": "text_classification_model", "video": "video_classification_model", "fusion": "fusion_multimodal_model",
		} {
			m := &model{r, name, "0"}
			m.register(t)
			m.alias(t, "production", m.publish(t, onnx(served), nil))
			v, err := open(t, mlflow.Options{TrackingURI: r.base}).Latest(t.Context(), served)
			if err != nil || v.Registered != name || v.Model != served {
				t.Errorf("%s: got %+v, %v; want it from %s", served, v, err, name)
			}
		}
	})
}

func TestAliasWinsOverStage(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		v1, v2 := m.publish(t, onnx("1"), nil), m.publish(t, onnx("2"), nil)
		both := source(t, m, mlflow.Options{Via: []mlflow.Via{mlflow.ViaStage, mlflow.ViaAlias}})
		stage := source(t, m, mlflow.Options{Via: []mlflow.Via{mlflow.ViaStage}})
		alias := source(t, m, mlflow.Options{Via: []mlflow.Via{mlflow.ViaAlias}})
		m.stage(t, "Production", v2)
		wantPointer(t, both, v2, "stage:Production")
		if _, err := alias.Latest(t.Context(), "text"); !errors.Is(err, modelstore.ErrNoVersion) || !strings.Contains(err.Error(), `no alias "production"`) {
			t.Errorf("got %v, want ErrNoVersion that names the alias", err)
		}
		m.alias(t, "production", v1)
		wantPointer(t, both, v1, "alias:production")
		wantPointer(t, stage, v2, "stage:Production")
		wantPointer(t, alias, v1, "alias:production")
		if err := both.MarkPromoted(t.Context(), find(t, both, v2)); err != nil {
			t.Fatal(err)
		}
		wantPointer(t, both, v2, "alias:production")
	})
}

func wantPointer(t *testing.T, s *mlflow.Source, id, pointer string) {
	t.Helper()
	v, err := s.Latest(t.Context(), "text")
	if err != nil || v.ID() != id || v.Pointer != pointer {
		t.Errorf("got %v by %q, %v; want v%s by %q", v, v.Pointer, err, id, pointer)
	}
}

func TestMetricsThatCannotBeUsed(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		s := source(t, m, mlflow.Options{})
		f1 := func(metrics ...object) modelstore.F1 {
			f, err := s.F1(t.Context(), find(t, s, m.publish(t, onnx("x"), metrics)))
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		if f := f1(value("eval_f1", "NaN"), value("f1", 0.9)); f.Known || f.Absent || !strings.Contains(f.Why, "NaN") {
			t.Errorf("NaN: got %+v", f)
		}
		if f := f1(value("eval_f1", "Infinity")); f.Known || f.Absent {
			t.Errorf("infinity: got %+v", f)
		}
		step := func(x float64, ts, step int) object {
			return object{"key": "eval_f1", "value": x, "timestamp": ts, "step": step}
		}
		if f := f1(step(0.5, 10, 1), step(0.7, 20, 5), step(0.6, 20, 3)); f != modelstore.KnownF1("eval_f1", 0.7) {
			t.Errorf("several: got %+v, want 0.7, the newest", f)
		}
	})
}

func TestDeletedRun(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		m.publish(t, onnx("x"), []object{value("eval_f1", 0.9)})
		s := source(t, m, mlflow.Options{})
		v := find(t, s, "1")
		m.post(t, "runs/delete", object{"run_id": v.Run})
		f, err := s.F1(t.Context(), v)
		if err != nil || f.Known || f.Absent || !strings.Contains(f.Why, "was deleted") {
			t.Errorf("got %+v, %v; want an F1 that can't be used because the run was deleted", f, err)
		}
	})
}

func TestModelMadeAgainIsAnotherVersionOne(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		m.publish(t, onnx("old"), nil)
		s := source(t, m, mlflow.Options{})
		old := find(t, s, "1")
		m.call(t, http.MethodDelete, "registered-models/delete", object{"name": m.name})
		m.register(t)
		m.publish(t, onnx("new"), nil)
		if v := find(t, s, "1"); v.Same(old) {
			t.Errorf("%+v is taken for %+v", v, old)
		}
		if err := s.Fetch(t.Context(), old, t.TempDir(), nil); !errors.Is(err, modelstore.ErrNoVersion) {
			t.Errorf("got %v, want ErrNoVersion", err)
		}
	})
}

func TestRunsSource(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		id, uri := m.run(t, nil)
		m.upload(t, uri+"/best ck", onnx("by run"))
		m.version(t, id, "runs:/"+id+"/best ck")
		s := source(t, m, mlflow.Options{})
		dir := t.TempDir()
		if err := s.Fetch(t.Context(), find(t, s, "1"), dir, nil); err != nil {
			t.Fatal(err)
		}
		wantFile(t, dir, "model.onnx", []byte("by run"))
	})
}

func TestLoggedModelOfMLflow3(t *testing.T) {
	testServers.begin()
	t.Parallel()
	m := started(t, testServers.v3).newModel(t)
	m.register(t)
	logged := func(x any, runMetrics ...object) string {
		id := text(t, m.post(t, "logged-models", object{"experiment_id": m.experiment, "name": "m"}), "model", "info", "model_id")
		run, _ := m.run(t, runMetrics)
		if x != nil {
			m.post(t, "runs/log-batch", object{"run_id": run, "metrics": []object{
				{"key": "eval_f1", "value": 0.1, "timestamp": 5, "step": 1, "model_id": id},
				{"key": "eval_f1", "value": x, "timestamp": 5, "step": 2, "model_id": id},
			}})
		}
		m.call(t, http.MethodPatch, "logged-models/"+id, object{"model_id": id, "status": "LOGGED_MODEL_READY"})
		m.upload(t, "mlflow-artifacts:/"+m.experiment+"/models/"+id+"/artifacts", onnx("logged"))
		return text(t, m.post(t, "model-versions/create", object{
			"name": m.name, "source": "models:/" + id, "run_id": run, "model_id": id,
		}), "model_version", "version")
	}
	s := source(t, m, mlflow.Options{})
	for name, c := range map[string]struct {
		version string
		want    modelstore.F1
	}{
		"the model's metric, its newest": {logged(0.8), modelstore.KnownF1("eval_f1", 0.8)},
		"a true zero":                    {logged(0.0), modelstore.KnownF1("eval_f1", 0)},
		"NaN, which is told as 0":        {logged("NaN"), modelstore.F1{Metric: "eval_f1", Why: "metric eval_f1 is \"NaN\", not a number from 0 to 1"}},
		"else the run's":                 {logged(nil, value("f1", 0.6)), modelstore.KnownF1("f1", 0.6)},
	} {
		v := find(t, s, c.version)
		if f, err := s.F1(t.Context(), v); err != nil || f != c.want {
			t.Errorf("%s: got %+v, %v; want %+v", name, f, err, c.want)
		}
		dir := t.TempDir()
		if err := s.Fetch(t.Context(), v, dir, nil); err != nil {
			t.Fatal(err)
		}
		wantFile(t, dir, "model.onnx", []byte("logged"))
	}
}
