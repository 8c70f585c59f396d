package modelstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Source is a registry: it says which version of a model is promoted and hands out its files.
// It is not trusted: the Updater checks what it says and the disk cache what it delivers.
//
// Model is always the name under which a model is served; the Source knows what the registry calls it.
// Methods are safe for concurrent use, honour ctx, and return errors that wrap one of the sentinels below
// where it applies; every other error means "try again later".
type Source interface {
	// Latest is the version that the registry's pointer (alias or stage) names now, without its F1 and with Pointer set;
	// a Source without pointers names its newest version, with Pointer "newest".
	Latest(ctx context.Context, model string) (Version, error)
	// Versions lists the versions of a model, newest (highest number) first, without their F1s.
	Versions(ctx context.Context, model string) ([]Version, error)
	// F1 reads the metric that the policy judges. A metric that is missing or can't be used is no error: it is an unknown F1.
	F1(ctx context.Context, v Version) (F1, error)
	// Fetch writes the files of exactly v below dir, which exists and may hold part of an earlier attempt at the same v,
	// to be resumed. progress, if not nil, is called with bytes so far and in all (0 if unknown), from one goroutine at a time.
	Fetch(ctx context.Context, v Version, dir string, progress func(done, total int64)) error
}

// A Promoter is a Source that can move the registry's pointer, for `candidates: newest`.
type Promoter interface {
	// MarkPromoted makes v the promoted version in the registry.
	MarkPromoted(ctx context.Context, v Version) error
}

// A RetryLater is an error of a Source whose registry said how long it wants to be left alone (HTTP's Retry-After).
type RetryLater interface {
	error
	RetryAfter() time.Duration // 0 if it said nothing
}

var (
	// ErrNoModel says that the registry has no such model, yet.
	ErrNoModel = errors.New("the registry has no such model")
	// ErrNoVersion says that the model is registered but no version is promoted, or not that one.
	ErrNoVersion = errors.New("the registry has no such version")
	// ErrPermanent marks a failure that trying again can't mend: a bad digest, a bad graph, a failed check.
	ErrPermanent = errors.New("permanent")
)

// Permanent wraps err so that errors.Is(err, ErrPermanent) holds: the candidate goes into quarantine. It keeps err's text.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string        { return e.err.Error() }
func (e *permanentError) Unwrap() error        { return e.err }
func (e *permanentError) Is(target error) bool { return target == ErrPermanent }

// A Bundle is a version's folder on disk: complete, verified, immutable, and locked against clean-up until Release.
type Bundle struct {
	Version Version // with Digest
	Dir     string
	// Prepared is the folder of what was made of the bundle so that it loads fast; empty: nothing was. It is immutable and locked too.
	Prepared string
	Release  func() // called once, when nothing uses Dir any more; never nil
	// Anyway says that the version is to serve however it compares with the one that serves: the operator asked for it, or it served before.
	Anyway bool
	// Restored says that it served here before a restart, and that nothing serves before it is loaded: what takes long can wait.
	Restored bool
}

// String is for people.
func (b Bundle) String() string { return fmt.Sprintf("%v in %s", b.Version, b.Dir) }
