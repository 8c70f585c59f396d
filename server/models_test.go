package server_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
)

// The life of a model as an operator sees it.
func TestModelService(t *testing.T) {
	g := start(t)
	ctx := t.Context()
	serves := func(m *pb.Model, want string) {
		t.Helper()
		if m.GetActive().GetVersion() != want || m.GetState() != pb.ModelState_MODEL_STATE_SERVING {
			t.Errorf("%v, want version %s", m, want)
		}
		resp, err := g.predict.Predict(ctx, &pb.PredictRequest{Model: "text", Text: ptr("good")})
		must(t, err)
		if resp.GetVersion() != want {
			t.Errorf("version %s answers, want %s", resp.GetVersion(), want)
		}
	}
	refresh := func(swapped bool, says string) *pb.Model {
		t.Helper()
		resp, err := g.models.Refresh(ctx, &pb.RefreshRequest{Model: "text"})
		must(t, err)
		if resp.GetSwapped() != swapped || !strings.Contains(resp.GetReason(), says) {
			t.Errorf("%v %q, want %v %q", resp.GetSwapped(), resp.GetReason(), swapped, says)
		}
		return resp.GetModel()
	}
	serves(refresh(false, "text v1 serves, and the registry offers nothing else"), "1")
	g.publish(text(2, 0.9))
	m := refresh(true, "F1 0.9000 exceeds 0.8000 of version 1")
	serves(m, "2")
	if m.GetStandby().GetVersion() != "1" || m.GetActive().GetF1() != 0.9 || m.GetLastDecision().GetOutcome() != "swapped" || m.GetSince() == nil {
		t.Errorf("%v", m)
	}
	g.publish(text(3, 0.9))
	serves(refresh(false, "F1 0.9000 of text v3 does not exceed"), "2")
	serves(refresh(false, "nothing new; the last decision stands: F1 0.9000 of text v3"), "2")

	back, err := g.models.Rollback(ctx, &pb.RollbackRequest{Model: "text"})
	must(t, err)
	serves(back.GetModel(), "1")
	if !strings.Contains(back.GetModel().GetHeld(), "rollback") {
		t.Errorf("held: %q", back.GetModel().GetHeld())
	}
	promoted, err := g.models.Promote(ctx, &pb.PromoteRequest{Model: "text", Version: "3"})
	must(t, err)
	serves(promoted.GetModel(), "3")
	pinned, err := g.models.Pin(ctx, &pb.PinRequest{Model: "text"})
	must(t, err)
	if serves(pinned.GetModel(), "3"); pinned.GetModel().GetPinned() != "3" {
		t.Errorf("%v", pinned)
	}
	pinned, err = g.models.Pin(ctx, &pb.PinRequest{Model: "text", Version: "1"})
	must(t, err)
	serves(pinned.GetModel(), "1")
	free, err := g.models.Unpin(ctx, &pb.UnpinRequest{Model: "text"})
	must(t, err)
	if free.GetModel().GetPinned() != "" || free.GetModel().GetHeld() != "" {
		t.Errorf("%v", free)
	}

	history, err := g.models.History(ctx, &pb.HistoryRequest{Model: "text", Limit: 2})
	must(t, err)
	if len(history.GetEntries()) != 2 || history.GetEntries()[0].GetTime().AsTime().Before(history.GetEntries()[1].GetTime().AsTime()) {
		t.Errorf("%v", history)
	}
	versions, err := g.models.ListVersions(ctx, &pb.ListVersionsRequest{Model: "text"})
	must(t, err)
	if vs := versions.GetVersions(); len(vs) != 3 || vs[0].GetVersion() != "3" || vs[0].GetF1() != 0.9 {
		t.Errorf("%v", versions)
	}
	list, err := g.models.ListModels(ctx, &pb.ListModelsRequest{})
	must(t, err)
	if ms := list.GetModels(); len(ms) != 2 || ms[0].GetName() != "text" || ms[1].GetState() != pb.ModelState_MODEL_STATE_EMPTY || ms[1].GetActive() != nil {
		t.Errorf("%v", list)
	}
}

func TestModelServiceRefusals(t *testing.T) {
	g := start(t)
	ctx := t.Context()
	must(t, os.MkdirAll(filepath.Join(g.dir, "text", "9"), 0o750)) // a version with nothing in it
	must(t, os.WriteFile(filepath.Join(g.dir, "text", "9", "metrics.json"), []byte(`{"eval_f1": 0.99}`), 0o600))
	calls := []struct {
		name         string
		call         func() error
		code         codes.Code
		says, reason string
	}{
		{"get unknown", func() error { _, err := g.models.GetModel(ctx, &pb.GetModelRequest{Model: "x"}); return err }, codes.NotFound, `no such model: "x"; there are: text, video`, "UNKNOWN_MODEL"},
		{"get none", func() error { _, err := g.models.GetModel(ctx, &pb.GetModelRequest{}); return err }, codes.InvalidArgument, "model is missing", "MODEL_MISSING"},
		{"versions of unknown", func() error { _, err := g.models.ListVersions(ctx, &pb.ListVersionsRequest{Model: "x"}); return err }, codes.NotFound, "no such model", "UNKNOWN_MODEL"},
		{"versions of unregistered", func() error {
			_, err := g.models.ListVersions(ctx, &pb.ListVersionsRequest{Model: "video"})
			return err
		}, codes.NotFound, "no such model", "NOT_REGISTERED"},
		{"history of unknown", func() error { _, err := g.models.History(ctx, &pb.HistoryRequest{Model: "x"}); return err }, codes.NotFound, "no such model", "UNKNOWN_MODEL"},
		{"history too long", func() error { _, err := g.models.History(ctx, &pb.HistoryRequest{Limit: 1001}); return err }, codes.InvalidArgument, "limit is 1001: it must be from 1 to 1000", "BAD_LIMIT"},
		{"history negative", func() error { _, err := g.models.History(ctx, &pb.HistoryRequest{Limit: -1}); return err }, codes.InvalidArgument, "limit is -1", "BAD_LIMIT"},
		{"refresh unknown", func() error { _, err := g.models.Refresh(ctx, &pb.RefreshRequest{Model: "x"}); return err }, codes.NotFound, "no such model", "UNKNOWN_MODEL"},
		{"promote nothing", func() error { _, err := g.models.Promote(ctx, &pb.PromoteRequest{Model: "text"}); return err }, codes.InvalidArgument, "version is missing", "VERSION_MISSING"},
		{"promote a word", func() error {
			_, err := g.models.Promote(ctx, &pb.PromoteRequest{Model: "text", Version: "v2"})
			return err
		}, codes.InvalidArgument, `version "v2" is not a whole number from 1`, "BAD_VERSION"},
		{"promote what isn't there", func() error {
			_, err := g.models.Promote(ctx, &pb.PromoteRequest{Model: "text", Version: "7"})
			return err
		}, codes.NotFound, "no such version: text 7", "NO_SUCH_VERSION"},
		{"promote what can't be opened", func() error {
			_, err := g.models.Promote(ctx, &pb.PromoteRequest{Model: "text", Version: "9"})
			return err
		}, codes.FailedPrecondition, "model.onnx", "VERSION_UNUSABLE"},
		{"roll back to nothing", func() error { _, err := g.models.Rollback(ctx, &pb.RollbackRequest{Model: "text"}); return err }, codes.FailedPrecondition, "there is no previous version", "NO_PREVIOUS_VERSION"},
		{"roll back unknown", func() error { _, err := g.models.Rollback(ctx, &pb.RollbackRequest{Model: "x"}); return err }, codes.NotFound, "no such model", "UNKNOWN_MODEL"},
		{"pin what doesn't serve", func() error { _, err := g.models.Pin(ctx, &pb.PinRequest{Model: "video"}); return err }, codes.Unavailable, "no version of the model serves yet", "NOT_READY"},
		{"pin a word", func() error { _, err := g.models.Pin(ctx, &pb.PinRequest{Model: "text", Version: "0"}); return err }, codes.InvalidArgument, "not a whole number", "BAD_VERSION"},
		{"unpin unknown", func() error { _, err := g.models.Unpin(ctx, &pb.UnpinRequest{Model: "x"}); return err }, codes.NotFound, "no such model", "UNKNOWN_MODEL"},
	}
	for _, c := range calls {
		t.Run(c.name, func(t *testing.T) { checkStatus(t, c.call(), c.code, c.says, c.reason) })
	}
}

func TestModelServiceOverREST(t *testing.T) {
	g := start(t)
	g.publish(text(2, 0.9))
	for _, c := range []struct {
		method, path, body string
		code               int
		has                string
	}{
		{http.MethodGet, "/v1/models", "", 200, `"name":"text"`},
		{http.MethodGet, "/v1/models/text", "", 200, `"f1":0.8`},
		{http.MethodGet, "/v1/models/x", "", 404, `there are: text, video`},
		{http.MethodGet, "/v1/models/text/versions", "", 200, `"version":"2"`},
		{http.MethodPost, "/v1/models/text:refresh", "{}", 200, `"swapped":true`},
		{http.MethodGet, "/v1/models/text/history?limit=1", "", 200, `"outcome":"swapped"`},
		{http.MethodGet, "/v1/models/text/history?limit=x", "", 400, "limit"},
		{http.MethodGet, "/v1/models/text/history?limits=1", "", 200, `"outcome"`},
		{http.MethodGet, "/v1/history", "", 200, `"outcome":"swapped"`},
		{http.MethodPost, "/v1/models/text:rollback", "{}", 200, `"held":"the operator's rollback`},
		{http.MethodPost, "/v1/models/text:promote", `{"version": "2"}`, 200, `"active":{"version":"2"`},
		{http.MethodPost, "/v1/models/text:promote", `{"version": 2}`, 400, "invalid value for string field version: 2"},
		{http.MethodPost, "/v1/models/text:pin", `{"version": "2"}`, 200, `"pinned":"2"`},
		{http.MethodPost, "/v1/models/text:unpin", "", 200, `"pinned":""`},
		{http.MethodPost, "/v1/models/text:explode", "{}", 405, "POST is not a method of this address"},
		{http.MethodGet, "/v1/models/text:predict", "", 404, "no such model"},
		{http.MethodPut, "/v1/models/text:predict", "{}", 405, "PUT is not a method of this address"},
		{http.MethodGet, "/v2/health", "", 404, "/docs lists what there is"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			if a := g.call(c.method, c.path, c.body); a.code != c.code || !strings.Contains(a.raw, c.has) {
				t.Errorf("%d %s, want %d %s", a.code, a.raw, c.code, c.has)
			}
		})
	}
}

func TestWatchModels(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := g.models.WatchModels(ctx, &pb.WatchModelsRequest{Models: []string{"text"}})
	must(t, err)
	first, err := w.Recv()
	must(t, err)
	if first.GetChange() != "snapshot" || first.GetModel().GetActive().GetVersion() != "1" {
		t.Errorf("%v", first)
	}
	g.publish(text(2, 0.9))
	go func() {
		if _, err := g.models.Refresh(ctx, &pb.RefreshRequest{Model: "text"}); err != nil {
			t.Error(err)
		}
	}()
	for loading := false; ; {
		c, err := w.Recv()
		must(t, err)
		loading = loading || c.GetModel().GetState() == pb.ModelState_MODEL_STATE_UPDATING && c.GetModel().GetCandidate().GetVersion() == "2"
		if c.GetChange() == "decision" {
			if !loading || c.GetModel().GetActive().GetVersion() != "2" || c.GetModel().GetLastDecision().GetOutcome() != "swapped" {
				t.Errorf("loading was told: %v; %v", loading, c)
			}
			break
		}
	}
	unknown, err := g.models.WatchModels(ctx, &pb.WatchModelsRequest{Models: []string{"x"}})
	must(t, err)
	_, err = unknown.Recv()
	checkStatus(t, err, codes.NotFound, "no such model", "UNKNOWN_MODEL")
	must(t, g.end())
	for err = nil; err == nil; {
		_, err = w.Recv()
	}
	checkStatus(t, err, codes.Unavailable, "", "DRAINING")
}

// A model that appears while the server runs is served, and doesn't make a ready server unready.
func TestDiscoveredModel(t *testing.T) {
	found := make(chan []modelstore.ModelConfig, 1)
	g := start(t, func(c *config) {
		c.discover = func(ctx context.Context) ([]modelstore.ModelConfig, error) {
			select {
			case ms := <-found:
				return ms, nil
			case <-ctx.Done():
				return nil, errors.New("the test is over")
			}
		}
	})
	g.publish(version{"toxic", 1, 0.9, text(1, 0).bundle})
	found <- []modelstore.ModelConfig{{Name: "toxic"}}
	g.await("models/toxic", serving)
	if a := g.call(http.MethodGet, "/readyz", ""); a.code != http.StatusOK {
		t.Errorf("%d %s", a.code, a.raw)
	}
	resp, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "toxic", Text: ptr("good")})
	must(t, err)
	if resp.GetModel() != "toxic" {
		t.Errorf("%v", resp)
	}
}
