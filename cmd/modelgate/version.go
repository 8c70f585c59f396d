package main

import (
	"cmp"
	"encoding/json"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"modelgate/inference/engine/ort"
)

// version is set by the linker: go build -ldflags "-X main.version=...".
var version string

// build says what this program is.
type build struct {
	Version     string `json:"version"`
	Revision    string `json:"revision,omitempty"`
	Time        string `json:"time,omitempty"`
	Modified    bool   `json:"modified,omitempty"`
	Go          string `json:"go"`
	Platform    string `json:"platform"`
	ONNXRuntime string `json:"onnxruntime"`
	Library     string `json:"library,omitempty"`
}

func (a *app) versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program and of ONNX Runtime",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			b.ONNXRuntime, b.Library = runtimeVersion(a.getenv("MODELGATE_ONNXRUNTIME", ""))
			if output == "json" {
				j, err := json.MarshalIndent(b, "", "  ")
				printf(a.out, "%s\n", j)
				return err
			}
			printf(a.out, "modelgate %s%s, %s, %s\nONNX Runtime %s", b.Version, b.commit(), b.Go, b.Platform, b.ONNXRuntime)
			if b.Library != "" {
				printf(a.out, ", %s", b.Library)
			}
			printf(a.out, "\n")
			return nil
		},
	}
	outputFlag(cmd, &output, "table", "json")
	return cmd
}

func (b build) commit() string {
	if b.Revision == "" {
		return ""
	}
	s := " (" + b.Revision[:min(12, len(b.Revision))]
	if b.Modified {
		s += ", changed"
	}
	return s + ", " + b.Time + ")"
}

func thisBuild() build {
	b := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = cmp.Or(version, info.Main.Version, b.Version)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// runtimeVersion is ONNX Runtime's version and where it was found, or why it can't be used.
func runtimeVersion(explicit string) (version, path string) {
	path, err := ort.FindLibrary(explicit)
	if err != nil {
		return "not found: " + err.Error(), ""
	}
	e, err := ort.Open(ort.Options{LibraryPath: path})
	if err != nil {
		return "not usable: " + err.Error(), path
	}
	return e.Version(), path
}
