package faults_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// worker is the process that computes the version that serves, when it is the only one.
func (g *gateway) worker() int {
	g.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		for _, child := range g.children() {
			line, err := os.ReadFile("/proc/" + child + "/cmdline")
			if err != nil || !strings.Contains(string(line), "\x00worker\x00") {
				continue // it has ended, or is ffmpeg's
			}
			pid, err := strconv.Atoi(child)
			if err != nil {
				g.t.Fatal(err)
			}
			return pid
		}
	}
	g.t.Fatal("there is no worker")
	return 0
}

// Somebody, or the kernel for want of memory, kills the worker of the version that serves.
func TestWorkerKilled(t *testing.T) {
	b := begin(t, row{"workers", "the worker is killed", "answers are late by its restart", "kill -9, again and again, as soon as there is another"})
	b.publish(1, bundle{n: 1}.write)
	g := b.start("--models", b.models())
	g.serves(1)
	g.alone()
	before := g.level()
	b.ask(g)
	kills := times(5, 50)
	b.during(func() {
		for range kills {
			pid := g.worker()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for g.worker() == pid {
				<-time.After(5 * time.Millisecond)
			}
			b.requests(rate / 2)
		}
	})
	b.note("%d kills", kills)
	b.onlyBy(1)
	b.level(g, before)
}

// onlyLate ends the load: what failed was out of time, and each answer is by that version.
func (b *bed) onlyLate(version int) {
	b.t.Helper()
	b.load.end()
	all, _ := b.load.state()
	for _, a := range all {
		switch {
		case status.Code(a.err) == codes.DeadlineExceeded:
			b.out.failed++
		case a.err != nil || a.version != version:
			b.t.Errorf("an answer of version %d, or the error %v", a.version, a.err)
		}
	}
}

// A worker that stands still answers nothing and doesn't die.
func TestWorkerStopped(t *testing.T) {
	b := begin(t, row{"workers", "the worker stands still", "DEADLINE_EXCEEDED, until the first deadline has passed: then it is killed, and who has more time is answered by another", "SIGSTOP"})
	b.publish(1, bundle{n: 1}.write)
	g := b.start("--models", b.models())
	g.serves(1)
	g.alone()
	before := g.level()
	b.ask(g)
	var late time.Duration
	b.during(func() {
		pid, began := g.worker(), time.Now()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for g.worker() == pid {
			<-time.After(5 * time.Millisecond)
		}
		late = time.Since(began)
		b.requests(int(late.Seconds() * rate)) // those that wait have their answers
		if err := b.say("good", patience); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
	b.note("another worker after %v", late.Round(time.Millisecond))
	b.onlyLate(1)
	b.level(g, before)
}
