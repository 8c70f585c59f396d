package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"modelgate/cmd/modelgate/config"
	"modelgate/inference"
	"modelgate/modelstore/disk"
)

// report is what validate found.
type report struct {
	Dir        string                `json:"dir"`
	OK         bool                  `json:"ok"`
	Problem    string                `json:"problem,omitempty"`
	Info       *inference.Info       `json:"model,omitempty"`
	LoadMillis float64               `json:"load_ms,omitempty"`
	WarmMillis float64               `json:"warm_up_ms,omitempty"`
	Text       string                `json:"text,omitempty"`
	Prediction *inference.Prediction `json:"prediction,omitempty"`
}

func (a *app) validateCommand() *cobra.Command {
	var output, text, model string
	cmd := &cobra.Command{
		Use:   "validate DIR",
		Short: "Open a bundle, run it, and say what is wrong with it",
		Long: `Check the folder of one version against its manifest, open it as the gateway would, warm it up, run a text through it, and say what is wrong with it.
The exit code is 1 if the gateway would refuse it.`,
		Example: "  modelgate validate models/text/1 --text \"what a lovely day\"",
		GroupID: "server",
		Args:    args(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	load := a.settingsFlags(cmd)
	outputFlag(cmd, &output, "table", "json")
	cmd.Flags().StringVar(&text, "text", "a text to try", "what to run through it")
	cmd.Flags().StringVar(&model, "as", "text", "served name, for the settings of that model")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		r, err := validate(cmd.Context(), c, model, args[0], text)
		if err != nil {
			return err
		}
		return a.printReport(r, output)
	}
	return cmd
}

// validate verifies, opens and runs a bundle. What is wrong with the bundle is in the report; the error is about anything else.
func validate(ctx context.Context, c *config.Loaded, model, dir, text string) (r report, err error) {
	r = report{Dir: dir, Text: text}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return r, errors.Join(fmt.Errorf("%s is not a folder that holds a version", dir), err)
	}
	eng, err := openEngine(c)
	if err != nil {
		return r, err
	}
	if err := disk.Verify(ctx, dir); err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	began := time.Now()
	m, err := inference.Open(ctx, dir, eng, modelOptions(c, model))
	if err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	loaded := time.Now()
	r.LoadMillis = millis(loaded.Sub(began))
	if err := m.WarmUp(ctx); err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	r.WarmMillis = millis(time.Since(loaded))
	info := m.Info()
	r.Info = &info
	p, err := m.Predict(ctx, inference.Input{Text: &text})
	if err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	r.Prediction, r.OK = &p, true
	return r, nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (a *app) printReport(r report, output string) error {
	if output == "json" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		printf(a.out, "%s\n", b)
	} else {
		a.printReportText(r)
	}
	if !r.OK {
		return errReported
	}
	return nil
}

func (a *app) printReportText(r report) {
	p := a.palette(a.out)
	if !r.OK {
		printf(a.out, "%s  %s\n%s\n", p.paint(red, "can't be served"), r.Dir, r.Problem)
		return
	}
	i := r.Info
	printf(a.out, "%s  %s\n", p.paint(green, "can be served"), r.Dir)
	printf(a.out, "  graph      %s\n  inputs     %s\n  outputs    %s\n  labels     %s\n", i.Graph, strings.Join(i.Inputs, ", "), strings.Join(i.Outputs, ", "), strings.Join(i.Labels, ", "))
	if i.PositiveLabel != "" {
		printf(a.out, "  decision   %s >= %.4g\n", i.PositiveLabel, i.Threshold)
	} else {
		printf(a.out, "  decision   none: no positive label (positive_label in modelgate.yaml, or in the gateway's settings)\n")
	}
	if i.MaxLength > 0 {
		printf(a.out, "  max length %d tokens\n", i.MaxLength)
	}
	printf(a.out, "  load       %.0f ms, warm-up %.0f ms\n", r.LoadMillis, r.WarmMillis)
	printf(a.out, "  %s is %s, %.3f\n", shorten(r.Text, 60), p.paint(bold, r.Prediction.Label), r.Prediction.Score)
}
