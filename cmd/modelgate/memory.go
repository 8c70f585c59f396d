package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// room is how much memory may still be taken.
type room struct {
	free, limit int64  // bytes
	whose       string // what sets the limit, for people
}

// freeMemory is the least that this machine and the cgroups of this process leave, as the files of /proc and /sys below root say. Where they
// say nothing, as on other systems than Linux, ok is false.
func freeMemory(root fs.FS) (r room, ok bool) {
	rooms := cgroupRooms(root)
	if m, err := machineRoom(root); err == nil {
		rooms = append(rooms, m)
	}
	r.free = math.MaxInt64
	for _, x := range rooms {
		if x.free < r.free {
			r, ok = x, true
		}
	}
	return r, ok
}

// machineRoom is what the kernel thinks that new programs can have without swapping.
func machineRoom(root fs.FS) (room, error) {
	info, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return room{}, err
	}
	free, err := kibibytes(string(info), "MemAvailable:")
	if err != nil {
		return room{}, err
	}
	total, err := kibibytes(string(info), "MemTotal:")
	return room{free, total, "machine"}, err
}

// cgroupRooms are those of every cgroup that this process is in, up to the root of what it sees, and that has a limit.
func cgroupRooms(root fs.FS) (all []room) {
	mine, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(mine)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy, controllers, path
		if len(fields) != 3 {
			continue
		}
		files, base := cgroupFiles{"memory.max", "memory.current", "inactive_file"}, "sys/fs/cgroup"
		switch {
		case strings.Contains(","+fields[1]+",", ",memory,"):
			files, base = cgroupFiles{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}, "sys/fs/cgroup/memory"
		case fields[1] != "": // another controller of version 1
			continue
		}
		// A container may see its own cgroup as the root, under a path that only the host knows.
		for at := path.Join(base, path.Clean("/"+fields[2])); ; at = path.Dir(at) {
			if r, err := files.room(root, at); err == nil {
				all = append(all, r)
			}
			if at == base {
				break
			}
		}
	}
	return all
}

// cgroupFiles are the names of one version of cgroups.
type cgroupFiles struct{ limit, usage, cache string }

// room counts the file pages that nobody used lately as free: the kernel drops them first.
func (c cgroupFiles) room(root fs.FS, dir string) (room, error) {
	limit, err := number(root, path.Join(dir, c.limit)) // "max" is no number: no limit
	if err != nil {
		return room{}, err
	}
	usage, err := number(root, path.Join(dir, c.usage))
	if err != nil {
		return room{}, err
	}
	var cache int64
	if stat, err := fs.ReadFile(root, path.Join(dir, "memory.stat")); err == nil {
		cache, _ = valueOf(string(stat), c.cache) // without it nothing is known to be droppable
	}
	return room{max(0, limit-max(0, usage-cache)), limit, "cgroup"}, nil
}

// takenBelow is the memory of their own that process pid and all that descend from it have.
func takenBelow(root fs.FS, pid int) (int64, error) {
	paths, err := fs.Glob(root, "proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	taken, children := map[int64]int64{}, map[int64][]int64{}
	for _, p := range paths {
		text, err := fs.ReadFile(root, p)
		if err != nil {
			continue // it has just ended
		}
		id, errID := valueOf(string(text), "Pid:")
		parent, errParent := valueOf(string(text), "PPid:")
		if errID != nil || errParent != nil {
			continue
		}
		taken[id], _ = kibibytes(string(text), "RssAnon:") // one that has ended has none
		children[parent] = append(children[parent], id)
	}
	if _, ok := taken[int64(pid)]; !ok {
		return 0, fmt.Errorf("/proc/%d/status: %w", pid, fs.ErrNotExist)
	}
	sum, next := int64(0), []int64{int64(pid)}
	for len(next) > 0 {
		id := next[0]
		sum += taken[id]
		next = append(next[1:], children[id]...)
	}
	return sum, nil
}

func number(root fs.FS, name string) (int64, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

func kibibytes(text, key string) (int64, error) {
	n, err := valueOf(text, key)
	if err != nil || n < 0 || n > math.MaxInt64>>10 {
		return 0, errors.Join(err, fmt.Errorf("no size: %s", key))
	}
	return n << 10, nil
}

// valueOf is the number after key in text that has a key and a number a line.
func valueOf(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no line %s", key)
}
