package disk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
)

// A sweep may remove a lock file between its opening and its locking by somebody else: that lock excludes nobody and must not count.
func TestLockOnARemovedFileIsTakenAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	tries := 0
	lock, err := take(path, func(f *flock.Flock) (bool, error) {
		tries++
		ok, err := f.TryLock()
		if tries == 1 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		return ok, err
	})
	if err != nil || lock == nil || tries != 2 {
		t.Fatalf("lock %v, error %v, %d tries; want the second to count", lock, err, tries)
	}
	if other, err := tryExclusive(path); err != nil || other != nil {
		t.Errorf("somebody else got lock %v, error %v", other, err)
	}
	if err := lock.Unlock(); err != nil {
		t.Error(err)
	}
}
