package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// machine says what was measured on.
type machine struct {
	cpu, load, kernel, runtime string
	cores                      int
	when                       time.Time
}

// thisMachine looks before anything is measured, so that the load is that of others.
func thisMachine(runtimeVersion string) machine {
	m := machine{cpu: "CPU unknown", load: "unknown", kernel: "unknown", runtime: runtimeVersion, cores: runtime.NumCPU(), when: time.Now().UTC()}
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.cpu = strings.TrimSpace(value)
			break
		}
	}
	if fields := strings.Fields(read("/proc/loadavg")); len(fields) > 2 {
		m.load = strings.Join(fields[:3], " ")
	}
	if release := strings.TrimSpace(read("/proc/sys/kernel/osrelease")); release != "" {
		m.kernel = release
	}
	return m
}

// read is a file's content, "" where the system has no such file.
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s/%s, kernel %s, %s, ONNX Runtime %s, load average before %s",
		m.cpu, m.cores, runtime.GOOS, runtime.GOARCH, m.kernel, runtime.Version(), m.runtime, m.load)
}
