package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"modelgate/cmd/modelgate/config"
)

func (a *app) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the models of a folder or of an MLflow registry",
		Long: `Serve the models of a folder (--models DIR, holding DIR/<served name>/<version number>/) or of an MLflow registry
(MLFLOW_TRACKING_URI). New versions replace old ones when their F1 exceeds that of the version that serves and the threshold.

A setting comes from its flag, else from the environment, else from the file of --config, else it is the default;
` + "`modelgate config`" + ` shows them all, with where each comes from. Ctrl-C, SIGTERM or SIGHUP drains: requests in progress are finished.
A second signal ends the program at once.`,
		Example: `  modelgate serve --models models
  MLFLOW_TRACKING_URI=http://127.0.0.1:5000 modelgate serve
  modelgate serve --config modelgate.yaml`,
		GroupID: "server",
		Args:    args(cobra.NoArgs),
	}
	load := a.settingsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		return a.serve(cmd.Context(), c)
	}
	return cmd
}

// serve serves until a signal comes.
func (a *app) serve(ctx context.Context, c *config.Loaded) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	// Who reads the log may go away. That would end the program, which has more to do than to write it, unless somebody is notified.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	s := a.screen()
	log := a.logger(s, c.Log)
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	g, err := newGateway(ctx, c, s, log)
	if err != nil {
		return err
	}
	g.banner(s, a.palette(a.err))
	err = g.run(ctx)
	logEnd(log, err)
	return err
}

// untilSignal is a context that SIGINT or SIGTERM ends, and SIGHUP, unless the program was started to outlive its terminal. A second
// signal ends the program at once, the way it would have without us. After stop, signals are nothing of ours.
func untilSignal(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(signals, syscall.SIGHUP)
	}
	stopped := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-stopped:
			return
		}
		select {
		case s := <-signals:
			signal.Reset(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			if n, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(os.Getpid(), n)
			}
		case <-stopped:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(stopped)
		cancel()
	}
}

func logEnd(log *slog.Logger, err error) {
	if err == nil {
		log.Info("ended")
	}
}

func (a *app) screen() *screen { return &screen{w: a.err, terminal: isTerminal(a.err)} }

// banner says on a terminal what is there and what to try.
func (g *gateway) banner(s *screen, p palette) {
	if !s.terminal {
		return
	}
	scheme := "http"
	if g.config.TLS.Cert != "" {
		scheme = "https"
	}
	grpc, http := g.server.GRPCAddr().String(), scheme+"://"+g.server.HTTPAddr().String()
	names := ""
	for i, m := range g.registry.models {
		if i > 0 {
			names += ", "
		}
		names += m.Name
	}
	printf(s, "%s serves %s\nfrom %s, looked at every %v\n\n", p.paint(bold, "modelgate"), orDash(names), g.registry.name, time.Duration(g.config.UpdateInterval))
	printf(s, "  gRPC   %s\n  REST   %s/v1/models\n  docs   %s/docs\n  state  %s\n\n", grpc, http, http, g.config.DataDir)
	printf(s, "Try:  %s\n\n", strings.Join(commandsFor(grpc, `predict "some text"`, "models"), "\n      "))
}
