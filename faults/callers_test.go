package faults_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

// A pest is a caller that does what no caller should. It comes back when it has done it, and says what it saw.
type pest struct {
	fault, promise, how string
	does                func(*testing.T, *gateway) (saw string)
}

// unpacked is how large a bomb is.
const unpacked = 256 << 20

// mostGrowth is how much memory the gateway may take for a pest, in bytes.
const mostGrowth = 200 << 20

// Callers that do what no caller should, beside others that ask as usual: these are answered, and the gateway holds no more afterwards
// than it did before.
func TestPests(t *testing.T) {
	bed := &bed{t: t, dir: t.TempDir()}
	bed.env = append(environment(t, bed.dir), "MODELGATE_LOG_LEVEL=info")
	bed.publish(1, bundle{n: 1}.write)
	g := bed.start("--models", bed.models())
	g.serves(1)
	g.alone()
	before := g.level()
	for _, p := range slices.Concat(slowPests(), hastyPests(), largePests(), rawPests()) {
		t.Run(strings.ReplaceAll(p.fault, " ", "_"), func(t *testing.T) {
			b := begin(t, row{"callers", p.fault, p.promise, p.how})
			defer g.reportTo(t)()
			memory := g.metric("process_resident_memory_bytes")
			b.ask(g)
			b.during(func() {
				t.Run("pest", func(t *testing.T) { b.note("%s", p.does(t, g)) }) // at its end its connections are closed
			})
			t.Log(b.out.note)
			if grown := g.metric("process_resident_memory_bytes") - memory; grown > mostGrowth {
				t.Errorf("the gateway took %.0f MB for it", grown/1e6)
			}
			b.onlyBy(1)
			b.level(g, before)
		})
	}
}

// client is a connection of a pest's own.
func client(t *testing.T, g *gateway, o ...grpc.DialOption) modelgatev1.PredictionServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(g.grpc, append(o, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return modelgatev1.NewPredictionServiceClient(conn)
}

func question(text string) *modelgatev1.PredictRequest {
	return &modelgatev1.PredictRequest{Model: "text", Text: proto.String(text)}
}

// tally counts what calls end with.
type tally struct {
	mu sync.Mutex // guards n
	n  map[string]int
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	t.n[what]++
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for what, n := range t.n {
		all = append(all, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// only fails if calls ended with anything else.
func (t *tally) only(on *testing.T, allowed ...string) string {
	on.Helper()
	t.mu.Lock()
	for what := range t.n {
		if !slices.Contains(allowed, what) {
			on.Errorf("some ended with %s: %v", what, t.n)
		}
	}
	t.mu.Unlock()
	return t.String()
}

// many does something n times, by a few at a time.
func many(n, few int, do func(i int)) {
	var all sync.WaitGroup
	for w := range few {
		all.Go(func() {
			for i := w; i < n; i += few {
				do(i)
			}
		})
	}
	all.Wait()
}

func slowPests() []pest {
	return []pest{
		{"callers that never finish their headers", "their connections are closed", "200 connections to each port that send half a request, or nothing", slowHeaders},
		{"callers that send slowly", "they get an error, or wait", "100 bodies over REST of a byte a tenth of a second, 100 streams over gRPC that send nothing", slowSenders},
		{"callers that don't read", "no more of theirs is read", "8 streams that send 20,000 questions and read no answer; 100 connections that ask for pages and read none", deaf},
	}
}

// slowHeaders waits until the gateway has closed them all.
func slowHeaders(t *testing.T, g *gateway) string {
	const most = 30 * time.Second
	began := time.Now()
	var closed tally
	for addr, start := range map[string]string{g.http: "POST /v1/models/text:predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", g.grpc: "PRI * HTTP/2.0\r\n\r\nSM"} {
		many(200, 200, func(i int) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(most))
			if i%2 == 0 {
				_, _ = io.WriteString(c, start)
			}
			if _, err := io.Copy(io.Discard, c); err == nil || !isTimeout(err) {
				closed.add("closed")
			} else {
				closed.add("open")
			}
		})
	}
	return closed.only(t, "closed") + fmt.Sprintf(" within %v", time.Since(began).Round(time.Second))
}

func isTimeout(err error) bool {
	var of net.Error
	return err != nil && errors.As(err, &of) && of.Timeout()
}

func slowSenders(t *testing.T, g *gateway) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(times(3, 45))*time.Second)
	defer cancel()
	var all sync.WaitGroup
	var ended tally
	for range 100 {
		all.Go(func() {
			r, w := io.Pipe()
			go func() {
				for ctx.Err() == nil {
					if _, err := w.Write([]byte(" ")); err != nil {
						return
					}
					<-time.After(100 * time.Millisecond)
				}
				_ = w.CloseWithError(ctx.Err())
			}()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.http+"/v1/models/text:predict", r)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				ended.add("given up")
				return
			}
			ended.add(resp.Status)
			_ = resp.Body.Close()
		})
		all.Go(func() {
			s, err := client(t, g).PredictStream(ctx)
			if err == nil {
				_, err = s.Recv()
			}
			ended.add(status.Code(err).String())
		})
	}
	all.Wait()
	return ended.only(t, "given up", "400 Bad Request", "408 Request Timeout", codes.DeadlineExceeded.String())
}

func deaf(t *testing.T, g *gateway) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var all sync.WaitGroup
	var sent tally
	for range 8 {
		all.Go(func() {
			s, err := client(t, g, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10)).PredictStream(ctx)
			for i := 0; err == nil && i < 20000; i++ {
				if err = s.Send(&modelgatev1.PredictStreamRequest{Request: question("good")}); err == nil {
					sent.add("questions sent")
				}
			}
		})
	}
	for range 100 {
		all.Go(func() {
			c, err := net.Dial("tcp", g.http)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(3 * time.Second))
			for range 1000 {
				if _, err := io.WriteString(c, "GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return sent.String()
}

func hastyPests() []pest {
	return []pest{
		{"a storm of cancelled requests", "CANCELLED", fmt.Sprintf("%d requests, each given up within two milliseconds", times(5000, 100000)), cancelStorm},
		{"a storm of deadlines", "DEADLINE_EXCEEDED", fmt.Sprintf("%d requests with a millisecond each", times(5000, 100000)), deadlineStorm},
		{"more streams than a connection may have", "those above the limit wait", "2 connections with 1,500 streams each, every tenth with a question, none closed", streamFlood},
		{"connections that come and go", "nothing", fmt.Sprintf("%d connections to each port, closed at once, or after half a greeting", times(1000, 20000)), churn},
	}
}

func cancelStorm(t *testing.T, g *gateway) string {
	c := client(t, g)
	var ended tally
	many(times(5000, 100000), 8, func(int) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, cancel)
		_, err := c.Predict(ctx, question("good"))
		ended.add(status.Code(err).String())
	})
	return ended.only(t, codes.OK.String(), codes.Canceled.String(), codes.ResourceExhausted.String())
}

func deadlineStorm(t *testing.T, g *gateway) string {
	c := client(t, g)
	var ended tally
	many(times(5000, 100000), 8, func(int) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_, err := c.Predict(ctx, question("good"))
		ended.add(status.Code(err).String())
	})
	return ended.only(t, codes.OK.String(), codes.DeadlineExceeded.String(), codes.ResourceExhausted.String())
}

func streamFlood(t *testing.T, g *gateway) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var all sync.WaitGroup
	var got tally
	for range 2 {
		c := client(t, g)
		for i := range 1500 {
			all.Go(func() {
				s, err := c.PredictStream(ctx)
				if err != nil {
					got.add("waited for a stream")
					return
				}
				if i%10 != 0 {
					<-ctx.Done()
					got.add("opened")
					return
				}
				_ = s.Send(&modelgatev1.PredictStreamRequest{Request: question("good")})
				if r, err := s.Recv(); err == nil && r.GetPrediction() != nil {
					got.add("answered")
					<-ctx.Done()
					return
				}
				got.add("not answered in time")
			})
		}
	}
	all.Wait()
	return got.String()
}

func churn(t *testing.T, g *gateway) string {
	n := times(1000, 20000)
	var failed tally
	for addr, half := range map[string]string{g.http: "GET / HT", g.grpc: "PRI * HT"} {
		many(n, 4, func(i int) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				failed.add(err.Error())
				return
			}
			if i%2 == 0 {
				_, _ = io.WriteString(c, half)
			}
			if tcp, ok := c.(*net.TCPConn); ok && i%3 == 0 {
				_ = tcp.SetLinger(0) // a reset, not an end
			}
			_ = c.Close()
		})
	}
	failed.only(t)
	return fmt.Sprintf("%d connections", 2*n)
}

func largePests() []pest {
	return []pest{
		{"messages above the limit", "RESOURCE_EXHAUSTED, 413", "20 messages of 8 MB over gRPC, 20 bodies of 64 MB over REST, without a length", hugeMessages},
		{"messages that unpack to more", "UNIMPLEMENTED, 400", "256 MB of zeros as 256 KB of gzip, 20 times over gRPC and over REST", bombs},
	}
}

func hugeMessages(t *testing.T, g *gateway) string {
	var ended tally
	c := client(t, g)
	large := question(strings.Repeat("x", 8<<20))
	many(20, 4, func(int) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := c.Predict(ctx, large)
		ended.add(status.Code(err).String())
	})
	many(20, 4, func(int) {
		body := io.MultiReader(strings.NewReader(`{"text": "`), io.LimitReader(forever('x'), 64<<20), strings.NewReader(`"}`))
		ended.add(post(g, body, nil))
	})
	return ended.only(t, codes.ResourceExhausted.String(), "413", "closed")
}

// forever gives one byte again and again.
type forever byte

func (f forever) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(f)
	}
	return len(b), nil
}

// post sends a body to predict, and returns the status, or "closed": the gateway need not read what it doesn't take.
func post(g *gateway, body io.Reader, header http.Header) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.http+"/v1/models/text:predict", body)
	if err != nil {
		return err.Error()
	}
	for name, v := range header {
		req.Header[name] = v
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "closed"
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return fmt.Sprint(resp.StatusCode)
}

// bombs are sent as they are: grpc-go would compress what it is given once more.
func bombs(t *testing.T, g *gateway) string {
	var ended tally
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := io.Copy(w, io.LimitReader(forever(0), unpacked)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	message := append(binary.BigEndian.AppendUint32([]byte{1}, uint32(packed.Len())), packed.Bytes()...)
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	h2 := &http.Transport{Protocols: plain}
	defer h2.CloseIdleConnections()
	many(20, 4, func(int) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.grpc+"/modelgate.v1.PredictionService/Predict", bytes.NewReader(message))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Encoding": {"gzip"}}
		resp, err := h2.RoundTrip(req)
		if err != nil {
			ended.add("closed")
			return
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		code := cmp.Or(resp.Trailer.Get("Grpc-Status"), resp.Header.Get("Grpc-Status"))
		ended.add("gRPC " + code)
	})
	many(20, 4, func(int) {
		ended.add(post(g, bytes.NewReader(packed.Bytes()), http.Header{"Content-Encoding": {"gzip"}}))
	})
	return ended.only(t, fmt.Sprintf("gRPC %d", codes.Unimplemented), "400", "415")
}
