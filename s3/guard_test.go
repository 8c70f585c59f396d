package s3_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"modelgate/s3"
)

func scripted(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// serve answers as S3 does.
func serve(w http.ResponseWriter, body string) {
	w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	w.Header().Set("ETag", `"tag"`)
	_, _ = w.Write([]byte(body))
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var elsewhere atomic.Int32
	victim := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		serve(w, "secret")
	})
	region := `<Error><Code>%s</Code><Endpoint>` + strings.TrimPrefix(victim.URL, "http://") + `</Endpoint><Region>eu-north-1</Region></Error>`
	for name, answer := range map[string]http.HandlerFunc{
		"301": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, victim.URL, http.StatusMovedPermanently)
		},
		"302": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, victim.URL, http.StatusFound) },
		"307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, victim.URL, http.StatusTemporaryRedirect)
		},
		"308 to itself": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/clips/other", http.StatusPermanentRedirect)
		},
		"another region, by S3's own redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Bucket-Region", "eu-north-1")
			w.WriteHeader(http.StatusTemporaryRedirect)
			_, _ = fmt.Fprintf(w, region, "TemporaryRedirect")
		},
		"another region, by an error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, region, "AuthorizationHeaderMalformed")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				answer(w, r)
			})
			e := open(t, s3.Options{Endpoint: s.URL, AccessKey: "me", SecretKey: "s", Prefixes: []string{"clips"}})
			_, err := read(t.Context(), e, "s3://clips/x", 100)
			if !errors.Is(err, s3.ErrUnavailable) || elsewhere.Load() != 0 || asked.Load() != 1 {
				t.Errorf("got %v; asked %d times, elsewhere %d times", err, asked.Load(), elsewhere.Load())
			}
		})
	}
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	lookup := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	s := scripted(t, func(w http.ResponseWriter, _ *http.Request) { serve(w, "straight") })
	e := open(t, s3.Options{Endpoint: named(t, s), Prefixes: []string{"clips"}, Lookup: lookup})
	got, err := read(t.Context(), e, "s3://clips/x", 100)
	if err != nil || string(got) != "straight" {
		t.Errorf("got %q, %v", got, err)
	}
}

// named is a server's address with a name in place of the number.
func named(t *testing.T, s *httptest.Server) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return "http://minio.test:" + u.Port()
}

// counted listens on an address of its own, with the port of another server, and counts who connects.
func counted(t *testing.T, ip string, like *httptest.Server) *atomic.Int32 {
	t.Helper()
	u, err := url.Parse(like.URL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(ip, u.Port()))
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return &n
}

// A name that leads somewhere else by the time of a request.
func TestRebinding(t *testing.T) {
	s := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close") // so that each request looks the name up
		serve(w, "x")
	})
	other := counted(t, "127.0.0.2", s)
	for name, c := range map[string]struct {
		answers  []string // of the resolver, the last for ever
		networks []string
		ok       bool
	}{
		"stays":                            {[]string{"127.0.0.1"}, nil, true},
		"to another private address":       {[]string{"127.0.0.1", "127.0.0.2"}, nil, false},
		"mapped into IPv6":                 {[]string{"127.0.0.1", "::ffff:127.0.0.2"}, nil, false},
		"to the metadata service":          {[]string{"127.0.0.1", "169.254.169.254"}, nil, false},
		"to it from the start":             {[]string{"169.254.169.254"}, nil, false},
		"to everybody":                     {[]string{"0.0.0.0"}, nil, false},
		"from a public address":            {[]string{"8.8.8.8", "127.0.0.2"}, nil, false},
		"the right one among others":       {[]string{"127.0.0.1", "127.0.0.2 127.0.0.1"}, nil, true},
		"within a network that is allowed": {[]string{"10.0.0.1", "127.0.0.1"}, []string{"127.0.0.1/32"}, true},
		"out of a network that is allowed": {[]string{"127.0.0.1", "127.0.0.2"}, []string{"127.0.0.1/32"}, false},
		"to nothing":                       {[]string{"127.0.0.1", ""}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			other.Store(0)
			asked := 0
			e := open(t, s3.Options{Endpoint: named(t, s), Prefixes: []string{"clips"}, Networks: c.networks,
				Lookup: func(context.Context, string) ([]netip.Addr, error) {
					answer := c.answers[min(asked, len(c.answers)-1)]
					asked++
					var all []netip.Addr
					for ip := range strings.FieldsSeq(answer) {
						all = append(all, netip.MustParseAddr(ip))
					}
					return all, nil
				}})
			got, err := read(t.Context(), e, "s3://clips/x", 100)
			if c.ok != (err == nil && string(got) == "x") || !c.ok && !errors.Is(err, s3.ErrUnavailable) {
				t.Errorf("got %q, %v", got, err)
			}
			if other.Load() != 0 {
				t.Error("the other address was connected to")
			}
		})
	}
}

// The client below knows AWS's hosts and would put others in their place.
func TestHostsOfAWSStay(t *testing.T) {
	for name, c := range map[string]struct{ endpoint, region string }{
		"regional":         {"https://s3.eu-north-1.amazonaws.com", ""},
		"with its region":  {"https://s3.eu-north-1.amazonaws.com", "eu-north-1"},
		"with its port":    {"https://s3.eu-north-1.amazonaws.com:443", ""},
		"dual stack":       {"https://s3.dualstack.eu-north-1.amazonaws.com", ""},
		"the first region": {"https://s3.us-east-1.amazonaws.com", ""},
		"government":       {"https://s3.us-gov-west-1.amazonaws.com", ""},
		"China":            {"https://s3.cn-north-1.amazonaws.com.cn", ""},
		"FIPS":             {"https://s3-fips.us-west-2.amazonaws.com", ""},
		"Google":           {"https://storage.googleapis.com", ""},
		"another":          {"https://minio.example:9000", ""},
	} {
		t.Run(name, func(t *testing.T) {
			lookedUp := errors.New("looked up")
			u, err := url.Parse(c.endpoint)
			if err != nil {
				t.Fatal(err)
			}
			e := open(t, s3.Options{Endpoint: c.endpoint, Region: c.region, AccessKey: "me", SecretKey: "s", Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
				if host != u.Hostname() {
					t.Errorf("%s is looked up", host)
				}
				return nil, lookedUp
			}})
			if _, err := e.Read(t.Context(), s3.Name{Bucket: "clips", Key: "x"}, 0, ""); !errors.Is(err, lookedUp) {
				t.Errorf("got %v", err)
			}
		})
	}
	e := open(t, s3.Options{Endpoint: "https://s3.eu-north-1.amazonaws.com", Region: "us-east-1", Lookup: func(context.Context, string) ([]netip.Addr, error) { return nil, nil }})
	if _, err := e.Read(t.Context(), s3.Name{Bucket: "clips", Key: "x"}, 0, ""); !errors.Is(err, s3.ErrUnavailable) || !strings.Contains(err.Error(), "is not one to the endpoint") {
		t.Errorf("the wrong region: got %v", err)
	}
}

func TestLimits(t *testing.T) {
	release := make(chan struct{})
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"no size": {func(w http.ResponseWriter, _ *http.Request) { serve(w, "x"); _ = http.NewResponseController(w).Flush() }, s3.ErrUnavailable},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "50"); serve(w, "x") }, s3.ErrUnavailable},
		"a part": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-0/9")
			serve(w, "x")
		}, s3.ErrUnavailable},
		"too large": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "101"); serve(w, "x") }, s3.ErrTooLarge},
		"overloaded": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
			s3.ErrUnavailable},
		"wrong key": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`<Error><Code>SignatureDoesNotMatch</Code></Error>`))
		}, s3.ErrUnavailable},
		"forbidden": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, s3.ErrNotFound},
		"never begins": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}, s3.ErrUnavailable},
		"never ends": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "50")
			serve(w, "x")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}, s3.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := scripted(t, c.answer)
			e := open(t, s3.Options{Endpoint: s.URL, Prefixes: []string{"clips"}, ReadTimeout: 300 * time.Millisecond})
			got, err := read(t.Context(), e, "s3://clips/x", 100)
			if !errors.Is(err, c.want) || got != nil {
				t.Errorf("got %q, %v; want %v", got, err, c.want)
			}
		})
	}
	close(release)
}
