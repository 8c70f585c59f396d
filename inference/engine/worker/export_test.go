package worker

import "modelgate/inference/engine"

// PID is the process of s's worker; 0 while there is none.
func PID(s engine.Session) int {
	x, ok := s.(*session)
	if !ok {
		return 0
	}
	return x.PID()
}
