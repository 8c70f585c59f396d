package mlflow_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzWebhook: whatever is sent, a delivery is accepted if and only if it is signed with the secret and of now, and once only.
// With sign set the signature is the right one for what else is there, so that what follows it is reached.
func FuzzWebhook(f *testing.F) {
	f.Add("v1,", int64(0), "6a1b7b0e-6a3c-4d0f-9a51-0c1f2d3e4f50", []byte(aliasEvent), true)
	f.Add("v1,"+base64.StdEncoding.EncodeToString(make([]byte, sha256.Size)), int64(-300), "id", []byte(`{"data": {"name": "clips"}}`), false)
	f.Add("v1,", int64(301), "id.1", []byte(`{"data": {"name": null}}`), true)
	f.Add("v1,AAAA v1,BBBB", int64(1<<60), "a\nb", []byte("["), false)
	f.Fuzz(func(t *testing.T, signature string, apart int64, id string, body []byte, sign bool) {
		now := time.Now().Unix()
		at := strconv.FormatInt(now+apart, 10)
		mac := hmac.New(sha256.New, []byte(hookSecret))
		mac.Write([]byte(id + "." + at + "."))
		mac.Write(body)
		right := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if sign {
			signature = right
		}
		h := http.Header{"X-Mlflow-Signature": {signature}, "X-Mlflow-Timestamp": {at}, "X-Mlflow-Delivery-Id": {id}}
		w := webhook(t, hookSecret)
		models, err := w.Accept(h, body)
		inTime := apart >= -299 && apart <= 299 // the clock goes on meanwhile
		plain := id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
		switch {
		case err == nil && (signature != right || apart < -301 || apart > 301 || !plain):
			t.Errorf("%q of %d seconds from now, id %q, is accepted", signature, apart, id)
		case err != nil && signature == right && inTime && plain:
			t.Errorf("a good one is refused: %v", err)
		}
		if err != nil {
			if r := reasonOf(err); !slices.Contains([]string{"headers", "window", "signature", "replay"}, r) || models != nil ||
				len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n\r\x1b") || strings.Contains(err.Error(), hookSecret) {
				t.Errorf("%s, models %q: %q", r, models, err)
			}
			return
		}
		for _, m := range models {
			if m != "text" && m != "again" && m != "video" {
				t.Errorf("model %q", m)
			}
		}
		if _, err := w.Accept(h, body); reasonOf(err) != "replay" && reasonOf(err) != "window" {
			t.Errorf("again: %v", err)
		}
	})
}
