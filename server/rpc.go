package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"time"

	mwauth "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

// sendFactor is how much larger an answer may be than a request: a batch of many classes grows.
const sendFactor = 4

// newGRPC makes a gRPC server with our services. There are two: one for the network, and one that REST reaches within the process,
// so that REST calls go through the same interceptors, limits and authorizer, and can be drained before it is.
func (s *Server) newGRPC(a *authorizer, p predictions, more ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append(append(s.limits(), more...),
		grpc.ChainUnaryInterceptor(s.unaryInterceptors(a)...),
		grpc.ChainStreamInterceptor(s.streamInterceptors(a)...))...)
	pb.RegisterPredictionServiceServer(g, p)
	pb.RegisterModelServiceServer(g, models{Server: s})
	healthpb.RegisterHealthServer(g, s.health)
	return g
}

// limits replaces grpc-go's defaults, which are no limits at all.
func (s *Server) limits() []grpc.ServerOption {
	l := s.o.Limits
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(l.MessageBytes),
		grpc.MaxSendMsgSize(sendFactor * l.MessageBytes),
		grpc.MaxConcurrentStreams(uint32(min(l.Streams, 1<<30))),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.WaitForHandlers(true),
		grpc.ForceServerCodecV2(lenientCodec{encoding.GetCodecV2(protocodec.Name)}),
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
		mwauth.UnaryServerInterceptor(a.authorize),
		refuseUnreadable)
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
	return s.fail(ctx, panicked(p), ofPrediction())
}

func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
