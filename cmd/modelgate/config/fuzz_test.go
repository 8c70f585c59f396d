package config_test

import (
	"strings"
	"testing"

	"modelgate/cmd/modelgate/config"
)

// FuzzFile: whatever a file says, it is refused in an error that names it, or gives settings that say the same when they are given one by one.
// No secret is shown either way.
func FuzzFile(f *testing.F) {
	for _, s := range []string{
		"grpc_addr: 127.0.0.1:0\nmodels:\n  spam:\n    f1_threshold: 0.9\n",
		"mlflow: {password: hunter2-hunter2, token: hunter2-hunter2, webhook_secret: hunter2-hunter2}\n",
		"mlflow:\n  password: hunter2-hunter2\n  pasword: x\n",
		"mlflow:\n  token: [hunter2-hunter2]\n",
		"mlflow:\n  token: hunter2-hunter2\n bad indent: {\n",
		"mlflow:\n  tracking_uri: http://me:hunter2-hunter2@127.0.0.1:5000\n",
		"limits: {text_bytes: 64KiB, message_bytes: 9223372036854775807GiB}\n",
		"update_interval: 1h30m\nallowed_hosts: [a, \"b,c\"]\nreflection: false\n",
		"fusion: {text_weight: .nan, video_weight: .inf}\n",
		"models:\n  ../x: {}\n", "a: &a [*a]\n", "---\n---\n", "{", "\x00", "models: {text: {threshold: 1e-400}}\n", "models:\n  ? [a]\n  : b\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 4<<10 || strings.Count(string(content), "[")+strings.Count(string(content), "{") > 100 {
			return // the operator's own file: the parser is slow for hostile ones
		}
		read := func(string) ([]byte, error) { return content, nil }
		l, err := config.Load(config.Sources{File: "gateway.yaml", Read: read, Env: []string{"HOME=/home/me"}})
		if err != nil {
			if !strings.Contains(err.Error(), "gateway.yaml") && !strings.Contains(err.Error(), "default") {
				t.Errorf("the error doesn't name the file: %v", err)
			}
			return
		}
		var sets []string
		for _, s := range l.Settings {
			if s.Secret {
				if text := s.Text(); text != "" && text != config.Hidden || s.Value() != any(text) {
					t.Errorf("%s shows %q", s.Path, text)
				}
				continue
			}
			if s.Origin != "default" && strings.HasPrefix(s.Origin, "gateway.yaml") && !strings.Contains(s.Text(), config.Hidden) {
				sets = append(sets, s.Path+"="+s.Text())
			}
		}
		again, err := config.Load(config.Sources{Set: sets, Env: []string{"HOME=/home/me"}})
		if err != nil {
			t.Fatalf("%q is read, but not %q: %v", content, sets, err)
		}
		for _, s := range again.Settings {
			for _, was := range l.Settings {
				if was.Path == s.Path && s.Origin == "--set" && s.Text() != was.Text() {
					t.Errorf("%s was %q and is %q", s.Path, was.Text(), s.Text())
				}
			}
		}
	})
}
