package faults_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// beside is another gateway's environment over the same registry.
func (b *bed) beside(env ...string) *bed {
	other := *b
	other.env = append(slices.Clone(b.env), env...)
	return &other
}

// Two gateways, one cache: both are asked, both swap, and each version is downloaded once.
func TestReplicasShareACache(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "disk", fault: "two gateways swap at once, over one cache that keeps one version", promise: "each, its versions in order",
		how: "two gateways with MODELGATE_CACHE_DIR in common and keep_versions 1, both asked"})
	b.env = append(b.env, "MODELGATE_CACHE_DIR="+filepath.Join(b.dir, "cache"), "MODELGATE_KEEP_VERSIONS=1")
	r := b.mlflow()
	r.promote(r.publish(0.80))
	g1, g2 := b.start(), b.beside("MODELGATE_DATA_DIR="+filepath.Join(b.dir, "data2")).start()
	g1.serves(1)
	g2.serves(1)
	b.ask(g1, g2)
	versions := []int{1}
	b.during(func() {
		for n := 2; n <= times(4, 40); n++ {
			r.promote(r.publish(0.80 + float64(n)/1000))
			var both sync.WaitGroup
			both.Go(g1.refresh)
			both.Go(g2.refresh)
			both.Wait()
			g1.serves(n)
			g2.serves(n)
			versions = append(versions, n)
		}
		b.requests(50)
	})
	b.onlyBy(versions...)
	b.note("%d swaps each", len(versions)-1)
}

// The gateway that downloads for both is killed. The other one takes the download over.
func TestReplicaDiesDownloading(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "disk", fault: "one of two gateways on one cache is killed while it downloads for both", promise: "the other one, which takes the download over",
		how: "the proxy holds the download, kill -9, the download goes on"})
	b.env = append(b.env, "MODELGATE_CACHE_DIR="+filepath.Join(b.dir, "cache"))
	r := b.mlflow()
	r.promote(r.publish(0.80))
	g1, g2 := b.start("--update-interval", "1h"), b.beside("MODELGATE_DATA_DIR="+filepath.Join(b.dir, "data2")).start()
	g1.serves(1)
	g2.serves(1)
	b.ask(g1)
	held := newHold()
	r.breaks(only("/mlflow-artifacts/artifacts/", held.fault))
	b.during(func() {
		r.promote(r.publish(0.85))
		held.reached(t) // by g2, whose interval is short
		var waits sync.WaitGroup
		waits.Go(g1.refresh)
		b.requests(50)
		g2.kill()
		held.release()
		waits.Wait()
		b.answeredBy(2)
	})
	b.onlyBy(1, 2)
	b.note("version 2 serves there")
}

// tmpfs is a small disk of its own.
func (b *bed) tmpfs(kib int) (dir string, remount func(flags uintptr, kib int)) {
	b.t.Helper()
	dir = filepath.Join(b.dir, "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	options := func(kib int) string { return fmt.Sprintf("size=%dk,mode=0700", kib) }
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options(kib)); err != nil {
		b.t.Skipf("a small disk can't be mounted here: %v", err)
	}
	b.t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	b.env = append(b.env, "MODELGATE_DATA_DIR="+filepath.Join(dir, "data"))
	return dir, func(flags uintptr, kib int) {
		b.t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|flags, options(kib)); err != nil {
			b.t.Fatalf("mount anew: %v", err)
		}
	}
}

// A version that doesn't fit, then no byte for anything: what serves goes on, also after a restart on the full disk.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "disk", fault: "the disk is full: during a download, then altogether, then at a restart", promise: "the version that serves, after the restart too; the next one once there is room",
		how: "a tmpfs of 3 MB, a version of 4 MB, a file that takes the rest; then a larger tmpfs"})
	dir, remount := b.tmpfs(3 << 10)
	r, g := b.serving()
	filler := filepath.Join(dir, "filler")
	b.during(func() {
		r.promote(r.publish(0.85, "padding.bin", "more.bin", "evenmore.bin", "toomuch.bin"))
		why := g.awaitFailure(2)
		if !strings.Contains(why, "no space left") {
			t.Errorf("version 2 failed because of: %s", why)
		}
		fill(t, filler)
		r.promote(r.publish(0.86))
		g.refresh()
		b.requests(100)
	})
	b.onlyBy(1)
	g.terminate()
	fill(t, filler)
	g = b.start()
	g.serves(1)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	remount(0, 64<<10)
	g.refresh()
	g.serves(3)
	b.note("ENOSPC in the ledger; version 3 serves once there is room")
}

// fill takes the rest of the disk where path is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

func TestReadOnlyStart(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "disk", fault: "the disk can't be written when the gateway starts", promise: "no start: an error that names the folder; afterwards what served before",
		how: "a tmpfs, mounted anew to be read only"})
	dir, remount := b.tmpfs(64 << 10)
	r := b.mlflow()
	r.promote(r.publish(0.80))
	g := b.start()
	g.serves(1)
	g.terminate()
	remount(syscall.MS_RDONLY, 64<<10)
	g = b.launch(nil)
	<-g.ended
	if g.err == nil || !strings.Contains(g.log(), filepath.Join(dir, "data")) || !strings.Contains(g.log(), "read-only") {
		t.Errorf("it ended with %v\n%s", g.err, g.log())
	}
	remount(0, 64<<10)
	r.down()
	g = b.start()
	g.serves(1)
	b.ask(g)
	b.during(func() { b.requests(50) })
	b.onlyBy(1)
	b.note("it ends and says why; nothing is lost")
}

// failing has system calls of a running gateway fail, until the function that it returns is called.
func (g *gateway) failing(call, with string, when string) (end func()) {
	g.t.Helper()
	tracer := exec.Command(strace(g.t), "-f", "-o", "/dev/null", "-e", "signal=none", "-e", "trace="+call,
		"-e", fmt.Sprintf("inject=%s:error=%s:when=%s", call, with, when), "-p", strconv.Itoa(g.cmd.Process.Pid))
	said, err := tracer.StderrPipe()
	if err == nil {
		err = tracer.Start()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
		g.t.Fatalf("strace: %s", lines.Text())
	}
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		for lines.Scan() { // it tells of each thread
			continue
		}
	}()
	return func() {
		_ = tracer.Process.Signal(os.Interrupt) // it lets go
		<-rest
		_ = tracer.Wait()
	}
}

// fileCalls never touch a socket, so that callers' connections are left alone.
var fileCalls = strings.Fields("openat mkdirat fsync renameat unlinkat fchmod utimensat flock getdents64 newfstatat pread64")

// Every nth call of every kind fails once, in each thread, while a version is fetched and swapped in.
func TestFileOperationsFail(t *testing.T) {
	for _, errno := range []string{"EIO", "EROFS"} {
		t.Run(errno, func(t *testing.T) {
			t.Parallel()
			b := begin(t, row{group: "disk", fault: errno + " from every nth file operation during a swap", promise: "the version that serves, or the next one; after the fault the next one",
				how: "strace gives it to the nth " + strings.Join(fileCalls, ", ") + " of each thread"})
			// It reaches the workers too, and the library that shuts them in reads on for ever where its threads can't be listed: a worker
			// like that is ended when the time for a load is over.
			b.env = append(b.env, "MODELGATE_LOAD_TIMEOUT="+loadTimeout)
			r, g := b.serving()
			versions, rounds := []int{1}, 0
			b.during(func() {
				for _, nth := range nths() {
					for _, call := range fileCalls {
						rounds++
						n := r.promote(r.publish(0.80 + float64(rounds)/10_000))
						end := g.failing(call, errno, nth)
						g.refresh()
						end()
						g.refresh()
						g.serves(n)
						versions = append(versions, n)
					}
				}
			})
			b.onlyBy(versions...)
			g.terminate()
			r.down()
			g = b.start()
			g.serves(versions[len(versions)-1])
			b.note("%d swaps, each served afterwards, the last one after a restart without the registry too", rounds)
		})
	}
}

func nths() []string {
	if !long() {
		return []string{"2"}
	}
	var all []string
	for n := range 20 {
		all = append(all, strconv.Itoa(1+n))
	}
	return append(all, "1+", "10+")
}

// Every nth call fails at a start. It may end, and it may serve the version before; but nothing is lost.
func TestFileOperationsFailAtStart(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "disk", fault: "EIO from every nth file operation during a start, without the registry",
		promise: "the version that served, or the one before, or no start; at the next start the one that served", how: "strace, as above"})
	r := b.mlflow()
	r.promote(r.publish(0.80))
	g := b.start()
	g.serves(1)
	r.promote(r.publish(0.81))
	g.serves(2)
	g.terminate()
	served, before, refused := 0, 0, 0
	for _, nth := range []string{"3", "1", "10", "30"}[:times(1, 4)] {
		for _, call := range fileCalls[:times(4, len(fileCalls))] {
			r.down()
			g := b.launch([]string{strace(t), "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "signal=none", "-e", "trace=" + call,
				"-e", "inject=" + call + ":error=EIO:when=" + nth})
			<-g.listening
			if g.grpc == "" {
				refused++
			} else {
				g.refresh() // it comes after the restart's own work
				switch g.now() {
				case "2":
					served++
				case "1":
					before++
				default:
					refused++
				}
			}
			g.kill()
			if err := r.up(); err != nil {
				t.Fatal(err)
			}
			g = b.start() // what couldn't be read may be fetched again
			g.serves(2)
			g.terminate()
		}
	}
	r.down()
	g = b.start()
	g.serves(2)
	b.ask(g)
	b.during(func() { b.requests(50) })
	b.onlyBy(2)
	b.note("%d starts with version 2, %d with version 1, %d without any; then version 2 each time", served, before, refused)
}

// now is the version that serves now.
func (g *gateway) now() string {
	g.t.Helper()
	client, leave := g.models()
	defer leave()
	m, err := client.GetModel(g.t.Context(), &modelgatev1.GetModelRequest{Model: "text"})
	if err != nil {
		g.t.Fatal(err)
	}
	return m.GetModel().GetActive().GetVersion()
}
