package server

import (
	"context"
	"errors"
	"net"
	"net/http"
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
	close(s.ending)
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

// newConnGrace is how long a connection that was just made may take to send its first request while the server drains.
const newConnGrace = time.Second

// drainWeb ends HTTP first and then the gRPC server behind it. It doesn't begin with Shutdown: that drops a request that is read
// after it on a connection that was there before. So it stops listening, lets every busy connection finish, and then shuts down.
func (s *Server) drainWeb(ctx context.Context) error {
	_ = s.http.Close() // accepted connections stay
	grace := time.AfterFunc(newConnGrace, s.busy.closeNew)
	defer grace.Stop()
	s.busy.wait(ctx)
	err := s.web.Shutdown(ctx)
	if errors.Is(err, net.ErrClosed) {
		err = nil // the listener, which we closed
	}
	if err != nil {
		_ = s.web.Close() // what it says is what Shutdown said
	}
	return errors.Join(err, s.conn.Close(), s.mediaConn.Close(), stop(ctx, s.inner.GracefulStop, s.inner.Stop))
}

// busyConns are the HTTP connections on which a request is, or may be about to be.
type busyConns struct {
	mu      sync.Mutex // guards what follows
	states  map[net.Conn]http.ConnState
	changed chan struct{} // closed and replaced when the last one is gone
}

func newBusyConns() *busyConns {
	return &busyConns{states: make(map[net.Conn]http.ConnState), changed: make(chan struct{})}
}

// note is the http.Server's ConnState.
func (b *busyConns) note(c net.Conn, st http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if st == http.StateNew || st == http.StateActive {
		b.states[c] = st
		return
	}
	delete(b.states, c)
	if len(b.states) == 0 {
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// wait returns when no connection is busy, or ctx ends.
func (b *busyConns) wait(ctx context.Context) {
	for {
		b.mu.Lock()
		n, changed := len(b.states), b.changed
		b.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// closeNew closes the connections that have sent nothing yet.
func (b *busyConns) closeNew() {
	b.mu.Lock()
	var idle []net.Conn
	for c, st := range b.states {
		if st == http.StateNew {
			idle = append(idle, c)
		}
	}
	b.mu.Unlock()
	for _, c := range idle {
		_ = c.Close() // nothing was on its way
	}
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
