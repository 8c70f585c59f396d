package worker

import "modelgate/inference/engine"

// PID is the process of s's worker; 0 while there is none.
func PID(s engine.Session) int {
	x, ok := s.(*session)
	if !ok {
		return 0
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.child == nil {
		return 0
	}
	return x.child.cmd.Process.Pid
}
