// Package results says on which machine was measured, and keeps each benchmark's section of the page of results.
package results

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// A Machine says what was measured on.
type Machine struct {
	cpu, load, kernel, runtime string
	cores                      int
	When                       time.Time
}

// ThisMachine looks before anything is measured, so that the load is that of others. onnxRuntime is the version of the engine.
func ThisMachine(onnxRuntime string) Machine {
	m := Machine{cpu: "CPU unknown", kernel: "unknown", runtime: onnxRuntime, load: Load(), cores: runtime.NumCPU(), When: time.Now().UTC()}
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.cpu = strings.TrimSpace(value)
			break
		}
	}
	if release := strings.TrimSpace(read("/proc/sys/kernel/osrelease")); release != "" {
		m.kernel = release
	}
	return m
}

// Load is the average number of processes that run or want to, over 1, 5 and 15 minutes.
func Load() string {
	if fields := strings.Fields(read("/proc/loadavg")); len(fields) > 2 {
		return strings.Join(fields[:3], " ")
	}
	return "unknown"
}

// Weight says what was done so that others on a busy machine disturb less: a session's group may have been given more than its share.
func Weight() string {
	if _, nice, ok := strings.Cut(strings.TrimSpace(read("/proc/self/autogroup")), " nice "); ok && nice != "0" {
		return ", beside others, whose groups of processes had less weight (ours: nice " + nice + ")"
	}
	return ""
}

// read is a file's content, "" where the system has no such file.
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s/%s, kernel %s, %s, ONNX Runtime %s, load average before %s",
		m.cpu, m.cores, runtime.GOOS, runtime.GOARCH, m.kernel, runtime.Version(), m.runtime, m.load)
}
