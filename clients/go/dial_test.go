package modelgate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	modelgate "modelgate/clients/go"
)

func TestDialRefusesWhatCantBeMeant(t *testing.T) {
	for _, test := range []struct {
		name, target string
		o            modelgate.Options
		says         string // "" is good
	}{
		{"this machine", "127.0.0.1:8001", modelgate.Options{}, ""},
		{"this machine by name", "dns:///localhost:8001", modelgate.Options{}, ""},
		{"this machine, IPv6", "[::1]:8001", modelgate.Options{}, ""},
		{"a socket file", "unix:///run/modelgate.sock", modelgate.Options{}, ""},
		{"a list", "127.0.0.1:1,127.0.0.1:2", modelgate.Options{Token: "t"}, ""},
		{"no port", "localhost", modelgate.Options{}, "8001"},
		{"no port after dns", "dns:///gateway", modelgate.Options{Insecure: true}, "8001"},
		{"no host", ":8001", modelgate.Options{}, "host:port"},
		{"an empty place in a list", "127.0.0.1:1,", modelgate.Options{}, "host:port"},
		{"another machine in plain text", "gateway:8001", modelgate.Options{}, "Options.Insecure"},
		{"another machine in a list in plain text", "127.0.0.1:1,gateway:8001", modelgate.Options{}, "Options.Insecure"},
		{"another machine, insecure", "gateway:8001", modelgate.Options{Insecure: true, Token: "t"}, ""},
		{"another machine, TLS", "gateway:8001", modelgate.Options{TLS: &tls.Config{MinVersion: tls.VersionTLS13}}, ""},
		{"too many attempts", "127.0.0.1:1", modelgate.Options{MaxAttempts: 6}, "from 1 to 5"},
		{"a negative window", "127.0.0.1:1", modelgate.Options{StreamWindow: -1}, "negative"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := modelgate.Dial(test.target, test.o)
			if err == nil {
				err = c.Close()
				if err == nil && test.says != "" {
					t.Errorf("it was accepted, want an error that says %q", test.says)
				}
			}
			if err != nil && (test.says == "" || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v, want an error that says %q", err, test.says)
			}
		})
	}
}

func TestMutualTLS(t *testing.T) {
	cert, pool := selfSigned(t)
	server := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
	a, b := (&peer{}).start(t, grpc.Creds(server)), (&peer{}).start(t, grpc.Creds(server))
	for name, target := range map[string]string{"one server": a.addr, "a list": a.addr + "," + b.addr} {
		t.Run(name, func(t *testing.T) {
			ctx, c := dial(t, target, modelgate.Options{Token: "secret", TLS: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{cert}}})
			if _, err := c.Predict(ctx, "text", "a"); err != nil {
				t.Error(err)
			}
		})
	}
	ctx, c := dial(t, a.addr, modelgate.Options{MaxAttempts: 1, TLS: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}})
	if _, err := c.Predict(ctx, "text", "a"); err == nil {
		t.Error("a client without a certificate got an answer")
	}
}

// selfSigned makes a certificate for 127.0.0.1 that is good for servers and clients, and the pool that trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}
