package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"modelgate/cmd/modelgate/config"
)

// settingsFlags adds a flag for every setting, and returns what loads the configuration when the command runs.
func (a *app) settingsFlags(cmd *cobra.Command) func() (*config.Loaded, error) {
	given := make(map[string]string)
	var file string
	var sets []string
	fs := cmd.Flags()
	fs.StringVar(&file, "config", "", "YAML file with settings (MODELGATE_CONFIG)")
	fs.StringArrayVar(&sets, "set", nil, "a setting by its path, such as --set models.spam.f1_threshold=0.8; may be repeated")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	for _, s := range config.Defaults(a.environ) {
		for i, name := range s.Flags {
			v := &settingValue{given: given, path: s.Path, kind: s.Kind, text: s.Text()}
			flag := fs.VarPF(v, name, "", fmt.Sprintf("%s (%s)", strings.TrimSuffix(s.Help, "."), s.Env))
			flag.Hidden = i > 0 || strings.HasPrefix(s.Path, "models.")
			if s.Kind == "bool" {
				flag.NoOptDefVal = "true"
			}
			if strings.HasSuffix(s.Path, "_dir") {
				_ = cmd.MarkFlagDirname(name)
			}
		}
	}
	return func() (*config.Loaded, error) {
		l, err := config.Load(config.Sources{Flags: given, Set: sets, Env: a.environ, File: file})
		if err != nil {
			return nil, &usageError{fmt.Errorf("configuration: %w", err)}
		}
		return l, nil
	}
}

// settingValue is a flag that notes that it was given.
type settingValue struct {
	given            map[string]string
	path, kind, text string
}

func (v *settingValue) String() string { return v.text }
func (v *settingValue) Type() string   { return v.kind }

// Set notes the text; config.Load checks it along with the other sources.
func (v *settingValue) Set(text string) error {
	v.given[v.path], v.text = text, text
	return nil
}
