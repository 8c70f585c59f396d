package server_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"modelgate/modelstore/mlflow"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

const hookSecret = "the-secret-of-the-webhook"

func withHook(c *config) {
	w, err := mlflow.NewWebhook([]string{hookSecret}, map[string]string{"text": "tweets", "video": "clips"})
	if err != nil {
		panic(err)
	}
	c.options.Hook = &server.Hook{Path: "/hooks/mlflow", Most: mlflow.WebhookBytes, Accept: w.Accept}
}

// sign makes a request a delivery as MLflow would.
func sign(id, body string) func(*http.Request) {
	at := time.Now().Unix()
	mac := hmac.New(sha256.New, []byte(hookSecret))
	fmt.Fprintf(mac, "%s.%d.%s", id, at, body)
	return func(r *http.Request) {
		r.Header.Set("X-MLflow-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		r.Header.Set("X-MLflow-Timestamp", fmt.Sprint(at))
		r.Header.Set("X-MLflow-Delivery-Id", id)
	}
}

func event(model string) string {
	return fmt.Sprintf(`{"entity": "model_version_alias", "action": "created", "data": {"name": %q, "alias": "production", "version": "2"}}`, model)
}

// hooks tells how many deliveries had each result.
func (g *gateway) hooks() map[string]float64 {
	g.t.Helper()
	families, err := g.reg.Gather()
	must(g.t, err)
	counts := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "modelgate_hook_deliveries_total" {
				counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}

func TestHookIsOffWithoutASecret(t *testing.T) {
	g := start(t)
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		if a := g.call(method, "/hooks/mlflow", event("tweets"), sign("id", event("tweets"))); a.code != http.StatusNotFound {
			t.Errorf("%s: %d %s", method, a.code, a.raw)
		}
	}
	if n, err := testutil.GatherAndCount(g.reg, "modelgate_hook_deliveries_total"); err != nil || n != 0 {
		t.Errorf("%d series, %v", n, err)
	}
}

// serves waits until version serves text. The interval of these gateways is an hour.
func (g *gateway) serves(version string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	w, err := g.models.WatchModels(ctx, &pb.WatchModelsRequest{})
	must(g.t, err)
	for {
		m, err := w.Recv()
		if err != nil {
			g.t.Fatalf("version %s didn't become live: %v\n%s", version, err, g.log)
		}
		if m.GetModel().GetName() == "text" && m.GetModel().GetActive().GetVersion() == version {
			return
		}
	}
}

func TestHookWakesTheUpdater(t *testing.T) {
	g := start(t, withHook)
	for i, name := range []string{"tweets", ""} { // what names no model may concern any
		number := i + 2
		g.publish(text(number, 0.8+float64(number)/100))
		a := g.call(http.MethodPost, "/hooks/mlflow", event(name), sign(fmt.Sprint("id-", i), event(name)))
		if a.code != http.StatusNoContent || a.raw != "" {
			t.Fatalf("%s: %d %s", name, a.code, a.raw)
		}
		g.serves(fmt.Sprint(number))
	}
	if got := g.hooks(); got["accepted"] != 2 || len(got) != 1 {
		t.Errorf("deliveries: %v", got)
	}
}

// An event of another model of ours is none of text's business.
func TestHookOfAnotherModel(t *testing.T) {
	g := start(t, withHook)
	before, err := g.updater.Status("text")
	must(t, err)
	video := func() time.Time {
		s, err := g.updater.Status("video")
		must(t, err)
		return s.LastCheck
	}
	if a := g.call(http.MethodPost, "/hooks/mlflow", event("somebody-elses"), sign("none", event("somebody-elses"))); a.code != http.StatusNoContent {
		t.Fatalf("%d %s", a.code, a.raw)
	}
	for _, id := range []string{"first", "second"} { // a second lies between, in which text would have been looked at too
		began := video()
		if a := g.call(http.MethodPost, "/hooks/mlflow", event("clips"), sign(id, event("clips"))); a.code != http.StatusNoContent {
			t.Fatalf("%d %s", a.code, a.raw)
		}
		eventually(t, func() bool { return video().After(began) })
	}
	after, err := g.updater.Status("text")
	must(t, err)
	if !after.LastCheck.Equal(before.LastCheck) {
		t.Error("text was looked at")
	}
}

func TestHookRefuses(t *testing.T) {
	body := event("tweets")
	large := `{"data": {"name": "tweets", "tags": "` + strings.Repeat("x", 64<<10) + `"}}`
	exact, large := large[:64<<10], large[:64<<10+1]
	g := start(t, withHook)
	post := http.MethodPost
	for _, c := range []struct {
		name, method, body string
		change             func(*http.Request)
		code               int
		result             string // "" is not counted
	}{
		{"first", post, body, sign("a", body), 204, "accepted"},
		{"again", post, body, sign("a", body), 401, "replay"},
		{"unsigned", post, body, func(*http.Request) {}, 401, "headers"},
		{"of another body", post, body, sign("b", body+" "), 401, "signature"},
		{"of last week", post, body, func(r *http.Request) { sign("c", body)(r); r.Header.Set("X-MLflow-Timestamp", "1700000000") }, 401, "window"},
		{"with a token", post, body, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, 401, "headers"},
		{"largest", post, exact, sign("d", exact), 204, "accepted"},
		{"too large", post, large, sign("e", large), 413, "too_large"},
		{"too large, of unknown length", post, large, func(r *http.Request) { sign("f", large)(r); r.ContentLength = -1 }, 413, "too_large"},
		{"GET", http.MethodGet, "", sign("g", ""), 405, ""},
		{"HEAD", http.MethodHead, "", sign("g", ""), 405, ""},
		{"PUT", http.MethodPut, body, sign("h", body), 405, ""},
		{"DELETE", http.MethodDelete, body, sign("h", body), 405, ""},
		{"of a web page", post, body, func(r *http.Request) { sign("i", body)(r); r.Header.Set("Origin", "https://example.com") }, 403, ""},
		{"for a foreign name", post, body, func(r *http.Request) { sign("j", body)(r); r.Host = "example.com" }, 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := g.hooks()
			a := g.call(c.method, "/hooks/mlflow", c.body, c.change)
			if a.code != c.code {
				t.Errorf("%d %s, want %d", a.code, a.raw, c.code)
			}
			if c.code == 401 && (a.header.Get("WWW-Authenticate") != "Signature" || strings.Contains(a.raw, "replay") || strings.Contains(a.raw, "1700000000")) {
				t.Errorf("%v %s", a.header, a.raw)
			}
			if c.code == 405 && a.header.Get("Allow") != post {
				t.Errorf("Allow is %q", a.header.Get("Allow"))
			}
			for result, n := range g.hooks() {
				want := before[result]
				if result == c.result {
					want++
				}
				if n != want {
					t.Errorf("%v deliveries are counted as %s, want %v", n, result, want)
				}
			}
		})
	}
	for _, paths := range []string{"/hooks/mlflow/", "/hooks/", "/hooks/mlflow2"} {
		if a := g.call(post, paths, body, sign("k", body)); a.code != http.StatusNotFound {
			t.Errorf("%s: %d", paths, a.code)
		}
	}
}

// A sender that doesn't finish is told nothing but that, and isn't taken for one.
func TestHookIncomplete(t *testing.T) {
	g := start(t, withHook)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.url, "http://"))
	must(t, err)
	_, err = io.WriteString(conn, "POST /hooks/mlflow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n{")
	must(t, err)
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatalf("a %T", conn)
	}
	must(t, tcp.CloseWrite())
	answer, err := io.ReadAll(conn)
	must(t, err)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400") || g.hooks()["incomplete"] != 1 {
		t.Errorf("%s, %v", answer, g.hooks())
	}
}

// MLflow has no token to send; its signature stands for it. Nothing else is opened by that.
func TestHookBesideTokens(t *testing.T) {
	g := start(t, withHook, func(c *config) {
		c.options.TokenFile = t.TempDir() + "/tokens"
		writeToken(t, c.options.TokenFile, token)
	})
	if a := g.call(http.MethodPost, "/hooks/mlflow", event("tweets"), sign("id", event("tweets"))); a.code != http.StatusNoContent {
		t.Errorf("%d %s", a.code, a.raw)
	}
	if a := g.call(http.MethodPost, "/v1/models/text:refresh", "{}", sign("id-2", "{}")); a.code != http.StatusUnauthorized {
		t.Errorf("refresh with a signature: %d %s", a.code, a.raw)
	}
}

// Anybody can send what is refused: the log says it once, and how often it was later.
func TestHookLogIsQuiet(t *testing.T) {
	g := start(t, withHook)
	for range 200 {
		_ = g.call(http.MethodPost, "/hooks/mlflow", "{}")
	}
	for i := range 50 {
		_ = g.call(http.MethodPost, "/hooks/mlflow", event("tweets"), sign(fmt.Sprint("id-", i), event("tweets")))
	}
	if n := strings.Count(g.log.String(), "was refused"); n != 1 {
		t.Errorf("%d lines about 200 refused deliveries\n%s", n, g.log)
	}
	if n := strings.Count(g.log.String(), "something changed"); n != 1 {
		t.Errorf("%d lines about 50 accepted ones", n)
	}
	if got := g.hooks(); got["headers"] != 200 || got["accepted"] != 50 {
		t.Errorf("deliveries: %v", got)
	}
	if b, err := json.Marshal(g.hooks()); err != nil || strings.Contains(g.log.String(), hookSecret) {
		t.Errorf("%s %v", b, err)
	}
}
