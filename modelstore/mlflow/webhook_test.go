package mlflow_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"modelgate/modelstore/mlflow"
	"modelgate/modelstore/mlflow/mlflowtest"
)

const hookSecret, newSecret = "the-secret-of-the-webhook", "the-secret-that-comes-after"

func webhook(t testing.TB, secrets ...string) *mlflow.Webhook {
	t.Helper()
	w, err := mlflow.NewWebhook(secrets, map[string]string{"text": "tweets", "again": "tweets", "video": "clips"})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// delivery makes the headers that MLflow would.
func delivery(secret, id string, at int64, body string) http.Header {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s.%d.%s", id, at, body)
	h := http.Header{}
	h.Set("X-MLflow-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	h.Set("X-MLflow-Timestamp", strconv.FormatInt(at, 10))
	h.Set("X-MLflow-Delivery-Id", id)
	return h
}

const aliasEvent = `{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-28T03:00:00+00:00", "data": {"name": "tweets", "alias": "production", "version": "2"}}`

func reasonOf(err error) string {
	var d *mlflow.DeliveryError
	if errors.As(err, &d) {
		return d.Reason()
	}
	return fmt.Sprint(err)
}

func TestWebhookRefuses(t *testing.T) {
	now := time.Now().Unix()
	set := func(name, value string) func(http.Header) {
		return func(h http.Header) { h.Set(name, value) }
	}
	good := delivery(hookSecret, "id-1", now, aliasEvent)
	signature := good.Get("X-MLflow-Signature")
	for name, c := range map[string]struct {
		change func(http.Header)
		body   string
		want   string
	}{
		"nothing":                   {func(http.Header) {}, aliasEvent, "<nil>"},
		"no signature":              {func(h http.Header) { h.Del("X-MLflow-Signature") }, aliasEvent, "headers"},
		"no time":                   {func(h http.Header) { h.Del("X-MLflow-Timestamp") }, aliasEvent, "headers"},
		"no id":                     {func(h http.Header) { h.Del("X-MLflow-Delivery-Id") }, aliasEvent, "headers"},
		"two signatures":            {func(h http.Header) { h.Add("X-MLflow-Signature", signature) }, aliasEvent, "headers"},
		"two ids":                   {func(h http.Header) { h.Add("X-MLflow-Delivery-Id", "id-1") }, aliasEvent, "headers"},
		"another version":           {set("X-MLflow-Signature", "v2"+signature[2:]), aliasEvent, "headers"},
		"hex":                       {set("X-MLflow-Signature", "v1,"+strings.Repeat("0a", 32)), aliasEvent, "headers"},
		"a signature cut short":     {set("X-MLflow-Signature", signature[:len(signature)-4]), aliasEvent, "headers"},
		"an empty signature":        {set("X-MLflow-Signature", "v1,"), aliasEvent, "headers"},
		"a line break in it":        {set("X-MLflow-Signature", signature[:9]+"\n"+signature[9:]), aliasEvent, "headers"},
		"loose bits in the base64":  {set("X-MLflow-Signature", loosen(signature)), aliasEvent, "headers"},
		"another body":              {func(http.Header) {}, aliasEvent + " ", "signature"},
		"no body":                   {func(http.Header) {}, "", "signature"},
		"another id":                {set("X-MLflow-Delivery-Id", "id-2"), aliasEvent, "signature"},
		"another time":              {set("X-MLflow-Timestamp", strconv.FormatInt(now-1, 10)), aliasEvent, "signature"},
		"another reading of dots":   {set("X-MLflow-Delivery-Id", "id-1."+strconv.FormatInt(now, 10)), aliasEvent, "headers"},
		"a time with a zero before": {set("X-MLflow-Timestamp", "0"+strconv.FormatInt(now, 10)), aliasEvent, "signature"},
		"a time with a sign":        {set("X-MLflow-Timestamp", "+"+strconv.FormatInt(now, 10)), aliasEvent, "headers"},
		"a negative time":           {set("X-MLflow-Timestamp", "-1"), aliasEvent, "headers"},
		"a time without end":        {set("X-MLflow-Timestamp", strings.Repeat("9", 30)), aliasEvent, "headers"},
		"the largest time":          {set("X-MLflow-Timestamp", "999999999999"), aliasEvent, "window"},
		"1970":                      {set("X-MLflow-Timestamp", "0"), aliasEvent, "window"},
		"a long id":                 {set("X-MLflow-Delivery-Id", strings.Repeat("a", 65)), aliasEvent, "headers"},
		"an id with a line break":   {set("X-MLflow-Delivery-Id", "id\nlevel=ERROR"), aliasEvent, "headers"},
		"an empty id":               {set("X-MLflow-Delivery-Id", ""), aliasEvent, "headers"},
	} {
		t.Run(name, func(t *testing.T) {
			h := good.Clone()
			c.change(h)
			models, err := webhook(t, hookSecret).Accept(h, []byte(c.body))
			if got := reasonOf(err); got != c.want {
				t.Errorf("got %s (%v), want %s", got, err, c.want)
			}
			if err != nil && (models != nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), hookSecret) || len(err.Error()) > 300) {
				t.Errorf("models %v, error %q", models, err)
			}
		})
	}
}

// loosen sets bits that don't count in the last letter of 32 bytes as base64.
func loosen(signature string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := len(signature) - 2
	return signature[:last] + string(letters[strings.IndexByte(letters, signature[last])|1]) + "="
}

func TestWebhookNamesTheModels(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want []string
	}{
		"an alias":               {aliasEvent, []string{"again", "text"}},
		"a version":              {`{"entity":"model_version","action":"created","data":{"name":"clips","version":"1","tags":{"a":"b"}}}`, []string{"video"}},
		"a model of others":      {`{"data":{"name":"text"}}`, []string{}}, // the name that is served isn't the registered one
		"no name":                {`{"data":{}}`, nil},
		"another event":          {`{"entity":"budget_policy","data":{"budget_policy_id":"b"}}`, nil},
		"a name that is no text": {`{"data":{"name":["tweets"]}}`, nil},
		"no JSON":                {`<html>`, nil},
		"nothing":                {``, nil},
	} {
		t.Run(name, func(t *testing.T) {
			models, err := webhook(t, hookSecret).Accept(delivery(hookSecret, "id", time.Now().Unix(), c.body), []byte(c.body))
			if err != nil || !slices.Equal(models, c.want) || (models == nil) != (c.want == nil) {
				t.Errorf("got %q, %v; want %q", models, err, c.want)
			}
		})
	}
}

func TestWebhookSecretsRotate(t *testing.T) {
	w := webhook(t, newSecret, hookSecret)
	for i, c := range []struct{ secret, want string }{{hookSecret, "<nil>"}, {newSecret, "<nil>"}, {"a-secret-of-somebody-else", "signature"}, {"", "signature"}} {
		_, err := w.Accept(delivery(c.secret, fmt.Sprint("id", i), time.Now().Unix(), aliasEvent), []byte(aliasEvent))
		if got := reasonOf(err); got != c.want {
			t.Errorf("secret %q: got %s, want %s", c.secret, got, c.want)
		}
	}
	for _, secrets := range [][]string{nil, {""}, {"short"}, {hookSecret, "fifteen letters"}} {
		if _, err := mlflow.NewWebhook(secrets, nil); err == nil || strings.Contains(err.Error(), "fifteen letters") {
			t.Errorf("secrets %q: %v", secrets, err)
		}
	}
}

func TestWebhookWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(300 * time.Millisecond) // between two seconds
		now := time.Now().Unix()
		for _, c := range []struct {
			apart int64
			want  string
		}{{0, "<nil>"}, {-300, "<nil>"}, {300, "<nil>"}, {-301, "window"}, {301, "window"}} {
			_, err := webhook(t, hookSecret).Accept(delivery(hookSecret, "id", now+c.apart, aliasEvent), []byte(aliasEvent))
			if got := reasonOf(err); got != c.want {
				t.Errorf("%d seconds apart: got %s, want %s", c.apart, got, c.want)
			}
		}
	})
}

// Nothing is accepted twice, at any moment at which its time is still accepted.
func TestWebhookReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webhook(t, hookSecret)
		early, late := delivery(hookSecret, "early", time.Now().Unix()-300, aliasEvent), delivery(hookSecret, "late", time.Now().Unix()+300, aliasEvent)
		accept := func(h http.Header) string {
			_, err := w.Accept(h, []byte(aliasEvent))
			return reasonOf(err)
		}
		if a, b := accept(early), accept(late); a != "<nil>" || b != "<nil>" {
			t.Fatalf("got %s and %s", a, b)
		}
		if got := accept(early); got != "replay" {
			t.Errorf("the early one again: %s", got)
		}
		for second := range 602 {
			want := "replay"
			if second > 600 {
				want = "window"
			}
			if got := accept(late); got != want {
				t.Fatalf("the late one %d seconds later: %s, want %s", second, got, want)
			}
			if got := accept(early); second > 0 && got != "window" {
				t.Fatalf("the early one %d seconds later: %s", second, got)
			}
			_ = accept(delivery(hookSecret, fmt.Sprint("other", second), time.Now().Unix(), aliasEvent)) // so that it forgets
			time.Sleep(time.Second)
		}
		if got := accept(delivery(hookSecret, "early", time.Now().Unix(), aliasEvent)); got != "<nil>" {
			t.Errorf("its id, ten minutes later: %s", got)
		}
	})
}

// A flood makes the window smaller, and lets nothing in twice.
func TestWebhookFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := webhook(t, hookSecret)
		accept := func(id string, at int64) string {
			_, err := w.Accept(delivery(hookSecret, id, at, aliasEvent), []byte(aliasEvent))
			return reasonOf(err)
		}
		now := time.Now().Unix()
		if got := accept("first", now-10); got != "<nil>" {
			t.Fatal(got)
		}
		for i := range 16 << 10 {
			if got := accept(fmt.Sprint("flood", i), now); got != "<nil>" {
				t.Fatalf("number %d: %s", i, got)
			}
		}
		if got := accept("first", now-10); got != "window" {
			t.Errorf("what was forgotten, again: %s", got)
		}
		if got := accept("same-second", now-10); got != "window" {
			t.Errorf("another of that second: %s", got)
		}
		if got := accept("flood0", now); got != "replay" {
			t.Errorf("what is remembered, again: %s", got)
		}
		if got := accept("a-second-later", now+1); got != "<nil>" {
			t.Errorf("after the flood: %s", got)
		}
		if got := accept("flood0", now); got != "window" {
			t.Errorf("the flood, once it is forgotten: %s", got)
		}
	})
}

func TestWebhookConcurrentReplay(t *testing.T) {
	w := webhook(t, hookSecret)
	h := delivery(hookSecret, "id", time.Now().Unix(), aliasEvent)
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := w.Accept(h, []byte(aliasEvent)); err == nil {
				accepted.Add(1)
			}
		})
	}
	wg.Wait()
	if n := accepted.Load(); n != 1 {
		t.Errorf("accepted %d times", n)
	}
}

// What MLflow's own code signs is accepted, whatever is in it.
func TestWebhookSignaturesAreMLflows(t *testing.T) {
	python, err := mlflowtest.Bin("venv", "python", "make python")
	if err != nil {
		t.Fatal(err)
	}
	bodies := []string{aliasEvent, "", "{}", `{"data": {"name": "đánh giá"}}`, strings.Repeat("x", 60000), "\x00\t\"\\"}
	at := time.Now().Unix()
	in, err := json.Marshal(object{"secret": hookSecret, "bodies": bodies, "at": at})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", `
import json, sys
from mlflow.webhooks.delivery import _generate_hmac_signature
d = json.load(sys.stdin)
print(json.dumps([_generate_hmac_signature(d["secret"], f"id-{i}", str(d["at"]), b) for i, b in enumerate(d["bodies"])]))`)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var signatures []string
	if err := json.Unmarshal(out, &signatures); err != nil || len(signatures) != len(bodies) {
		t.Fatalf("%v: %s", err, out)
	}
	w := webhook(t, hookSecret)
	for i, s := range signatures {
		h := http.Header{}
		h.Set("X-MLflow-Signature", s)
		h.Set("X-MLflow-Timestamp", strconv.FormatInt(at, 10))
		h.Set("X-MLflow-Delivery-Id", fmt.Sprint("id-", i))
		if _, err := w.Accept(h, []byte(bodies[i])); err != nil {
			t.Errorf("body %.40q: %v", bodies[i], err)
		}
	}
}
