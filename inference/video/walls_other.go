//go:build !linux

package video

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// walls can't be built here: what shuts ffmpeg in is Linux's.
type walls struct {
	name  string
	flags uintptr
}

func allWalls() []walls { return nil }

func (walls) attributes() *syscall.SysProcAttr { return nil }

var errLinux = errors.New("clips are decoded on Linux only")

func lowestPriority(int) error { return errLinux }

func lowPriority(int) error { return errLinux }

func processorTime(int) (time.Duration, error) { return 0, errLinux }

func processorWait(int) time.Duration { return unknownWait }

func killGroup(int) error { return errLinux }

func sealed([]byte) (*os.File, error) { return nil, errLinux }
