package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"modelgate/modelstore"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

func files(list map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range list {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

const meminfo = "MemTotal:       24684548 kB\nMemFree:        12924120 kB\nMemAvailable:   22803376 kB\nBuffers:          512480 kB\n"

// Whatever limits memory most is what counts.
func TestFreeMemory(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		files map[string]string
		want  room // none: nothing is known
	}{
		"no Linux":        {nil, room{}},
		"no cgroup":       {map[string]string{"proc/meminfo": meminfo}, room{22803376 << 10, 24684548 << 10, "machine"}},
		"an old kernel":   {map[string]string{"proc/meminfo": "MemTotal: 1 kB\nMemFree: 1 kB\n"}, room{}},
		"nonsense":        {map[string]string{"proc/meminfo": "MemTotal: 1 kB\nMemAvailable: -5 kB\n", "proc/self/cgroup": "x\n0:\n"}, room{}},
		"sizes that wrap": {map[string]string{"proc/meminfo": "MemTotal: 9223372036854775807 kB\nMemAvailable: 9223372036854775807 kB\n"}, room{}},
		"version 2, no limit": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a.slice/b.service\n",
			"sys/fs/cgroup/a.slice/b.service/memory.max": "max\n", "sys/fs/cgroup/a.slice/b.service/memory.current": "1048576\n"}, room{22803376 << 10, 24684548 << 10, "machine"}},
		"version 2": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a.slice/b.service\n",
			"sys/fs/cgroup/a.slice/b.service/memory.max": "536870912\n", "sys/fs/cgroup/a.slice/b.service/memory.current": "419430400\n",
			"sys/fs/cgroup/a.slice/b.service/memory.stat": "anon 314572800\nfile 104857600\nactive_file 52428800\ninactive_file 52428800\n"},
			room{162 * mib, 512 * mib, "cgroup"}},
		"version 2, without memory.stat": {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "536870912\n",
			"sys/fs/cgroup/a/memory.current": "419430400\n"}, room{112 * mib, 512 * mib, "cgroup"}},
		"version 2, the limit is the parent's": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "1073741824\n", "sys/fs/cgroup/a/b/memory.current": "0\n",
			"sys/fs/cgroup/a/memory.max": "536870912\n", "sys/fs/cgroup/a/memory.current": "535822336\n"}, room{1 * mib, 512 * mib, "cgroup"}},
		"version 2, in a container": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "536870912\n", "sys/fs/cgroup/memory.current": "1048576\n"}, room{511 * mib, 512 * mib, "cgroup"}},
		"version 2, above its limit": {map[string]string{"proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1048576\n", "sys/fs/cgroup/memory.current": "2097152\n"}, room{0, 1 * mib, "cgroup"}},
		"version 1": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "9:name=systemd:/\n5:cpu,memory:/job\n1:cpu:/other\n",
			"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "536870912\n", "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "419430400\n",
			"sys/fs/cgroup/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 52428800\n"}, room{162 * mib, 512 * mib, "cgroup"}},
		"version 1, no limit": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/job\n0::/\n",
			"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "419430400\n"},
			room{22803376 << 10, 24684548 << 10, "machine"}},
		"version 1, under a path of the host": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/docker/0123\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "1048576\n"}, room{511 * mib, 512 * mib, "cgroup"}},
		"a path that climbs": {map[string]string{"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/memory.max": "1048576\n",
			"sys/fs/cgroup/memory.current": "0\n"}, room{1 * mib, 1 * mib, "cgroup"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := freeMemory(files(c.files))
			if ok != (c.want != room{}) || ok && got != c.want {
				t.Errorf("%+v, %v, want %+v", got, ok, c.want)
			}
		})
	}
}

// Workers count, and what they start; others don't.
func TestTakenBelow(t *testing.T) {
	status := func(pid, parent, anon string) string {
		return "Name:\tx\nPid:\t" + pid + "\nPPid:\t" + parent + "\nVmRSS:\t 999999 kB\n" + anon
	}
	root := files(map[string]string{
		"proc/1/status":     status("1", "0", "RssAnon:\t   4096 kB\n"),
		"proc/10/status":    status("10", "1", "RssAnon:\t    100 kB\n"),
		"proc/11/status":    status("11", "10", "RssAnon:\t     20 kB\n"),
		"proc/12/status":    status("12", "11", "RssAnon:\t      3 kB\n"),
		"proc/13/status":    status("13", "10", ""), // ended, and nobody has waited for it
		"proc/14/status":    "",
		"proc/self/status":  status("10", "1", "RssAnon:\t    100 kB\n"),
		"proc/cpuinfo":      "",
		"proc/10/smaps":     "",
		"proc/100/status":   status("100", "1", "RssAnon:\t   4096 kB\n"),
		"proc/10/task/stat": "",
	})
	if got, err := takenBelow(root, 10); got != 123<<10 || err != nil {
		t.Errorf("%d bytes, %v, want %d", got, err, 123<<10)
	}
	if got, err := takenBelow(root, 9); err == nil {
		t.Errorf("a process that isn't there has %d bytes", got)
	}
}

// sized makes a bundle that takes about so many bytes to load: 64 MiB without weights, and 7/4 of the graph's size.
func sized(t *testing.T, model string, graph int64) modelstore.Bundle {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(graph), f.Close()); err != nil {
		t.Fatal(err)
	}
	return modelstore.Bundle{Version: modelstore.Version{Model: model, Number: 2}, Dir: dir, Release: func() {}}
}

func TestAdmission(t *testing.T) {
	const mib = 1 << 20
	a := newAdmission(0, slog.New(slog.DiscardHandler))
	a.root = files(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n", "sys/fs/cgroup/memory.current": "209715200\n"})
	text, video := sized(t, "text", 80*mib), sized(t, "video", 40*mib) // 204 MiB and 134 MiB, of 312 MiB
	large, small := sized(t, "text", 400*mib), sized(t, "text", mib)   // 764 MiB and 66 MiB

	loaded, err := a.admit(modelstore.Admission{Bundle: text, Active: &small})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.admit(modelstore.Admission{Bundle: video})
	if !errors.Is(err, modelstore.ErrNoMemory) || !strings.Contains(err.Error(), "it needs about 134 MiB to load, and 108 MiB of 512 MiB are free (cgroup; 204 MiB are left to other loads)") {
		t.Errorf("while another load may take what is free: %v", err)
	}
	loaded()
	done, err := a.admit(modelstore.Admission{Bundle: video})
	if err != nil {
		t.Fatalf("after it: %v", err)
	}
	done()

	_, err = a.admit(modelstore.Admission{Bundle: large, Active: &small})
	if !errors.Is(err, modelstore.ErrNoMemory) || !strings.Contains(err.Error(), "it needs about 764 MiB to load, and 312 MiB of 512 MiB are free (cgroup)") {
		t.Errorf("a version that is too large: %v", err)
	}
	_, err = a.admit(modelstore.Admission{Bundle: large, Active: &small, Leaving: []modelstore.Bundle{small}})
	if err == nil || !strings.Contains(err.Error(), "377 MiB of 512 MiB are free (cgroup; the version before is counted as gone)") {
		t.Errorf("even with a small standby gone: %v", err)
	}
	if done, err = a.admit(modelstore.Admission{Bundle: large, Active: &small, Leaving: []modelstore.Bundle{large}}); err != nil {
		t.Errorf("with a large standby gone: %v", err)
	} else {
		done()
	}
	// Before its worker had grown to 300 MiB the small one was expected to take 66.
	a.process = func(model string) int { return map[string]int{"text": 7}[model] }
	a.root = files(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n", "sys/fs/cgroup/memory.current": "209715200\n",
		"proc/7/status": "Pid:\t7\nPPid:\t1\nRssAnon:\t307200 kB\n"})
	_, err = a.admit(modelstore.Admission{Bundle: text, Active: &small})
	if err == nil || !strings.Contains(err.Error(), "it needs about 439 MiB to load (235 MiB of them since the version that serves has come to take so much more than its files say), and 312 MiB of 512 MiB are free (cgroup)") {
		t.Errorf("after one that has grown: %v", err)
	}
	if done, err = a.admit(modelstore.Admission{Bundle: video, Active: &video}); err != nil {
		t.Errorf("another model, which has no process: %v", err)
	} else {
		done()
	}
	large.Anyway = true
	if _, err = a.admit(modelstore.Admission{Bundle: large, Active: &small}); err == nil {
		t.Error("what the operator asks for is loaded beside what serves")
	}
	if done, err = a.admit(modelstore.Admission{Bundle: large}); err != nil {
		t.Errorf("what served before a restart: %v", err)
	} else {
		done()
	}
	if n := a.expected.Load(); n != 0 {
		t.Errorf("%d bytes are expected by loads that are over", n)
	}
	a.root = files(nil)
	if _, err = a.admit(modelstore.Admission{Bundle: sized(t, "text", 1<<40)}); err != nil {
		t.Errorf("where nothing is known: %v", err)
	}
}

// A version for which there is too little memory isn't loaded: what serves goes on, also after a restart. With more memory it is taken.
func TestTooLittleMemory(t *testing.T) {
	w := newTestbed(t)
	if err := publish("1", filepath.Join(w.models(), "text", "1"), "0.8"); err != nil {
		t.Fatal(err)
	}
	stop := func(p *process) {
		t.Helper()
		if err := errors.Join(p.terminate(), p.wait(patience)); err != nil {
			t.Fatalf("%v\n%s", err, p.log())
		}
	}
	stop(w.ready(t))
	p := w.ready(t, "--memory-limit", "1MiB")
	if !strings.Contains(p.log(), "a version is loaded although memory may not suffice") {
		t.Errorf("nothing is said of what serves again:\n%s", p.log())
	}
	if ledger, err := os.ReadFile(filepath.Join(w.dir, "data", "ledger.jsonl")); err != nil || strings.Contains(string(ledger), "not_restored") {
		t.Errorf("what served before wasn't loaded at once: %v\n%s", err, ledger)
	}
	if err := publish("2", filepath.Join(w.models(), "text", "2"), "0.9"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	await := func(p *process, wanted func(*modelgatev1.Model) bool) {
		t.Helper()
		if err := p.await(ctx, wanted); err != nil {
			t.Fatalf("%v\n%s", err, p.log())
		}
	}
	figures := regexp.MustCompile(`needs about \d+ MiB to load, and 0 MiB of 1 MiB are free \(memory_limit\)`)
	await(p, func(m *modelgatev1.Model) bool {
		d := m.GetLastDecision()
		return d.GetCandidate().GetVersion() == "2" && d.GetCode() == "failed" && figures.MatchString(d.GetReason()) && m.GetActive().GetVersion() == "1"
	})
	conn, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := say(modelgatev1.NewPredictionServiceClient(conn), "nice day"); err != nil {
		t.Error(err)
	}
	_, err = modelgatev1.NewModelServiceClient(conn).Promote(ctx, &modelgatev1.PromoteRequest{Model: "text", Version: "2"})
	if status.Code(err) != codes.ResourceExhausted || !figures.MatchString(err.Error()) {
		t.Errorf("an operator's order: %v", err)
	}
	stop(p)
	p = w.ready(t, "--memory-limit", "64GiB")
	await(p, func(m *modelgatev1.Model) bool { return m.GetActive().GetVersion() == "2" })
}
