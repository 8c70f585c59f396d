package server_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "modelgate/proto/modelgate/v1"
)

// load sends requests from several callers, over gRPC and REST, until it is stopped, and counts how they end.
type load struct {
	stop             context.CancelFunc
	wg               sync.WaitGroup
	answered, turned atomic.Int64 // turned away: by a server that doesn't listen any more
	mu               sync.Mutex
	failed           []error
}

func (l *load) note(err error, turnedAway bool) {
	switch {
	case err == nil:
		l.answered.Add(1)
	case turnedAway:
		l.turned.Add(1)
	default:
		l.mu.Lock()
		l.failed = append(l.failed, err)
		l.mu.Unlock()
	}
}

func startLoad(g *gateway) *load {
	ctx, stop := context.WithCancel(g.t.Context())
	l := &load{stop: stop}
	for range 4 {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				_, err := g.predict.Predict(g.t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("a good film")})
				l.note(err, status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "connection refused"))
			}
		})
		l.wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				err := restPredict(g, client)
				l.note(err, errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)) // reset: in the backlog of the listener
			}
		})
	}
	return l
}

func restPredict(g *gateway, client *http.Client) error {
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodPost, g.url+"/v1/models/text:predict", strings.NewReader(`{"text":"a good film"}`))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", "1") // lets net/http try again where a connection was closed before the request was read
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// A drain under load loses nothing: every request is answered, or turned away because nobody listens.
func TestDrainUnderLoad(t *testing.T) {
	g := start(t, func(c *config) { c.options.DrainDelay = 50 * time.Millisecond })
	l := startLoad(g)
	eventually(t, func() bool { return l.answered.Load() > 200 })
	must(t, g.end())
	l.stop()
	l.wg.Wait()
	for _, err := range l.failed {
		t.Errorf("a request was lost: %v", err)
	}
	t.Logf("%d answered, %d turned away", l.answered.Load(), l.turned.Load())
}

// Swaps under load lose nothing either, over gRPC and REST.
func TestSwapsUnderLoad(t *testing.T) {
	g := start(t)
	l := startLoad(g)
	for i := 2; i <= 6; i++ {
		g.publish(text(i, 0.8+float64(i)/100))
		resp, err := g.models.Refresh(t.Context(), &pb.RefreshRequest{Model: "text"})
		if err != nil || !resp.GetSwapped() {
			t.Fatalf("swap to %d: %v, %v", i, resp, err)
		}
		before := l.answered.Load()
		eventually(t, func() bool { return l.answered.Load() > before+20 })
	}
	l.stop()
	l.wg.Wait()
	for _, err := range l.failed {
		t.Errorf("a request was lost: %v", err)
	}
}

// Requests in flight are answered although the server ends, whichever way they came.
func TestDrainAnswersWhatIsInFlight(t *testing.T) {
	g := start(t)
	running, release := make(chan struct{}, 10), make(chan struct{})
	g.engine.hook(func(context.Context) error {
		running <- struct{}{}
		<-release
		return nil
	}, nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")}); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		if err := restPredict(g, client); err != nil {
			t.Error(err)
		}
	})
	<-running
	eventually(t, func() bool { return metric(t, g, `modelgate_requests_in_flight{model="text"}`) == "2" })
	ended := make(chan error, 1)
	go func() { ended <- g.end() }()
	eventually(t, func() bool { // it listens no more
		conn, err := grpc.NewClient(g.server.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(t, err)
		defer conn.Close()
		_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return status.Code(err) == codes.Unavailable
	})
	select {
	case err := <-ended:
		t.Errorf("the server ended with requests in flight: %v", err)
	default:
	}
	close(release)
	wg.Wait()
	must(t, <-ended)
}

// A request that doesn't end holds up the drain only for so long, and is told about.
func TestDrainTimeout(t *testing.T) {
	g := start(t, func(c *config) { c.options.DrainTimeout = 50 * time.Millisecond })
	running := make(chan struct{}, 10)
	g.engine.hook(func(ctx context.Context) error {
		running <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, nil)
	got := make(chan error, 1)
	go func() {
		_, err := g.predict.Predict(t.Context(), &pb.PredictRequest{Model: "text", Text: ptr("good")})
		got <- err
	}()
	<-running
	if err := g.end(); err == nil || !strings.Contains(err.Error(), "still in flight") {
		t.Errorf("Run returned %v", err)
	}
	if err := <-got; err == nil {
		t.Error("a request that was cut off got an answer")
	}
}

// While load balancers have yet to notice, calls go on: those that last, too.
func TestCallsBeforeTheEndOfDrainDelay(t *testing.T) {
	g := startClips(t, func(c *config) { c.options.DrainDelay = 3 * time.Second })
	g.stop()
	g.await("", notServing)
	if resp, err := g.upload(t.Context(), &pb.PredictRequest{Model: "video"}, smallClip(t), 500); err != nil || resp.GetLabel() != "positive" {
		t.Errorf("an upload: %v, %v", resp, err)
	}
	if resp := g.inStream(&pb.PredictRequest{Model: "text", Text: ptr("good")}); resp.GetVersion() != "1" {
		t.Errorf("a stream: %v", resp)
	}
	must(t, g.end())
}
