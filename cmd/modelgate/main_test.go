package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"modelgate/examples"
	"modelgate/inference/engine/enginetest"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// TestMain lets this binary be the program: the scripts and the tests run it under the name modelgate.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"modelgate": main})
}

// TestScripts runs the program as its users do. See testdata/script; beside testscript's own commands there are those of commands.
func TestScripts(t *testing.T) {
	library, ffmpeg := enginetest.Library(t), enginetest.FFmpeg(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		Cmds:                commands(),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values[scriptGateway{}] = &scriptState{}
			program, err := exec.LookPath("modelgate")
			if err != nil {
				return err
			}
			e.Setenv("PROGRAM", program) // where a script has no PATH
			for name, value := range map[string]string{
				"MODELGATE_ONNXRUNTIME": library,
				"MODELGATE_FFMPEG":      ffmpeg,
				"MODELGATE_DATA_DIR":    filepath.Join(e.WorkDir, "data"),
				"MODELGATE_GRPC_ADDR":   "127.0.0.1:0",
				"MODELGATE_HTTP_ADDR":   "127.0.0.1:0",
			} {
				e.Setenv(name, value)
			}
			if isolation := os.Getenv("MODELGATE_ISOLATION"); isolation != "" { // make test-in-process
				e.Setenv("MODELGATE_ISOLATION", isolation)
			}
			return nil
		},
	})
}

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"code":      cmdCode,
		"publish":   cmdPublish,
		"gateway":   cmdGateway,
		"terminate": cmdTerminate,
		"await":     cmdAwait,
	}
}

// cmdCode is "code N COMMAND...": the command ends with that exit code.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// cmdPublish is "publish EXAMPLE FOLDER [F1]": version EXAMPLE of the embedded model, or a small video or fusion model, appears as
// FOLDER, with that F1, or none for "-".
func cmdPublish(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: publish EXAMPLE FOLDER [F1]")
	}
	f1 := ""
	if len(args) == 3 {
		f1 = args[2]
	}
	ts.Check(publish(args[0], ts.MkAbs(args[1]), f1))
}

// publish makes an example appear as folder, by rename.
func publish(example, folder, f1 string) error {
	tmp := filepath.Join(filepath.Dir(folder), ".new-"+filepath.Base(folder))
	ofClips := example == "video" || example == "fusion"
	if err := writeExample(example, tmp, ofClips); err != nil {
		return err
	}
	metrics := filepath.Join(tmp, "metrics.json")
	if f1 != "" && !ofClips { // the manifest lists the file's digest
		if err := errors.Join(os.Remove(metrics), os.Remove(filepath.Join(tmp, "manifest.json"))); err != nil {
			return err
		}
	}
	if f1 != "" && f1 != "-" {
		if err := os.WriteFile(metrics, fmt.Appendf(nil, `{"eval_f1": %s}`, f1), 0o600); err != nil {
			return err
		}
	}
	return os.Rename(tmp, folder)
}

func writeExample(example, folder string, ofClips bool) error {
	if ofClips {
		return enginetest.VideoBundle{Fusion: example == "fusion", Seed: 3}.Write(folder)
	}
	from, err := fs.Sub(examples.Models(), "text/"+example)
	if err != nil {
		return err
	}
	return os.CopyFS(folder, from)
}

// cmdGateway is "gateway ARGS...": it runs `modelgate serve ARGS` until terminate or the end of the script, and waits until it is ready.
// $MODELGATE_ADDR and $HTTP are its addresses then.
func cmdGateway(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("use code 1 modelgate serve")
	}
	p, err := start(environ(ts), ts.MkAbs("."), append([]string{"serve"}, args...)...)
	ts.Check(err)
	ts.Defer(p.kill)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.awaitReady(ctx); err != nil {
		ts.Fatalf("%v\n%s", err, p.log())
	}
	ts.Setenv("MODELGATE_ADDR", p.grpc)
	ts.Setenv("HTTP", p.http)
	stateOfScript(ts).gateway = p
}

// environ is what a gateway gets of a script's environment.
func environ(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"HOME", "PATH", "TMPDIR", "MODELGATE_ONNXRUNTIME", "MODELGATE_FFMPEG", "MODELGATE_DATA_DIR", "MODELGATE_GRPC_ADDR", "MODELGATE_HTTP_ADDR",
		"MODELGATE_TOKEN_FILE", "MLFLOW_ENABLED", "MLFLOW_TRACKING_URI"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// scriptState is what the commands of one script share, under the key scriptGateway.
type scriptState struct{ gateway *process }

type scriptGateway struct{}

func stateOfScript(ts *testscript.TestScript) *scriptState {
	s, ok := ts.Value(scriptGateway{}).(*scriptState)
	if !ok {
		ts.Fatalf("the script has no state")
	}
	return s
}

// cmdTerminate is "terminate": SIGTERM to the gateway, which ends with code 0. Its log is in the file log.
func cmdTerminate(ts *testscript.TestScript, _ bool, _ []string) {
	p := stateOfScript(ts).gateway
	if p == nil {
		ts.Fatalf("no gateway runs")
	}
	ts.Check(p.terminate())
	if err := p.wait(patience); err != nil {
		ts.Fatalf("the gateway ended with %v\n%s", err, p.log())
	}
	ts.Check(os.WriteFile(ts.MkAbs("log"), []byte(p.log()), 0o600))
}

// cmdAwait is "await MODEL VERSION": that version serves, or "await MODEL VERSION CODE": and the newest decision has that code.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await MODEL VERSION [CODE]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p := stateOfScript(ts).gateway
	ts.Check(p.await(ctx, func(m *modelgatev1.Model) bool {
		return m.GetName() == args[0] && m.GetActive().GetVersion() == args[1] && (len(args) == 2 || m.GetLastDecision().GetCode() == args[2])
	}))
}
