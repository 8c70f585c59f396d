package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/modelstore"
	"modelgate/modelstore/disk"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

func TestRegistryDownAtStartWithoutCache(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "MLflow is down when the gateway starts; the cache is empty",
		promise: "UNAVAILABLE, not ready, until a version is there", how: "its port is closed before the start, and opened later"})
	r := b.mlflow()
	r.promote(r.publish(0.80))
	r.down()
	g := b.start()
	conn, client := dial(t, g)
	defer conn.Close()
	for range 50 {
		b.out.requests++
		if a := one(client, "good", 0); status.Code(a.err) != codes.Unavailable {
			t.Fatalf("a request got %v, want UNAVAILABLE", a.err)
		}
	}
	if err := r.up(); err != nil {
		t.Fatal(err)
	}
	g.serves(1) // by itself
	b.ask(g)
	b.during(func() { b.requests(50) })
	b.onlyBy(1)
	b.note("50 requests refused; version 1 serves once MLflow is back")
}

// A row may be a test of another package, which is run as such.
func TestElsewhere(t *testing.T) {
	for _, c := range []struct {
		pkg, test string
		row
	}{
		{"./modelstore", "TestRegistryDownForADay", row{group: "registry", fault: "MLflow is down for 24 hours, with a restart at noon",
			promise: "the version that serves; the next one at the first look afterwards", how: "in virtual time: `modelstore: TestRegistryDownForADay`"}},
		{"./server", "TestFlood", row{group: "callers", fault: "far more requests than can be computed",
			promise: "answers as fast as they can be computed; the others are refused at once with RESOURCE_EXHAUSTED and RetryInfo, over REST 429 and Retry-After",
			how:     "over both ports: `server: TestFlood`; how much is answered then is measured by `make soak`"}},
		{"./modelstore", "TestBackOffGrowsBeyondAShortInterval", row{group: "disk", fault: "no download can be kept for 10 minutes",
			promise: "the version that serves; a try a minute", how: "in virtual time: `modelstore: TestBackOffGrowsBeyondAShortInterval`"}},
	} {
		t.Run(c.test, func(t *testing.T) {
			t.Parallel()
			b := begin(t, c.row)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^"+c.test+"$", c.pkg)
			cmd.Dir = ".."
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: "+c.test) {
				t.Errorf("%v\n%s", err, out)
			}
			b.note("asserted there, without requests")
		})
	}
}

func TestRegisteredNames(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "a model is configured under a name with `/`, `:`, NUL or a line break", promise: "no start: an error that says which name",
		how: "models.text.registered_name in the configuration"})
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/b", "../../etc/passwd", "a:b", `a\0b`, `a\nb`, `\e[2J`} {
		file := filepath.Join(b.dir, "modelgate.yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, "mlflow: {tracking_uri: \"http://127.0.0.1:1\"}\nmodels: {text: {registered_name: \"%s\"}}\n", name), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, exe, "serve", "--config", file)
		cmd.Env, cmd.Dir = b.env, b.dir
		out, err := cmd.CombinedOutput()
		cancel()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() < 1 || !strings.Contains(string(out), "text") || strings.ContainsAny(string(out), "\x00\x1b") {
			t.Errorf("with %q it ended with %v: %q", name, err, out)
		}
	}
	b.note("six names refused, each quoted in the error")
}

// An operator's orders, the registry's and looks at it come all at once. Afterwards the registry is followed again.
func TestUpdatesAtOnce(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "promotions, roll-backs, pins and looks at the registry at once, while its alias moves",
		promise: "one of the versions; afterwards the one that the alias names", how: "eight callers of the API, MLflow's own API"})
	r, g := b.serving()
	for n := 2; n <= 4; n++ {
		r.publish(0.80 + float64(n)/100)
	}
	client, leave := g.models()
	defer leave()
	var odd atomic.Int64
	orders := []func(ctx context.Context, n string) error{
		func(ctx context.Context, n string) error {
			_, err := client.Promote(ctx, &modelgatev1.PromoteRequest{Model: "text", Version: n})
			return err
		},
		func(ctx context.Context, _ string) error {
			_, err := client.Rollback(ctx, &modelgatev1.RollbackRequest{Model: "text"})
			return err
		},
		func(ctx context.Context, n string) error {
			_, err := client.Pin(ctx, &modelgatev1.PinRequest{Model: "text", Version: n})
			return err
		},
		func(ctx context.Context, _ string) error {
			_, err := client.Refresh(ctx, &modelgatev1.RefreshRequest{Model: "text"})
			return err
		},
	}
	b.during(func() {
		var callers sync.WaitGroup
		for i := range 8 {
			callers.Go(func() {
				for k := range times(5, 50) {
					// A look at the registry makes way for what operators order, and so may wait for all that the others do.
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(times(1, 5))*patience)
					err := orders[i%len(orders)](ctx, strconv.Itoa(1+(i+k)%4))
					cancel()
					switch status.Code(err) {
					case codes.OK, codes.FailedPrecondition, codes.Unavailable, codes.Aborted, codes.Canceled:
					default:
						odd.Add(1)
						t.Errorf("an order ended with %v", err)
					}
				}
			})
		}
		for k := range times(8, 80) {
			r.promote(1 + k%4)
		}
		callers.Wait()
		b.requests(50)
	})
	r.promote(4)
	if _, err := client.Unpin(t.Context(), &modelgatev1.UnpinRequest{Model: "text"}); err != nil {
		t.Error(err)
	}
	g.serves(4)
	b.answeredBy(4)
	b.anyOf(1, 2, 3, 4)
	b.note("%d orders", 8*times(5, 50))
}

// Nothing that is kept on disk depends on a clock that only goes forward. The machine's own clock can't be turned here, so it is what
// was written that is as old, or as young, as if it had been.
func TestClockJumps(t *testing.T) {
	for _, years := range []int{10, -10} {
		t.Run(strconv.Itoa(years), func(t *testing.T) {
			t.Parallel()
			b := begin(t, row{group: "registry", fault: fmt.Sprintf("the clock jumps by %d years between two starts", -years),
				promise: "the version that served, at once; later ones as ever", how: "state, index and file times on disk are moved by as much the other way"})
			r := b.mlflow()
			r.promote(r.publish(0.80))
			g := b.start()
			g.serves(1)
			r.promote(r.publish(0.81))
			g.serves(2)
			g.terminate()
			moveTimes(t, filepath.Join(b.dir, "data"), years)
			r.down()
			g = b.start()
			g.serves(2)
			b.ask(g)
			b.during(func() {
				if err := r.up(); err != nil {
					t.Fatal(err)
				}
				for n := 3; n <= 5; n++ {
					r.promote(r.publish(0.80 + float64(n)/100))
					g.refresh()
					b.answeredBy(n)
				}
				b.requests(50)
			})
			b.onlyBy(2, 3, 4, 5)
			g.terminate()
			r.down()
			g = b.start()
			g.serves(5)
			b.note("three swaps and a restart without the registry")
		})
	}
}

var aTime = regexp.MustCompile(`"used": "\d{4}-`)

// moveTimes moves everything that the gateway dated.
func moveTimes(t *testing.T, dir string, years int) {
	t.Helper()
	data, err := disk.OpenData(dir, disk.DataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := data.Load("text")
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Quarantine {
		s.Quarantine[i].Since = s.Quarantine[i].Since.AddDate(years, 0, 0)
	}
	if s.Hold != nil {
		s.Hold.Since = s.Hold.Since.AddDate(years, 0, 0)
	}
	err = errors.Join(data.Save("text", s), data.Record(modelstore.Entry{Time: time.Now().AddDate(years, 0, 0), Model: "text",
		Outcome: modelstore.Noted, Code: "clock", Reason: "a line from another time", Actor: "test"}), data.Close())
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if filepath.Base(filepath.Dir(path)) == "index" {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			year := fmt.Appendf(nil, `"used": "%d-`, info.ModTime().Year()+years)
			if err := os.WriteFile(path, aTime.ReplaceAll(content, year), 0o600); err != nil {
				return err
			}
			moved++
		}
		when := info.ModTime().AddDate(years, 0, 0)
		return os.Chtimes(path, when, when)
	})
	if err != nil || moved == 0 {
		t.Fatalf("%d records moved: %v", moved, err)
	}
}
