package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"modelgate/inference/engine"
	"modelgate/inference/engine/worker"
)

// probeJob does what its spec says, a word and a path each, and tells what came of it.
func probeJob(_ engine.Engine, spec json.RawMessage) (any, error) {
	var steps []string
	if err := json.Unmarshal(spec, &steps); err != nil {
		return nil, err
	}
	var said []string
	for _, step := range steps {
		what, path, _ := strings.Cut(step, " ")
		switch what {
		case "die":
			_ = unix.Kill(os.Getpid(), unix.SIGSEGV)
			select {}
		case "hang":
			for n := 0; ; n++ {
				_ = n
			}
		case "killed":
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		case "fail":
			return nil, fmt.Errorf("%w: as told", engine.ErrInput)
		case "write":
			said = append(said, told(os.WriteFile(path, make([]byte, 100), 0o600)))
		case "large":
			said = append(said, told(os.WriteFile(path, make([]byte, 2000), 0o600)))
		case "read":
			_, err := os.ReadFile(path)
			said = append(said, told(err))
		case "remove":
			said = append(said, told(os.Remove(path)))
		case "policy":
			said = append(said, scheduling())
		}
	}
	return said, nil
}

func told(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return fmt.Sprint(err)
}

// A job may read and write what it is given, and nothing else.
func TestJobsWalls(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"out", "secret"} {
		if err := os.WriteFile(path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(read, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	steps := []string{
		"policy", "read " + read, "write " + path("out"), "read " + path("out"), "large " + path("out"), "write " + read, "write " + path("new"),
		"write " + path("secret"), "read " + path("secret"), "read /proc/self/environ", "remove " + path("out"),
	}
	policy := "5"
	if os.Geteuid() != 0 {
		policy = "3"
	}
	want := []string{policy, "<nil>", "<nil>", "<nil>", "EFBIG", "EACCES", "EACCES", "EACCES", "EACCES", "EACCES", "EACCES"}
	var said []string
	j := worker.Job{Spec: steps, Reads: []string{filepath.Dir(read)}, Writes: []string{path("out")}, FileLimit: 1000}
	if err := newEngine(t, worker.Options{}, "probe", "-").Do(t.Context(), j, &said); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(said, want) {
		t.Errorf("%v\nwant %v", said, want)
	}
	st, err := os.Stat(path("out"))
	if err != nil || st.Size() > 1000 {
		t.Errorf("it wrote %d bytes, %v", st.Size(), err)
	}
}

// Whose fault it is that a job came to nothing.
func TestJobsThatFail(t *testing.T) {
	e := newEngine(t, worker.Options{LoadTimeout: 5 * time.Second, Grace: time.Second}, "probe", "-")
	for step, graph := range map[string]bool{"die": true, "killed": false, "fail": false} {
		err := e.Do(t.Context(), worker.Job{Spec: []string{step}}, new([]string))
		if err == nil || errors.Is(err, engine.ErrGraph) != graph || (step == "fail") != errors.Is(err, engine.ErrInput) {
			t.Errorf("%s: %v", step, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := e.Do(ctx, worker.Job{Spec: []string{"hang"}}, new([]string)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	if err := e.Do(t.Context(), worker.Job{Spec: []string{"policy"}}, new(int)); !errors.Is(err, engine.ErrGraph) {
		t.Errorf("a result of another type: %v", err)
	}
	if len(childrenOf(t)) > 0 {
		t.Errorf("children are left: %v", childrenOf(t))
	}
}
