package faults_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// A failpoint is a place where the gateway is killed: what it is about when it makes a system call, and on what.
// strace ends the process as it enters the nth call of that name in one of its threads, so there is no code for it in the program.
type failpoint struct{ while, call, on string }

// calls are those that change a disk, twice those that make a change visible or lasting, and those that look at it.
var calls = strings.Fields("openat mkdirat write fsync fsync renameat renameat unlinkat unlinkat fchmod utimensat flock ftruncate close getdents64 newfstatat")

// kill -9 at every failpoint: the next start serves from its cache what the state on disk says, with that version's own answers.
func TestKillAtFailpoints(t *testing.T) {
	for from, where := range map[string]string{"a folder": "all in the gateway's own process", "MLflow": "each version in a process of its own"} {
		t.Run(from, func(t *testing.T) {
			b := begin(t, row{group: "disk", fault: "kill -9 at a failpoint, versions from " + from,
				promise: "after the restart, without the registry: the version that the state names, whole, verified, never an older one",
				how:     "strace sends SIGKILL at the nth openat, write, fsync, rename, unlink, flock... of a start, a swap, a roll-back or a drain; " + where})
			k := newKiller(b, from == "MLflow")
			count := kills(t)
			if k.mlflow != nil {
				count = max(6, count/5)
			}
			k.next() // the first start has something to serve
			for range count {
				k.round()
			}
			k.check()
			k.sum()
		})
	}
}

// kills is how often the gateway is killed, in the row of versions from a folder.
func kills(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("MODELGATE_KILLS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("MODELGATE_KILLS=%s is not a number of kills", text)
		}
		return n
	}
	return times(24, 1000)
}

// A killer kills gateways on one data folder.
type killer struct {
	b      *bed
	rng    *rand.Rand
	folder string    // of versions; "" for MLflow
	mlflow *registry // nil for a folder

	published int // the newest version
	state     int // what the state on disk said after the last kill; 0: nothing yet
	kills     int
	answers   int
	bad       []string
	served    map[int]bool
	met       map[failpoint]int
	most      map[failpoint]int // calls that a thread makes, where nothing is in its way
}

func newKiller(b *bed, fromMLflow bool) *killer {
	seed := uint64(time.Now().UnixNano())
	b.t.Logf("seed %d", seed)
	k := &killer{b: b, rng: rand.New(rand.NewPCG(seed, 0)), served: map[int]bool{}, met: map[failpoint]int{}, most: map[failpoint]int{}}
	b.env = append(b.env, "MODELGATE_UPDATE_INTERVAL=1h", "MODELGATE_KEEP_VERSIONS=2", "MODELGATE_FUSION_FALLBACK=none")
	if fromMLflow {
		k.mlflow = b.mlflow()
		return k
	}
	k.folder = filepath.Join(b.dir, "models", "text")
	if err := os.MkdirAll(k.folder, 0o700); err != nil {
		b.t.Fatal(err)
	}
	// In one process, where a start takes a tenth of the time: what is killed here is what writes files.
	b.env = append(b.env, "MODELGATE_MODELS_DIR="+filepath.Dir(k.folder), "MODELGATE_ISOLATION=none")
	return k
}

// next publishes a version.
func (k *killer) next() {
	k.b.t.Helper()
	k.published++
	f1 := 0.8 + float64(k.published)*1e-5
	if k.mlflow != nil {
		k.mlflow.promote(k.mlflow.publish(f1, "padding.bin"))
		return
	}
	tmp := filepath.Join(k.b.dir, "new")
	err := bundle{n: k.published, extra: map[string][]byte{
		"metrics.json": fmt.Appendf(nil, `{"eval_f1": %v}`, f1), "padding.bin": make([]byte, 256<<10),
	}}.write(tmp)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(k.folder, strconv.Itoa(k.published)))
	}
	if err != nil {
		k.b.t.Fatal(err)
	}
	_ = os.RemoveAll(filepath.Join(k.folder, strconv.Itoa(k.published-5))) // no longer needed, and each look lists all
}

// hidden runs f while the registry isn't there.
func (k *killer) hidden(f func()) {
	k.b.t.Helper()
	if k.mlflow != nil {
		k.mlflow.down()
		f()
		if err := k.mlflow.up(); err != nil {
			k.b.t.Fatal(err)
		}
		return
	}
	away := filepath.Join(k.b.dir, "away")
	if err := errors.Join(os.Rename(k.folder, away), os.Mkdir(k.folder, 0o700)); err != nil { // it is a model's, without versions
		k.b.t.Fatal(err)
	}
	f()
	if err := errors.Join(os.Remove(k.folder), os.Rename(away, k.folder)); err != nil {
		k.b.t.Fatal(err)
	}
}

// round kills a gateway once, at one of its failpoints, and reads what state it left.
func (k *killer) round() {
	k.b.t.Helper()
	while := []string{"start", "start", "swap", "swap", "swap", "swap", "swap", "roll-back", "roll-back", "drain"}[k.rng.IntN(10)]
	if k.state == 0 {
		while = "start"
	}
	call, nth := k.draw(while)
	trace := filepath.Join(k.b.dir, "trace")
	_ = os.Remove(trace)
	args := []string{strace(k.b.t), "-f", "-y", "-s", "0", "-o", trace, "-e", "signal=none", "-e", "trace=" + call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, nth)}
	switch while {
	case "start":
		k.killStart(args)
	case "swap":
		g := k.check()
		k.killDuring(g, args, func(ctx context.Context, c modelgatev1.ModelServiceClient) {
			k.next()
			_, _ = c.Refresh(ctx, &modelgatev1.RefreshRequest{Model: "text"}) // it may not live to answer
		})
	case "roll-back":
		g := k.check()
		k.killDuring(g, args, func(ctx context.Context, c modelgatev1.ModelServiceClient) {
			_, _ = c.Rollback(ctx, &modelgatev1.RollbackRequest{Model: "text"})
		})
	case "drain":
		g := k.check()
		k.killDuring(g, args, func(context.Context, modelgatev1.ModelServiceClient) {
			_ = g.cmd.Process.Signal(os.Interrupt)
			select {
			case <-g.ended:
			case <-time.After(patience):
			}
		})
	}
	k.kills++
	k.note(while, call, trace)
	k.readState(while == "roll-back")
}

// draw chooses a call and how many of them a thread makes before it is killed: at most as many as were seen where none was reached.
func (k *killer) draw(while string) (call string, nth int) {
	for {
		call = calls[k.rng.IntN(len(calls))]
		most, known := k.most[failpoint{while: while, call: call}]
		if !known {
			most = 12
		}
		if most > 0 {
			return call, 1 + k.rng.IntN(1+k.rng.IntN(most)) // more often a low one: work moves from thread to thread
		}
	}
}

func strace(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is missing: it places the failpoints; on Debian: apt-get install strace")
	}
	return path
}

// killStart kills a gateway that has just been started and finds a new version.
func (k *killer) killStart(args []string) {
	k.b.t.Helper()
	k.next()
	g := k.b.launch(append(args, "--seccomp-bpf"))
	select {
	case <-g.listening:
	case <-time.After(patience):
		k.b.t.Fatalf("it neither listens nor dies\n%s", g.log())
	}
	if g.grpc != "" {
		k.order(g, func(ctx context.Context, c modelgatev1.ModelServiceClient) {
			_, _ = c.Refresh(ctx, &modelgatev1.RefreshRequest{Model: "text"})
		})
	}
	g.kill()
}

// killDuring lets strace loose on a gateway while it does something.
func (k *killer) killDuring(g *gateway, args []string, do func(context.Context, modelgatev1.ModelServiceClient)) {
	k.b.t.Helper()
	tracer := exec.Command(args[0], append(args[1:], "-p", strconv.Itoa(g.cmd.Process.Pid))...)
	said, err := tracer.StderrPipe()
	if err == nil {
		err = tracer.Start()
	}
	if err != nil {
		k.b.t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
		k.b.t.Fatalf("strace: %s", lines.Text())
	}
	k.order(g, do)
	g.kill()
	for lines.Scan() { // until it has ended
		continue
	}
	_ = tracer.Wait() // it ends as the gateway did
}

func (k *killer) order(g *gateway, do func(context.Context, modelgatev1.ModelServiceClient)) {
	k.b.t.Helper()
	client, leave := g.models()
	defer leave()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); do(ctx, client) }()
	select {
	case <-done:
	case <-g.ended:
		cancel()
		<-done
	}
}

// check starts a gateway without a registry: what served, serves, from the cache. It answers as that version, and nothing is damaged.
func (k *killer) check() *gateway {
	k.b.t.Helper()
	var g *gateway
	k.hidden(func() {
		g = k.b.start()
		client, leave := g.models()
		defer leave()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, _ = client.Refresh(ctx, &modelgatev1.RefreshRequest{Model: "text"}) // it comes after the restart's own work
		m, err := client.GetModel(ctx, &modelgatev1.GetModelRequest{Model: "text"})
		if got := m.GetModel().GetActive().GetVersion(); err != nil || got != strconv.Itoa(k.state) {
			k.isBad("version %q serves (%v), and the state said %d\n%s", got, err, k.state, g.log())
			return
		}
		k.ask(g)
	})
	if log := g.log(); strings.Contains(log, "damaged") {
		k.isBad("something is damaged\n%s", log)
	}
	if found, err := filepath.Glob(filepath.Join(k.b.dir, "data", "state", "*.damaged")); err != nil || len(found) > 0 {
		k.isBad("damaged state: %v %v", found, err)
		for _, path := range found {
			_ = os.Remove(path) // it counts once
		}
	}
	return g
}

func (k *killer) ask(g *gateway) {
	k.b.t.Helper()
	conn, client := dial(k.b.t, g)
	defer conn.Close()
	texts, logits := questions()
	for i := range 3 {
		k.answers++
		if a := one(client, texts[i], logits[i]); a.err != nil || a.version != k.state {
			k.isBad("version %d answers (%v), and the state said %d\n%s", a.version, a.err, k.state, g.log())
			return
		}
	}
}

func (k *killer) isBad(format string, args ...any) {
	k.b.t.Helper()
	k.bad = append(k.bad, fmt.Sprintf(format, args...))
	k.b.t.Errorf("a bad start after kill %d: "+format, append([]any{k.kills}, args...)...)
}

// readState reads from disk what the killed gateway had promised to serve.
func (k *killer) readState(rolledBack bool) {
	k.b.t.Helper()
	n, err := savedVersion(filepath.Join(k.b.dir, "data"))
	switch {
	case err != nil:
		k.isBad("the state can't be read: %v", err)
	case n == k.state, n > k.state && n <= k.published, rolledBack && k.served[n]:
	default:
		k.isBad("the state says that %d serves; it was %d, and %d versions are published", n, k.state, k.published)
	}
	k.state = n
	k.served[n] = true
}

var (
	aCall   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	aPath   = regexp.MustCompile(`<(/[^>]*)>|"([^"]+)"`)
	aNumber = regexp.MustCompile(`[0-9a-f]{64}(-[A-Z0-9]{26})?|[0-9]{5,}`)
)

// note finds in strace's log at what the gateway was killed. Where no thread made so many calls, it was killed when the work was done.
func (k *killer) note(while, call, trace string) {
	k.b.t.Helper()
	content, err := os.ReadFile(trace)
	if err != nil {
		k.b.t.Fatal(err)
	}
	last, made, most := "", map[string]int{}, 0
	for line := range strings.Lines(string(content)) {
		m := aCall.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		made[m[1]]++
		most = max(most, made[m[1]])
		if strings.HasSuffix(m[3], " = ?") {
			last = m[3]
		}
	}
	if last == "" {
		k.most[failpoint{while: while, call: call}] = most
		k.met[failpoint{while: while}]++
		return
	}
	on := ""
	for _, p := range aPath.FindAllStringSubmatch(last, -1) { // the last one: for a rename, where it leads
		on = strings.TrimPrefix(strings.TrimPrefix(p[1]+p[2], k.b.dir), "/")
	}
	k.met[failpoint{while, call, aNumber.ReplaceAllString(on, "*")}]++
}

func (k *killer) sum() {
	k.b.t.Helper()
	points, done := 0, 0
	for p, n := range k.met {
		if p.call == "" {
			done += n
			continue
		}
		points++
		k.b.t.Logf("%4d %s: %s %s", n, p.while, p.call, p.on)
	}
	k.b.out.requests += k.answers
	k.b.note("%d kills, %d of them at %d distinct failpoints and the others when the work was done, %d versions: %d bad starts",
		k.kills, k.kills-done, points, k.published, len(k.bad))
	k.b.t.Log(k.b.out.note)
	if want := min(25, k.kills/4); points < want {
		k.b.void("only %d distinct failpoints were met, want %d", points, want)
	}
}
