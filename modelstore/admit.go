package modelstore

import (
	"context"
	"errors"
)

// ErrNoMemory says that a version isn't loaded for now because there is too little memory for it beside what serves.
var ErrNoMemory = errors.New("too little memory")

// An Admission asks whether there is memory to load a version.
type Admission struct {
	Bundle  Bundle
	Active  *Bundle  // what serves under the same name and goes on to; nil: nothing
	Leaving []Bundle // what is closed before the load, and whose memory is free by then
}

// admit asks for b's memory as if all that leaves were gone already. The caller has the slot's turn.
func (s *Store[M]) admit(sl *slot[M], b Bundle) (loaded func(), err error) {
	if s.o.Admit == nil {
		return func() {}, nil
	}
	a := Admission{Bundle: b}
	if sl.active != nil { // only the holder of the turn changes it
		a.Active = &sl.active.bundle
	}
	for _, l := range sl.draining {
		a.Leaving = append(a.Leaving, l.bundle)
	}
	if sl.standby != nil {
		a.Leaving = append(a.Leaving, sl.standby.bundle)
	}
	return s.o.Admit(a)
}

// hopeless says why b can't be loaded even when all that leaves is gone: then it need not go. The caller has the slot's turn.
func (s *Store[M]) hopeless(sl *slot[M], b Bundle) error {
	if sl.standby == nil {
		return nil // there is nothing to be spared
	}
	loaded, err := s.admit(sl, b)
	if err != nil {
		return err
	}
	loaded()
	return nil
}

// makeRoomFor retires the standby and waits until all that leaves is closed, if there is memory for b then. The caller has the slot's
// turn, and calls loaded when b is loaded, or isn't.
func (s *Store[M]) makeRoomFor(ctx context.Context, sl *slot[M], b Bundle, t Timings) (loaded func(), err error) {
	if err := s.hopeless(sl, b); err != nil {
		return nil, err
	}
	if err := s.phase(b.Version, PhaseRetire, t, func() error { return s.makeRoom(ctx, sl) }); err != nil {
		return nil, err
	}
	return s.admit(sl, b)
}
