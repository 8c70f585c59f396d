package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// checkEvery is how often files are looked at again at most.
const checkEvery = time.Second

// A reloaded is a value read from files, read again when one of them changes. While they can't be read, the last good value stays.
type reloaded[T any] struct {
	paths []string
	read  func() (T, error)
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex // guards what follows; held while the files are read, which are small and local
	value   T
	stats   []os.FileInfo
	checked time.Time
	lastErr string
}

// newReloaded reads the files for the first time.
func newReloaded[T any](log *slog.Logger, read func() (T, error), paths ...string) (*reloaded[T], error) {
	r := &reloaded[T]{paths: paths, read: read, log: log, now: time.Now}
	stats, err := r.stat()
	if err != nil {
		return nil, err
	}
	if r.value, err = read(); err != nil {
		return nil, err
	}
	r.stats, r.checked = stats, r.now()
	return r, nil
}

// get returns the value, after a look at the files if the last one was some time ago.
func (r *reloaded[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); now.Sub(r.checked) >= checkEvery {
		r.checked = now
		r.reloadLocked()
	}
	return r.value
}

func (r *reloaded[T]) reloadLocked() {
	stats, err := r.stat()
	if err == nil && sameFiles(stats, r.stats) {
		return
	}
	var v T
	if err == nil {
		v, err = r.read()
	}
	if err != nil {
		if r.lastErr != err.Error() {
			r.lastErr = err.Error()
			r.log.Error("files changed and can't be read; what was read before stays in force", "files", r.paths, "error", err)
		}
		return
	}
	r.value, r.stats, r.lastErr = v, stats, ""
	r.log.Info("files changed and were read again", "files", r.paths)
}

func (r *reloaded[T]) stat() ([]os.FileInfo, error) {
	var stats []os.FileInfo
	for _, p := range r.paths {
		s, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		stats = append(stats, s)
	}
	return stats, nil
}

func sameFiles(a, b []os.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

// A tokenFile knows the bearer tokens: the lines of a file. Several lines let a token be replaced without a gap.
type tokenFile struct {
	r *reloaded[[][sha256.Size]byte]
}

func newTokenFile(log *slog.Logger, path string) (*tokenFile, error) {
	r, err := newReloaded(log, func() ([][sha256.Size]byte, error) { return readTokens(path) }, path)
	if err != nil {
		return nil, fmt.Errorf("read the token file: %w", err)
	}
	return &tokenFile{r}, nil
}

func readTokens(path string) ([][sha256.Size]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var tokens [][sha256.Size]byte
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0:
			continue
		case len(line) < 16:
			return nil, fmt.Errorf("%s: a token has only %d characters, less than 16; make one with: openssl rand -hex 32", path, len(line))
		}
		tokens = append(tokens, sha256.Sum256(line))
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s has no token in it; make one with: openssl rand -hex 32", path)
	}
	return tokens, nil
}

// has compares digests, all of them, so that the time taken says nothing about the tokens.
func (f *tokenFile) has(token string) bool {
	sum, found := sha256.Sum256([]byte(token)), 0
	for _, t := range f.r.get() {
		found |= subtle.ConstantTimeCompare(sum[:], t[:])
	}
	return found == 1
}

// TLSFiles name PEM files. They are read again when they change, for the connections made from then on.
type TLSFiles struct {
	Cert     string // the server's certificate chain
	Key      string // its private key
	ClientCA string // certificates of those who sign clients' certificates; "" asks clients for none
}

func (f TLSFiles) empty() bool { return f == TLSFiles{} }

func (f TLSFiles) check() error {
	if f.empty() || f.Cert != "" && f.Key != "" {
		return nil
	}
	return errors.New("TLS needs both a certificate file and a key file")
}

// config is the TLS configuration of a listener, or nil without TLS. protos are for ALPN.
func (f TLSFiles) config(log *slog.Logger, protos ...string) (*tls.Config, error) {
	if f.empty() {
		return nil, nil //nolint:nilnil // no TLS is a configuration too
	}
	paths := []string{f.Cert, f.Key}
	if f.ClientCA != "" {
		paths = append(paths, f.ClientCA)
	}
	r, err := newReloaded(log, func() (*tls.Config, error) { return f.read(protos) }, paths...)
	if err != nil {
		return nil, fmt.Errorf("read the TLS files: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         protos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.get(), nil },
	}, nil
}

func (f TLSFiles) read(protos []string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.Cert, f.Key, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protos, Certificates: []tls.Certificate{cert}}
	if f.ClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, err
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no PEM certificate in it", f.ClientCA)
	}
	return c, nil
}
