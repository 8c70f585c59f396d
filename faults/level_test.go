package faults_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A level is what a gateway holds when nobody asks it.
type level struct{ goroutines, descriptors, children int }

func (l level) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d child processes", l.goroutines, l.descriptors, l.children)
}

// level is what the gateway holds now. Reading it costs a connection, which is counted each time.
func (g *gateway) level() level {
	g.t.Helper()
	return level{int(g.metric("go_goroutines")), int(g.metric("process_open_fds")), len(g.children())}
}

// alone waits until no version stands by: until there is one worker.
func (g *gateway) alone() {
	g.t.Helper()
	for deadline := time.Now().Add(patience); len(g.children()) != 1; <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("the gateway has %d child processes", len(g.children()))
		}
	}
}

// children are the processes that the gateway has started and that haven't been waited for, by their ids.
func (g *gateway) children() []string {
	g.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", g.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	var all []string
	for _, task := range tasks {
		if some, err := os.ReadFile(task); err == nil { // a thread may have ended
			all = append(all, strings.Fields(string(some))...)
		}
	}
	return all
}

// slack is for connections that are still being closed, and for what Go's runtime starts when it first needs it.
const slack = 8

// level waits until the gateway holds no more than it did before, give or take slack. The load has to have ended.
func (b *bed) level(g *gateway, before level) {
	b.t.Helper()
	http.DefaultClient.CloseIdleConnections()
	now := g.level()
	for deadline := time.Now().Add(patience / 3); time.Now().Before(deadline); now = g.level() {
		if now.goroutines <= before.goroutines+slack && now.descriptors <= before.descriptors+slack && now.children <= before.children {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	b.t.Errorf("the gateway holds %v; before it held %v", now, before)
}
