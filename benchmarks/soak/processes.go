package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what a process and its children have at one moment.
type usage struct {
	children    int
	memory      int64 // bytes, with each page that several of them share counted once
	descriptors int
	processor   time.Duration // since each began
}

// family is a process and its children.
func family(pid int) ([]int, error) {
	pids := []int{pid}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	for _, list := range lists {
		for field := range strings.FieldsSeq(read(list)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("%s holds %q: %w", list, field, err)
			}
			pids = append(pids, child)
		}
	}
	return pids, nil
}

// anonymous is the memory of their own that the children of a process have, and how many they are.
func anonymous(pid int) (bytes int64, children int, err error) {
	pids, err := family(pid)
	if err != nil {
		return 0, 0, err
	}
	for _, child := range pids[1:] {
		n := kilobytes(read(fmt.Sprintf("/proc/%d/status", child)), "RssAnon")
		if n == 0 {
			return 0, 0, fmt.Errorf("process %d tells nothing of its memory: has it ended?", child)
		}
		bytes += n
	}
	return bytes, len(pids) - 1, nil
}

// look adds up a process and its children. One that ends meanwhile counts as nothing.
func look(pid int) (u usage, err error) {
	pids, err := family(pid)
	if err != nil {
		return u, err
	}
	u.children = len(pids) - 1
	for _, p := range pids {
		u.memory += kilobytes(read(fmt.Sprintf("/proc/%d/smaps_rollup", p)), "Pss")
		u.processor += processorTime(read(fmt.Sprintf("/proc/%d/stat", p)))
		open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p)) // of one that has ended there are none
		u.descriptors += len(open)
	}
	if u.memory == 0 {
		return u, fmt.Errorf("process %d tells nothing of its memory: has it ended?", pid)
	}
	return u, nil
}

// kilobytes is a line of smaps_rollup or status, in bytes.
func kilobytes(text, name string) int64 {
	_, after, _ := strings.Cut(text, "\n"+name+":")
	line, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// processorTime is what /proc/PID/stat says of user and system time, in hundredths of a second.
func processorTime(stat string) time.Duration {
	_, after, _ := strings.Cut(stat, ") ") // a name may hold anything
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0
	}
	var sum time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum
}

// ownTime is for how long this process has run on the processors.
func ownTime() time.Duration { return processorTime(read("/proc/self/stat")) }

// read is a file's content, "" where there is no such file.
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}
