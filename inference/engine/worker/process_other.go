//go:build !linux

package worker

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"time"
)

// What shuts a worker in is Linux's.
var errLinux = errors.New("worker processes exist on Linux only: set isolation to none")

func lanePair() (ours, theirs *os.File, err error) { return nil, nil, errLinux }

func socketPair() (*net.UnixConn, *os.File, error) { return nil, nil, errLinux }

func command(context.Context, Options, []*os.File) (*exec.Cmd, error) { return nil, errLinux }

func wait(_ *exec.Cmd, started chan<- error) { started <- errLinux }

func processorTime(int) (time.Duration, error) { return 0, errLinux }

type box struct {
	name     string
	mayRaise bool
}

func controlSocket() (*net.UnixConn, error) { return nil, errLinux }

func laneSocket(int) *os.File { return nil }

func closeInherited(*net.UnixConn, int) error { return errLinux }

func shutIn(openMessage, []string) (*box, error) { return nil, errLinux }

func (*box) lowered(f func()) { f() }

func (*box) raise() {}

func (*box) lowerAll() func() { return func() {} }
