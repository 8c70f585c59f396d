package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A guard connects to the endpoint only: it looks the name up itself and dials the very address that it has checked, so that a name
// that leads elsewhere by now leads nowhere.
type guard struct {
	host, port string
	lookup     func(context.Context, string) ([]netip.Addr, error)
	networks   []netip.Prefix
	dialer     *net.Dialer

	mu sync.Mutex // guards own; nothing blocks under it
	// own are the addresses of the first answer: besides public ones, those may be dialled. nil before.
	own map[netip.Addr]bool
}

func newGuard(base *url.URL, o Options) (*guard, error) {
	g := &guard{host: base.Hostname(), port: base.Port(), lookup: o.Lookup, dialer: &net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}}
	if g.port == "" {
		g.port = map[string]string{"http": "80", "https": "443"}[base.Scheme]
	}
	for _, n := range o.Networks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, fmt.Errorf("%q is no network: write it as 172.18.0.0/16", n)
		}
		g.networks = append(g.networks, p.Masked())
	}
	if ip, err := netip.ParseAddr(g.host); err == nil {
		if ip = ip.Unmap(); ip.IsMulticast() || ip.IsUnspecified() || ip.Zone() != "" {
			return nil, fmt.Errorf("the endpoint's address %v is none that can be called", ip)
		}
		g.own = map[netip.Addr]bool{ip: true}
		g.lookup = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{ip}, nil }
	}
	return g, nil
}

// settle looks the name up for the first time, before anybody who isn't trusted has a say.
func (g *guard) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _ = g.addresses(ctx) // if it fails, the first request settles it
}

func (g *guard) addresses(ctx context.Context) ([]netip.Addr, error) {
	found, err := g.lookup(ctx, g.host)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own == nil && len(found) > 0 {
		g.own = make(map[netip.Addr]bool)
		for _, ip := range found {
			// A name has no business in a range where machines find their cloud's credentials.
			if !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified() {
				g.own[ip] = true
			}
		}
	}
	return found, nil
}

var errAddress = errors.New("the endpoint's name leads to an address that isn't the endpoint's")

// dial connects to the first address that may be dialled and answers.
func (g *guard) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	if addr != net.JoinHostPort(g.host, g.port) {
		return nil, fmt.Errorf("%s is not the endpoint", addr)
	}
	found, err := g.addresses(ctx)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("the name %s has no address", g.host)
	for _, ip := range found {
		if !g.allows(ip) {
			err = fmt.Errorf("%w: %v (s3.networks says which private networks it may be in)", errAddress, ip)
			continue
		}
		conn, derr := g.dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), g.port))
		if derr == nil {
			return conn, nil
		}
		err = derr
	}
	return nil, err
}

func (g *guard) allows(ip netip.Addr) bool {
	if public(ip) {
		return true
	}
	if len(g.networks) > 0 {
		for _, n := range g.networks {
			if n.Contains(ip) {
				return true
			}
		}
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.own[ip]
}

// special are the ranges of RFC 6890 and its successors where no public server is, or where an address hides another one.
func special() []string {
	return []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	}
}

// public reports whether ip is one of the open Internet. Of IPv6 that is 2000::/3 at most.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if !ip.IsValid() || ip.Zone() != "" || ip.Is6() && !netip.MustParsePrefix("2000::/3").Contains(ip) {
		return false
	}
	for _, s := range special() {
		if netip.MustParsePrefix(s).Contains(ip) {
			return false
		}
	}
	return true
}

const (
	maxListBody  = 16 << 20 // of one page of names
	maxListTags  = 64 << 10 // twice those of the 1000 names that a page has; each may become kilobytes
	maxErrorBody = 1 << 20
)

var (
	errRedirect = errors.New("the endpoint redirects, which is not followed")
	errTags     = fmt.Errorf("one page of the list has more than %d XML tags", maxListTags)
)

// onlyEndpoint refuses requests to other hosts and answers that send elsewhere, whatever the client above it would do with them.
type onlyEndpoint struct {
	next http.RoundTripper
	base *url.URL
}

func (t *onlyEndpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != t.base.Scheme || req.URL.Host != t.base.Host {
		return nil, fmt.Errorf("a request to %s is not one to the endpoint, %s: write the endpoint as the address that is to be asked", req.URL.Host, t.base.Host)
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w (%d): is the region right, and the endpoint the server itself?", errRedirect, resp.StatusCode)
	}
	switch {
	case resp.StatusCode >= 300:
		resp.Body = limitBody(resp.Body, maxErrorBody)
	case strings.Contains(req.URL.RawQuery, "list-type="):
		resp.Body = limitBody(resp.Body, maxListBody)
		resp.Body = &fewTags{ReadCloser: resp.Body, left: maxListTags}
	}
	return resp, nil
}

// fewTags ends a body of XML that has too many tags.
type fewTags struct {
	io.ReadCloser
	left int
}

func (f *fewTags) Read(b []byte) (int, error) {
	n, err := f.ReadCloser.Read(b)
	if f.left -= bytes.Count(b[:n], []byte("<")); f.left < 0 {
		return 0, errTags
	}
	return n, err
}

func limitBody(body io.ReadCloser, n int64) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, n), body}
}
