package video_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// watchReads tells later whether anybody opened or read the file. The kernel notes it, so nothing is missed.
func watchReads(t *testing.T, path string) func() bool {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	})
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_ACCESS); err != nil {
		t.Fatal(err)
	}
	seen := func() bool {
		n, err := unix.Read(fd, make([]byte, 4096))
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		return n > 0
	}
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if !seen() {
		t.Fatal("the watch doesn't see a read")
	}
	return seen
}
