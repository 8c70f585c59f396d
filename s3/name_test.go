package s3_test

import (
	"errors"
	"strings"
	"testing"

	"modelgate/s3"
)

func TestPrefixes(t *testing.T) {
	p, err := s3.ParsePrefixes([]string{"clips/a", "s3://clips/b/c/", "open"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		uri            string
		object, folder bool
	}{
		"inside":               {"s3://clips/a/x.mp4", true, true},
		"deeper":               {"s3://clips/a/b/x.mp4", true, true},
		"with a slash":         {"s3://clips/b/c/x.mp4", true, true},
		"the folder itself":    {"s3://clips/a", false, true},
		"a longer name":        {"s3://clips/ab", false, false},
		"inside a longer name": {"s3://clips/ab/x.mp4", false, false},
		"above":                {"s3://clips/b/x.mp4", false, false},
		"elsewhere":            {"s3://clips/x.mp4", false, false},
		"other case":           {"s3://clips/A/x.mp4", false, false},
		"a whole bucket":       {"s3://open/x.mp4", true, true},
		"a longer bucket":      {"s3://opened/x.mp4", false, false},
		"another bucket":       {"s3://other/a/x.mp4", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := s3.ParseURI(c.uri)
			if err != nil {
				t.Fatal(err)
			}
			if p.Contain(n) != c.object || p.ContainFolder(n) != c.folder {
				t.Errorf("%v, %v", p.Contain(n), p.ContainFolder(n))
			}
			if (s3.Prefixes)(nil).Contain(n) {
				t.Error("no prefix contains everything")
			}
		})
	}
}

func TestBadURIs(t *testing.T) {
	for name, uri := range map[string]string{
		"empty": "", "no scheme": "clips/a/x", "another scheme": "http://clips/a/x", "a file": "file:///etc/passwd", "upper case": "S3://clips/a/x",
		"a local path": "/etc/passwd", "s3a": "s3a://clips/a/x", "one slash": "s3:/clips/a/x",
		"no bucket": "s3:///a/x", "no key": "s3://clips", "an empty key": "s3://clips/", "a folder": "s3://clips/a/",
		"a user": "s3://me:pw@clips/a/x", "a port": "s3://clips:80/a/x", "a query": "s3://clips/a/x?versionId=1", "a fragment": "s3://clips/a/x#t",
		"up": "s3://clips/a/../b/x", "up at the end": "s3://clips/a/..", "here": "s3://clips/a/./x", "double slash": "s3://clips/a//x",
		"leading slash": "s3://clips//a/x", "bucket up": "s3://../a/x", "bucket dots": "s3://cl..ps/a", "bucket case": "s3://Clips/a",
		"short bucket": "s3://cl/a", "long bucket": "s3://" + strings.Repeat("c", 64) + "/a", "bucket with %": "s3://cl%2fps/a",
		"encoded dots": "s3://clips/a/%2e%2e/b", "encoded slash": "s3://clips/a%2F..%2Fb", "encoded twice": "s3://clips/a/%252e%252e/b",
		"backslash": `s3://clips/a\..\b`, "NUL": "s3://clips/a/\x00", "newline": "s3://clips/a\n/x", "delete": "s3://clips/a\x7f",
		"C1 control": "s3://clips/a\u0085", "not UTF-8": "s3://clips/a\xff", "long": "s3://clips/" + strings.Repeat("k", 1025),
	} {
		t.Run(name, func(t *testing.T) {
			if n, err := s3.ParseURI(uri); !errors.Is(err, s3.ErrURI) {
				t.Errorf("%q is taken for %v, %v", uri, n, err)
			}
		})
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("s3://clips/a/x.mp4")
	f.Add("s3://clips/%2e%2e/x")
	p := s3.Prefixes{{Bucket: "clips", Key: "a"}}
	f.Fuzz(func(t *testing.T, uri string) {
		n, err := s3.ParseURI(uri)
		if err != nil {
			return
		}
		if n.String() != uri || p.Contain(n) && (!strings.HasPrefix(uri, "s3://clips/a/") || strings.Contains(uri, "/../")) {
			t.Errorf("%q is taken for %v", uri, n)
		}
	})
}
