// Package s3 reads objects from one S3 endpoint, and connects to nothing else.
//
// Whoever names an object is not trusted: neither callers, who send references, nor a registry, which says where a version's files are.
// So no redirect is followed, no proxy is used, and an address is checked when it is dialled.
package s3

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// A Secret doesn't show in any form of printing or marshalling.
type Secret string

const hidden = "***"

// Format hides the secret from every verb of fmt.
func (s Secret) Format(f fmt.State, _ rune) {
	if s != "" {
		_, _ = f.Write([]byte(hidden))
	}
}

// MarshalText hides the secret from encoders and loggers.
func (s Secret) MarshalText() ([]byte, error) { return fmt.Append(nil, s), nil }

// Options say which endpoint and within which limits. The zero value of every field but Endpoint is usable.
type Options struct {
	Endpoint     string // http://host:port or https://host
	Region       string // default: the one in an address of AWS, else us-east-1, which servers that have no regions take
	AccessKey    string // with SecretKey; without both, requests are anonymous
	SecretKey    Secret
	SessionToken Secret // for temporary keys
	CACertFile   string // PEM, trusted instead of the system's authorities

	// Prefixes are the folders of which a reference may name objects: "bucket/folder", or "bucket" for all of it. None: no reference.
	Prefixes []string
	// Networks are those besides the public ones that the endpoint's name may lead to, such as 172.18.0.0/16. None: just the
	// addresses that the name had when it was first looked up.
	Networks []string

	ConnectTimeout time.Duration // default 10 s
	HeaderTimeout  time.Duration // until an answer begins, default 30 s
	ReadTimeout    time.Duration // of one whole reference, default 30 s

	// Lookup finds a host's addresses; nil asks the system.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

func (o *Options) setDefaults() error {
	if min(o.ConnectTimeout, o.HeaderTimeout, o.ReadTimeout) < 0 {
		return errors.New("a time is negative")
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		return errors.New("an access key and a secret key need each other")
	}
	for t, d := range map[*time.Duration]time.Duration{
		&o.ConnectTimeout: 10 * time.Second, &o.HeaderTimeout: 30 * time.Second, &o.ReadTimeout: 30 * time.Second,
	} {
		if *t == 0 {
			*t = d
		}
	}
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return nil
}

// An Endpoint is one S3 server. It is safe for concurrent use.
type Endpoint struct {
	o         Options
	base      *url.URL
	prefixes  Prefixes
	core      minio.Core
	transport *http.Transport
}

// Open checks the options and looks the endpoint's name up. A server that is down, or a name that isn't known yet, is no error here.
// The caller closes the Endpoint.
func Open(ctx context.Context, o Options) (*Endpoint, error) {
	e, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return e, nil
}

func open(ctx context.Context, o Options) (*Endpoint, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	base, err := parseEndpoint(o.Endpoint)
	if err != nil {
		return nil, err
	}
	prefixes, err := ParsePrefixes(o.Prefixes)
	if err != nil {
		return nil, err
	}
	g, err := newGuard(base, o)
	if err != nil {
		return nil, err
	}
	g.settle(ctx)
	e := &Endpoint{o: o, base: base, prefixes: prefixes}
	if e.transport, err = newTransport(o, g); err != nil {
		return nil, err
	}
	client, err := minio.New(base.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(o.AccessKey, string(o.SecretKey), string(o.SessionToken)),
		Secure: base.Scheme == "https", Region: cmp.Or(o.Region, s3utils.GetRegionFromURL(*base), "us-east-1"),
		// The bucket stays out of the host's name, so that there is one host only.
		BucketLookup: minio.BucketLookupPath, MaxRetries: 1,
		Transport: &onlyEndpoint{next: e.transport, base: base},
	})
	if err != nil {
		return nil, err
	}
	client.SetS3EnableDualstack(strings.Contains(base.Host, "dualstack")) // else Amazon's hosts are replaced by their dual-stack ones
	e.core = minio.Core{Client: client}
	return e, nil
}

// Close closes idle connections. Reads in progress go on.
func (e *Endpoint) Close() error {
	e.transport.CloseIdleConnections()
	return nil
}

// Where is the endpoint's address, for people.
func (e *Endpoint) Where() string { return e.base.Scheme + "://" + e.base.Host }

// parseEndpoint accepts an address without anything behind the host. The error doesn't repeat it: there may be a password in it.
func parseEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	switch {
	case endpoint == "":
		return nil, errors.New("no endpoint: name the S3 server, such as http://127.0.0.1:9000")
	case err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return nil, errors.New("the endpoint is not the address of a server: write http://host:port or https://host")
	case u.User != nil:
		return nil, errors.New("the endpoint holds a user: write access key and secret key as settings of their own")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the endpoint has something behind its host: buckets belong into prefixes and references")
	}
	u.Path = ""
	// The standard port isn't written, as in the requests.
	if p := u.Port(); p == "80" && u.Scheme == "http" || p == "443" && u.Scheme == "https" {
		u.Host = strings.TrimSuffix(u.Host, ":"+p)
	}
	return u, nil
}

func newTransport(o Options, g *guard) (*http.Transport, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CACertFile != "" {
		pem, err := os.ReadFile(o.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("read the endpoint's CA certificates: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", o.CACertFile)
		}
	}
	return &http.Transport{
		Proxy:                  nil, // whatever the environment says
		DialContext:            g.dial,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    o.ConnectTimeout,
		ResponseHeaderTimeout:  o.HeaderTimeout,
		MaxIdleConns:           8,
		MaxIdleConnsPerHost:    8,
		MaxConnsPerHost:        32,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // an object's bytes are counted as they are
	}, nil
}
