package worker

import (
	"time"

	"modelgate/inference/engine"
)

// PID is the process of s's worker; 0 while there is none.
func PID(s engine.Session) int {
	x, ok := s.(*session)
	if !ok {
		return 0
	}
	return x.PID()
}

// StandStill has what loads in e stand still for so long besides half of its time.
func StandStill(e *Engine, spare time.Duration) {
	e.pace.mu.Lock()
	defer e.pace.mu.Unlock()
	e.pace.spare = spare
}

// Paced says that what loads in e stands still again where there is no room for it.
func Paced(e *Engine) bool {
	e.pace.mu.Lock()
	defer e.pace.mu.Unlock()
	return !e.pace.off
}

// Loading are the processes of e that load.
func Loading(e *Engine) []int {
	e.pace.mu.Lock()
	defer e.pace.mu.Unlock()
	var pids []int
	for c := range e.pace.loading {
		pids = append(pids, c.cmd.Process.Pid)
	}
	return pids
}
