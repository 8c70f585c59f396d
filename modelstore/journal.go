package modelstore

import (
	"context"
	"time"
)

// A Cache keeps bundles on disk, so that a restart or a rollback needs no registry. modelstore/disk has the real one.
type Cache interface {
	// Lookup finds a complete version that was added before and checks its files against their digests. One whose content isn't
	// v.Declared isn't there.
	// ok is false if it isn't there or is damaged; a damaged one is removed.
	Lookup(ctx context.Context, v Version) (b Bundle, ok bool, err error)
	// Add has fetch write v's files into a private folder, verifies them (manifest, sizes, digests), makes them durable and
	// only then visible, by rename. A version that is there already isn't fetched. A content that can't be right, or isn't v.Declared,
	// is ErrPermanent.
	// timing, if not nil, is told how long each phase took ("fetch", "verify").
	Add(ctx context.Context, v Version, fetch func(ctx context.Context, dir string) error, timing func(phase string, d time.Duration)) (Bundle, error)
	// Prune removes all but the newest kept versions of a model; those in use, here or by another gateway, and those in keep stay.
	Prune(ctx context.Context, model string, keep []Version) error
}

// A Journal remembers across restarts: one Saved state a model, and the ledger of decisions. modelstore/disk has the real one.
type Journal interface {
	// Load returns the state that was saved last, or the zero Saved.
	Load(model string) (Saved, error)
	// Save makes the state durable before it returns.
	Save(model string, s Saved) error
	// Record appends an entry to the ledger.
	Record(e Entry) error
	// History returns the newest entries of a model ("" for all), newest first, at most limit.
	History(model string, limit int) ([]Entry, error)
}

// Saved is what the Updater knows of one model across restarts.
type Saved struct {
	Active      Version       `json:"active"`               // serving, with F1 and digest
	Previous    Version       `json:"previous"`             // what a rollback returns to
	LastPointer Version       `json:"last_pointer"`         // what the registry's pointer named when it was last acted on
	Pin         int64         `json:"pin,omitempty"`        // the operator's pinned version; 0 is none
	Hold        *Hold         `json:"hold,omitempty"`       // set by an operator's Rollback or Promote
	Lost        Version       `json:"lost,omitzero"`        // served before a restart that couldn't find it in the cache; to be fetched again
	Unpromoted  bool          `json:"unpromoted,omitempty"` // the registry is still to be told that Active was promoted
	Quarantine  []Quarantined `json:"quarantine,omitempty"` // candidates that failed for good
}

// A Hold keeps a model where the operator put it until the registry's pointer differs from what it was then.
type Hold struct {
	Pointer Version   `json:"pointer"` // what the pointer named when the hold began; zero if nothing, or if it isn't settled yet
	Settled bool      `json:"settled"` // Pointer counts: the registry was asked, or couldn't be and what it named before is taken
	Since   time.Time `json:"since"`
	Why     string    `json:"why"` // "rollback", "promote"
}

// Quarantined is a candidate that is not tried again until the operator lifts it by promoting it.
type Quarantined struct {
	Version Version   `json:"version"`
	Since   time.Time `json:"since"`
	Why     string    `json:"why"`
}

// An Entry is one line of the decision ledger.
type Entry struct {
	Time      time.Time          `json:"time"`
	Model     string             `json:"model"`
	Candidate Version            `json:"candidate"`
	Active    Version            `json:"active"` // before the decision was carried out
	Threshold float64            `json:"threshold"`
	Outcome   Outcome            `json:"outcome"`
	Code      string             `json:"code"`              // why, as a stable word: "below_threshold"
	Reason    string             `json:"reason"`            // why, as a sentence
	Actor     string             `json:"actor"`             // "policy", "operator", "restart", "supervisor"
	Seconds   map[string]float64 `json:"seconds,omitempty"` // by phase: fetch, verify, prepare, retire, load, warm_up, check, compare, run_before, run, publish_wait, publish_held
}

// An Outcome says what became of a candidate.
type Outcome string

// The outcomes.
const (
	Swapped    Outcome = "swapped"     // it serves now
	RolledBack Outcome = "rolled_back" // an older version serves again
	Refused    Outcome = "refused"     // the policy said no
	Failed     Outcome = "failed"      // it should have been served and couldn't be; retried later, or quarantined
	Restored   Outcome = "restored"    // served from the cache after a restart
	Noted      Outcome = "noted"       // pin, unpin, a registry that refused a promotion, a version that does harm and stays
)
