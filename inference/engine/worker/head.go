package worker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

// epitaph says how a process ended that we killed for the reason ours, if we did, and whether somebody else has killed it.
func (h *head) epitaph(s *os.ProcessState, ours error) (text string, foreign bool) {
	if s == nil {
		return "the worker was lost", true
	}
	status, ok := s.Sys().(syscall.WaitStatus)
	if ours != nil {
		return fmt.Sprintf("the worker (pid %d) was ended: %v", s.Pid(), ours), false
	}
	text = fmt.Sprintf("the worker (pid %d) ended: %v", s.Pid(), s)
	if line, _, _ := strings.Cut(strings.TrimSpace(h.String()), "\n"); line != "" {
		text += ": " + strconv.QuoteToGraphic(line[:min(len(line), 200)])
	}
	if !ok || !status.Signaled() {
		return text, false
	}
	switch status.Signal() {
	case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT:
		return text, true // no graph sends these; the kernel does where memory runs out
	}
	return text, false
}
