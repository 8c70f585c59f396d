package server_test

import (
	"net/http"
	"testing"

	pb "modelgate/proto/modelgate/v1"
)

func TestPredict(t *testing.T) {
	g := start(t)
	resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("a good film"), Id: "7"})
	must(t, err)
	t.Log(resp)
	a := g.call(http.MethodPost, "/v1/models/text:predict", `{"text": "a good film", "id": "7"}`)
	t.Log(a.raw)
	t.Log(g.call(http.MethodGet, "/v1/models", "").raw)
	t.Log(g.call(http.MethodGet, "/v1/models/text/history", "").raw)
	t.Log(g.call(http.MethodGet, "/v1/models/text/versions", "").raw)
	t.Log(g.call(http.MethodPost, "/v1/models/text:refresh", "{}").raw)
	t.Log(g.call(http.MethodPost, "/v1/models/txt:predict", `{"txt":"a"}`).raw)
	t.Log(g.call(http.MethodPost, "/v1/models/txt:predict", `{"text":"a"}`).raw)
	t.Log(g.call(http.MethodGet, "/docs/", "").raw[:300])
	t.Log(g.call(http.MethodGet, "/readyz", "").raw)
	t.Log(len(g.call(http.MethodGet, "/docs/swagger-ui-bundle.js", "").raw))
	t.Log(g.call(http.MethodPost, "/v1/models/video:predict", `{"text":"a"}`).raw)
}
