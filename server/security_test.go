package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
	"modelgate/server"
)

const token, otherToken = "a-token-of-thirty-two-characters", "another-token-of-thirty-characters"

func writeToken(t testing.TB, path string, tokens ...string) {
	t.Helper()
	tmp := path + ".new"
	must(t, os.WriteFile(tmp, []byte(strings.Join(tokens, "\n")+"\n"), 0o600))
	must(t, os.Rename(tmp, path))
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// threeCodes are how calls of three kinds ended.
type threeCodes struct{ predict, read, change codes.Code }

// streams tells how streams of predictions, of models and of health (which is always open) go.
func (g *gateway) streams(ctx context.Context) threeCodes {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := func(s interface{ RecvMsg(any) error }, err error, m any) codes.Code {
		if err == nil {
			err = s.RecvMsg(m)
		}
		return status.Code(err)
	}
	p, err := g.predict.PredictStream(ctx)
	if err == nil {
		_ = p.Send(&pb.PredictStreamRequest{}) // an error of Send is told by RecvMsg
	}
	predict := first(p, err, &pb.PredictStreamResponse{})
	w, err := g.models.WatchModels(ctx, &pb.WatchModelsRequest{})
	read := first(w, err, &pb.WatchModelsResponse{})
	h, err := g.health.Watch(ctx, &healthpb.HealthCheckRequest{})
	return threeCodes{predict, read, first(h, err, &healthpb.HealthCheckResponse{})}
}

// What needs a token, over gRPC and over REST alike.
func TestAuthorization(t *testing.T) {
	type want = threeCodes
	const ok, anonymous, denied = codes.OK, codes.Unauthenticated, codes.PermissionDenied
	for _, c := range []struct {
		name    string
		options func(*server.Options)
		token   string // the caller's
		want    want
	}{
		{"loopback, no token file", func(*server.Options) {}, "", want{ok, ok, ok}},
		{"token file, no token", tokenFile(t), "", want{anonymous, anonymous, anonymous}},
		{"token file, wrong token", tokenFile(t), otherToken, want{anonymous, anonymous, anonymous}},
		{"token file, token", tokenFile(t), token, want{ok, ok, ok}},
		{"open predictions, no token", func(o *server.Options) { tokenFile(t)(o); o.OpenPredictions = true }, "", want{ok, anonymous, anonymous}},
		{"reached by others, no token file", proxied, "", want{ok, ok, denied}},
		{"reached by others, token", func(o *server.Options) { tokenFile(t)(o); proxied(o) }, token, want{ok, ok, ok}},
		{"reached by others, no token", func(o *server.Options) { tokenFile(t)(o); proxied(o) }, "", want{anonymous, anonymous, anonymous}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, func(cfg *config) { c.options(&cfg.options) })
			ctx := withToken(t.Context(), c.token)
			_, predict := g.predict.Predict(ctx, &pb.PredictRequest{Model: "text", Text: ptr("good")})
			_, read := g.models.ListModels(ctx, &pb.ListModelsRequest{})
			_, change := g.models.Refresh(ctx, &pb.RefreshRequest{Model: "text"})
			if got := (want{status.Code(predict), status.Code(read), status.Code(change)}); got != c.want {
				t.Errorf("gRPC: %v, want %v", got, c.want)
			}
			if got := g.streams(ctx); got != (want{c.want.predict, c.want.read, codes.OK}) {
				t.Errorf("streams: %v, want %v", got, c.want)
			}
			bearer := func(r *http.Request) {
				if c.token != "" {
					r.Header.Set("Authorization", "Bearer "+c.token)
				}
			}
			for path, want := range map[string]codes.Code{"POST /v1/models/text:predict": c.want.predict, "GET /v1/models": c.want.read, "POST /v1/models/text:refresh": c.want.change} {
				method, path, _ := strings.Cut(path, " ")
				body := "{}"
				if strings.HasSuffix(path, "predict") {
					body = `{"text":"good"}`
				}
				a := g.call(method, path, body, bearer)
				if http := map[codes.Code]int{ok: 200, anonymous: 401, denied: 403}[want]; a.code != http || (a.code == 401) != (a.header.Get("WWW-Authenticate") != "") {
					t.Errorf("REST: %s: %d %s, want %v", path, a.code, a.raw, want)
				}
			}
			for _, open := range []string{"/healthz", "/readyz", "/metrics", "/docs/", "/openapi.json"} {
				if a := g.call(http.MethodGet, open, ""); a.code != 200 {
					t.Errorf("%s: %d", open, a.code)
				}
			}
		})
	}
}

func tokenFile(t testing.TB) func(*server.Options) {
	return func(o *server.Options) {
		o.TokenFile = filepath.Join(t.TempDir(), "tokens")
		writeToken(t, o.TokenFile, token)
	}
}

// proxied has a server treat its address as one that other machines reach.
func proxied(o *server.Options) { o.Proxied = true }

func TestTokenRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	writeToken(t, path, token)
	g := start(t, func(c *config) { c.options.TokenFile = path })
	works := func(token string) bool {
		_, err := g.models.ListModels(withToken(t.Context(), token), &pb.ListModelsRequest{})
		return err == nil
	}
	writeToken(t, path, token, otherToken)
	eventually(t, func() bool { return works(otherToken) })
	if !works(token) {
		t.Error("the first of two tokens isn't taken any more")
	}
	writeToken(t, path, otherToken)
	eventually(t, func() bool { return !works(token) })
	must(t, os.WriteFile(path, []byte("short"), 0o600))
	eventually(t, func() bool {
		return strings.Contains(g.log.String(), "what was read before stays in force") || !works(otherToken)
	})
	if !works(otherToken) {
		t.Error("a file that can't be read ended the token that was in force")
	}
	if strings.Contains(g.log.String(), token) {
		t.Error("a token is in the log")
	}
}

// eventually polls, since files are looked at again only after a while.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it did not come to pass")
		}
	}
}

// authority signs certificates for a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	a := &authority{t: t, cert: cert, key: key, pool: x509.NewCertPool(), pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	a.pool.AddCert(cert)
	return a
}

// issue writes a certificate for 127.0.0.1 and its key below dir.
func (a *authority) issue(dir string, serial int64) (cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	must(a.t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	must(a.t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(a.t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(a.t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return cert, key
}

func overTLS(files server.TLSFiles, client *tls.Config) func(*config) {
	return func(c *config) {
		c.options.TLS, c.scheme = files, "https"
		c.dial = grpc.WithTransportCredentials(credentials.NewTLS(client))
	}
}

func TestTLS(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := ca.issue(dir, 10)
	g := start(t, overTLS(server.TLSFiles{Cert: cert, Key: key}, &tls.Config{RootCAs: ca.pool}))
	_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")})
	must(t, err)
	var serial *big.Int
	fetch := func() error {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}, ForceAttemptHTTP2: true}}
		defer client.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/readyz", nil)
		must(t, err)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		serial = resp.TLS.PeerCertificates[0].SerialNumber
		if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK {
			return errors.New(resp.Proto + " " + resp.Status)
		}
		return resp.Body.Close()
	}
	must(t, fetch())
	if serial.Int64() != 10 {
		t.Errorf("serial %v", serial)
	}
	ca.issue(dir, 11) // the files are replaced, one after the other
	eventually(t, func() bool { must(t, fetch()); return serial.Int64() == 11 })
	must(t, os.WriteFile(key, []byte("no key"), 0o600))
	eventually(t, func() bool { must(t, fetch()); return strings.Contains(g.log.String(), "stays in force") })

	plain, err := grpc.NewClient(g.server.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer plain.Close()
	_, err = healthpb.NewHealthClient(plain).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("without TLS: %v", err)
	}
}

func TestMutualTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(t.TempDir(), 10)
	clients := filepath.Join(t.TempDir(), "clients.pem")
	must(t, os.WriteFile(clients, ca.pem, 0o600))
	pair := func(a *authority) tls.Certificate {
		c, err := tls.LoadX509KeyPair(a.issue(t.TempDir(), 20))
		must(t, err)
		return c
	}
	good, bad := pair(ca), pair(stranger)
	g := start(t, overTLS(server.TLSFiles{Cert: cert, Key: key, ClientCA: clients}, &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{good}}))
	_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")})
	must(t, err)
	for _, c := range []struct {
		name  string
		certs []tls.Certificate
		ok    bool
	}{{"signed", []tls.Certificate{good}, true}, {"signed by another", []tls.Certificate{bad}, false}, {"none", nil, false}} {
		t.Run(c.name, func(t *testing.T) {
			config := &tls.Config{RootCAs: ca.pool, Certificates: c.certs}
			conn, err := grpc.NewClient(g.server.GRPCAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
			must(t, err)
			defer conn.Close()
			_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if (err == nil) != c.ok {
				t.Errorf("gRPC: %v", err)
			}
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
			defer client.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/models", nil)
			must(t, err)
			resp, err := client.Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if (err == nil) != c.ok {
				t.Errorf("HTTP: %v", err)
			}
		})
	}
}

// What can't be is said at the start, with what to do about it.
func TestOptionsRefused(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer busy.Close()
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	short := filepath.Join(t.TempDir(), "short")
	must(t, os.WriteFile(short, []byte("secret\n"), 0o600))
	for _, c := range []struct {
		name string
		o    server.Options
		says string
	}{
		{"off loopback without TLS", server.Options{HTTPAddr: "0.0.0.0:0"}, "there is no TLS: set a certificate and key, or listen on 127.0.0.1, or allow it with --insecure"},
		{"all interfaces by an empty host", server.Options{GRPCAddr: ":0"}, "--insecure"},
		{"port taken", server.Options{GRPCAddr: busy.Addr().String(), HTTPAddr: "127.0.0.1:0"}, "address already in use; choose another address, or port 0"},
		{"HTTP port taken", server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: busy.Addr().String()}, "listen for HTTP on"},
		{"no port", server.Options{GRPCAddr: "127.0.0.1"}, `the address "127.0.0.1" is not host:port`},
		{"certificate without key", server.Options{TLS: server.TLSFiles{Cert: "c.pem"}}, "both a certificate file and a key file"},
		{"client CA alone", server.Options{TLS: server.TLSFiles{ClientCA: "c.pem"}}, "both a certificate file and a key file"},
		{"certificate missing", server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", TLS: server.TLSFiles{Cert: "/nowhere/c.pem", Key: "/nowhere/k.pem"}}, "/nowhere/c.pem"},
		{"token file missing", server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", TokenFile: "/nowhere/t"}, "read the token file"},
		{"token file empty", server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", TokenFile: empty}, "has no token in it; make one with: openssl"},
		{"token short", server.Options{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", TokenFile: short}, "only 6 characters"},
		{"open predictions without tokens", server.Options{OpenPredictions: true}, "where a token file is set"},
		{"negative limit", server.Options{Limits: server.Limits{BatchItems: -1}}, "negative"},
		{"negative drain", server.Options{DrainTimeout: -1}, "negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := server.New(c.o, nil, nil)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// A web page of somebody else's can't use the browser to call a server on this machine.
func TestBrowserAttacks(t *testing.T) {
	g := start(t, func(c *config) { c.options.AllowedHosts = []string{"models.test"} })
	header := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				if r.Header.Set(pairs[i], pairs[i+1]); pairs[i] == "Host" {
					r.Host = pairs[i+1]
				}
			}
		}
	}
	own := strings.TrimPrefix(g.url, "http://")
	for _, c := range []struct {
		name         string
		method, path string
		change       func(*http.Request)
		code         int
		reason       string
	}{
		{"form", "POST", "/v1/models/text:rollback", header("Content-Type", "application/x-www-form-urlencoded"), 415, "NOT_JSON"},
		{"text", "POST", "/v1/models/text:rollback", header("Content-Type", "text/plain"), 415, "NOT_JSON"},
		{"no type", "POST", "/v1/models/text:rollback", func(r *http.Request) { r.Header.Del("Content-Type") }, 415, "NOT_JSON"},
		{"JSON with charset", "POST", "/v1/models/text:refresh", header("Content-Type", "application/json; charset=utf-8"), 200, ""},
		{"other origin", "POST", "/v1/models/text:refresh", header("Origin", "http://evil.test"), 403, "CROSS_ORIGIN"},
		{"other port", "POST", "/v1/models/text:refresh", header("Origin", "http://127.0.0.1:1"), 403, "CROSS_ORIGIN"},
		{"opaque origin", "POST", "/v1/models/text:refresh", header("Origin", "null"), 403, "CROSS_ORIGIN"},
		{"fetch metadata", "POST", "/v1/models/text:refresh", header("Sec-Fetch-Site", "cross-site"), 403, "CROSS_ORIGIN"},
		{"own page", "POST", "/v1/models/text:refresh", header("Origin", "http://"+own, "Sec-Fetch-Site", "same-origin"), 200, ""},
		{"rebinding", "GET", "/v1/models", header("Host", "evil.test"), 403, "FOREIGN_HOST"},
		{"rebinding with port", "POST", "/v1/models/text:refresh", header("Host", "evil.test:8000"), 403, "FOREIGN_HOST"},
		{"localhost", "GET", "/v1/models", header("Host", "localhost:1234"), 200, ""},
		{"IPv6 loopback", "GET", "/v1/models", header("Host", "[::1]"), 200, ""},
		{"allowed name", "GET", "/v1/models", header("Host", "models.test:80"), 200, ""},
		{"preflight", "OPTIONS", "/v1/models/text:rollback", header("Origin", "http://evil.test", "Access-Control-Request-Method", "POST"), 405, "METHOD_NOT_ALLOWED"},
		{"method override", "POST", "/v1/models/text", header("X-HTTP-Method-Override", "GET"), 405, "METHOD_NOT_ALLOWED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := g.call(c.method, c.path, "{}", c.change)
			if a.code != c.code || !strings.Contains(a.raw, c.reason) || a.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%d %s, want %d %s", a.code, a.raw, c.code, c.reason)
			}
			if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Content-Security-Policy") == "" {
				t.Errorf("headers: %v", a.header)
			}
		})
	}
}
