package worker

import (
	"os/exec"
	"testing"

	"modelgate/inference/engine"
)

// What the machine did to a process isn't its run's fault, whatever signal or words it comes in.
func TestEpitaph(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   engine.Cause
	}{
		"crash":                           {"kill -SEGV $$", engine.Crashed},
		"abort":                           {"echo 'terminate called' >&2; kill -ABRT $$", engine.Crashed},
		"division, as Go tells it":        {"echo 'SIGFPE: floating-point exception' >&2; exit 2", engine.Crashed},
		"exit":                            {"exit 3", engine.Crashed},
		"killed":                          {"kill -KILL $$", engine.Killed},
		"disk":                            {"kill -BUS $$", engine.Killed},
		"disk, as Go tells it":            {"echo 'SIGBUS: bus error' >&2; echo 'PC=0x1' >&2; exit 2", engine.Killed},
		"disk in Go's own code":           {"echo 'fatal error: fault' >&2; echo '[signal SIGBUS: bus error code=0x2 addr=0x7 pc=0x4]' >&2; exit 2", engine.Killed},
		"no thread in C++":                {`printf "terminate called after throwing an instance of 'std::system_error'\n  what():  Resource temporarily unavailable\n" >&2; kill -ABRT $$`, engine.Killed},
		"no thread in cgo":                {"echo 'runtime/cgo: pthread_create failed: Resource temporarily unavailable' >&2; kill -ABRT $$", engine.Killed},
		"no thread in Go":                 {"echo 'runtime: failed to create new OS thread (have 9 already; errno=11)' >&2; exit 2", engine.Killed},
		"a node that is named after that": {"echo 'node Resource temporarily unavailable: SIGBUS: bus error' >&2; kill -ABRT $$", engine.Crashed},
	} {
		t.Run(name, func(t *testing.T) {
			var h head
			cmd := exec.Command("sh", "-c", c.script)
			cmd.Stderr = &h
			if err := cmd.Run(); err == nil {
				t.Fatal("it ended well")
			}
			if text, cause := h.epitaph(cmd.ProcessState, nil); cause != c.want {
				t.Errorf("%s: cause %v, want %v", text, cause, c.want)
			}
		})
	}
}
