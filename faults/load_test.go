package faults_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

const (
	rate      = 100 // requests a second, whatever the answers take
	leastRate = rate / 2
	least     = 50 // requests during a fault
)

// A load asks gateways in turns, in an open loop: the next request doesn't wait for the answer to the one before.
type load struct {
	conns   []*grpc.ClientConn
	clients []modelgatev1.PredictionServiceClient
	stop    context.CancelFunc
	ended   chan struct{} // closed when every request has ended

	mu      sync.Mutex // guards what follows
	answers []answer   // in the order in which they came
	changed chan struct{}
}

// An answer is what became of one request.
type answer struct {
	sent, came time.Time
	by         int   // which of the gateways
	version    int   // that gave it, by the score; -1 if none did
	err        error // also if it claims to be of another version than gave it
}

// ask starts the load of the row, on one gateway or several. A row has one load.
func (b *bed) ask(gateways ...*gateway) *load {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{stop: cancel, ended: make(chan struct{}), changed: make(chan struct{})}
	for _, g := range gateways {
		conn, client := dial(b.t, g)
		l.conns, l.clients = append(l.conns, conn), append(l.clients, client)
	}
	go l.run(ctx)
	b.load = l
	b.requests(rate / 2) // it runs
	return l
}

func (l *load) run(ctx context.Context) {
	defer close(l.ended)
	var asking sync.WaitGroup
	defer asking.Wait()
	texts, logits := questions()
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	begun := time.Now()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for ; float64(n) < time.Since(begun).Seconds()*rate; n++ { // those that a late tick left out come now
			by, i := n%len(l.clients), n/len(l.clients)%len(texts)
			asking.Go(func() {
				a := one(l.clients[by], texts[i], logits[i])
				a.by = by
				l.add(a)
			})
		}
	}
}

// one asks one question. The request isn't bound to the load's end: what was asked has to be answered.
func one(client modelgatev1.PredictionServiceClient, text string, logit float64) answer {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a := answer{sent: time.Now(), version: -1}
	r, err := client.Predict(ctx, &modelgatev1.PredictRequest{Model: "text", Text: proto.String(text)})
	a.came, a.err = time.Now(), err
	if err != nil {
		return a
	}
	a.version = giver(logit, r.GetScore())
	if r.GetVersion() != strconv.Itoa(a.version) {
		a.err = fmt.Errorf("the answer says that it is of version %s; its score %v is that of version %d", r.GetVersion(), r.GetScore(), a.version)
		a.version = -1
	}
	return a
}

func (l *load) add(a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, a)
	close(l.changed)
	l.changed = make(chan struct{})
}

// end stops the load and waits for the answers.
func (l *load) end() {
	l.stop()
	<-l.ended
	for _, c := range l.conns {
		_ = c.Close()
	}
}

// so far, and a channel that is closed at the next answer.
func (l *load) state() ([]answer, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.answers), l.changed
}

type counts struct{ requests, failed int }

func (l *load) counts() (c counts) {
	all, _ := l.state()
	c.requests = len(all)
	for _, a := range all {
		if a.err != nil {
			c.failed++
		}
	}
	return c
}

// requests waits until n more requests were answered.
func (b *bed) requests(n int) {
	b.t.Helper()
	all, _ := b.load.state()
	b.answered(fmt.Sprintf("%d more requests", n), func(now []answer) bool { return len(now) >= len(all)+n })
}

// answeredBy waits until version n answers.
func (b *bed) answeredBy(n int) {
	b.t.Helper()
	b.answered(fmt.Sprintf("an answer of version %d", n), func(now []answer) bool {
		return len(now) > 0 && now[len(now)-1].version == n
	})
}

func (b *bed) answered(what string, enough func([]answer) bool) {
	b.t.Helper()
	for deadline := time.After(patience); ; {
		all, changed := b.load.state()
		if enough(all) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			b.t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// during runs the fault from its beginning to its end, under the load. The row is void if the load was too thin meanwhile.
func (b *bed) during(fault func()) {
	b.t.Helper()
	from := time.Now()
	fault()
	if all, _ := b.load.state(); countSince(all, from) < least {
		b.requests(least)
	}
	all, _ := b.load.state()
	n, took := countSince(all, from), time.Since(from)
	if float64(n) < leastRate*took.Seconds() {
		b.void("%d requests were sent and answered during the %v of the fault, which is less than %d a second", n, took, leastRate)
	}
}

func countSince(all []answer, from time.Time) (n int) {
	for _, a := range all {
		if !a.sent.Before(from) {
			n++
		}
	}
	return n
}

// onlyBy ends the load: no request failed, and each answer is by one of these versions, in this order. A request that was sent after
// an answer of a later one came is not answered by an earlier one of the same gateway. A version may be named again where it returns.
func (b *bed) onlyBy(versions ...int) {
	b.t.Helper()
	b.anyOf(versions...)
	all, _ := b.load.state()
	place, since := map[int]int{}, map[int]time.Time{} // of each gateway: where in versions it is, and when its first answer from there came
	for _, a := range all {
		at := place[a.by]
		later := slices.Index(versions[at:], a.version)
		switch {
		case later > 0:
			place[a.by], since[a.by] = at+later, a.came
		case later < 0 && slices.Contains(versions[:at], a.version) && a.sent.After(since[a.by]):
			if b.out.wrong++; b.out.wrong <= 5 {
				b.t.Errorf("version %d answers, after version %d had; they are %v, in this order", a.version, versions[at], versions)
			}
		}
	}
}

// anyOf ends the load: no request failed, and each answer is by one of these versions, in whatever order.
func (b *bed) anyOf(versions ...int) {
	b.t.Helper()
	b.load.end()
	all, _ := b.load.state()
	b.out.failed, b.out.wrong = 0, 0
	for _, a := range all {
		b.out.slowest = max(b.out.slowest, a.came.Sub(a.sent))
		if a.err != nil {
			if b.out.failed++; b.out.failed <= 5 {
				b.t.Errorf("a request failed after %v: %v", a.came.Sub(a.sent), a.err)
			}
		} else if !slices.Contains(versions, a.version) {
			if b.out.wrong++; b.out.wrong <= 5 {
				b.t.Errorf("version %d answers; the versions are %v", a.version, versions)
			}
		}
	}
}
