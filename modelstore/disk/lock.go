package disk

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a waiting gateway asks for a lock again: flock(2) can't wait for a lock and a context at once.
const lockPoll = 20 * time.Millisecond

// tryExclusive takes the lock on path if nobody holds it; nil means that somebody does.
func tryExclusive(path string) (*flock.Flock, error) {
	return take(path, (*flock.Flock).TryLock)
}

// waitExclusive takes the lock on path when nobody holds it any more.
func waitExclusive(ctx context.Context, path string) (*flock.Flock, error) {
	return take(path, func(f *flock.Flock) (bool, error) { return f.TryLockContext(ctx, lockPoll) })
}

// waitShared takes a shared lock on path when nobody holds it exclusively any more.
func waitShared(ctx context.Context, path string) (*flock.Flock, error) {
	return take(path, func(f *flock.Flock) (bool, error) { return f.TryRLockContext(ctx, lockPoll) })
}

// take locks path, and again if the file that it locked was removed meanwhile by a sweep: such a lock would exclude nobody.
func take(path string, lock func(*flock.Flock) (bool, error)) (*flock.Flock, error) {
	for {
		f := flock.New(path)
		ok, err := lock(f)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !ok {
			return nil, nil
		}
		if isCurrent(f, path) {
			return f, nil
		}
		if err := f.Unlock(); err != nil {
			return nil, fmt.Errorf("unlock %s: %w", path, err)
		}
	}
}

func isCurrent(f *flock.Flock, path string) bool {
	locked, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(locked, named)
}
