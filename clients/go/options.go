package modelgate

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// Options configure a Client. The zero values are good for a server on the same machine.
type Options struct {
	// TLS turns TLS on. Certificates in it are shown to servers that ask for them (mTLS). &tls.Config{} trusts the system's roots.
	TLS *tls.Config
	// Insecure allows plain text to other machines. To this machine it is allowed anyway.
	Insecure bool
	// Token is sent as a bearer token with each call.
	Token string
	// Timeout bounds a call whose context has no deadline, all attempts together. 0 means 10 seconds, less than 0 no bound.
	// Streams are bounded by their context only.
	Timeout time.Duration
	// UploadTimeout is the same for a clip that is uploaded because it is larger than a message. 0 means 10 minutes.
	UploadTimeout time.Duration
	// UploadAbove is the size of a clip and its text in bytes, above which PredictVideo uploads it. 0 means 256 KiB less than 4 MiB, the servers'
	// default limit of messages.
	UploadAbove int
	// MaxAttempts is how often a call that is safe to repeat is tried in all, from 1 to 5. 0 means 4.
	MaxAttempts int
	// MessageBytes bounds one answer. 0 means 16 MiB.
	MessageBytes int
	// StreamWindow is how many requests of one stream may be without an answer. 0 means 64.
	StreamWindow int
}

func (o Options) withDefaults() Options {
	o.Token = strings.TrimSpace(o.Token)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.UploadTimeout = cmp.Or(o.UploadTimeout, 10*time.Minute)
	o.UploadAbove = cmp.Or(o.UploadAbove, 4<<20-256<<10)
	o.MaxAttempts = cmp.Or(o.MaxAttempts, 4)
	o.MessageBytes = cmp.Or(o.MessageBytes, 16<<20)
	o.StreamWindow = cmp.Or(o.StreamWindow, 64)
	return o
}

// dialOptions are the options of both connections, and the target as gRPC wants it.
func (o Options) dialOptions(target string) (string, []grpc.DialOption, error) {
	if o.MaxAttempts < 1 || o.MaxAttempts > 5 {
		return "", nil, fmt.Errorf("MaxAttempts is %d: it must be from 1 to 5", o.MaxAttempts)
	}
	if min(o.MessageBytes, o.StreamWindow, o.UploadAbove) < 0 {
		return "", nil, errors.New("MessageBytes, StreamWindow or UploadAbove is negative")
	}
	dialTarget, local, listed, err := parseTarget(target)
	if err != nil {
		return "", nil, err
	}
	creds, err := o.credentials(local)
	if err != nil {
		return "", nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		// A dead peer is noticed within 40 seconds. Servers refuse pings more often than every 10 seconds.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(o.MessageBytes)),
		grpc.WithDisableServiceConfig(), // a DNS record must not change what is repeated
	}
	if len(listed) > 0 {
		r := manual.NewBuilderWithScheme(listScheme)
		r.InitialState(resolver.State{Endpoints: listed})
		options = append(options, grpc.WithResolvers(r))
	}
	if o.Token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{token: o.Token, overTLS: o.TLS != nil}))
	}
	return dialTarget, options, nil
}

// credentials refuse plain text to other machines unless it was asked for, as the server does.
func (o Options) credentials(local bool) (credentials.TransportCredentials, error) {
	switch {
	case o.TLS != nil:
		config := o.TLS.Clone()
		config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
		return credentials.NewTLS(config), nil
	case local || o.Insecure:
		return insecure.NewCredentials(), nil
	}
	return nil, errors.New("it is not on this machine and there is no TLS: set Options.TLS, or Options.Insecure to send everything as plain text")
}

// bearer adds the token to each call.
type bearer struct {
	token   string
	overTLS bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Options.credentials has decided where plain text is allowed.
func (b bearer) RequireTransportSecurity() bool { return b.overTLS }

// listScheme is the scheme of targets that are lists of addresses.
const listScheme = "modelgate-list"

// parseTarget gives the target as gRPC wants it, the addresses if it is a list, and whether all of it is on this machine.
func parseTarget(target string) (dialTarget string, local bool, listed []resolver.Endpoint, err error) {
	switch {
	case strings.HasPrefix(target, "unix:"):
		return target, true, nil, nil
	case strings.HasPrefix(target, "dns:///"):
		host, _, err := hostPort(strings.TrimPrefix(target, "dns:///"))
		return target, loopback(host), nil, err
	case strings.Contains(target, ":/"):
		return target, false, nil, nil
	case !strings.Contains(target, ","):
		host, addr, err := hostPort(target)
		return "dns:///" + addr, loopback(host), nil, err
	}
	local = true
	for part := range strings.SplitSeq(target, ",") {
		host, addr, err := hostPort(strings.TrimSpace(part))
		if err != nil {
			return "", false, nil, err
		}
		local = local && loopback(host)
		listed = append(listed, resolver.Endpoint{Addresses: []resolver.Address{{Addr: addr, ServerName: host}}})
	}
	return listScheme + ":///" + listed[0].Addresses[0].Addr, local, listed, nil
}

func hostPort(s string) (host, addr string, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || port == "" {
		return "", "", fmt.Errorf("%q is not host:port; the server's port for gRPC is 8001 if nothing else was configured", s)
	}
	return host, s, nil
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
