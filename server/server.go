// Package server puts predictions and the life of models on the wire: gRPC, REST, health, metrics and the API page.
package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"modelgate/inference"
	"modelgate/modelstore"
	pb "modelgate/proto/modelgate/v1"
)

// A Server answers over gRPC and HTTP. New makes it listen, Run makes it answer.
type Server struct {
	o       Options
	store   *modelstore.Store[*inference.Model]
	updater *modelstore.Updater

	references *referenceReader

	grpc, http net.Listener
	inProcess  *bufconn.Listener
	outer      *grpc.Server     // for the network
	inner      *grpc.Server     // for REST
	conn       *grpc.ClientConn // REST's calls
	mediaConn  *grpc.ClientConn // REST's uploads: slow ones may take all streams of a connection, and none of other calls
	web        *http.Server
	busy       *busyConns
	health     *health
	uploads    *budget

	wasReady atomic.Bool   // once ready, always ready: a store never takes back what it serves
	draining chan struct{} // closed when the drain begins
	ending   chan struct{} // closed DrainDelay later, when streams and uploads are ended
}

// New checks the options and listens, so that what is wrong with an address, a certificate or a token file is known at once.
// The store and the updater stay the caller's.
func New(o Options, store *modelstore.Store[*inference.Model], updater *modelstore.Updater) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, store: store, updater: updater, references: newReferenceReader(o.References), health: newHealth(), busy: newBusyConns(),
		draining: make(chan struct{}), ending: make(chan struct{}),
		uploads: newBudget(int64(o.Limits.UploadsBytes), o.Metrics.uploadsHeld)}
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := s.assemble(); err != nil {
		s.closeListeners()
		return nil, err
	}
	return s, nil
}

func (s *Server) listen() error {
	var err error
	if s.grpc, err = listen("gRPC", s.o.GRPCAddr); err != nil {
		return err
	}
	if s.http, err = listen("HTTP", s.o.HTTPAddr); err != nil {
		_ = s.grpc.Close()
		return err
	}
	s.inProcess = bufconn.Listen(1 << 20)
	return nil
}

func listen(what, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w; choose another address, or port 0 for any free one", what, addr, err)
	}
	return l, nil
}

func (s *Server) closeListeners() {
	_, _, _ = s.grpc.Close(), s.http.Close(), s.inProcess.Close() // nothing was accepted yet
}

// assemble makes the servers on the listeners.
func (s *Server) assemble() error {
	var tokens *tokenFile
	if s.o.TokenFile != "" {
		var err error
		if tokens, err = newTokenFile(s.o.Logger, s.o.TokenFile); err != nil {
			return err
		}
	}
	forGRPC, err := s.o.TLS.config(s.o.Logger, "h2")
	if err != nil {
		return err
	}
	forHTTP, err := s.o.TLS.config(s.o.Logger, "h2", "http/1.1")
	if err != nil {
		return err
	}
	creds := insecure.NewCredentials()
	if forGRPC != nil {
		creds = credentials.NewTLS(forGRPC)
	}
	authorize := func(l net.Listener) *authorizer {
		return &authorizer{tokens: tokens, openPredictions: s.o.OpenPredictions, private: s.o.private(l)}
	}
	reflect := s.o.private(s.grpc)
	if s.o.Reflection != nil {
		reflect = *s.o.Reflection
	}
	s.outer = s.newGRPC(authorize(s.grpc), predictions{Server: s}, append(connectionLimits(), grpc.Creds(creds))...)
	s.inner = s.newGRPC(authorize(s.http), predictions{Server: s, fromREST: true})
	if reflect {
		reflection.Register(s.outer)
	}
	if err := s.assembleWeb(); err != nil {
		return err
	}
	s.web.TLSConfig = forHTTP
	s.publishHealth()
	return nil
}

func (s *Server) assembleWeb() error {
	var err error
	if s.conn, err = s.dialInner(); err != nil {
		return err
	}
	if s.mediaConn, err = s.dialInner(); err != nil {
		return err
	}
	rest, err := newGateway(context.Background(), s.conn)
	if err == nil {
		err = s.addMedia(rest)
	}
	if err != nil {
		return err
	}
	h, err := s.handler(rest)
	if err != nil {
		return err
	}
	s.web = &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: predictTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: s.o.Limits.Streams},
		ConnState: s.busy.note,
		ErrorLog:  log.New(httpLog{s.o.Logger}, "", 0),
	}
	return nil
}

// dialInner makes a connection to REST's gRPC server, within the process.
func (s *Server) dialInner() (*grpc.ClientConn, error) {
	most := s.o.Limits.MessageBytes
	return grpc.NewClient("passthrough:///modelgate", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.inProcess.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(sendFactor*most), grpc.MaxCallSendMsgSize(2*most)))
}

// httpLog logs what net/http complains of: about callers, mostly, which is no state change of ours.
type httpLog struct{ l *slog.Logger }

func (w httpLog) Write(b []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.HasPrefix(b, []byte("http: panic")) {
		level = slog.LevelError
	}
	w.l.Log(context.Background(), level, "http server", "message", string(b))
	return len(b), nil
}

// GRPCAddr is where gRPC listens.
func (s *Server) GRPCAddr() net.Addr { return s.grpc.Addr() }

// HTTPAddr is where REST and the pages listen.
func (s *Server) HTTPAddr() net.Addr { return s.http.Addr() }

// Ready is nil if traffic should be sent here, else it says why not.
func (s *Server) Ready() error {
	if s.isDraining() {
		return errDraining
	}
	if s.wasReady.Load() {
		return nil
	}
	if err := s.updater.Ready(); err != nil {
		return err
	}
	s.wasReady.Store(true)
	return nil
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// Run answers until ctx ends, then drains: not ready any more, GOAWAY, the requests in flight finished, at most DrainTimeout.
// It returns nil after a drain that lost nothing, and what went wrong otherwise. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	failed := make(chan error, 3)
	wg.Go(func() { s.watchHealth(watching) })
	wg.Go(func() { failed <- served("gRPC", s.outer.Serve(s.grpc)) })
	wg.Go(func() { failed <- served("REST's gRPC", s.inner.Serve(s.inProcess)) })
	wg.Go(func() {
		err := s.serveWeb()
		if s.isDraining() && errors.Is(err, net.ErrClosed) {
			err = nil // the drain closes the listener
		}
		failed <- served("HTTP", err)
	})
	s.o.Logger.InfoContext(ctx, "listening", "grpc", s.grpc.Addr().String(), "http", s.http.Addr().String(), "tls", !s.o.TLS.empty())
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	err = errors.Join(err, s.drain(context.WithoutCancel(ctx)))
	stopWatching()
	wg.Wait()
	return err
}

func served(what string, err error) error {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", what, err)
}

func (s *Server) serveWeb() error {
	if s.web.TLSConfig != nil {
		return s.web.ServeTLS(s.http, "", "")
	}
	return s.web.Serve(s.http)
}

// publishHealth sets every status from what the models do now. The server's own comes last: who has seen it finds the others set.
func (s *Server) publishHealth() {
	ready := s.Ready() == nil
	defer s.health.set("", ready)
	s.health.set(pb.PredictionService_ServiceDesc.ServiceName, ready)
	s.health.set(pb.ModelService_ServiceDesc.ServiceName, true)
	for _, st := range s.updater.List() {
		s.health.set(modelHealth(st.Name), !st.Active.IsZero())
	}
}

// watchHealth keeps the statuses up to date until ctx ends.
func (s *Server) watchHealth(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.updater.Watch(ctx, func(modelstore.Change) error {
			s.publishHealth()
			return nil
		})
		if errors.Is(err, modelstore.ErrClosed) {
			return
		}
	}
}
