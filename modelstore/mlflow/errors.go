package mlflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const codeMissing = "RESOURCE_DOES_NOT_EXIST"

// apiError is an answer with an error status.
type apiError struct {
	status int
	code   string // MLflow's error_code, if the answer was MLflow's JSON
	text   string // for people; holds no secret
}

func (e *apiError) Error() string { return e.text }

// transientError marks what is worth another try, and when the server wants it.
type transientError struct {
	err   error
	after time.Duration
}

func (e *transientError) Error() string { return e.err.Error() }
func (e *transientError) Unwrap() error { return e.err }

// RetryAfter makes it a modelstore.RetryLater.
func (e *transientError) RetryAfter() time.Duration { return e.after }

func transient(err error) error { return &transientError{err: err} }

// clip shortens text from outside and replaces what would confuse a terminal.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "") + "..."
	}
	return strings.TrimSpace(s)
}

// statusError explains an answer whose status is not 2xx.
func (c *client) statusError(resp *http.Response, body []byte) error {
	e := &apiError{status: resp.StatusCode}
	var said struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	if isJSON(resp) && json.Unmarshal(body, &said) == nil {
		e.code = said.Code
	}
	host := c.base.Hostname()
	switch {
	case resp.StatusCode == http.StatusForbidden && strings.Contains(string(body), "Invalid Host header"):
		e.text = fmt.Sprintf("the registry refuses to be called %q (Invalid Host header): start mlflow server with --allowed-hosts %q",
			c.base.Host, host+","+host+":*")
	case resp.StatusCode == http.StatusUnauthorized && c.auth == "":
		e.text = fmt.Sprintf("the registry at %s wants a login (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN", c.where())
	case resp.StatusCode == http.StatusUnauthorized:
		e.text = fmt.Sprintf("the registry at %s refuses the login (401): check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN", c.where())
	case resp.StatusCode == http.StatusForbidden:
		e.text = fmt.Sprintf("the registry at %s doesn't permit this (403): give the gateway's user the right to read the model", c.where())
	case e.code != "":
		e.text = fmt.Sprintf("the registry says %d %s: %s", resp.StatusCode, clip(c.redact(e.code)), clip(c.redact(said.Message))) // redacted first: a cut secret isn't found
	case resp.StatusCode == http.StatusNotFound:
		e.text = fmt.Sprintf("there is no MLflow API at %s (404): check MLFLOW_TRACKING_URI", c.where())
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		e.text = fmt.Sprintf("the registry at %s redirects to %s, which is not followed: set MLFLOW_TRACKING_URI to the server itself", c.where(), target(resp))
	default:
		e.text = fmt.Sprintf("the registry at %s answers %d %s (%s)", c.where(), resp.StatusCode, http.StatusText(resp.StatusCode), kind(resp))
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &transientError{err: e, after: retryAfter(resp, time.Now())}
	}
	return e
}

// target is the host of a redirect, without anything that may be secret.
func target(resp *http.Response) string {
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return "an invalid address"
	}
	if u.Host == "" {
		return "itself"
	}
	return clip(u.Scheme + "://" + u.Host)
}

// retryAfter reads the header in both its forms.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	h := resp.Header.Get("Retry-After")
	if n, err := strconv.ParseUint(h, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(h); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

func kind(resp *http.Response) string {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return "no content type"
	}
	return clip(t)
}

// isMissing reports whether MLflow said that there is no such model, version, run or artifact.
func isMissing(err error) bool {
	var e *apiError
	return errors.As(err, &e) && e.status == http.StatusNotFound && e.code == codeMissing
}

// missing turns "there is no such thing" into the sentinel, and leaves every other error alone.
func missing(err, sentinel error) error {
	if isMissing(err) {
		return fmt.Errorf("%w (%w)", sentinel, err)
	}
	return err
}

func isJSON(resp *http.Response) bool { return kind(resp) == "application/json" }

// usable reports whether a question was answered in MLflow's way, if only to say that there is no such thing.
func usable(err error) bool {
	if err == nil {
		return true
	}
	var e *apiError
	return errors.As(err, &e) && e.code != "" && e.status < 500 &&
		e.status != http.StatusUnauthorized && e.status != http.StatusForbidden && e.status != http.StatusTooManyRequests
}
