package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// times is how often a test does what it does: usual, or as often as the variable says.
func times(t *testing.T, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is not a number of times", variable, text)
	}
	return n
}

// SIGKILL at any moment of a start, a fetch or a swap: the next start serves a complete version, none older than the one before.
func TestKillAtAnyMoment(t *testing.T) {
	k := &killer{w: newTestbed(t), t: t, scores: make(map[string]float64)}
	k.publishNext()
	for n := range times(t, "MODELGATE_KILLS", 12) {
		if n%3 == 2 {
			k.killWhileStarting()
		} else {
			k.killWhileSwapping()
		}
	}
	p := k.w.ready(t, "--update-interval", "50ms")
	k.check(p)
	if err := p.terminate(); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(patience); err != nil {
		t.Errorf("it ended with %v\n%s", err, p.log())
	}
	if k.served < 2 {
		t.Errorf("only version %d was ever seen serving, of %d: nothing was swapped", k.served, k.published)
	}
	t.Logf("%d versions were published, the last seen serving is %d", k.published, k.served)
}

type killer struct {
	w         testbed
	t         *testing.T
	published int // the newest version in the folder
	served    int // the newest version seen serving
	scores    map[string]float64
}

// publishNext publishes a version that is better than all before. It has 8 MB to copy and verify, so that kills meet that.
func (k *killer) publishNext() {
	k.t.Helper()
	next := k.published + 1
	place := filepath.Join(k.w.models(), "text", strconv.Itoa(next))
	tmp := filepath.Join(k.w.dir, "new")
	if err := publish(exampleOf(next), tmp, fmt.Sprint(0.8+float64(next)/1000)); err != nil {
		k.t.Fatal(err)
	}
	weight := make([]byte, 8<<20)
	_, _ = rand.Read(weight) // never fails
	if err := os.WriteFile(filepath.Join(tmp, "padding.bin"), weight, 0o600); err != nil {
		k.t.Fatal(err)
	}
	if err := os.Rename(tmp, place); err != nil {
		k.t.Fatal(err)
	}
	k.published = next
}

// exampleOf says which of the two examples a version's weights are.
func exampleOf(version int) string { return strconv.Itoa(2 - version%2) }

func (k *killer) killWhileStarting() {
	k.t.Helper()
	p := k.w.serve(k.t, "--update-interval", "50ms")
	k.killAfter(p, mathrand.N(time.Second))
}

func (k *killer) killWhileSwapping() {
	k.t.Helper()
	p := k.w.ready(k.t, "--update-interval", "50ms")
	k.check(p)
	k.publishNext()
	k.killAfter(p, mathrand.N(400*time.Millisecond))
}

func (k *killer) killAfter(p *process, d time.Duration) {
	k.t.Helper()
	select {
	case <-p.ended:
		k.t.Fatalf("it ended by itself: %v\n%s", p.err, p.log())
	case <-time.After(d):
		p.kill()
	}
}

// check asks for a prediction: by a version that was published, not older than what served before, with that version's own score.
func (k *killer) check(p *process) {
	k.t.Helper()
	r := askForScore(k.t, p)
	version, err := strconv.Atoi(r.GetVersion())
	if err != nil || version < k.served || version > k.published {
		k.t.Errorf("version %s answers; %d served before, %d is the newest\n%s", r.GetVersion(), k.served, k.published, p.log())
	}
	if want := k.scoreOf(exampleOf(version)); math.Abs(r.GetScore()-want) > 1e-6 {
		k.t.Errorf("version %d gives %v, its weights give %v", version, r.GetScore(), want)
	}
	k.served = version
}

// scoreOf is what an example gives for check's text, by a gateway that was never killed.
func (k *killer) scoreOf(example string) float64 {
	k.t.Helper()
	if s, ok := k.scores[example]; ok {
		return s
	}
	w := newTestbed(k.t)
	if err := publish(example, filepath.Join(w.models(), "text", "1"), ""); err != nil {
		k.t.Fatal(err)
	}
	k.scores[example] = askForScore(k.t, w.ready(k.t)).GetScore()
	return k.scores[example]
}

func askForScore(t *testing.T, p *process) *modelgatev1.PredictResponse {
	t.Helper()
	conn, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := modelgatev1.NewPredictionServiceClient(conn).Predict(ctx,
		&modelgatev1.PredictRequest{Model: "text", Text: proto.String("worst service ever, my flight was cancelled again")})
	if err != nil {
		t.Fatalf("predict: %v\n%s", err, p.log())
	}
	return r
}
