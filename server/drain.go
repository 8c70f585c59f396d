package server

import (
	"context"
	"errors"
	"sync"
	"time"
)

// drain ends the server without losing a request that was accepted, unless it takes longer than DrainTimeout.
func (s *Server) drain(ctx context.Context) error {
	began := time.Now()
	s.o.Logger.InfoContext(ctx, "draining", "timeout", s.o.DrainTimeout)
	close(s.draining)
	s.health.drain()
	if s.o.DrainDelay > 0 { // load balancers need a moment to notice
		<-time.After(s.o.DrainDelay)
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.DrainTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var webErr, grpcErr error
	wg.Go(func() { webErr = s.drainWeb(ctx) })
	wg.Go(func() { grpcErr = stop(ctx, s.outer.GracefulStop, s.outer.Stop) })
	wg.Wait()
	err := errors.Join(webErr, grpcErr)
	if err != nil {
		return errors.Join(errors.New("requests were still in flight when the drain timeout ended"), err)
	}
	s.o.Logger.InfoContext(ctx, "drained", "took", time.Since(began))
	return nil
}

// drainWeb ends HTTP first and then the gRPC server behind it.
func (s *Server) drainWeb(ctx context.Context) error {
	err := s.web.Shutdown(ctx)
	if err != nil {
		_ = s.web.Close() // what it says is what Shutdown said
	}
	return errors.Join(err, s.conn.Close(), stop(ctx, s.inner.GracefulStop, s.inner.Stop))
}

// stop calls graceful, and when ctx ends first, abrupt, which makes graceful return.
func stop(ctx context.Context, graceful, abrupt func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		graceful()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		abrupt()
		<-done
		return ctx.Err()
	}
}
