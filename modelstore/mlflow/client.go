package mlflow

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// client asks one MLflow server. It follows no redirect to another server.
type client struct {
	o    Options
	base *url.URL // without user and password
	auth string   // the Authorization header; "" for none
	http *http.Client
}

func newClient(o Options) (*client, error) {
	base, err := o.baseURL()
	if err != nil {
		return nil, err
	}
	c := &client{o: o, base: base}
	switch {
	case o.Username != "":
		c.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(o.Username+":"+o.Password))
	case o.Token != "":
		c.auth = "Bearer " + o.Token
	}
	if strings.ContainsAny(c.auth, "\r\n\x00") {
		return nil, errors.New("the token (MLFLOW_TRACKING_TOKEN) holds a line break")
	}
	if c.auth != "" && base.Scheme == "http" && !loopback(base.Hostname()) {
		o.Logger.Warn("the registry's login travels unencrypted: use https", "registry", c.where())
	}
	t := o.Transport
	if t == nil {
		if t, err = newTransport(o); err != nil {
			return nil, err
		}
	}
	c.http = &http.Client{Transport: t, CheckRedirect: c.checkRedirect}
	return c, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func newTransport(o Options) (*http.Transport, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.InsecureTLS} //nolint:gosec // only where the operator says so
	if o.CACertFile != "" {
		pem, err := os.ReadFile(o.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("read the registry's CA certificates (MLFLOW_TRACKING_SERVER_CERT_PATH): %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate (MLFLOW_TRACKING_SERVER_CERT_PATH)", o.CACertFile)
		}
	}
	if o.ClientCertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.ClientCertFile, o.ClientCertFile)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate (MLFLOW_TRACKING_CLIENT_CERT_PATH): %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           maxIdleConns,
		MaxConnsPerHost:        maxConnsAHost,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}, nil
}

// checkRedirect lets a request wander on the same server only, so that the login never reaches another one.
func (c *client) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects || req.URL.Scheme != c.base.Scheme || req.URL.Host != c.base.Host || req.Method != http.MethodGet {
		return http.ErrUseLastResponse
	}
	return nil
}

// where is the server's address for people.
func (c *client) where() string { return c.base.Scheme + "://" + c.base.Host }

// redact removes our own secrets from a text of the server.
func (c *client) redact(s string) string {
	_, credentials, _ := strings.Cut(c.auth, " ")
	for _, secret := range []string{credentials, c.o.Password, c.o.Token} {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "[redacted]")
		}
	}
	return s
}

// api is the address of one of the API's methods.
func (c *client) api(method string) *url.URL { return c.base.JoinPath("api/2.0/mlflow", method) }

// get asks a question and decodes the answer into out.
func (c *client) get(ctx context.Context, method string, q url.Values, out any) error {
	u := c.api(method)
	u.RawQuery = q.Encode()
	return c.getURL(ctx, u, out)
}

func (c *client) getURL(ctx context.Context, u *url.URL, out any) error {
	return c.retry(ctx, func() error { return c.ask(ctx, http.MethodGet, u, nil, out) })
}

// post changes something. What we change is the same when changed twice, so it is retried too.
func (c *client) post(ctx context.Context, method string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.retry(ctx, func() error { return c.ask(ctx, http.MethodPost, c.api(method), body, &struct{}{}) })
}

// ask does one try and tells the observer how it went.
func (c *client) ask(ctx context.Context, method string, u *url.URL, body []byte, out any) error {
	asked, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, fmt.Errorf("no answer within %v", c.o.Timeout))
	defer cancel()
	err := c.answer(asked, method, u, body, out)
	if ctx.Err() != nil { // the caller has left; that says nothing about the registry
		return ctx.Err()
	}
	c.o.Observe(usable(err))
	return err
}

func (c *client) answer(ctx context.Context, method string, u *url.URL, body []byte, out any) error {
	header := http.Header{"Accept": {"application/json"}}
	if body != nil {
		header.Set("Content-Type", "application/json")
	}
	resp, err := c.send(ctx, method, u, body, header)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return transient(fmt.Errorf("read the answer of the registry at %s: %w", c.where(), because(ctx, err)))
	case resp.StatusCode != http.StatusOK:
		return c.statusError(resp, b)
	case len(b) > maxBody:
		return fmt.Errorf("the answer of the registry at %s is larger than %d MiB", c.where(), maxBody>>20)
	case !isJSON(resp):
		return fmt.Errorf("the server at %s answers with %s instead of JSON: is it an MLflow server, or a login page in front of one? (MLFLOW_TRACKING_URI)",
			c.where(), kind(resp))
	}
	if err := json.Unmarshal(b, out); err != nil {
		err = fmt.Errorf("the answer of the registry at %s can't be read: %s", c.where(), clip(err.Error()))
		if !json.Valid(b) {
			return transient(err) // cut off, most likely
		}
		return err
	}
	return nil
}

// send does one request. An error of the network is transient.
func (c *client) send(ctx context.Context, method string, u *url.URL, body []byte, header http.Header) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), r)
	if err != nil {
		return nil, fmt.Errorf("ask the registry: %w", err)
	}
	req.Header = header
	if c.auth != "" {
		req.Header.Set("Authorization", c.auth)
	}
	req.Header.Set("User-Agent", "modelgate")
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error // it repeats the whole address; where() is enough
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, transient(fmt.Errorf("reach the registry at %s: %w", c.where(), because(ctx, err)))
	}
	return resp, nil
}

// because prefers the reason for which ctx ended over "context canceled".
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// retry calls f until it succeeds, fails for good or has been tried often enough. Between two tries it waits, longer each time,
// and at least as long as the server asks for; if that is longer than MaxRetryWait, the caller is told instead (modelstore.RetryLater).
func (c *client) retry(ctx context.Context, f func() error) error {
	b := c.newBackOff()
	for try := 1; ; try++ {
		err := f()
		var t *transientError
		if !errors.As(err, &t) || try >= c.o.Tries || t.after > c.o.MaxRetryWait || ctx.Err() != nil {
			return err
		}
		if cut := c.pause(ctx, b, t.after); cut != nil {
			return fmt.Errorf("%w; waiting to try again: %w", err, cut)
		}
	}
}

func (c *client) newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = c.o.RetryWait, c.o.MaxRetryWait
	b.Reset()
	return b
}

func (c *client) pause(ctx context.Context, b *backoff.ExponentialBackOff, after time.Duration) error {
	t := time.NewTimer(max(b.NextBackOff(), after))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
