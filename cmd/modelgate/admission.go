package main

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"

	"modelgate/inference"
	"modelgate/modelstore"
)

// admission refuses versions for which there is too little memory, before they are loaded. Safe for concurrent use.
type admission struct {
	root     fs.FS // with /proc and /sys
	limit    int64 // bytes that this process and its workers may take; 0: what machine and cgroups say
	log      *slog.Logger
	process  func(model string) int // that computes the version of a model that serves, alone; 0: there is none
	expected atomic.Int64           // what loads in progress may take
}

func newAdmission(limit int64, log *slog.Logger) *admission {
	return &admission{root: os.DirFS("/"), limit: limit, log: log, process: func(string) int { return 0 }}
}

// admit holds what a load is expected to take at most against what is free. Of what can't be known nothing is refused, nor is what served
// before a restart, or what the operator asks for, while nothing else serves.
func (a *admission) admit(q modelstore.Admission) (loaded func(), err error) {
	nothing := func() {}
	need, err := loadMemory(q.Bundle)
	if err != nil {
		return nothing, nil //nolint:nilerr // the load says what is wrong with it
	}
	grown := a.grown(q.Active)
	need += grown
	// First this load counts for others, and then the memory is read: of two at once at least one sees the other.
	others := a.expected.Add(need) - need
	loaded = func() { a.expected.Add(-need) }
	r, ok := a.room()
	if !ok {
		return loaded, nil
	}
	free := r.free - others
	for _, b := range q.Leaving {
		if is, err := loadMemory(b); err == nil {
			free += is
		}
	}
	if need <= free {
		return loaded, nil
	}
	err = tooLittle(need, grown, free, r, others, len(q.Leaving) > 0)
	if q.Active == nil && q.Bundle.Anyway {
		a.log.Warn("a version is loaded although memory may not suffice, since nothing else serves", "version", q.Bundle.Version.String(), "reason", err)
		return loaded, nil
	}
	loaded()
	return nothing, err
}

// grown is how much more the version that serves has come to take than its files say: long texts and large batches leave memory to the
// engine, and will to the next version.
func (a *admission) grown(active *modelstore.Bundle) int64 {
	if active == nil {
		return 0
	}
	pid := a.process(active.Version.Model)
	if pid == 0 {
		return 0
	}
	said, err := loadMemory(*active)
	if err != nil {
		return 0
	}
	took, err := takenBelow(a.root, pid)
	if err != nil {
		return 0
	}
	return max(0, took-said)
}

// loadMemory is what loading b takes, in its prepared form if there is one.
func loadMemory(b modelstore.Bundle) (int64, error) {
	if r, err := readRehearsal(b.Prepared); err == nil && r != nil && r.Graph != "" {
		return inference.PreparedMemory(r.Graph), nil
	}
	return inference.LoadMemory(b.Dir)
}

// room is what is free.
func (a *admission) room() (room, bool) {
	if a.limit == 0 {
		return freeMemory(a.root)
	}
	taken, err := takenBelow(a.root, os.Getpid())
	return room{max(0, a.limit-taken), a.limit, "memory_limit"}, err == nil
}

// tooLittle says by how much memory falls short.
func tooLittle(need, grown, free int64, r room, others int64, leaving bool) error {
	const mib = 1 << 20
	note, why := "", ""
	if grown > 0 {
		why = fmt.Sprintf(" (%d MiB of them since the version that serves has come to take so much more than its files say)", (grown+mib-1)/mib)
	}
	if others > 0 {
		note += fmt.Sprintf("; %d MiB are left to other loads", others/mib)
	}
	if leaving {
		note += "; the version before is counted as gone"
	}
	return fmt.Errorf("%w: it needs about %d MiB to load%s, and %d MiB of %d MiB are free (%s%s): free memory, raise the limit "+
		"(memory_limit, if set, stands in for that of machine and cgroup), or choose a smaller model",
		modelstore.ErrNoMemory, (need+mib-1)/mib, why, max(0, free)/mib, r.limit/mib, r.whose, note)
}
