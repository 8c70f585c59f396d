package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	mwauth "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

// sendFactor is how much larger an answer may be than a request: a batch of many classes grows.
const sendFactor = 4

// newGRPC makes a gRPC server with our services. There are two: one for the network, and one that REST reaches within the process,
// so that REST calls go through the same interceptors, limits and authorizer, and can be drained before it is.
func (s *Server) newGRPC(a *authorizer, more ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append(append(s.limits(), more...),
		grpc.ChainUnaryInterceptor(s.unaryInterceptors(a)...),
		grpc.ChainStreamInterceptor(s.streamInterceptors(a)...))...)
	g.RegisterService(readable(pb.PredictionService_ServiceDesc), predictions{Server: s})
	g.RegisterService(readable(pb.ModelService_ServiceDesc), models{Server: s})
	healthpb.RegisterHealthServer(g, s.health)
	return g
}

// limits replaces grpc-go's defaults, which are no limits at all.
func (s *Server) limits() []grpc.ServerOption {
	l := s.o.Limits
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(l.MessageBytes),
		grpc.MaxSendMsgSize(sendFactor * l.MessageBytes),
		grpc.MaxConcurrentStreams(uint32(min(l.Streams, 1<<30))), //nolint:gosec // checked: not negative
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.WaitForHandlers(true),
	}
}

// connectionLimits are for connections from the network. One is given up after a while, so that callers spread over new servers;
// its streams may end in their own time.
func connectionLimits() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, MaxConnectionAge: 30 * time.Minute,
			Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

func (s *Server) unaryInterceptors(a *authorizer) []grpc.UnaryServerInterceptor {
	chain := []grpc.UnaryServerInterceptor{s.countUnary}
	if s.debugging() {
		chain = append(chain, logging.UnaryServerInterceptor(s.accessLog(), accessLogOptions()...))
	}
	return append(chain,
		recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(s.recovered)),
		mwauth.UnaryServerInterceptor(a.authorize))
}

func (s *Server) streamInterceptors(a *authorizer) []grpc.StreamServerInterceptor {
	chain := []grpc.StreamServerInterceptor{s.countStream}
	if s.debugging() {
		chain = append(chain, logging.StreamServerInterceptor(s.accessLog(), accessLogOptions()...))
	}
	return append(chain,
		recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(s.recovered)),
		mwauth.StreamServerInterceptor(a.authorize))
}

func (s *Server) debugging() bool { return s.o.Logger.Enabled(context.Background(), slog.LevelDebug) }

func (s *Server) accessLog() logging.Logger {
	return logging.LoggerFunc(func(ctx context.Context, _ logging.Level, msg string, fields ...any) {
		s.o.Logger.DebugContext(ctx, msg, fields...)
	})
}

func accessLogOptions() []logging.Option {
	return []logging.Option{logging.WithLogOnEvents(logging.FinishCall)}
}

func (s *Server) countUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	began := time.Now()
	resp, err := next(ctx, req)
	s.o.Metrics.rpc(info.FullMethod, status.Code(err), time.Since(began))
	return resp, err
}

func (s *Server) countStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	began := time.Now()
	err := next(srv, stream)
	s.o.Metrics.rpc(info.FullMethod, status.Code(err), time.Since(began))
	return err
}

// recovered turns a panic into INTERNAL: one request fails, the others go on.
func (s *Server) recovered(ctx context.Context, p any) error {
	return s.fail(ctx, fmt.Errorf("panic: %v\n%s", p, debug.Stack()), ofPrediction())
}

// readable returns a service whose unary methods answer a message that can't be decoded (a string that isn't UTF-8, say) with
// INVALID_ARGUMENT: grpc-go says INTERNAL, as if the fault were ours.
func readable(d grpc.ServiceDesc) *grpc.ServiceDesc {
	methods := make([]grpc.MethodDesc, len(d.Methods))
	for i, m := range d.Methods {
		inner := m.Handler
		//nolint:revive // the order of the arguments is grpc's
		m.Handler = func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			return inner(srv, ctx, func(v any) error { return unreadable(dec(v)) }, interceptor)
		}
		methods[i] = m
	}
	d.Methods = methods
	return &d
}

// unreadable says of a message that couldn't be decoded that it is the caller's.
func unreadable(err error) error {
	st := status.Convert(err)
	if st.Code() != codes.Internal || !strings.Contains(st.Message(), "unmarshal") {
		return err
	}
	return invalid("UNREADABLE_MESSAGE", "the message can't be read: "+st.Message()+"; text must be UTF-8")
}

func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
