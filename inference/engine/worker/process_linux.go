package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The worker's ends of the sockets, in the worker: the control socket's, and from firstLaneFD on those of the lanes.
const (
	controlFD   = 3
	firstLaneFD = 4
)

// socketBuffer is how much of a message fits into the socket: the more, the fewer turns a large tensor takes. The system may
// allow less.
const socketBuffer = 1 << 20 // bytes

// socketPair is the two ends of a control socket: ours, and the file of the worker's.
func socketPair() (*net.UnixConn, *os.File, error) {
	ours, theirs, err := lanePair()
	if err != nil {
		return nil, nil, err
	}
	c, err := connection(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return c, theirs, nil
}

// lanePair is the two ends of a lane, ours and the worker's. Reads and writes block their threads: Go's poller doesn't know of them.
func lanePair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	for _, fd := range fds {
		// Without the right to more, as much as everybody may have has to do.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
		}
	}
	return os.NewFile(uintptr(fds[0]), "parent"), os.NewFile(uintptr(fds[1]), "worker"), nil
}

// connection makes a connection of f, which it closes.
func connection(f *os.File) (*net.UnixConn, error) {
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("descriptor %s is no Unix socket", f.Name())
	}
	return u, nil
}

// command is a worker to be: nothing of our environment, our folders and our descriptors is in it, but its sockets.
func command(ctx context.Context, o Options, sockets []*os.File) (*exec.Cmd, error) {
	dir, err := os.MkdirTemp("", "modelgate-worker-")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), o.Path) //nolint:gosec // the path is an option of ours
	cmd.Args = o.Args
	cmd.Dir = dir
	// Two arenas, since more of them keep memory that was freed. For Go a processor for each lane, the control socket's and one to spare:
	// so no thread waits for one when it comes out of the engine.
	cmd.Env = []string{"MALLOC_ARENA_MAX=2", "GOMAXPROCS=" + strconv.Itoa(len(sockets)+1)}
	cmd.ExtraFiles = sockets
	// A group of its own: what a terminal sends to the gateway isn't for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	return cmd, nil
}

// timerSlack is by how much timers of a worker may be late.
const timerSlack = time.Millisecond

// wait starts cmd, says so in started, and waits until it has ended. All of it is on one thread, which lives as long as the child:
// the kernel kills the child when the thread that started it ends. The folder that the child is in is removed at once. So it is
// empty, nothing can be made in it, and nobody has to clean up.
func wait(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The worker inherits it: there Go's monitor, which looks after threads that compute, does so every millisecond and not twenty times.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0)
	err := cmd.Start()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // as it was
	_ = os.Remove(cmd.Dir)
	started <- err
	if err == nil {
		_ = cmd.Wait() // ProcessState says it
	}
}

// processorTime is for how long a process has run.
func processorTime(pid int) (time.Duration, error) {
	const sched = 2 // of the three clocks that the kernel has for each process, the exact one
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|sched), &t)
	return time.Duration(t.Nano()), err
}
