package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configure a Server. The zero values are good for a machine of one's own: loopback, no TLS, no token.
type Options struct {
	GRPCAddr string // where gRPC listens; "" means 127.0.0.1:8001, port 0 picks one
	HTTPAddr string // where REST and the pages listen; "" means 127.0.0.1:8000, port 0 picks one

	TLS       TLSFiles // empty: no TLS
	Insecure  bool     // allows listening off loopback without TLS
	TokenFile string   // bearer tokens, one a line; "" means that no token is asked for
	// OpenPredictions lets callers without a token predict; everything else still needs one. Only with TokenFile.
	OpenPredictions bool
	// Proxied says that a proxy on this machine hands on what other machines send: an address on loopback is then as public as any.
	Proxied bool
	// AllowedHosts are the names, besides localhost and loopback addresses, that a Host header may give to a listener on loopback.
	AllowedHosts []string

	// Late answers for the fusion while no version of it serves; nil: nothing does.
	Late *Late

	// References are clips that requests name; without an endpoint they are refused.
	References References

	// Hook is where the registry says that something changed; nil: nowhere.
	Hook *Hook

	Limits       Limits
	DrainDelay   time.Duration // between "not ready" and the end of listening, for load balancers to notice; default 0
	DrainTimeout time.Duration // for requests in flight after that; 0 means 20 seconds

	Reflection *bool  // whether gRPC reflection answers; nil means on loopback only
	Version    string // of this program, for the API page

	Logger   *slog.Logger        // nil means that nothing is logged
	Metrics  *Metrics            // nil means that nothing is measured
	Gatherer prometheus.Gatherer // what /metrics shows; nil means no such page
}

// Limits bound what one caller can ask for. 0 means the default.
type Limits struct {
	MessageBytes     int // of one gRPC message or HTTP body; default 4 MiB
	IDBytes          int // of a request's id; default 256
	BatchItems       int // in one PredictBatch; default 256
	BatchConcurrency int // items of one batch that are computed at the same time; default 32
	StreamWindow     int // messages of one stream that are in flight; default 64
	Streams          int // RPCs at the same time on one connection; default 1024

	UploadBytes  int           // of one uploaded clip; default 64 MiB
	UploadsBytes int           // of all uploads in memory together; default four clips and messages of the largest size
	UploadIdle   time.Duration // between two pieces of an upload; default 30 seconds
	UploadTime   time.Duration // for a clip to arrive; default 10 minutes
}

// withDefaults fills in what was left out, and says what can't be.
func (o Options) withDefaults() (Options, error) {
	o.GRPCAddr = cmp.Or(o.GRPCAddr, "127.0.0.1:8001")
	o.HTTPAddr = cmp.Or(o.HTTPAddr, "127.0.0.1:8000")
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 20*time.Second)
	o.Version = cmp.Or(o.Version, "dev")
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Limits = o.Limits.withDefaults()
	o.References = o.References.withDefaults()
	if o.Metrics == nil {
		m, err := NewMetrics(prometheus.NewRegistry())
		if err != nil {
			return o, err
		}
		o.Metrics = m
	}
	return o, o.check()
}

func (l Limits) withDefaults() Limits {
	l.MessageBytes = cmp.Or(l.MessageBytes, 4<<20)
	l.IDBytes = cmp.Or(l.IDBytes, 256)
	l.BatchItems = cmp.Or(l.BatchItems, 256)
	l.BatchConcurrency = cmp.Or(l.BatchConcurrency, 32)
	l.StreamWindow = cmp.Or(l.StreamWindow, 64)
	l.Streams = cmp.Or(l.Streams, 1024)
	l.UploadBytes = cmp.Or(l.UploadBytes, 64<<20)
	l.UploadsBytes = cmp.Or(l.UploadsBytes, 4*(l.UploadBytes+l.MessageBytes))
	l.UploadIdle = cmp.Or(l.UploadIdle, 30*time.Second)
	l.UploadTime = cmp.Or(l.UploadTime, 10*time.Minute)
	return l
}

func (o Options) check() error {
	l := o.Limits
	if min(l.MessageBytes, l.IDBytes, l.BatchItems, l.BatchConcurrency, l.StreamWindow, l.Streams, l.UploadBytes, l.UploadsBytes) < 0 ||
		min(l.UploadIdle, l.UploadTime) < 0 {
		return fmt.Errorf("a limit is negative: %+v", l)
	}
	if least := l.UploadBytes + l.MessageBytes; l.UploadsBytes < least {
		return fmt.Errorf("uploads may hold %d bytes together: at least %d, one clip and one message, are needed", l.UploadsBytes, least)
	}
	if o.DrainDelay < 0 || o.DrainTimeout < 0 {
		return errors.New("a drain time is negative")
	}
	if o.OpenPredictions && o.TokenFile == "" {
		return errors.New("predictions can only be opened to callers without a token where a token file is set")
	}
	if err := errors.Join(o.Late.check(), o.References.check()); err != nil {
		return err
	}
	for _, addr := range []string{o.GRPCAddr, o.HTTPAddr} {
		if err := o.checkAddr(addr); err != nil {
			return err
		}
	}
	return o.TLS.check()
}

// checkAddr refuses to listen in the clear where others can listen in.
func (o Options) checkAddr(addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("the address %q is not host:port: %w", addr, err)
	}
	if loopback(addr) || !o.TLS.empty() || o.Insecure {
		return nil
	}
	return fmt.Errorf("%s can be reached from other machines, and there is no TLS: set a certificate and key, "+
		"or listen on 127.0.0.1, or allow it with --insecure", addr)
}

// private reports whether only this machine can reach l.
func (o Options) private(l net.Listener) bool { return !o.Proxied && loopback(l.Addr().String()) }

// loopback reports whether addr, a host:port, can only be reached from this machine.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	return loopbackHost(host)
}

func loopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
