package worker

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// A box is what shuts the worker in.
type box struct {
	name string // what it consists of, for people
	*priority
}

// controlSocket is descriptor 3, which the parent left us.
func controlSocket() (*net.UnixConn, error) {
	unix.CloseOnExec(controlFD)
	c, err := connection(os.NewFile(controlFD, "control"))
	if err != nil {
		return nil, fmt.Errorf("a worker is started by modelgate itself, with a socket as descriptor %d: %w", controlFD, err)
	}
	return c, nil
}

// laneSocket is the end of a lane that the parent left us.
func laneSocket(lane int) *os.File {
	return os.NewFile(uintptr(firstLaneFD+lane), "lane")
}

// closeInherited closes all descriptors but those of standard input, output and error, the sockets', and those of Go's poller: what a
// library of the parent forgot to close on exec.
func closeInherited(control *net.UnixConn, lanes int) error {
	raw, err := control.SyscallConn()
	if err != nil {
		return err
	}
	ours := -1
	if err := raw.Control(func(fd uintptr) { ours = int(fd) }); err != nil {
		return err
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= controlFD || fd == ours {
			continue
		}
		if fd < firstLaneFD+lanes {
			unix.CloseOnExec(fd)
			continue
		}
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:") {
			continue // the listing's own, closed by now, or the poller's
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("descriptor %d (%s): %w", fd, target, err)
		}
	}
	return nil
}

// shutIn takes from this process what it doesn't need to load and run the graph that open names.
func shutIn(open openMessage, libraries []string) (*box, error) {
	p, err := newPriority()
	if err != nil {
		return nil, err
	}
	b := &box{priority: p}
	var j job
	if open.Job != nil {
		j = *open.Job
		// Where memory runs out, this process is the one that can be done without.
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	}
	if err := limit(open.DataLimit, j.FileLimit); err != nil {
		return nil, err
	}
	if _, _, e := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return nil, fmt.Errorf("no_new_privs: %w", e)
	}
	b.name = "no new rights, resource limits"
	reads := append([]string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"}, libraries...)
	if open.Path != "" {
		path, err := filepath.EvalSymlinks(open.Path)
		if err != nil {
			path = open.Path // the engine says what is wrong with it
		}
		reads = append(reads, filepath.Dir(open.Path), filepath.Dir(path))
	}
	if err := confine(append(reads, j.Reads...), j.Writes); err != nil {
		return nil, err
	}
	if abi, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); e == 0 {
		b.name += fmt.Sprintf(", landlock %d", abi)
	}
	return b, nil
}

// confine leaves reading these files and folders, if they exist, writing these files, and nothing else: as much of it as this kernel's
// landlock can.
func confine(reads, writes []string) error {
	var rules []landlock.Rule
	for _, path := range reads {
		st, err := os.Stat(path)
		switch {
		case err != nil:
		case st.IsDir():
			rules = append(rules, landlock.PathAccess(readable(true), path))
		default:
			rules = append(rules, landlock.PathAccess(readable(false), path))
		}
	}
	for _, path := range writes {
		const write = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
		rules = append(rules, landlock.PathAccess(write, path))
	}
	return landlock.V7.BestEffort().Restrict(rules...)
}

// readable is the right to read files, and folders; it isn't one to execute what lies there.
func readable(folder bool) landlock.AccessFSSet {
	if folder {
		return unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	}
	return unix.LANDLOCK_ACCESS_FS_READ_FILE
}

// limit sets the limits of resources: no core dumps, so many bytes in a file that is written, and so much memory of its own beyond what
// there is.
func limit(data, file int64) error {
	limits := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: uint64(file)}
	if data > 0 {
		has, err := dataSize()
		if err != nil {
			return err
		}
		limits[unix.RLIMIT_DATA] = uint64(has + data)
	}
	for which, n := range limits {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit %d: %w", which, err)
		}
	}
	return nil
}

// dataSize is how many bytes count against RLIMIT_DATA now.
func dataSize() (int64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmData:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/self/status has no line VmData")
}
