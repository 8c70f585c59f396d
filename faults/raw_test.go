package faults_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	modelgatev1 "modelgate/proto/modelgate/v1"
)

func rawPests() []pest {
	return []pest{
		{"HTTP/2 rapid reset", "the connection is closed, or its streams are few at a time", fmt.Sprintf("a connection that opens a stream and resets it, %d times", times(10000, 100000)), rapidReset},
		{"requests that two readers would read differently", "400 or the end of the connection; never two answers", "lengths that contradict each other, chunks of no number, folded and empty names, 17 ways", oddities},
		{"headers without end", "431", "a header of a megabyte, 20,000 headers, a path of a megabyte", largeHeaders},
		{"ids and names that pretend to be log lines and metrics", "the error of a name that isn't known, or the answer with the id as it was", "line ends, quotes, escapes and NUL in the id and the model of 200 requests", injection},
	}
}

// rapidReset opens streams and resets each at once, so that none counts against the limit of streams while its work goes on.
func rapidReset(t *testing.T, g *gateway) string {
	n := times(10000, 100000)
	cpu := g.metric("process_cpu_seconds_total")
	began := time.Now()
	var ended tally
	ended.add(resetOften(t, g.grpc, n))
	if ended.n["connection closed"]+ended.n["connection kept"] != 1 {
		t.Errorf("%v", &ended)
	}
	took := time.Since(began)
	return fmt.Sprintf("%v, %.1f s of the gateway's processors in %v", &ended, g.metric("process_cpu_seconds_total")-cpu, took.Round(100*time.Millisecond))
}

func resetOften(t *testing.T, addr string, n int) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return "no connection"
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	out := bufio.NewWriter(c)
	f := http2.NewFramer(out, c)
	_, _ = io.WriteString(out, http2.ClientPreface)
	_ = f.WriteSettings()
	answered := make(chan bool, 1) // whether the ping at the end was answered
	go func() {                    // what the gateway says has to be read, or it waits
		for {
			frame, err := f.ReadFrame()
			ping, ok := frame.(*http2.PingFrame)
			if err != nil || ok && ping.IsAck() {
				answered <- err == nil
				return
			}
		}
	}()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range n {
		block.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/modelgate.v1.PredictionService/Predict"}, {":authority", addr},
			{"content-type", "application/grpc"}, {"te", "trailers"}} {
			_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		id := uint32(2*i + 1)
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
		if err == nil {
			err = f.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			return "connection closed"
		}
	}
	_ = f.WritePing(false, [8]byte{1})
	_ = out.Flush()
	if <-answered {
		return "connection kept"
	}
	return "connection closed"
}

// oddities are requests that must not be taken for two, nor for another.
func oddities(t *testing.T, g *gateway) string {
	const host, ctype, body = "Host: 127.0.0.1\r\n", "Content-Type: application/json\r\n", `{"text": "good"}`
	const smuggled = "GET /v1/models HTTP/1.1\r\n" + host + "\r\n"
	post := "POST /v1/models/text:predict HTTP/1.1\r\n" + host + ctype
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	var ended tally
	for name, raw := range map[string]string{
		"two lengths":               post + length + "Content-Length: 0\r\n\r\n" + body + smuggled,
		"a length and chunks":       post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"a negative length":         post + "Content-Length: -1\r\n\r\n" + body,
		"a length with a sign":      post + "Content-Length: +16\r\n\r\n" + body,
		"a length of two words":     post + "Content-Length: 16, 16\r\n\r\n" + body,
		"an unknown coding":         post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"a coding with a tab":       post + "Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n" + smuggled,
		"a chunk of no number":      post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + body + "\r\n0\r\n\r\n",
		"a chunk without end":       post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + body,
		"a space before the colon":  post + "Content-Length : 16\r\n\r\n" + body,
		"a folded header":           post + "X-A: b\r\n Content-Length: 0\r\n" + length + "\r\n" + body,
		"a header without a name":   post + ": x\r\n" + length + "\r\n" + body,
		"a header with NUL":         post + "X-A: a\x00b\r\n" + length + "\r\n" + body,
		"two hosts":                 "GET /v1/models HTTP/1.1\r\n" + host + "Host: evil.test\r\n\r\n",
		"no host":                   "GET /v1/models HTTP/1.1\r\n\r\n",
		"a method with a line end":  "GE\rT /v1/models HTTP/1.1\r\n" + host + "\r\n",
		"HTTP/2 where there's none": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		answers, ok := exchange(t, g.http, raw)
		if answers > 1 || ok > 0 {
			t.Errorf("%s: %d answers, %d of them 200", name, answers, ok)
		}
		ended.add(fmt.Sprintf("with %d answers", answers))
	}
	return ended.String()
}

// exchange sends bytes and counts the answers, and those among them that are 200.
func exchange(t *testing.T, addr, raw string) (answers, ok int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return 0, 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		return 0, 0
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	for in := bufio.NewReader(c); ; {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return answers, ok
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		answers++
		if resp.StatusCode == http.StatusOK {
			ok++
		}
	}
}

func largeHeaders(t *testing.T, g *gateway) string {
	var ended tally
	for _, raw := range []string{
		"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n" + strings.Repeat("X-A: a\r\n", 20000) + "\r\n",
		"GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
	} {
		answers, ok := exchange(t, g.http, raw)
		if ok > 0 {
			t.Errorf("%.40q... was answered", raw)
		}
		ended.add(fmt.Sprintf("with %d answers", answers))
	}
	return ended.String()
}

// hostileNames would be lines of a log, metrics, or orders to a terminal, if they were written as they are.
func hostileNames() []string {
	return []string{
		"a\n{\"time\":\"2020-01-01T00:00:00Z\",\"level\":\"ERROR\",\"msg\":\"forged\"}", "a\r\nmsg=forged level=ERROR", "\x1b[2J\x1b[31mforged\x1b[0m",
		"\"} 1\nforged_metric{a=\"b", "text\"} 1 #", "a\\\"", "a\x00b", "\u202eforged", strings.Repeat("forged", 30), "../../etc/passwd", "%2e%2e%2f", "${jndi:ldap://forged}",
	}
}

func injection(t *testing.T, g *gateway) string {
	series := g.series()
	c := client(t, g)
	var ended tally
	for range 10 {
		for _, name := range hostileNames() {
			if r, err := c.Predict(t.Context(), &modelgatev1.PredictRequest{Model: "text", Id: name, Text: proto.String("good")}); err != nil || r.GetId() != name {
				t.Errorf("the id %q: %v, %v", name, r, err)
			}
			_, err := c.Predict(t.Context(), &modelgatev1.PredictRequest{Model: name, Text: proto.String("good")})
			ended.add(status.Code(err).String())
		}
	}
	for i, line := range strings.Split(strings.TrimSpace(g.log()), "\n") {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("line %d of the log isn't JSON: %v: %q", i+1, err, line)
		} else if fields["msg"] == "forged" {
			t.Errorf("line %d of the log was forged: %q", i+1, line)
		}
	}
	const some = 20 // the first error of a kind makes its series
	if now := g.series(); now > series+some {
		t.Errorf("%d series became %d", series, now)
	}
	return ended.only(t, codes.NotFound.String(), codes.InvalidArgument.String()) + " for the names"
}

// series is the number of lines of /metrics, each of which has to be a comment or a sample of ours.
func (g *gateway) series() (n int) {
	g.t.Helper()
	resp, err := http.Get("http://" + g.http + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); n++ {
		if line := lines.Text(); strings.HasPrefix(line, "forged") || strings.Contains(line, "forged") {
			g.t.Errorf("/metrics has %q", line)
		}
	}
	return n
}
