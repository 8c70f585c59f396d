package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"modelgate/cmd/modelgate/config"
	"modelgate/inference"
	"modelgate/inference/video"
	"modelgate/modelstore/disk"
)

// report is what validate found.
type report struct {
	Dir        string                `json:"dir"`
	OK         bool                  `json:"ok"`
	Manifest   bool                  `json:"manifest"` // it has a manifest.json, and holds
	Problem    string                `json:"problem,omitempty"`
	Info       *inference.Info       `json:"model,omitempty"`
	LoadMillis float64               `json:"load_ms,omitempty"`
	WarmMillis float64               `json:"warm_up_ms,omitempty"`
	CheckMS    float64               `json:"check_ms,omitempty"`
	Checked    *inference.Checked    `json:"checked,omitempty"` // what its publisher promised and recorded
	Text       *string               `json:"text,omitempty"`
	Clip       string                `json:"clip,omitempty"`
	Prediction *inference.Prediction `json:"prediction,omitempty"`
}

func (a *app) validateCommand() *cobra.Command {
	var output, model string
	var try trial
	cmd := &cobra.Command{
		Use:   "validate DIR",
		Short: "Open a bundle, run it, and say what is wrong with it",
		Long: `Check the folder of one version against its manifest, open it as the gateway would, warm it up, check its contract
and its golden answers, run something through it, and say what is wrong with it.
The exit code is 1 if the gateway would refuse it.`,
		Example: `  modelgate validate models/text/1 --text "what a lovely day"
  modelgate validate models/video/1 --video clip.mp4`,
		GroupID: "server",
		Args:    args(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	load := a.settingsFlags(cmd)
	outputFlag(cmd, &output, "table", "json")
	cmd.Flags().StringVar(&try.text, "text", "a text to try", "what to run through it, if it takes a text")
	cmd.Flags().StringVar(&try.file, "video", "", "a clip to run through it, if it takes one; without it, plain frames")
	cmd.Flags().StringVar(&model, "as", "text", "served name, for the settings of that model")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		r, err := validate(cmd.Context(), c, model, args[0], try)
		if err != nil {
			return err
		}
		return a.printReport(r, output)
	}
	return cmd
}

// validate verifies, opens and runs a bundle. What is wrong with the bundle is in the report; the error is about anything else.
func validate(ctx context.Context, c *config.Loaded, model, dir string, try trial) (r report, err error) {
	r = report{Dir: dir}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return r, errors.Join(fmt.Errorf("%s is not a folder that holds a version", dir), err)
	}
	eng, err := openEngine(ctx, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return r, err
	}
	if err := disk.Verify(ctx, dir); err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	if r.Manifest, err = disk.HasManifest(dir); err != nil {
		return r, err
	}
	if err := checkProvenance(c, model, dir, true); err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	decoder, err := openDecoder(c, nil, slog.New(slog.DiscardHandler)) //nolint:contextcheck // one short run of ffmpeg at the start
	if err != nil {
		return r, err
	}
	if decoder != nil {
		defer func() { err = errors.Join(err, decoder.Close()) }()
	}
	o := modelOptions(c, model)
	o.Decoder = decoder
	began := time.Now()
	m, err := inference.Open(ctx, dir, eng, o)
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
	warm := time.Now()
	r.WarmMillis = millis(warm.Sub(loaded))
	checked, err := m.Examine(ctx)
	if err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	r.Checked, r.CheckMS = &checked, millis(time.Since(warm))
	info := m.Info()
	r.Info = &info
	in, err := try.input(info)
	if err != nil {
		return r, err
	}
	r.Text, r.Clip = in.Text, try.clip(info)
	p, err := m.Predict(ctx, in)
	if err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	r.Prediction, r.OK = &p, true
	return r, nil
}

// A trial is what is run through a bundle.
type trial struct {
	text string
	file string // with a clip
}

// input is as much of the trial as the model takes.
func (t trial) input(info inference.Info) (in inference.Input, err error) {
	if info.Kind != inference.KindVideo {
		in.Text = &t.text
	}
	switch {
	case info.Clip == nil && t.file != "":
		return in, fmt.Errorf("--video %s: this model takes no clip", t.file)
	case info.Clip == nil:
	case t.file != "":
		data, err := os.ReadFile(t.file)
		if err != nil {
			return in, err
		}
		in.Video = &video.Clip{Encoded: data}
	default:
		const width, height, frames = 64, 48, 16
		in.Video = &video.Clip{Raw: &video.Raw{RGB: bytes.Repeat([]byte{128}, frames*width*height*3), Width: width, Height: height}}
	}
	return in, nil
}

// clip says which clip is in the trial.
func (t trial) clip(info inference.Info) string {
	if info.Clip == nil {
		return ""
	}
	return cmp.Or(t.file, "plain grey frames")
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

func holds(there bool) string {
	if there {
		return "holds"
	}
	return "none"
}

func goldenText(c inference.Checked) string {
	if c.Examples == 0 {
		return "none"
	}
	return fmt.Sprintf("holds, examples: %d, largest difference: %.2g", c.Examples, c.Largest)
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
	if i.Clip != nil {
		printf(a.out, "  clip       %v\n", i.Clip)
	}
	if i.MaxLength > 0 {
		printf(a.out, "  max length %d tokens\n", i.MaxLength)
	}
	printf(a.out, "  manifest   %s\n  contract   %s\n  golden     %s\n", holds(r.Manifest), holds(r.Checked.Contract), goldenText(*r.Checked))
	printf(a.out, "  load       %.0f ms, warm-up %.0f ms, check %.0f ms\n", r.LoadMillis, r.WarmMillis, r.CheckMS)
	printf(a.out, "  %s is %s, %.3f\n", inputText(r.Text, r.Clip, 60), p.paint(bold, r.Prediction.Label), r.Prediction.Score)
}
