package server_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// sendPart sends the beginning of a body on a connection of its own and goes on with a byte now and then, until an answer begins.
func (g *gateway) sendPart(ctx context.Context, kind, body string, every time.Duration) string {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", g.server.HTTPAddr().String())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	_, err = fmt.Fprintf(c, "POST /v1/models/video:predictMedia HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 1000000\r\n\r\n%s", kind, body)
	if err != nil {
		return err.Error()
	}
	answered := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			line = err.Error()
		}
		answered <- line
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case line := <-answered:
			return strings.TrimSpace(line)
		case <-tick.C:
			_, _ = c.Write([]byte("x")) // until the other side has enough
		}
	}
}

// A body whose time is over ends the call's context, too: whichever is noticed first, the caller is told that it was slow.
func TestSlowMediaIsToldSo(t *testing.T) {
	g := startClips(t, func(c *config) { c.options.Limits.UploadTime = 50 * time.Millisecond })
	const form, begin = "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"video\"\r\n\r\n"
	for name, c := range map[string]struct{ kind, body string }{
		"a clip":                         {"video/mp4", "abc"},
		"a form, in its clip":            {form, begin + "abc"},
		"a form, later in its clip":      {form, begin + strings.Repeat("x", 300<<10)},
		"a form, in a field":             {form, "--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nabc"},
		"a form, in a field behind that": {form, begin + "abc\r\n--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nabc"},
	} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if got := g.sendPart(t.Context(), c.kind, c.body, 2*time.Millisecond); got != "HTTP/1.1 408 Request Timeout" {
						t.Error(got)
					}
				})
			}
			wg.Wait()
		})
	}
	nothingHeld(t, g)
}

// Uploads that stand still, as many as there may be at all, hold up no other call.
func TestSlowMediaHoldsUpNoCalls(t *testing.T) {
	g := startClips(t, func(c *config) { c.options.Limits.Streams = 2 })
	for range 2 {
		g.slowly(t.Context(), "abc")
	}
	eventually(t, func() bool { return metric(t, g, "modelgate_upload_bytes") == "14" }) // two headers
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a := g.call(http.MethodPost, "/v1/models/text:predict", `{"text": "good"}`, func(r *http.Request) { *r = *r.WithContext(ctx) })
	if a.code != 200 {
		t.Errorf("%d %s", a.code, a.raw)
	}
}
