package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

const defaultAddr = "127.0.0.1:8001"

// clientFlags are what every command has that asks a server.
type clientFlags struct {
	addr, tokenFile, ca, cert, key, output string
	insecure                               bool
	timeout                                time.Duration
}

func (a *app) clientFlags(cmd *cobra.Command) *clientFlags {
	f := &clientFlags{}
	cmd.GroupID = "client"
	fs := cmd.Flags()
	fs.StringVar(&f.addr, "addr", a.getenv("MODELGATE_ADDR", defaultAddr), "address of the server's gRPC port (MODELGATE_ADDR)")
	fs.StringVar(&f.tokenFile, "token-file", a.getenv("MODELGATE_TOKEN_FILE", ""), "file with the bearer token (MODELGATE_TOKEN_FILE)")
	fs.StringVar(&f.ca, "tls-ca", a.getenv("MODELGATE_TLS_CA", ""), "certificates that sign the server's, PEM; turns TLS on (MODELGATE_TLS_CA)")
	fs.StringVar(&f.cert, "tls-cert", "", "our own certificate, PEM, for a server that asks for one")
	fs.StringVar(&f.key, "tls-key", "", "private key of --tls-cert, PEM")
	fs.BoolVar(&f.insecure, "insecure", false, "send the token without TLS to an address off loopback")
	fs.DurationVar(&f.timeout, "timeout", time.Minute, "longest wait for an answer")
	f.outputFlag(cmd)
	return f
}

func (f *clientFlags) outputFlag(cmd *cobra.Command) {
	outputFlag(cmd, &f.output, "table", "json")
}

// outputFlag adds --output, which is checked before the command runs.
func outputFlag(cmd *cobra.Command, value *string, formats ...string) {
	cmd.Flags().StringVarP(value, "output", "o", formats[0], "how to print: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	cmd.PreRunE = func(*cobra.Command, []string) error {
		for _, f := range formats {
			if *value == f {
				return nil
			}
		}
		return usagef("--output %s is not one of %s", *value, strings.Join(formats, ", "))
	}
}

func (a *app) getenv(name, otherwise string) string {
	for _, e := range a.environ {
		if k, v, _ := strings.Cut(e, "="); k == name && v != "" {
			return v
		}
	}
	return otherwise
}

// client is a connection to a server.
type client struct {
	predictions modelgatev1.PredictionServiceClient
	models      modelgatev1.ModelServiceClient
	addr        string
	conn        *grpc.ClientConn
}

func (f *clientFlags) dial() (*client, error) {
	creds, err := f.transport()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
	}
	if f.tokenFile != "" {
		token, err := f.token()
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(token))
	}
	conn, err := grpc.NewClient(f.addr, options...)
	if err != nil {
		return nil, usagef("--addr %s: %w", f.addr, err)
	}
	return &client{modelgatev1.NewPredictionServiceClient(conn), modelgatev1.NewModelServiceClient(conn), f.addr, conn}, nil
}

// call connects, has do ask the server, and makes a sentence of what goes wrong.
func (f *clientFlags) call(ctx context.Context, do func(context.Context, *client) error) error {
	c, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	return c.explain(do(ctx, c))
}

func (f *clientFlags) transport() (credentials.TransportCredentials, error) {
	if f.ca == "" {
		if f.cert != "" || f.key != "" {
			return nil, usagef("--tls-cert and --tls-key need --tls-ca, the certificates that sign the server's")
		}
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, fmt.Errorf("read the certificates of --tls-ca: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--tls-ca %s holds no certificate in PEM form", f.ca)
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("read --tls-cert and --tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}

func (f *clientFlags) token() (bearer, error) {
	b, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return bearer{}, fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return bearer{}, fmt.Errorf("the token file %s is empty", f.tokenFile)
	}
	if f.ca == "" && !f.insecure && !loopback(f.addr) {
		return bearer{}, usagef("the token would go to %s unencrypted; use --tls-ca, or --insecure if the network is trusted", f.addr)
	}
	return bearer{token}, nil
}

// loopback reports whether an address stays on this machine.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bearer sends a token with each call.
type bearer struct{ token string }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity is checked in clientFlags.token, which knows what is on loopback.
func (bearer) RequireTransportSecurity() bool { return false }

// explain makes an error of a call into something to read, with what to do about it.
func (c *client) explain(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	unreached := s.Code() == codes.Unavailable && len(s.Proto().GetDetails()) == 0 // the server's own errors have details
	switch {
	case unreached && strings.Contains(s.Message(), "connection refused"):
		return fmt.Errorf("no server answers on %s; start one with `modelgate demo` or `modelgate serve`, or name another with --addr", c.addr)
	case unreached && strings.Contains(s.Message(), "tls: certificate required"):
		return fmt.Errorf("the server on %s asks for a certificate of ours: name it with --tls-cert and its key with --tls-key", c.addr)
	case unreached && strings.Contains(s.Message(), "tls:"):
		return fmt.Errorf("no secure connection to %s: %s; --tls-ca names the certificates that sign the server's", c.addr, s.Message())
	case unreached && strings.Contains(s.Message(), "error reading server preface"):
		return fmt.Errorf("what answers on %s doesn't speak gRPC without TLS: is it the HTTP port, or does it need --tls-ca? (%s)", c.addr, s.Message())
	case s.Code() == codes.Unauthenticated:
		return fmt.Errorf("%s; name the token with --token-file", s.Message())
	case s.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("%s did not answer in time (--timeout)", c.addr)
	case s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "message larger than max"):
		return fmt.Errorf("the server takes no message this large (%s): raise its limits.message_bytes, or send less", s.Message())
	case s.Code() == codes.Unimplemented:
		return fmt.Errorf("the server on %s doesn't know this call: %s", c.addr, s.Message())
	}
	return errors.New(s.Message())
}

// sentence is an error as it is printed. What comes from gRPC loses its wrapping.
func sentence(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
