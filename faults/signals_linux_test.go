package faults_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// notServing returns a function that waits until the gateway says that it isn't ready any more, as who balances load does.
func (b *bed) notServing(g *gateway) (wait func()) {
	b.t.Helper()
	conn, err := grpc.NewClient(g.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(func() {
		cancel()
		_ = conn.Close()
	})
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		b.t.Fatal(err)
	}
	until := func(wanted grpc_health_v1.HealthCheckResponse_ServingStatus) {
		b.t.Helper()
		for {
			r, err := watch.Recv()
			if err != nil {
				b.t.Fatalf("watch the health: %v\n%s", err, g.log())
			}
			if r.GetStatus() == wanted {
				return
			}
		}
	}
	until(grpc_health_v1.HealthCheckResponse_SERVING)
	return func() { until(grpc_health_v1.HealthCheckResponse_NOT_SERVING) }
}

// The gateway is told to end, again and again, while it is asked. Who asks stops when the gateway says that it isn't ready.
func TestToldToEnd(t *testing.T) {
	// What the tests ignore, as under nohup, the gateway would too: it is meant to outlive its terminal then.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		n    int
	}{{"SIGTERM", syscall.SIGTERM, times(2, 100)}, {"SIGINT", syscall.SIGINT, 1}, {"SIGHUP", syscall.SIGHUP, 1}} {
		t.Run(c.name, func(t *testing.T) {
			b := begin(t, row{"signals", c.name + " under load", "not ready; what was asked is answered; exit code 0", fmt.Sprintf("%d times, with a second for callers to leave", c.n)})
			b.publish(1, bundle{n: 1}.write)
			for range c.n {
				g := b.start("--models", b.models(), "--drain-delay", "1s")
				g.serves(1)
				wait := b.notServing(g)
				b.ask(g)
				b.requests(least)
				if err := g.cmd.Process.Signal(c.sig); err != nil {
					t.Fatal(err)
				}
				wait()
				b.out.requests += b.load.counts().requests
				b.onlyBy(1)
				select {
				case <-g.ended:
				case <-time.After(patience):
					t.Fatalf("it did not end within %v of %s\n%s", patience, c.name, g.log())
				}
				if g.err != nil {
					t.Fatalf("it ended with %v\n%s", g.err, g.log())
				}
			}
			b.out.requests -= b.load.counts().requests // the last ones are counted when the row ends
		})
	}
}

// Who has no patience tells it twice.
func TestToldTwice(t *testing.T) {
	b := begin(t, row{"signals", "SIGTERM twice", "the second ends it at once, with what is being answered", "with ten minutes to drain"})
	b.publish(1, bundle{n: 1}.write)
	g := b.start("--models", b.models(), "--drain-delay", "10m")
	g.serves(1)
	wait := b.notServing(g)
	b.ask(g)
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait()
	b.onlyBy(1)
	began := time.Now()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.ended:
	case <-time.After(patience):
		t.Fatalf("it did not end within %v", patience)
	}
	status, ok := g.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", g.err)
	}
	b.note("it ended within %v", time.Since(began).Round(time.Millisecond))
}

// Who reads the log goes away: writing to it would end the program by SIGPIPE, if that weren't ignored.
func TestLogReaderGone(t *testing.T) {
	b := begin(t, row{"signals", "who reads the log goes away (SIGPIPE)", "nothing", "a pipe that is closed after the first lines, with every request logged"})
	b.publish(1, bundle{n: 1}.write)
	g := b.launch([]string{"bash", "-c", `exec "$@" 2> >(exec sed -u '/"listening"/q' >&2)`, "bash"}, "--models", b.models())
	select {
	case <-g.listening:
	case <-time.After(patience):
		t.Fatal("it doesn't listen")
	}
	if g.grpc == "" {
		t.Fatalf("it ended: %v\n%s", g.err, g.log())
	}
	g.serves(1)
	b.ask(g)
	b.during(func() {
		b.requests(rate)
		b.publish(2, bundle{n: 2}.write)
		g.serves(2)
		b.answeredBy(2)
	})
	b.onlyBy(1, 2)
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.ended:
	case <-time.After(patience):
		t.Fatal("it did not end")
	}
	if g.err != nil {
		t.Errorf("after SIGTERM it ended with %v", g.err)
	}
}
