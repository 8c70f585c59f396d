package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"modelgate/cmd/modelgate/config"
	"modelgate/examples"
	"modelgate/modelstore"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

const (
	demoPatience = 30 * time.Second // for one version to be taken; it takes half a second
	demoPoll     = 500 * time.Millisecond
)

// demo shows the main job: a version serves, a better one is published, callers notice nothing but better answers.
type demo struct {
	a       *app
	p       palette
	dir     string
	once    bool
	rate    int
	seconds int
	gateway *gateway
	conn    *grpc.ClientConn
}

func (a *app) demoCommand() *cobra.Command {
	d := &demo{a: a, p: a.palette(a.out)}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a swap under load, with a small model that is part of this program",
		Long: `Serve version 1 of a small text classifier that is part of this program, publish the better version 2 while requests keep
coming, and show the swap. It goes on serving until Ctrl-C, so that there is something to try.`,
		GroupID: "server",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.rate < 1 || d.rate > 10000 || d.seconds < 1 || d.seconds > 600 {
				return usagef("--rate is from 1 to 10000 and --seconds from 1 to 600")
			}
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&d.dir, "dir", "", "folder for models and state, which stays; the default is a temporary one")
	cmd.Flags().BoolVar(&d.once, "once", false, "end when everything was shown")
	cmd.Flags().IntVar(&d.rate, "rate", 300, "requests a second")
	cmd.Flags().IntVar(&d.seconds, "seconds", 6, "how long requests are sent")
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

func (d *demo) run(ctx context.Context) (err error) {
	ctx, stop := untilSignal(ctx)
	defer stop()
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "modelgate-demo-"); err != nil {
			return fmt.Errorf("make a folder for the demo: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	}
	if err := d.publish("1"); err != nil {
		return err
	}
	if err := d.open(ctx); err != nil {
		return err
	}
	defer func() { _ = d.conn.Close() }()
	serving, end := context.WithCancel(ctx)
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- d.gateway.run(serving) }()

	err = d.show(ctx)
	if err == nil && !d.once {
		d.whatNext()
		<-ctx.Done()
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // Ctrl-C
	}
	end()
	return errors.Join(err, <-ended)
}

// open makes a gateway on the demo's folder, on other ports if the usual ones are taken.
func (d *demo) open(ctx context.Context) error {
	flags := map[string]string{
		"models_dir": d.models(), "data_dir": filepath.Join(d.dir, "state"), "cache_dir": filepath.Join(d.dir, "cache"),
		"update_interval": demoPoll.String(),
	}
	usual := config.Sources{Env: d.environment(), Flags: flags}
	c, err := config.Load(usual)
	if err != nil {
		return &usageError{err}
	}
	for path, addr := range map[string]string{"grpc_addr": c.GRPCAddr, "http_addr": c.HTTPAddr} {
		if !isFree(ctx, addr) {
			printf(d.a.out, "%s is taken: another port is used instead\n", addr)
			flags[path] = "127.0.0.1:0"
		}
	}
	if c, err = config.Load(usual); err != nil {
		return &usageError{err}
	}
	s := d.a.screen()
	if d.gateway, err = newGateway(ctx, c, s, d.a.logger(s, c.Log)); err != nil {
		return err
	}
	d.conn, err = grpc.NewClient(d.gateway.server.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	return err
}

// environment keeps what concerns a demo: not the registry, the folders and the token of the gateway that is meant to be real.
func (d *demo) environment() []string {
	env := []string{"MODELGATE_LOG_LEVEL=warn"}
	for _, e := range d.a.environ {
		for _, name := range []string{"HOME", "XDG_STATE_HOME", "MODELGATE_GRPC_ADDR", "MODELGATE_HTTP_ADDR", "MODELGATE_ONNXRUNTIME", "MODELGATE_LOG_LEVEL", "MODELGATE_LOG_FORMAT"} {
			if strings.HasPrefix(e, name+"=") {
				env = append(env, e)
			}
		}
	}
	return env
}

func isFree(ctx context.Context, addr string) bool {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func (d *demo) models() string { return filepath.Join(d.dir, "models") }

// publish puts a version into the folder the way publishers should: written beside its place, then renamed.
func (d *demo) publish(version string) error {
	place := filepath.Join(d.models(), "text", version)
	if _, err := os.Lstat(place); err == nil {
		return fmt.Errorf("--dir %s holds an earlier demo; remove it, or serve it: %s serve --models %s", d.dir, os.Args[0], d.models())
	}
	from, err := fs.Sub(examples.Models(), "text/"+version)
	if err != nil {
		return err
	}
	tmp := filepath.Join(d.models(), "text", ".new-"+version)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.CopyFS(tmp, from); err != nil {
		return fmt.Errorf("write the demo's model: %w", err)
	}
	return os.Rename(tmp, place)
}

// await waits until a version serves, and returns what the gateway knows of the model then.
func (d *demo) await(ctx context.Context, version string) (modelstore.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoPatience, fmt.Errorf("version %s was not served within %v", version, demoPatience))
	defer cancel()
	var found modelstore.Status
	serves := errors.New("it serves")
	err := d.gateway.updater.Watch(ctx, func(c modelstore.Change) error {
		if c.Status.Name == "text" && c.Status.Active.ID() == version && c.Status.Last.Candidate.ID() == version {
			found = c.Status
			return serves
		}
		return nil
	})
	if errors.Is(err, serves) {
		return found, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return found, err
}

// show is the demo's straight line.
func (d *demo) show(ctx context.Context) error {
	step := func(format string, args ...any) { printf(d.a.out, d.p.paint(bold, "==> ")+format+"\n", args...) }
	step("serving version 1 from %s", d.models())
	first, err := d.await(ctx, "1")
	if err != nil {
		return err
	}
	step("version 1 serves, F1 %v; some texts, over gRPC on %s:", first.Active.F1, d.gateway.server.GRPCAddr())
	if err := d.predictions(ctx); err != nil {
		return err
	}
	step("%d requests a second for %d seconds, and version 2 is published meanwhile", d.rate, d.seconds)
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	third := time.Duration(d.seconds) * time.Second / 3
	began := time.Now()
	samples := make(chan []sample, 1)
	go func() {
		samples <- load(loading, modelgatev1.NewPredictionServiceClient(d.conn), demoTexts(), d.rate)
	}()
	until(ctx, began.Add(third))
	published := time.Now()
	second, err := d.swapTo(ctx, "2")
	if err != nil {
		stopLoad()
		<-samples
		return err
	}
	swapped := time.Now()
	step("swapped: %s", second.Last.Reason)
	// A busy machine may take longer for the swap than all of it was to take.
	until(ctx, began.Add(3*third))
	until(ctx, swapped.Add(third))
	stopLoad()
	return d.result(first, second, <-samples, published, swapped)
}

// until waits for a moment, or until ctx ends.
func until(ctx context.Context, moment time.Time) {
	t := time.NewTimer(time.Until(moment))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (d *demo) swapTo(ctx context.Context, version string) (modelstore.Status, error) {
	if err := d.publish(version); err != nil {
		return modelstore.Status{}, err
	}
	return d.await(ctx, version)
}

func demoTexts() []string {
	return []string{
		"worst service ever, my flight was cancelled again",
		"thank you so much, great flight and a lovely crew",
		"still waiting on hold, two hours, nobody answers",
		"happy birthday! see you all tonight",
		"lost my bag and nobody cares",
	}
}

func (d *demo) predictions(ctx context.Context) error {
	p := newAnswers(d.a, "table")
	c := modelgatev1.NewPredictionServiceClient(d.conn)
	for _, text := range demoTexts() {
		r, err := c.Predict(ctx, &modelgatev1.PredictRequest{Model: "text", Text: proto.String(text)})
		if err != nil {
			return err
		}
		if err := p.print(&sent{text: &text, answer: &modelgatev1.PredictStreamResponse{Result: &modelgatev1.PredictStreamResponse_Prediction{Prediction: r}}}); err != nil {
			return err
		}
	}
	return nil
}

// result prints what callers saw of the swap. A failed request is the demo's failure.
func (d *demo) result(first, second modelstore.Status, samples []sample, published, swapped time.Time) error {
	t := table{head: []string{"", "REQUESTS", "FAILED", "P50", "P99"}}
	row := func(name string, keep func(sample) bool) summary {
		s := summarize(samples, keep)
		colour := green
		if s.failed > 0 {
			colour = red
		}
		t.add(cell{text: name}, cell{text: fmt.Sprint(s.sent)}, cell{fmt.Sprint(s.failed), colour},
			cell{text: short(s.p50)}, cell{text: short(s.p99)})
		return s
	}
	row("before", func(s sample) bool { return s.start.Before(published) })
	row("during", func(s sample) bool { return !s.start.Before(published) && s.start.Before(swapped) })
	row("after", func(s sample) bool { return !s.start.Before(swapped) })
	all := row("all", func(sample) bool { return true })
	t.print(d.a.out, d.p)

	byVersion := func(v string) int {
		return summarize(samples, func(s sample) bool { return s.version == v }).sent
	}
	printf(d.a.out, "F1 %v -> %v; %d answers by version 1, %d by version 2; the write lock was held for %.1f µs\n",
		first.Active.F1, second.Active.F1, byVersion("1"), byVersion("2"), second.Last.Seconds[string(modelstore.PhasePublishHeld)]*1e6)
	switch {
	case all.failed > 0:
		return fmt.Errorf("%d of %d requests failed, the first with: %w", all.failed, all.sent, all.firstError)
	case byVersion("1") == 0 || byVersion("2") == 0:
		return errors.New("not both versions answered: --seconds is too short")
	}
	return nil
}

func short(d time.Duration) string { return fmt.Sprintf("%.1f ms", millis(d)) }

func (d *demo) whatNext() {
	grpcAddr, http := d.gateway.server.GRPCAddr().String(), "http://"+d.gateway.server.HTTPAddr().String()
	next := append(commandsFor(grpcAddr, `predict "my flight was cancelled"`, "models", "history", "rollback text"),
		fmt.Sprintf(`curl -s -H 'Content-Type: application/json' %s/v1/models/text:predict -d '{"text": "my flight was cancelled"}'`, http),
		http+"/docs")
	printf(d.a.out, "\nThe gateway goes on serving; Ctrl-C ends it%s. Try:\n\n", removed(d))
	for _, n := range next {
		printf(d.a.out, "  %s\n", n)
	}
}

func removed(d *demo) string {
	if strings.HasPrefix(filepath.Base(d.dir), "modelgate-demo-") {
		return " and removes " + d.dir
	}
	return ""
}
