package faults_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"modelgate/benchmarks/results"
)

// A row is one fault. Its texts are read in the table, each after its heading.
type row struct {
	group   string // "registry", "disk", "graphs", "workers", "callers", "signals": the tables, in this order
	fault   string // what breaks
	promise string // what callers see of it
	how     string // how it is made to happen
}

var groups = []string{"registry", "disk", "graphs", "workers", "callers", "signals"}

// An outcome is what happened to a row.
type outcome struct {
	row
	result                  string // "passed", "failed", "void", "not run"
	note                    string // what was seen, in a few words
	requests, failed, wrong int
	slowest, took           time.Duration
}

// outcomes are those of this run.
type outcomes struct {
	mu  sync.Mutex // guards all
	all []outcome
}

var seen outcomes

func (o *outcomes) add(one outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, one)
}

// long says whether this is the long form, which `make faults` runs.
func long() bool { return os.Getenv("MODELGATE_FAULTS") == "long" }

// times is how often a row is repeated.
func times(short, inLong int) int {
	if long() {
		return inLong
	}
	return short
}

// table is the outcomes for people: a table a group, rows in the order of their names. One that didn't run says so.
func (o *outcomes) table(machine string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "Seen on %s, by `make faults` on %s.\n", time.Now().UTC().Format(time.DateOnly), machine)
	for _, g := range groups {
		rows := slices.DeleteFunc(slices.Clone(o.all), func(x outcome) bool { return x.group != g })
		if len(rows) == 0 {
			continue
		}
		slices.SortFunc(rows, func(a, b outcome) int { return cmp.Compare(a.fault, b.fault) })
		fmt.Fprintf(&b, "\n### %s%s\n\n", strings.ToUpper(g[:1]), g[1:])
		b.WriteString("| fault | callers see | made by | requests | failed | wrong version | slowest | what happened | result |\n|---|---|---|---|---|---|---|---|---|\n")
		for _, x := range rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %d | %d | %d | %v | %s, %v | %s |\n", x.fault, x.promise, x.how, x.requests, x.failed, x.wrong,
				x.slowest.Round(time.Millisecond), x.note, x.took.Round(100*time.Millisecond), x.result)
		}
	}
	return b.String()
}

// write puts the table into the page that MODELGATE_FAULTS_PAGE names, if it names one.
func (o *outcomes) write() error {
	page := os.Getenv("MODELGATE_FAULTS_PAGE")
	if page == "" {
		return nil
	}
	library, err := os.Readlink(filepath.Join("..", ".cache", "onnxruntime", "lib"))
	if err != nil {
		library = "unknown"
	}
	return results.WriteSection(page, "faults", o.table(results.ThisMachine(library).String()))
}

// A bed is where one row runs: a folder, a registry, gateways and a load.
type bed struct {
	t    *testing.T
	dir  string
	env  []string
	load *load // nil before ask

	out   outcome
	begun time.Time
}

// begin starts a row. Its outcome is recorded when the test ends.
func begin(t *testing.T, r row) *bed {
	t.Helper()
	b := &bed{t: t, dir: t.TempDir(), begun: time.Now(), out: outcome{row: r, note: "nothing else"}}
	b.env = environment(t, b.dir)
	t.Cleanup(func() {
		if b.load != nil {
			b.load.end()
			b.out.requests += b.load.counts().requests
		}
		b.out.took = time.Since(b.begun)
		switch {
		case t.Skipped():
			b.out.result, b.out.note = "not run", "not run here"
		case b.out.result != "":
		case t.Failed():
			b.out.result = "failed"
		default:
			b.out.result = "passed"
		}
		seen.add(b.out)
		t.Logf("%s: %s: %s", b.out.fault, b.out.result, b.out.note)
	})
	return b
}

// note says in the table what was seen.
func (b *bed) note(format string, args ...any) { b.out.note = fmt.Sprintf(format, args...) }

// void ends a row that has proved nothing.
func (b *bed) void(format string, args ...any) {
	b.t.Helper()
	b.out.result = "void"
	b.t.Fatalf("void: "+format, args...)
}
