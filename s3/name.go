package s3

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Name says which object is meant, or which folder of objects; a folder has no slash at its end.
type Name struct{ Bucket, Key string }

// String is the name as an address.
func (n Name) String() string { return scheme + n.Bucket + "/" + n.Key }

const (
	scheme    = "s3://"
	maxKeyLen = 1024
)

// Join is the name of what is below a folder. The path isn't checked.
func (n Name) Join(path string) Name {
	if n.Key == "" {
		return Name{n.Bucket, path}
	}
	return Name{n.Bucket, n.Key + "/" + path}
}

// ParseURI reads s3://bucket/key, where the key is written as it is: nothing in it is decoded, and nothing that anything could take
// for a path out of a folder is accepted. The error wraps ErrURI.
func ParseURI(uri string) (Name, error) {
	n, err := parseURI(uri)
	if err != nil {
		return Name{}, fmt.Errorf("%w: %w", ErrURI, err)
	}
	return n, nil
}

func parseURI(uri string) (Name, error) {
	rest, ok := strings.CutPrefix(uri, scheme)
	if !ok {
		return Name{}, fmt.Errorf("it doesn't begin with %s", scheme)
	}
	if strings.ContainsAny(rest, "?#") {
		return Name{}, errors.New("it has a query or a fragment")
	}
	bucket, key, _ := strings.Cut(rest, "/")
	n := Name{bucket, key}
	if err := checkBucket(bucket); err != nil {
		return Name{}, err
	}
	return n, checkKey(key)
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func checkBucket(bucket string) error {
	if !bucketName.MatchString(bucket) || strings.Contains(bucket, "..") {
		return errors.New("its bucket is no name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens")
	}
	return nil
}

// encoded finds %2e and its like. Servers and proxies differ in how often they decode a path.
var encoded = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("it names no object")
	case len(key) > maxKeyLen:
		return fmt.Errorf("its key is longer than %d bytes", maxKeyLen)
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return errors.New("its key holds control characters or is not UTF-8")
	case strings.Contains(key, `\`):
		return errors.New(`its key holds a \`)
	case encoded.MatchString(key):
		return errors.New("its key is percent-encoded: write it as it is")
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return errors.New("its key has an empty part, or one of dots only")
		}
	}
	return nil
}

// Prefixes are folders: a bucket, and a path below it or none.
type Prefixes []Name

// ParsePrefixes reads "bucket/folder", "bucket/folder/", "bucket" and the same behind s3://.
func ParsePrefixes(texts []string) (Prefixes, error) {
	var all Prefixes
	for _, text := range texts {
		bucket, key, _ := strings.Cut(strings.TrimPrefix(text, scheme), "/")
		n := Name{bucket, strings.TrimSuffix(key, "/")}
		err := checkBucket(bucket)
		if err == nil && n.Key != "" {
			err = checkKey(n.Key)
		}
		if err != nil {
			return nil, fmt.Errorf("the prefix %q: %w; write bucket/folder, or bucket for all of it", text, err)
		}
		all = append(all, n)
	}
	return all, nil
}

// Contain reports whether an object is inside one of the folders. "clips/a" contains clips/a/b, neither clips/ab nor clips/a.
func (p Prefixes) Contain(object Name) bool { return p.any(object, false) }

// ContainFolder reports whether a folder is one of them, or inside one.
func (p Prefixes) ContainFolder(folder Name) bool { return p.any(folder, true) }

func (p Prefixes) any(n Name, itself bool) bool {
	for _, f := range p {
		if n.Bucket == f.Bucket && (f.Key == "" || strings.HasPrefix(n.Key, f.Key+"/") || itself && n.Key == f.Key) {
			return true
		}
	}
	return false
}
