package mlflow_test

import (
	"fmt"
	"strings"
	"testing"

	"modelgate/modelstore"
	"modelgate/modelstore/mlflow"
)

// However a version is found, what its publisher declared comes with it.
func TestTagsOfAVersion(t *testing.T) {
	forEachVersion(t, func(t *testing.T, r *registry) {
		m := r.newModel(t)
		m.register(t)
		const contract = `{"kind": "text", "labels": ["bình thường", "độc hại"]}`
		digest := strings.Repeat("ab", 32)
		id, uri := m.run(t, nil)
		m.post(t, "model-versions/create", object{"name": m.name, "source": uri, "run_id": id, "tags": []object{
			{"key": "modelgate.digest", "value": strings.ToUpper(digest)}, {"key": "modelgate.contract", "value": contract}, {"key": "by", "value": "us"},
		}})
		m.version(t, id, uri)
		s := source(t, m, mlflow.Options{})
		check := func(how string, v modelstore.Version) {
			if v.Number != 1 || v.Declared != digest || v.Contract != contract {
				t.Errorf("%s: %+v", how, v)
			}
		}
		check("listed", find(t, s, "1"))
		if v := find(t, s, "2"); v.Declared != "" || v.Contract != "" {
			t.Errorf("without tags: %+v", v)
		}
		latest := func() modelstore.Version {
			v, err := s.Latest(t.Context(), "text")
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		m.stage(t, "Production", "1")
		check("by stage", latest())
		m.alias(t, "production", "1")
		check("by alias", latest())
		m.stage(t, "None", "1") // no stage's newest any more: the alias costs a question
		check("by alias, alone", latest())
	})
}

// A registry can't make us remember much, nor hide other versions behind one bad tag.
func TestHostileTags(t *testing.T) {
	tags := func(pairs ...string) string {
		var list []string
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, fmt.Sprintf(`{"key": %q, "value": %q}`, pairs[i], pairs[i+1]))
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	for name, c := range map[string]struct{ tags, declared, contract string }{
		"none":               {"[]", "", ""},
		"null":               {"null", "", ""},
		"without a value":    {`[{"key": "modelgate.digest"}]`, "", ""},
		"no digest":          {tags("modelgate.digest", " Latest "), "latest", ""},
		"a long digest":      {tags("modelgate.digest", strings.Repeat("a", 5000)), "(the tag modelgate.digest has 5000 bytes, at most 128 are read)", ""},
		"a long contract":    {tags("modelgate.contract", strings.Repeat("a", 100_000)), "", "(the tag modelgate.contract has 100000 bytes, at most 8192 are read)"},
		"two digests":        {tags("modelgate.digest", "a", "modelgate.digest", "b"), "(the tag modelgate.digest is there twice)", ""},
		"other people's":     {tags("Modelgate.Digest", "a", "digest", "b", "mlflow.contract", "c"), "", ""},
		"a hundred thousand": {tags(strings.Split(strings.Repeat("a,b,", 50_000)+"modelgate.digest,c", ",")...), "c", ""},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.Replace(modelJSON, `"status": "READY"`, `"status": "READY", "tags": `+c.tags, 1)
			s := serve(t, paths{getModel: {jsonBody(200, body)}})
			v, err := open(t, quick(s.URL)).Latest(t.Context(), "text")
			if err != nil || v.Declared != c.declared || v.Contract != c.contract {
				t.Errorf("%q %q, %v", v.Declared, v.Contract, err)
			}
		})
	}
}
