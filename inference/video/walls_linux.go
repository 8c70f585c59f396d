package video

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// walls are what stands between the child and the rest of the machine.
type walls struct {
	name      string
	flags     uintptr // namespaces of its own
	asNobody  bool    // we are root, and it isn't
	mapNobody bool    // it is nobody in a user namespace of its own
}

const nobody = 65534

// allWalls are the ways to shut the child in, the best first. Which of them a machine allows is found by trying.
func allWalls() []walls {
	spaces := uintptr(syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS)
	if os.Geteuid() == 0 {
		return []walls{
			{name: "another user, without network", flags: spaces, asNobody: true},
			{name: "same user, without network", flags: spaces}, // ffmpeg lies where only root may look
			{name: "another user", asNobody: true},
			{name: "resource limits only"},
		}
	}
	return []walls{
		{name: "user namespace, without network", flags: spaces | syscall.CLONE_NEWUSER, mapNobody: true},
		{name: "resource limits only"},
	}
}

func (w walls) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: w.flags}
	if w.asNobody {
		a.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if w.mapNobody {
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// lowestPriority has the kernel run a process, and the threads that it will start, only on processors that nobody else wants.
func lowestPriority(pid int) error {
	return unix.SchedSetAttr(pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
}

// lowPriority gives a process, with all its threads, a tenth of what others get, in long pieces that newcomers may interrupt.
func lowPriority(pid int) error {
	const piece = 100 * time.Millisecond // the longest; kernels before 6.12 know of none
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: 10, Runtime: uint64(piece)}
		if err := unix.SchedSetAttr(id, &a, 0); err != nil && !errors.Is(err, unix.ESRCH) { // it may have ended by itself
			return err
		}
	}
	return nil
}

// processorTime is for how long a process has run.
func processorTime(pid int) (time.Duration, error) {
	const sched = 2 // of the three clocks that the kernel has for each process, the exact one
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|sched), &t)
	return time.Duration(t.Nano()), err
}

// processorWait is for how long a process's threads wanted to run and others had the processors. unknownWait: the kernel doesn't count,
// or a thread wants to run right now, and the kernel counts a wait when it is over.
func processorWait(pid int) time.Duration {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil {
		return unknownWait
	}
	var total time.Duration
	for _, dir := range threads {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		counts, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		var ran, waited int64
		if _, scanErr := fmt.Sscan(string(counts), &ran, &waited); err != nil || scanErr != nil || isRunnable(stat) {
			return unknownWait
		}
		total += time.Duration(waited)
	}
	return total
}

// isRunnable reads a thread's state, which stands behind the program's name.
func isRunnable(stat []byte) bool {
	return bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" R"))
}

// killGroup kills the process group that pid leads. That it is gone already is os.ErrProcessDone.
func killGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	return nil
}

// sealed puts data into a file that has no name and can't be changed any more, not even by who opens it anew.
func sealed(data []byte) (_ *os.File, err error) {
	fd, err := unix.MemfdCreate("clip", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "clip")
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal: %w", err), f.Close())
	}
	return f, nil
}
