package server_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestPages(t *testing.T) {
	g := start(t)
	for _, c := range []struct {
		method, path string
		code         int
		kind, has    string
	}{
		{"GET", "/healthz", 200, "application/json", `"alive"`},
		{"HEAD", "/readyz", 200, "application/json", ""},
		{"GET", "/metrics", 200, "text/plain", "modelgate_serving_f1"},
		{"GET", "/docs/", 200, "text/html", "/openapi.json"},
		{"GET", "/docs/swagger-ui-bundle.js", 200, "application/javascript", "SwaggerUI"},
		{"GET", "/docs/swagger-ui.css", 200, "text/css", ".swagger-ui"},
		{"GET", "/docs/nothing", 404, "", ""},
		{"GET", "/favicon.ico", 404, "application/json", "NO_SUCH_ADDRESS"},
		{"POST", "/healthz", 405, "application/json", "METHOD_NOT_ALLOWED"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			a := g.call(c.method, c.path, "")
			if a.code != c.code || !strings.HasPrefix(a.header.Get("Content-Type"), c.kind) || !strings.Contains(a.raw, c.has) {
				t.Errorf("%d %s %.200s", a.code, a.header.Get("Content-Type"), a.raw)
			}
		})
	}
	t.Run("index", func(t *testing.T) {
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		if a := g.callWith(client, "GET", "/", ""); a.code != http.StatusFound || a.header.Get("Location") != "/docs/" {
			t.Errorf("%d %s", a.code, a.header.Get("Location"))
		}
	})
	t.Run("the API page works offline", func(t *testing.T) {
		for _, word := range strings.FieldsFunc(g.call("GET", "/docs/", "").raw, func(r rune) bool { return strings.ContainsRune(`"' <>`, r) }) {
			if strings.HasPrefix(word, "//") && word != "//" || strings.HasPrefix(word, "https://") && word != "https://" {
				t.Errorf("the page needs %s", word)
			}
		}
	})
}

func TestOpenAPI(t *testing.T) {
	g := start(t)
	var doc struct {
		Info  struct{ Title, Version, Description string }
		Paths map[string]map[string]any
	}
	must(t, json.Unmarshal([]byte(g.call("GET", "/openapi.json", "").raw), &doc))
	if doc.Info.Title != "modelgate" || doc.Info.Version != "test" || doc.Info.Description == "" {
		t.Errorf("%+v", doc.Info)
	}
	for path, method := range map[string]string{"/v1/models/{model}:predict": "post", "/v1/models/{model}:predictMedia": "post", "/v1/models/{model}:predictBatch": "post", "/v1/models": "get", "/v1/models/{model}": "get",
		"/v1/models/{model}/versions": "get", "/v1/models/{model}/history": "get", "/v1/models/{model}:refresh": "post", "/v1/models/{model}:promote": "post",
		"/v1/models/{model}:rollback": "post", "/v1/models/{model}:pin": "post", "/v1/models/{model}:unpin": "post"} {
		if doc.Paths[path][method] == nil {
			t.Errorf("%s %s is not described", method, path)
		}
	}
}

// What is described is what is sent: every field of an answer is in the description.
func TestOpenAPIMatchesAnswers(t *testing.T) {
	g := start(t)
	var doc struct {
		Definitions map[string]struct {
			Properties map[string]any
		}
	}
	must(t, json.Unmarshal([]byte(g.call("GET", "/openapi.json", "").raw), &doc))
	answer := g.call("POST", "/v1/models/text:predict", `{"text":"good","id":"1"}`)
	for field := range answer.json {
		if doc.Definitions["v1PredictResponse"].Properties[field] == nil {
			t.Errorf("%s is sent but not described", field)
		}
	}
	if len(answer.json) != len(doc.Definitions["v1PredictResponse"].Properties) {
		t.Errorf("sent: %v", slices.Collect(func(yield func(string) bool) {
			for f := range answer.json {
				if !yield(f) {
					return
				}
			}
		}))
	}
}
