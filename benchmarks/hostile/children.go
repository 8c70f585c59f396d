package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is the most that one of our children has had, in bytes.
type memory struct {
	resident, address int64
	children          int // most at once
}

// watchChildren looks at our children every few milliseconds until stop is called. The kernel keeps the maxima, so only what a child
// takes in its last moments is missed.
func watchChildren() (stop func() memory) {
	ended := make(chan struct{})
	var most memory
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			most.look()
			select {
			case <-tick.C:
			case <-ended:
				return
			}
		}
	})
	return func() memory {
		close(ended)
		running.Wait()
		return most
	}
}

func (m *memory) look() {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return
	}
	children := 0
	for _, list := range lists {
		for pid := range strings.FieldsSeq(read(list)) {
			status := read("/proc/" + pid + "/status")
			if strings.Contains(status, "Name:\tffmpeg\n") { // not the shell before it, which shares our memory until it is one
				children++
				m.resident, m.address = max(m.resident, field(status, "VmHWM")), max(m.address, field(status, "VmPeak"))
			}
		}
	}
	m.children = max(m.children, children)
}

// field is a size in /proc/PID/status, in bytes.
func field(status, name string) int64 {
	_, after, _ := strings.Cut(status, "\n"+name+":")
	line, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// ownPeak is the most memory that this process has had resident since it was last reset.
func ownPeak() int64 { return field(read("/proc/self/status"), "VmHWM") }

// resetPeak forgets the peak so far.
func resetPeak() error {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600); err != nil {
		return fmt.Errorf("reset the peak of memory: %w", err)
	}
	return nil
}

// read is a file's content, "" where the system has no such file.
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}
