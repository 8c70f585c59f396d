package modelstore

import "time"

// An Event tells metrics and logs what happens to a version. Which fields are set depends on the kind.
type Event struct {
	Kind     EventKind
	Version  Version
	Phase    Phase         // PhaseEnded
	Duration time.Duration // PhaseEnded; Compared: of a run of Version, 0 if it wasn't measured
	Before   time.Duration // Compared: of a run of the version that serves
	Err      error         // PhaseEnded, Checked: nil if it went well; CloseFailed, CheckFailed: why; Compared: what was found against Version
	Anyway   bool          // Compared: what was found doesn't count
	Entry    *Entry        // Decided
	Done     int64         // Progressed: bytes fetched so far
	Total    int64         // Progressed: bytes in all; 0 if unknown
}

// EventKind says what an Event tells.
type EventKind int

// The kinds of events.
const (
	PhaseEnded  EventKind = iota // one phase of a swap has ended
	CloseFailed                  // a version was closed and said that something went wrong
	Decided                      // an entry was written to the ledger
	Checked                      // a pass asked the registry, whatever became of the candidates; Version.Model names the model
	Progressed                   // a download goes on
	CheckFailed                  // a pass couldn't ask the registry; Version.Model names the model
	Compared                     // a candidate was held against the version that serves
)

// A Phase is one step of a version on its way in or out.
type Phase string

// The phases, in the order in which a version goes through them.
const (
	PhaseFetch       Phase = "fetch"        // download into a private folder
	PhaseVerify      Phase = "verify"       // manifest, sizes, digests, fsync, rename
	PhasePrepare     Phase = "prepare"      // rehearse it away from what serves, and make the form of it that loads fast
	PhaseRetire      Phase = "retire"       // wait for the standby to close, so that no third version is in memory
	PhaseLoad        Phase = "load"         // open the bundle
	PhaseWarmUp      Phase = "warm_up"      // run it on the shapes of traffic
	PhaseCheck       Phase = "check"        // hold it against what its publisher promised
	PhaseCompare     Phase = "compare"      // hold it against the version that serves
	PhasePublishWait Phase = "publish_wait" // wait for the write lock
	PhasePublishHeld Phase = "publish_held" // the write lock is held
	PhaseDrain       Phase = "drain"        // from retirement to closed
)

// What a comparison measures has its place among the timings, though it is no phase.
const (
	PhaseRunBefore Phase = "run_before" // a run of the version that serves
	PhaseRun       Phase = "run"        // a run of the candidate on the same input
)

// Timings are the durations of a swap's phases.
type Timings map[Phase]time.Duration

// Seconds gives the timings as the ledger has them.
func (t Timings) Seconds() map[string]float64 {
	s := make(map[string]float64, len(t))
	for p, d := range t {
		s[string(p)] = d.Seconds()
	}
	return s
}

// phase runs f, notes how long it took and tells the observer.
func (s *Store[M]) phase(v Version, p Phase, t Timings, f func() error) error {
	began := time.Now()
	err := f()
	t[p] = time.Since(began)
	s.o.Observe(Event{Kind: PhaseEnded, Version: v, Phase: p, Duration: t[p], Err: err})
	return err
}

// report tells the observer of a phase that can't fail.
func (s *Store[M]) report(v Version, p Phase, d time.Duration) {
	s.o.Observe(Event{Kind: PhaseEnded, Version: v, Phase: p, Duration: d})
}
