package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy stands between a gateway and the registry. A row says what it does to the answers.
type proxy struct {
	addr string
	pass http.Handler // to the server

	mu     sync.Mutex // guards what follows
	server *http.Server
	fault  fault
	hits   int // requests that the fault met
	met    chan struct{}
}

// A fault answers in place of the server; pass is the server.
type fault func(w http.ResponseWriter, r *http.Request, pass http.Handler)

func newProxy(base string) (*proxy, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	pass := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport:    &http.Transport{DisableKeepAlives: true}, // the server closes idle connections when it likes
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p := &proxy{addr: "127.0.0.1:0", pass: pass, met: make(chan struct{})}
	return p, p.up()
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	f := p.fault
	if f != nil {
		p.hits++
		close(p.met)
		p.met = make(chan struct{})
	}
	p.mu.Unlock()
	if f == nil {
		p.pass.ServeHTTP(w, r)
		return
	}
	f(w, r, p.pass)
}

// up listens, at the same address as before.
func (p *proxy) up() error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", p.addr)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr = l.Addr().String()
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func(s *http.Server) { _ = s.Serve(l) }(p.server)
	return nil
}

// down closes the port and every connection.
func (p *proxy) down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.server.Close()
}

// breaks has the fault meet every request from now on; nil mends the proxy.
func (p *proxy) breaks(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.hits = f, 0
}

func (p *proxy) mends() { p.breaks(nil) }

// met waits until the fault met n requests.
func (r *registry) meets(n int) {
	r.t.Helper()
	for deadline := time.After(patience); ; {
		r.mu.Lock()
		hits, met := r.hits, r.met
		r.mu.Unlock()
		if hits >= n {
			return
		}
		select {
		case <-met:
		case <-deadline:
			r.t.Fatalf("the fault met %d requests of %d within %v", hits, n, patience)
		}
	}
}

// answers gives the same answer to everything.
func answers(status int, contentType, body string, headers ...string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// only breaks requests whose path holds part.
func only(part string, f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if !strings.Contains(r.URL.Path, part) {
			pass.ServeHTTP(w, r)
			return
		}
		f(w, r, pass)
	}
}

// hangs answers nothing until the client leaves.
func hangs(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }

// trickles sends the server's answer, n bytes each pause.
func trickles(n int, pause time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		whole := record(r, pass)
		for k, v := range whole.Header() {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Length", fmt.Sprint(whole.Body.Len()))
		w.WriteHeader(whole.Code)
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for whole.Body.Len() > 0 && r.Context().Err() == nil {
			if _, err := w.Write(whole.Body.Next(n)); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
			}
		}
	}
}

// changed hands on the server's answer, its body changed.
func changed(change func(body []byte) []byte) fault {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		whole := record(r, pass)
		for k, v := range whole.Header() {
			w.Header()[k] = v
		}
		body := change(whole.Body.Bytes())
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.WriteHeader(whole.Code)
		_, _ = w.Write(body)
	}
}

// record is the server's whole answer.
func record(r *http.Request, pass http.Handler) *httptest.ResponseRecorder {
	whole := httptest.NewRecorder()
	pass.ServeHTTP(whole, r)
	return whole
}

// resetsAt sends the first n bytes of the server's answer, headers counted, and resets the connection.
func resetsAt(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		raw := rawAnswer(r, pass)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = conn.Write(raw[:min(n, len(raw))])
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // close sends RST
		}
		_ = conn.Close()
	}
}

// rawAnswer is the server's answer as it goes over the wire.
func rawAnswer(r *http.Request, pass http.Handler) []byte {
	whole := record(r, pass).Result()
	var b bytes.Buffer
	body, _ := io.ReadAll(whole.Body)
	whole.Body, whole.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	_ = whole.Write(&b)
	return b.Bytes()
}

// floods sends n bytes of JSON that never come to an end.
func floods(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"registered_model": {"name": "`)
		for chunk := bytes.Repeat([]byte("x"), 1<<20); n > 0; n -= len(chunk) {
			if _, err := w.Write(chunk); err != nil || r.Context().Err() != nil {
				return
			}
		}
		_, _ = io.WriteString(w, `"}}`)
	}
}

// A cutter resets each other answer, step bytes further each time.
type cutter struct {
	step        int
	n, at, cuts atomic.Int64
}

func (c *cutter) fault(w http.ResponseWriter, r *http.Request, pass http.Handler) {
	if c.n.Add(1)%2 == 0 {
		pass.ServeHTTP(w, r)
		return
	}
	c.cuts.Add(1)
	resetsAt(int(c.at.Add(int64(c.step)))-c.step)(w, r, pass)
}

// A hold keeps requests waiting until it is released.
type hold struct {
	met, open chan struct{} // closed
	once      sync.Once
}

func newHold() *hold { return &hold{met: make(chan struct{}), open: make(chan struct{})} }

func (h *hold) fault(w http.ResponseWriter, r *http.Request, pass http.Handler) {
	h.once.Do(func() { close(h.met) })
	select {
	case <-h.open:
		pass.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// reached waits until a request waits.
func (h *hold) reached(t *testing.T) {
	t.Helper()
	select {
	case <-h.met:
	case <-time.After(patience):
		t.Fatalf("nothing was asked for within %v", patience)
	}
}

func (h *hold) release() { close(h.open) }

// count is how many requests the fault met.
func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}
