package worker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"modelgate/inference/engine"
)

// A head keeps the beginning of what is written to it.
type head struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

const maxHead = 4 << 10 // bytes

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if room := maxHead - h.b.Len(); room > 0 {
		h.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.ToValidUTF8(h.b.String(), "�")
}

// ofMachine is what a process says last that could read mapped weights no more, as the disk failed or the file was cut short, or couldn't
// start a thread. The lines are those of Go and C++: what a graph has in it may be on others.
var ofMachine = regexp.MustCompile(`(?m)^(SIGBUS: bus error|\[signal SIGBUS: bus error.*|runtime/cgo: pthread_create failed: Resource temporarily unavailable|` +
	`runtime: failed to create new OS thread .*errno=11\)|  what\(\):  Resource temporarily unavailable)$`)

// epitaph says how a process ended that we killed for the reason ours, if we did, and why.
func (h *head) epitaph(s *os.ProcessState, ours error) (text string, cause engine.Cause) {
	if s == nil {
		return "the worker was lost", engine.Killed
	}
	if ours != nil {
		cause = engine.Hung
		if errors.Is(ours, errProtocol) {
			cause = engine.Crashed
		}
		return fmt.Sprintf("the worker (pid %d) was ended: %v", s.Pid(), ours), cause
	}
	text = fmt.Sprintf("the worker (pid %d) ended: %v", s.Pid(), s)
	if line, _, _ := strings.Cut(strings.TrimSpace(h.String()), "\n"); line != "" {
		text += ": " + strconv.QuoteToGraphic(line[:min(len(line), 200)])
	}
	if status, ok := s.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		switch status.Signal() {
		case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT:
			return text, engine.Killed // no graph sends these; the kernel does where memory runs out
		case syscall.SIGBUS:
			return text, engine.Killed
		}
	}
	if ofMachine.MatchString(h.String()) {
		return text, engine.Killed
	}
	return text, engine.Crashed
}
