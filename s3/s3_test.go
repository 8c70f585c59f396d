package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"modelgate/s3"
	"modelgate/s3/s3test"
)

// All tests run with a proxy in the environment, where nobody listens. net/http reads it once, so it has to be there before any test.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if err := os.Setenv(name, "http://127.0.0.1:1"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, o s3.Options) *s3.Endpoint {
	t.Helper()
	e, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// read reads a reference whole.
func read(ctx context.Context, e *s3.Endpoint, uri string, most int64) ([]byte, error) {
	o, err := e.Reference(ctx, uri, most)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	return o.All()
}

func TestAgainstAServer(t *testing.T) {
	m := s3test.Start(t)
	m.Bucket(t, "clips")
	m.Bucket(t, "other")
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	odd := "in/Cảnh quay 100% + (1) & x=y.mp4"
	for _, key := range []string{"in/a.mp4", "inside/a.mp4", odd, "model/MLmodel", "model/data/weights", "modelling/x"} {
		m.Put(t, "clips", key, data)
	}
	m.Put(t, "other", "in/a.mp4", data)
	m.Put(t, "clips", "in/empty", nil)
	e := open(t, s3.Options{Endpoint: m.URL, AccessKey: "me", SecretKey: "secret", Prefixes: []string{"clips/in"}})

	t.Run("references", func(t *testing.T) {
		for name, c := range map[string]struct {
			uri  string
			most int64
			want error
			n    int
		}{
			"whole":              {"s3://clips/in/a.mp4", 1 << 20, nil, len(data)},
			"odd names":          {"s3://clips/" + odd, 1 << 20, nil, len(data)},
			"empty":              {"s3://clips/in/empty", 1 << 20, nil, 0},
			"as large as may be": {"s3://clips/in/a.mp4", int64(len(data)), nil, len(data)},
			"too large":          {"s3://clips/in/a.mp4", int64(len(data)) - 1, s3.ErrTooLarge, 0},
			"not there":          {"s3://clips/in/b.mp4", 1 << 20, s3.ErrNotFound, 0},
			"another folder":     {"s3://clips/inside/a.mp4", 1 << 20, s3.ErrNotAllowed, 0},
			"another bucket":     {"s3://other/in/a.mp4", 1 << 20, s3.ErrNotAllowed, 0},
		} {
			t.Run(name, func(t *testing.T) {
				got, err := read(t.Context(), e, c.uri, c.most)
				if !errors.Is(err, c.want) || len(got) != c.n || c.n > 0 && !bytes.Equal(got, data) {
					t.Errorf("%d bytes, %v; want %d, %v", len(got), err, c.n, c.want)
				}
			})
		}
	})
	t.Run("what isn't allowed sounds the same, there or not", func(t *testing.T) {
		_, there := read(t.Context(), e, "s3://other/in/a.mp4", 1)
		_, not := read(t.Context(), e, "s3://nowhere/in/b.mp4", 1)
		if there == nil || not == nil || there.Error() != not.Error() {
			t.Errorf("%v and %v", there, not)
		}
	})
	t.Run("an ended context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := read(ctx, e, "s3://clips/in/a.mp4", 1<<20); !errors.Is(err, context.Canceled) || errors.Is(err, s3.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("from the middle on", func(t *testing.T) { middle(t, m, e, data) })
	t.Run("lists", func(t *testing.T) { lists(t, m, e, len(data)) })
}

func middle(t *testing.T, m *s3test.Server, e *s3.Endpoint, data []byte) {
	n := s3.Name{Bucket: "clips", Key: "in/a.mp4"}
	whole, err := e.Read(t.Context(), n, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	o, err := e.Read(t.Context(), n, 999_990, whole.ETag)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got, err := o.All()
	if err != nil || !bytes.Equal(got, data[999_990:]) || o.Size != int64(len(data)) || o.ETag == "" {
		t.Errorf("got %q of %d, %v", got, o.Size, err)
	}
	if _, err := e.Read(t.Context(), n, int64(len(data)), ""); !errors.Is(err, s3.ErrChanged) {
		t.Errorf("from the end on: %v", err)
	}
	m.Put(t, "clips", "in/a.mp4", append([]byte("x"), data...))
	if _, err := e.Read(t.Context(), n, 10, whole.ETag); !errors.Is(err, s3.ErrChanged) {
		t.Errorf("after a change: %v", err)
	}
}

func lists(t *testing.T, m *s3test.Server, e *s3.Endpoint, size int) {
	list := func(n s3.Name) ([]string, error) {
		var got []string
		err := e.List(t.Context(), n, func(o s3.Entry) error {
			got = append(got, fmt.Sprint(o.Path, " ", o.Size, " ", o.ETag != ""))
			return nil
		})
		return got, err
	}
	want := []string{fmt.Sprint("MLmodel ", size, " true"), fmt.Sprint("data/weights ", size, " true")}
	if got, err := list(s3.Name{Bucket: "clips", Key: "model"}); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if _, err := list(s3.Name{Bucket: "nowhere"}); !errors.Is(err, s3.ErrNotFound) {
		t.Errorf("a bucket that isn't there: %v", err)
	}
	stop := errors.New("enough")
	if err := e.List(t.Context(), s3.Name{Bucket: "clips"}, func(s3.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// A list comes in pages, and an endpoint may lie about where it ends and what is in it.
func TestLongLists(t *testing.T) {
	page := func(more bool, key string) string {
		return fmt.Sprintf(`<ListBucketResult><IsTruncated>%v</IsTruncated><NextContinuationToken>more</NextContinuationToken>`+
			`<Contents><Key>%s</Key><Size>1</Size><ETag>"tag"</ETag></Contents></ListBucketResult>`, more, key)
	}
	for name, c := range map[string]struct {
		first, rest string
		want        []string
		ok          bool
	}{
		"two pages":        {page(true, "model/a"), page(false, "model/b"), []string{"a", "b"}, true},
		"no end":           {page(true, "model/a"), page(true, "model/b"), []string{"a", "b", "b"}, false},
		"another folder's": {page(false, "other/a"), "", nil, false},
		"no XML":           {"{}", "", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("continuation-token") == "" {
					_, _ = w.Write([]byte(c.first))
				} else {
					_, _ = w.Write([]byte(c.rest))
				}
			})
			e := open(t, s3.Options{Endpoint: s.URL})
			var got []string
			err := e.List(t.Context(), s3.Name{Bucket: "clips", Key: "model"}, func(o s3.Entry) error {
				if got = append(got, o.Path); len(got) == 3 {
					return errors.New("enough")
				}
				return nil
			})
			if c.ok != (err == nil) || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// An entry of a few bytes takes kilobytes of memory: so many that no server sends them on one page are refused unread.
func TestAPageOfTooManyNames(t *testing.T) {
	for name, c := range map[string]struct {
		entries int
		ok      bool
	}{"as many as there can be": {1000, true}, "too many": {100_000, false}} {
		t.Run(name, func(t *testing.T) {
			entries := strings.Repeat("<Contents><Key>model/a</Key><Size>1</Size><ETag>x</ETag><Owner><ID>me</ID></Owner></Contents>", c.entries)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = fmt.Fprintf(w, `<ListBucketResult><IsTruncated>false</IsTruncated>%s</ListBucketResult>`, entries)
			}))
			t.Cleanup(server.Close)
			e, err := s3.Open(t.Context(), s3.Options{Endpoint: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = e.Close() })
			got := 0
			err = e.List(t.Context(), s3.Name{Bucket: "models", Key: "model"}, func(s3.Entry) error { got++; return nil })
			if c.ok && (err != nil || got != c.entries) || !c.ok && (!errors.Is(err, s3.ErrUnavailable) || got != 0) {
				t.Errorf("%d names, %v", got, err)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	for name, c := range map[string]struct {
		o    s3.Options
		want string
	}{
		"no endpoint":        {s3.Options{}, "no endpoint"},
		"another scheme":     {s3.Options{Endpoint: "ftp://x"}, "http://host:port"},
		"no scheme":          {s3.Options{Endpoint: "127.0.0.1:9000"}, "http://host:port"},
		"a path":             {s3.Options{Endpoint: "http://x/bucket"}, "behind its host"},
		"a password":         {s3.Options{Endpoint: "http://me:hunter2@x"}, "settings of their own"},
		"half a key":         {s3.Options{Endpoint: "http://x", AccessKey: "a"}, "need each other"},
		"an empty prefix":    {s3.Options{Endpoint: "http://x", Prefixes: []string{""}}, "bucket/folder"},
		"every bucket":       {s3.Options{Endpoint: "http://x", Prefixes: []string{"*"}}, "bucket/folder"},
		"out of the folder":  {s3.Options{Endpoint: "http://x", Prefixes: []string{"clips/a/.."}}, ".."},
		"no network":         {s3.Options{Endpoint: "http://x", Networks: []string{"10.0.0.1"}}, "172.18.0.0/16"},
		"a negative time":    {s3.Options{Endpoint: "http://x", ReadTimeout: -1}, "negative"},
		"nobody's address":   {s3.Options{Endpoint: "http://0.0.0.0:9000"}, "0.0.0.0"},
		"no such authority":  {s3.Options{Endpoint: "https://x", CACertFile: "/nowhere/ca.pem"}, "/nowhere/ca.pem"},
		"all groups address": {s3.Options{Endpoint: "http://[ff02::1]"}, "ff02::1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s3.Open(t.Context(), c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want something about %s", err, c.want)
			}
		})
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	o := s3.Options{Endpoint: "http://127.0.0.1:1", AccessKey: "me", SecretKey: "hunter2", SessionToken: "hunter2"}
	e := open(t, o)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if s := fmt.Sprintf(verb, o); strings.Contains(s, "hunter2") || strings.Contains(s, "68756e746572") {
			t.Errorf("%s shows %s", verb, s)
		}
	}
	if b, err := o.SecretKey.MarshalText(); err != nil || string(b) != "***" {
		t.Errorf("%s, %v", b, err)
	}
	_, err := e.Read(t.Context(), s3.Name{Bucket: "clips", Key: "x"}, 0, "")
	if !errors.Is(err, s3.ErrUnavailable) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestRequestsAreSigned(t *testing.T) {
	seen := make(chan http.Header, 1)
	s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		serve(w, "x")
	})
	e := open(t, s3.Options{Endpoint: s.URL, Region: "eu-north-1", AccessKey: "me", SecretKey: "secret", SessionToken: "token", Prefixes: []string{"clips"}})
	if _, err := read(t.Context(), e, "s3://clips/x", 10); err != nil {
		t.Fatal(err)
	}
	h := <-seen
	auth := h.Get("Authorization")
	if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=me/") || !strings.Contains(auth, "/eu-north-1/s3/") || h.Get("X-Amz-Security-Token") != "token" {
		t.Errorf("Authorization is %q", auth)
	}
}
