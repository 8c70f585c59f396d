package mlflow

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WebhookBytes is the largest delivery that Webhook is meant for. MLflow's own are a few hundred bytes, unless a tag or a description is long.
const WebhookBytes = 64 << 10

const (
	// deliveryWindow is how far a delivery's time may be from ours, in seconds, before and after.
	deliveryWindow = 5 * 60
	leastSecret    = 16 // bytes
)

// What MLflow's deliveries carry.
const (
	signatureHeader  = "X-MLflow-Signature"
	timestampHeader  = "X-MLflow-Timestamp"
	deliveryHeader   = "X-MLflow-Delivery-Id"
	signatureVersion = "v1,"
)

// A delivery's id has no dot in it: what is signed is joined by dots, and must have one reading only.
var (
	deliveryID   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	deliveryTime = regexp.MustCompile(`^[0-9]{1,12}$`)
)

// A DeliveryError says why a delivery is refused.
type DeliveryError struct {
	reason string
	text   string
}

func (e *DeliveryError) Error() string { return e.text }

// Reason is one of a few words: "headers", "window", "signature", "replay".
func (e *DeliveryError) Reason() string { return e.reason }

// A Webhook judges what MLflow 3 sends when something changes in its registry. It knows nothing but who sent it and which models are meant: what
// is there now has to be asked of the registry. Safe for concurrent use.
type Webhook struct {
	secrets [][]byte
	served  map[string][]string // by registered name
	seen    *deliveries
}

// NewWebhook takes the secrets of which any may have signed, so that one can be replaced by another, and the models as Options.Models has
// them.
func NewWebhook(secrets []string, models map[string]string) (*Webhook, error) {
	if len(secrets) == 0 {
		return nil, errors.New("a webhook needs a secret")
	}
	w := &Webhook{served: make(map[string][]string), seen: newDeliveries()}
	for _, s := range secrets {
		if len(s) < leastSecret {
			return nil, fmt.Errorf("a secret of the webhook has %d bytes; take one of %d or more, such as `openssl rand -hex 32` prints", len(s), leastSecret)
		}
		w.secrets = append(w.secrets, []byte(s))
	}
	for name, registered := range models {
		w.served[registered] = append(w.served[registered], name)
	}
	for _, names := range w.served {
		slices.Sort(names)
	}
	return w, nil
}

// Accept says which of the served models a delivery concerns; nil means that it may be any, an empty list that it is about models of others. An error is a *DeliveryError: the delivery
// isn't MLflow's, is out of its time, or was here before. An accepted one is remembered for as long as its time would be accepted again.
func (w *Webhook) Accept(h http.Header, body []byte) (models []string, err error) {
	id, timestamp, signature, err := deliveryHeaders(h)
	if err != nil {
		return nil, err
	}
	at, err := strconv.ParseInt(timestamp, 10, 64)
	now := time.Now().Unix()
	if err != nil || at < now-deliveryWindow || at > now+deliveryWindow {
		return nil, &DeliveryError{"window", fmt.Sprintf("the delivery is of %s, in seconds since 1970, and it is %d now: more than %d apart; are both clocks right?",
			timestamp, now, deliveryWindow)}
	}
	if !w.signed(id+"."+timestamp+".", body, signature) {
		return nil, &DeliveryError{"signature", "the signature is not of a secret in mlflow.webhook_secret; the webhook in MLflow must have the same one"}
	}
	if err := w.seen.add(id, at, now); err != nil {
		return nil, err
	}
	return w.concerned(body), nil
}

// deliveryHeaders reads the three headers. Each must be there once.
func deliveryHeaders(h http.Header) (id, timestamp string, signature []byte, err error) {
	bad := func(name, what string) error {
		return &DeliveryError{"headers", fmt.Sprintf("the header %s %s; only a webhook with a secret signs its deliveries", name, what)}
	}
	for _, name := range []string{signatureHeader, timestampHeader, deliveryHeader} {
		if n := len(h.Values(name)); n != 1 {
			return "", "", nil, bad(name, fmt.Sprintf("is there %d times, not once", n))
		}
	}
	id, timestamp = h.Get(deliveryHeader), h.Get(timestampHeader)
	if !deliveryID.MatchString(id) {
		return "", "", nil, bad(deliveryHeader, "is not an id")
	}
	if !deliveryTime.MatchString(timestamp) {
		return "", "", nil, bad(timestampHeader, "is not a number of seconds")
	}
	encoded, ok := strings.CutPrefix(h.Get(signatureHeader), signatureVersion)
	signature, err = base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(signature) != sha256.Size || strings.ContainsAny(encoded, "\r\n") {
		return "", "", nil, bad(signatureHeader, "is not a signature of the kind v1")
	}
	return id, timestamp, signature, nil
}

// signed compares with every secret, whichever fits, so that the time it takes says nothing.
func (w *Webhook) signed(prefix string, body, signature []byte) bool {
	found := false
	for _, secret := range w.secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(prefix))
		mac.Write(body)
		if hmac.Equal(mac.Sum(nil), signature) {
			found = true
		}
	}
	return found
}

// concerned reads the name of the model out of a body. A body that can't be read names none: it is signed, so something changed.
func (w *Webhook) concerned(body []byte) []string {
	var event struct {
		Data struct {
			Name string `json:"name"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &event); err != nil || event.Data.Name == "" {
		return nil
	}
	// A server's webhooks tell of all of its models: those of others are nothing to us, which isn't nil.
	return append([]string{}, w.served[event.Data.Name]...)
}
