package server

import (
	"bytes"
	"context"
	_ "embed" // for the API description
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/swaggest/swgui/v5emb"
	"google.golang.org/grpc/codes"
)

//go:embed openapi/modelgate.swagger.json
var swagger []byte

const (
	predictTimeout = time.Minute      // of one REST prediction
	orderTimeout   = time.Hour        // of one REST order: it may have to download a model
	writeTime      = 30 * time.Second // for the answer to leave, after that
)

// pages are the routes of the HTTP port that aren't REST.
func (s *Server) pages() (map[string]http.Handler, error) {
	api, err := s.openAPI()
	if err != nil {
		return nil, err
	}
	docs := v5emb.New("modelgate", "/openapi.json", "/docs/")
	routes := map[string]http.Handler{
		"/":             http.RedirectHandler("/docs/", http.StatusFound),
		"/docs":         http.RedirectHandler("/docs/", http.StatusFound),
		"/docs/":        docs,
		"/healthz":      http.HandlerFunc(healthz),
		"/readyz":       http.HandlerFunc(s.readyz),
		"/openapi.json": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, api) }),
	}
	if s.o.Gatherer != nil {
		routes["/metrics"] = promhttp.HandlerFor(s.o.Gatherer, promhttp.HandlerOpts{Timeout: 10 * time.Second, MaxRequestsInFlight: 4})
	}
	return routes, nil
}

// handler serves the pages and, below /v1/, REST.
func (s *Server) handler(rest http.Handler) (http.Handler, error) {
	routes, err := s.pages()
	if err != nil {
		return nil, err
	}
	rest = s.restOnly(rest)
	var hookPath string
	var hook http.Handler
	if s.o.Hook != nil {
		hookPath, hook = s.o.Hook.Path, s.hookHandler(s.o.Hook)
	}
	route := func(w http.ResponseWriter, r *http.Request) {
		page := routes[r.URL.Path]
		if page == nil && strings.HasPrefix(r.URL.Path, "/docs/") {
			page = routes["/docs/"]
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/"):
			rest.ServeHTTP(w, r)
		case hook != nil && r.URL.Path == hookPath:
			hook.ServeHTTP(w, r)
		case page == nil:
			routingError(r.Context(), nil, nil, w, r, http.StatusNotFound)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			routingError(r.Context(), nil, nil, w, r, http.StatusMethodNotAllowed)
		default:
			page.ServeHTTP(w, r)
		}
	}
	return s.guard(http.HandlerFunc(route)), nil
}

// guard keeps web pages of others away from a server on this machine, and sets the headers that every answer has.
func (s *Server) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	private := s.o.private(s.http)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header(), r.URL.Path)
		// After chunks a connection is closed: what else came with them may be the end of the request to a proxy that goes by a length, and
		// the next request to us.
		chunked := r.ProtoMajor == 1 && len(r.TransferEncoding) > 0
		if chunked || s.isDraining() {
			w.Header().Set("Connection", "close") // the caller's next request goes elsewhere
		}
		switch {
		case private && !s.ownHost(r.Host):
			refuse(w, http.StatusForbidden, codes.PermissionDenied, "FOREIGN_HOST",
				fmt.Sprintf("the Host %q is not this machine; if it is a name of it, add it to the allowed hosts", r.Host))
		case crossOrigin.Check(r) != nil:
			refuse(w, http.StatusForbidden, codes.PermissionDenied, "CROSS_ORIGIN", "a web page of another origin can't call this server")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ownHost reports whether a Host header means this machine: a foreign name that resolves to it may be an attack (DNS rebinding).
func (s *Server) ownHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	return loopbackHost(host) || slices.ContainsFunc(s.o.AllowedHosts, func(h string) bool { return strings.EqualFold(h, host) })
}

func setHeaders(h http.Header, path string) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if strings.HasPrefix(path, "/docs/") { // the page has its script in it
		h.Set("Content-Security-Policy",
			"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'")
	}
}

// restOnly bounds a REST call in size and time before the gateway reads it.
func (s *Server) restOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isMedia(r) { // which has bounds of its own
			next.ServeHTTP(w, r)
			return
		}
		if r.Method == http.MethodPost && !isJSON(r.Header.Get("Content-Type")) {
			refuse(w, http.StatusUnsupportedMediaType, codes.InvalidArgument, "NOT_JSON", "send the body as JSON, with the header Content-Type: application/json")
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.o.Limits.MessageBytes)))
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			refuse(w, http.StatusRequestEntityTooLarge, codes.ResourceExhausted, "BODY_TOO_LARGE", fmt.Sprintf("the body has more than %d bytes", large.Limit))
			return
		case err != nil:
			refuse(w, http.StatusBadRequest, codes.InvalidArgument, "BODY_INCOMPLETE", "the body could not be read to its end")
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		d := orderTimeout
		if strings.HasSuffix(r.URL.Path, ":predict") || strings.HasSuffix(r.URL.Path, ":predictBatch") {
			d = predictTimeout
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d + writeTime)) // only a connection that is gone has none
		ctx, cancel := context.WithTimeout(r.Context(), d)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && t == "application/json"
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

// readyz says whether traffic should be sent here, and if not, why.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.Ready(); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the caller may have left
}

// openAPI is the generated description with what the generator can't know.
func (s *Server) openAPI() (map[string]any, error) {
	var doc map[string]any
	if err := json.Unmarshal(swagger, &doc); err != nil {
		return nil, fmt.Errorf("read the embedded API description: %w", err)
	}
	doc["info"] = map[string]string{
		"title": "modelgate", "version": s.o.Version,
		"description": "Predictions from classifiers of texts and clips that are replaced while they serve. gRPC has the same calls, and streams.",
	}
	paths, ok := doc["paths"].(map[string]any)
	if !ok {
		return nil, errors.New("the embedded API description has no paths")
	}
	paths[mediaPath] = describeMedia()
	doc["securityDefinitions"] = map[string]any{"bearer": map[string]string{"type": "apiKey", "in": "header", "name": "Authorization",
		"description": `"Bearer TOKEN", where the server has a token file`}}
	doc["security"] = []any{map[string]any{"bearer": []string{}}}
	return doc, nil
}
