package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"modelgate/cmd/modelgate/config"
)

func (a *app) configCommand() *cobra.Command {
	var output string
	var changed, schema bool
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Show the effective settings and where each comes from",
		GroupID: "server",
		Args:    args(cobra.NoArgs),
	}
	load := a.settingsFlags(cmd)
	outputFlag(cmd, &output, "table", "json", "yaml")
	cmd.Flags().BoolVar(&changed, "changed", false, "only what isn't a default")
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the file instead")
	cmd.RunE = func(*cobra.Command, []string) error {
		if schema {
			b, err := config.Schema()
			printf(a.out, "%s", b)
			return err
		}
		l, err := load()
		if err != nil {
			return err
		}
		settings := l.Settings
		if changed {
			settings = slices.DeleteFunc(slices.Clone(settings), func(s config.Setting) bool { return s.Origin == "default" })
		}
		for _, w := range l.Warnings {
			printf(a.err, "warning: %s\n", w)
		}
		return a.printSettings(settings, output)
	}
	return cmd
}

func (a *app) printSettings(settings []config.Setting, output string) error {
	switch output {
	case "json":
		return a.settingsJSON(settings)
	case "yaml":
		return a.settingsYAML(settings)
	}
	t := table{head: []string{"SETTING", "VALUE", "FROM"}}
	for _, s := range settings {
		colour := faint
		if s.Origin != "default" {
			colour = green
		}
		t.add(cell{text: s.Path}, cell{orDash(s.Text()), bold}, cell{s.Origin, colour})
	}
	t.print(a.out, a.palette(a.out))
	return nil
}

func (a *app) settingsJSON(settings []config.Setting) error {
	type setting struct {
		Path  string `json:"path"`
		Value any    `json:"value"`
		From  string `json:"from"`
		Env   string `json:"env"`
	}
	all := make([]setting, len(settings))
	for i, s := range settings {
		all[i] = setting{s.Path, s.Value(), s.Origin, s.Env}
	}
	b, err := json.MarshalIndent(map[string]any{"settings": all}, "", "  ")
	printf(a.out, "%s\n", b)
	return err
}

// settingsYAML prints a file that sets the same, secrets aside.
func (a *app) settingsYAML(settings []config.Setting) error {
	var open []string // the sections that the last line was in
	for _, s := range settings {
		path := strings.Split(s.Path, ".")
		sections, key := path[:len(path)-1], path[len(path)-1]
		same := 0
		for same < len(open) && same < len(sections) && open[same] == sections[same] {
			same++
		}
		for i := same; i < len(sections); i++ {
			printf(a.out, "%s%s:\n", strings.Repeat("  ", i), sections[i])
		}
		open = sections
		value, err := yaml.MarshalWithOptions(s.Value(), yaml.Flow(true))
		if err != nil {
			return fmt.Errorf("write %s: %w", s.Path, err)
		}
		indent, comment := strings.Repeat("  ", len(sections)), ""
		if s.Secret || s.Text() == "" {
			comment = "# " // it is no value to copy
		}
		printf(a.out, "%s%s%s: %s # %s\n", indent, comment, key, strings.TrimSpace(string(value)), s.Origin)
	}
	return nil
}
