package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

func (a *app) modelsCommand() *cobra.Command {
	var f *clientFlags
	var versions, watch bool
	cmd := &cobra.Command{
		Use:               "models [MODEL]",
		Short:             "Show what serves, and what replaces it",
		Example:           "  modelgate models\n  modelgate models text --versions\n  modelgate models --watch",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeModels(&f, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case versions && len(args) == 0:
				return usagef("--versions needs a model: modelgate models MODEL --versions")
			case watch:
				f.timeout = 10 * 365 * 24 * time.Hour
				return f.call(cmd.Context(), func(ctx context.Context, c *client) error { return a.watchModels(ctx, c, f, args) })
			}
			return f.call(cmd.Context(), func(ctx context.Context, c *client) error {
				if versions {
					return a.listVersions(ctx, c, f, args[0])
				}
				return a.listModels(ctx, c, f, args)
			})
		},
	}
	f = a.clientFlags(cmd)
	cmd.Flags().BoolVar(&versions, "versions", false, "list what the registry has of a model")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print every change until interrupted")
	return cmd
}

func (a *app) listModels(ctx context.Context, c *client, f *clientFlags, args []string) error {
	if len(args) == 1 {
		r, err := c.models.GetModel(ctx, &modelgatev1.GetModelRequest{Model: args[0]})
		if err != nil {
			return err
		}
		if f.output == "json" {
			return printJSON(a.out, r)
		}
		a.modelTable(r.GetModel())
		return nil
	}
	r, err := c.models.ListModels(ctx, &modelgatev1.ListModelsRequest{})
	if err != nil {
		return err
	}
	if f.output == "json" {
		return printJSON(a.out, r)
	}
	a.modelTable(r.GetModels()...)
	return nil
}

func (a *app) modelTable(models ...*modelgatev1.Model) {
	t := table{head: []string{"MODEL", "STATE", "VERSION", "F1", "THRESHOLD", "STANDBY", "SINCE", "CHECKED", "LAST DECISION"}}
	for _, m := range models {
		state, colour := stateOf(m)
		last := m.GetLastDecision().GetReason()
		if m.GetLastError() != "" {
			last, colour = m.GetLastError(), red
		}
		t.add(cell{m.GetName(), bold}, cell{state, colour}, cell{text: versionOf(m.GetActive())}, cell{text: f1Of(m.GetActive())},
			cell{text: fmt.Sprintf("%.4g", m.GetF1Threshold())}, cell{text: versionOf(m.GetStandby())},
			cell{text: ago(m.GetSince())}, cell{text: ago(m.GetLastCheck())}, cell{orDash(last), faint})
	}
	t.print(a.out, a.palette(a.out))
}

// stateOf is a model's state in a few words, and its colour.
func stateOf(m *modelgatev1.Model) (words, colour string) {
	words = strings.ToLower(strings.TrimPrefix(m.GetState().String(), "MODEL_STATE_"))
	colour = yellow
	if m.GetState() == modelgatev1.ModelState_MODEL_STATE_SERVING {
		colour = green
	}
	if v := m.GetCandidate(); v.GetVersion() != "" {
		words += fmt.Sprintf(" (%s %s)", orDash(m.GetPhase()), versionOf(v))
	}
	switch {
	case m.GetPinned() != "":
		words += ", pinned"
	case m.GetHeld() != "":
		words += ", held"
	}
	if w := m.GetWorker(); w.GetDeaths() > 0 {
		words, colour = words+fmt.Sprintf(", its process died %s", often(w.GetDeaths())), yellow
	}
	if n := m.GetWorker().GetRefused(); n > 0 {
		words, colour = words+fmt.Sprintf(", %s refused", inputs(n)), yellow
	}
	if q := m.GetQuarantined(); len(q) > 0 {
		words += fmt.Sprintf(", v%s in quarantine", q[len(q)-1].GetVersion())
	}
	return words, colour
}

func often(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func inputs(n int64) string {
	if n == 1 {
		return "1 input"
	}
	return fmt.Sprintf("%d inputs", n)
}

func versionOf(v *modelgatev1.ModelVersion) string {
	if v.GetVersion() == "" {
		return "-"
	}
	return "v" + v.GetVersion()
}

func f1Of(v *modelgatev1.ModelVersion) string {
	switch {
	case v.GetVersion() == "":
		return "-"
	case v.F1 == nil:
		return "unknown"
	}
	return fmt.Sprintf("%.4f", v.GetF1())
}

func (a *app) listVersions(ctx context.Context, c *client, f *clientFlags, model string) error {
	r, err := c.models.ListVersions(ctx, &modelgatev1.ListVersionsRequest{Model: model})
	if err != nil {
		return err
	}
	if f.output == "json" {
		return printJSON(a.out, r)
	}
	t := table{head: []string{"VERSION", "F1", "CREATED", "RUN", "SOURCE"}}
	for _, v := range r.GetVersions() {
		t.add(cell{versionOf(v), bold}, cell{text: f1Of(v)}, cell{text: ago(v.GetCreated())}, cell{text: orDash(v.GetRun())}, cell{orDash(v.GetSource()), faint})
	}
	t.print(a.out, a.palette(a.out))
	return nil
}

func (a *app) watchModels(ctx context.Context, c *client, f *clientFlags, models []string) error {
	stream, err := c.models.WatchModels(ctx, &modelgatev1.WatchModelsRequest{Models: models})
	if err != nil {
		return err
	}
	p := a.palette(a.out)
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if f.output == "json" {
			b, err := compactJSON(r)
			if err != nil {
				return err
			}
			printf(a.out, "%s\n", b)
			continue
		}
		m := r.GetModel()
		state, colour := stateOf(m)
		printf(a.out, "%s  %s  %s  %s F1 %s  %s\n", p.paint(faint, time.Now().Format(time.TimeOnly)), p.paint(bold, m.GetName()),
			p.paint(colour, state), versionOf(m.GetActive()), f1Of(m.GetActive()), p.paint(faint, changeOf(r)))
	}
}

func changeOf(r *modelgatev1.WatchModelsResponse) string {
	if r.GetChange() == "decision" {
		return r.GetModel().GetLastDecision().GetReason()
	}
	return r.GetChange()
}

// completeModels completes the first n arguments with the names that the server knows.
func (a *app) completeModels(f **clientFlags, n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if n >= 0 && len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		(*f).timeout = time.Second // somebody waits at a prompt
		var names []cobra.Completion
		err := (*f).call(completionContext(cmd), func(ctx context.Context, c *client) error {
			r, err := c.models.ListModels(ctx, &modelgatev1.ListModelsRequest{})
			for _, m := range r.GetModels() {
				names = append(names, cobra.CompletionWithDesc(m.GetName(), versionOf(m.GetActive())+", F1 "+f1Of(m.GetActive())))
			}
			return err
		})
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func completionContext(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
