package faults_test

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Whatever the registry answers, what serves goes on, and the next version comes when the registry has come to its senses.
func TestRegistryAnswersNonsense(t *testing.T) {
	html := "<!doctype html><html><h1>Log in</h1></html>"
	for _, c := range []struct {
		fault, how string
		f          fault
		meets      int // questions until the registry is mended
	}{
		{"MLflow answers 500", "the proxy does, to everything", answers(500, "application/json", `{"error_code": "INTERNAL_ERROR"}`), 4},
		{"MLflow answers 502 in HTML", "the proxy does, to everything", answers(502, "text/html", html), 4},
		{"MLflow answers with a log-in page", "200 and text/html, to everything", answers(200, "text/html", html), 1},
		{"MLflow answers with garbage", "200, application/json and random bytes", answers(200, "application/json", "\x00\xff\xfe{[\x1b[2J"), 1},
		{"MLflow answers with wrong types", "a list where an object is due, numbers where texts are", answers(200, "application/json",
			`{"registered_model": [{"name": 7, "latest_versions": "none", "aliases": {"production": [1]}}]}`), 1},
		{"MLflow answers about another model", "its name is ../../etc", answers(200, "application/json", `{"registered_model": {"name": "../../etc"}}`), 1},
		{"MLflow answers nothing", "the proxy takes the question and keeps still, longer than mlflow.timeout", hangs, 2},
		{"MLflow answers a byte at a time", "one byte of the real answer each 20 ms", trickles(1, 20*time.Millisecond), 2},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			b := begin(t, row{group: "registry", fault: c.fault, promise: "the version that serves; the next one once MLflow is well", how: c.how})
			r, g := b.serving()
			r.breaks(c.f)
			b.during(func() {
				r.promote(r.publish(0.85))
				r.meets(c.meets)
				b.requests(100)
			})
			r.mends()
			g.refresh()
			b.answeredBy(2)
			b.onlyBy(1, 2)
			b.note("version 2 at the next look")
		})
	}
}

// serving is how most rows begin: version 1 of a registry serves, and is asked.
func (b *bed) serving(args ...string) (*registry, *gateway) {
	b.t.Helper()
	r := b.mlflow()
	r.promote(r.publish(0.80))
	g := b.start(args...)
	g.serves(1)
	b.ask(g)
	return r, g
}

func TestRegistryWantsToBeLeftAlone(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "MLflow answers 429 with Retry-After", promise: "the version that serves; MLflow is left alone as long as it says",
		how: "the proxy does, to everything, with 12 seconds"})
	r, _ := b.serving()
	r.breaks(answers(429, "application/json", `{}`, "Retry-After", "12"))
	b.during(func() {
		r.meets(1)
		b.requests(900) // nine seconds
		if hits := r.count(); hits > 1 {
			t.Errorf("it was asked %d times within 9 of the 12 seconds", hits)
		}
	})
	r.mends()
	r.promote(r.publish(0.85))
	b.answeredBy(2)
	b.onlyBy(1, 2)
	b.note("asked once in 9 s; version 2 afterwards, by itself")
}

func TestRegistryFloods(t *testing.T) {
	for _, c := range []struct{ fault, of string }{
		{"MLflow answers with 1 GB of JSON", ""}, {"MLflow lists a version's files in 1 GB of JSON", "/mlflow-artifacts/"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			b := begin(t, row{group: "registry", fault: c.fault, promise: "the version that serves; the gateway's memory stays bounded",
				how: "the proxy sends it as fast as it is read"})
			r, g := b.serving()
			before := g.peak()
			f := floods(1 << 30)
			if c.of != "" {
				f = only(c.of, f)
			}
			r.breaks(f)
			r.promote(r.publish(0.85))
			b.during(func() {
				r.meets(3)
				b.requests(200)
			})
			grown := g.peak() - before
			if grown > 96<<20 {
				t.Errorf("the gateway grew by %d MiB", grown>>20)
			}
			r.mends()
			g.refresh()
			b.answeredBy(2)
			b.onlyBy(1, 2)
			b.note("the gateway's peak grew by %d MiB", grown>>20)
		})
	}
}

// Each other answer is cut at another byte, from the first byte of its headers to the last of its body.
func TestRegistryResetsAnswers(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "MLflow's answers are reset at every nth byte", promise: "the version that serves; the next one in spite of it",
		how: "the proxy closes each other connection with RST after so many bytes of the answer, and a few more the next time"})
	r, g := b.serving()
	every := times(100, 5)
	cut := &cutter{step: every}
	r.breaks(cut.fault)
	b.during(func() {
		for cut.at.Load() < 1500 {
			g.refresh()
		}
		r.promote(r.publish(0.85))
		g.refresh()
		b.answeredBy(2)
	})
	b.onlyBy(1, 2)
	b.note("%d answers cut, every %d bytes of 1500", cut.cuts.Load(), every)
}

// Downloads go on where they were cut.
func TestRegistryResetsDownloads(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "downloads are reset at every nth byte", promise: "the version that serves, then the new one, whole",
		how: "the proxy closes each other connection of a download with RST, each time further on in a file of 1 MB"})
	r, g := b.serving()
	every := times(96<<10, 8<<10)
	cut := &cutter{step: every}
	r.breaks(only("/mlflow-artifacts/artifacts/", cut.fault))
	versions := []int{1}
	b.during(func() {
		for n := 2; cut.at.Load() < 1<<20; n++ {
			r.promote(r.publish(0.80+float64(n)/1000, "padding.bin"))
			g.refresh()
			b.answeredBy(n)
			versions = append(versions, n)
		}
	})
	b.onlyBy(versions...)
	b.note("%d downloads cut, every %d KiB; all of %d versions came to serve", cut.cuts.Load(), every>>10, len(versions)-1)
}

func TestRegistryLosesVersions(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "the version that serves is deleted in MLflow, then the gateway restarts",
		promise: "that version, before and after", how: "MLflow's own API"})
	r, g := b.serving()
	r.remove(1)
	b.during(func() {
		g.refresh()
		b.requests(100)
	})
	b.onlyBy(1)
	g.terminate()
	g = b.start()
	g.serves(1)
	b.note("served from the cache after the restart too")
}

func TestRegistryLosesCandidate(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "a version is deleted while it is downloaded", promise: "the version that serves",
		how: "the proxy holds the download until MLflow has deleted the version"})
	r, g := b.serving()
	held := newHold()
	r.breaks(only("/mlflow-artifacts/artifacts/", held.fault))
	b.during(func() {
		r.promote(r.publish(0.85))
		held.reached(t)
		r.remove(2)
		held.release()
		b.requests(100)
		r.promote(r.publish(0.86))
		g.refresh()
		b.answeredBy(3)
	})
	b.onlyBy(1, 3)
	b.note("version 3 serves next")
}

func TestAliasMovesDuringTheDownload(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "the alias moves on while a version is downloaded", promise: "never the version that it left",
		how: "the proxy holds the download until the alias has moved"})
	r, _ := b.serving()
	held := newHold()
	r.breaks(only("/mlflow-artifacts/artifacts/", held.fault))
	b.during(func() {
		r.promote(r.publish(0.85))
		held.reached(t)
		r.promote(r.publish(0.84))
		held.release()
		b.answeredBy(3)
	})
	b.onlyBy(1, 3)
	b.note("version 3, which has the lower F1, serves")
}

func TestAliasMovesBack(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "the alias is moved back to the version before", promise: "that version, whatever its F1", how: "MLflow's own API"})
	r, g := b.serving()
	r.promote(r.publish(0.85))
	b.answeredBy(2)
	b.during(func() {
		r.promote(1)
		b.answeredBy(1)
	})
	g.decided(1, "registry_rollback")
	b.onlyBy(1, 2, 1)
	b.note("taken as the operator's order")
}

func TestAliasFlaps(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "the alias flaps between two versions", promise: "one of the two; the one it comes to rest at in the end",
		how: "MLflow's own API, without a pause"})
	r, g := b.serving()
	r.publish(0.85)
	n := times(10, 100)
	b.during(func() {
		for range n {
			r.promote(2)
			r.promote(1)
		}
		r.promote(2)
		g.serves(2)
		b.requests(50)
	})
	b.anyOf(1, 2)
	b.note("%d moves", 2*n+1)
}

var value85 = regexp.MustCompile(`"value":\s*0\.85\b`)

func TestF1IsNoReason(t *testing.T) {
	metric := func(v any) []object { return []object{{"key": "eval_f1", "value": v, "timestamp": 1, "step": 0}} }
	text := only("/runs/get", changed(func(body []byte) []byte { return value85.ReplaceAll(body, []byte(`"value": "very good"`)) }))
	for _, c := range []struct {
		what, how string
		metrics   []object
		f         fault
		code      string
	}{
		{"missing", "a run without metrics", nil, nil, "f1_unknown"},
		{"NaN", "logged as NaN", metric("NaN"), nil, "f1_unknown"},
		{"a text", "the proxy changes the number in MLflow's answer", metric(0.85), text, ""},
		{"that of the version that serves", "the same number", metric(0.80), nil, "no_improvement"},
		{"infinite", "logged as Infinity", metric("Infinity"), nil, "f1_unknown"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			b := begin(t, row{group: "registry", fault: "F1 is " + c.what, promise: "the version that serves", how: c.how})
			r, g := b.serving()
			r.breaks(c.f)
			b.during(func() {
				files, err := bundle{n: 2}.files(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				r.promote(r.publishFiles(files, c.metrics))
				if c.code == "" {
					r.meets(4)
					g.refresh()
				} else {
					g.decided(2, c.code)
				}
				b.requests(50)
			})
			b.onlyBy(1)
			b.note("the ledger says %s", orElse(c.code, "nothing: the registry can't be understood"))
		})
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func TestF1Flaps(t *testing.T) {
	t.Parallel()
	b := begin(t, row{group: "registry", fault: "F1 flaps", promise: "a swap when it is better, and none back when it is worse again",
		how: "the candidate's run is given 0.1 and 0.9 in turns"})
	r, g := b.serving()
	b.during(func() {
		n := r.publish(0.1)
		id := text(t, r.call(http.MethodGet, "model-versions/get?name="+r.name+"&version=2", nil), "model_version", "run_id")
		r.promote(n)
		g.decided(2, "below_threshold")
		for i, f1 := range []float64{0.9, 0.1, 0.9, 0.1, 0.9, 0.1} {
			r.post("runs/log-metric", object{"run_id": id, "key": "eval_f1", "value": f1, "timestamp": 2 + i, "step": i})
			g.refresh()
		}
		b.requests(50)
	})
	b.onlyBy(1, 2)
	if all, _ := b.load.state(); all[len(all)-1].version != 2 {
		t.Error("version 2 doesn't serve in the end")
	}
	b.note("one swap in six changes")
}

// What a listing names stays in the version's folder, or isn't taken.
func TestNamesLeadNowhere(t *testing.T) {
	for i, name := range []string{"../../../evil", "/tmp/evil", `..\\..\\evil`, `evil\u0000.txt`, "..%2f..%2fevil", "%2e%2e%2fevil", "a/../../../evil", "..", "evil\\n[31m"} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			b := begin(t, row{group: "registry", fault: fmt.Sprintf("MLflow lists a file named `%s`", name), promise: "the version that serves; no file outside of the version's folder",
				how: "the proxy changes a name in MLflow's listing"})
			r, g := b.serving()
			r.breaks(only("/mlflow-artifacts/artifacts", changed(func(body []byte) []byte {
				return bytes.ReplaceAll(body, []byte(`"tokenizer_config.json"`), []byte(`"`+name+`"`))
			})))
			b.during(func() {
				r.promote(r.publish(0.85))
				d := g.awaitFailure(2)
				b.note("refused: %s", short(d))
				b.requests(50)
			})
			b.onlyBy(1)
			b.noFile("evil")
		})
	}
}

func short(reason string) string {
	reason = strings.NewReplacer("|", "/", "\n", " ", "`", "'").Replace(reason)
	return reason[:min(len(reason), 160)]
}
