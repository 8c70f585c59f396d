package disk

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"modelgate/modelstore"
)

const (
	manifestName = "manifest.json"
	maxManifest  = 16 << 20 // bytes
	maxPath      = 1024     // bytes
)

// A file is one entry of a bundle.
type file struct {
	Path   string `json:"path"` // slash-separated, relative to the bundle's folder
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex, lower case
}

// digestOf is the digest of a bundle: the sha256 of its entries as text, sorted by the bytes of their paths, each of the form
//
//	<sha256 of the file, hex> <size, decimal> <path>\n
//
// Every file of the artifact is an entry, manifest.json too. Paths hold no control characters, so the form is unambiguous.
func digestOf(files []file) string {
	sorted := slices.SortedFunc(slices.Values(files), byPath)
	h := sha256.New()
	for _, f := range sorted {
		_, _ = io.WriteString(h, f.SHA256+" "+strconv.FormatInt(f.Size, 10)+" "+f.Path+"\n") // a hash doesn't fail
	}
	return hex.EncodeToString(h.Sum(nil))
}

func byPath(a, b file) int { return cmp.Compare(a.Path, b.Path) }

// violation is an error about the artifact itself: fetching it again would bring the same.
func violation(format string, args ...any) error {
	return modelstore.Permanent(fmt.Errorf(format, args...))
}

func isViolation(err error) bool { return errors.Is(err, modelstore.ErrPermanent) }

// checkPath refuses what could name a file outside of the bundle or fool a reader of the digest or of a log.
func checkPath(p string) error {
	switch {
	case p == "" || len(p) > maxPath:
		return fmt.Errorf("path of %d bytes: 1 to %d are allowed", len(p), maxPath)
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl) || strings.Contains(p, `\`):
		return fmt.Errorf("path %q has a backslash, a control character or invalid UTF-8", p)
	case !filepath.IsLocal(p) || path.Clean(p) != p || p == ".":
		return fmt.Errorf("path %q isn't a plain relative path", p)
	}
	return nil
}

// parseManifest reads manifest.json. Keys that it doesn't know are for others and are passed over.
func parseManifest(content []byte) ([]file, error) {
	var m struct {
		Files []struct {
			Path   string `json:"path"`
			Size   *int64 `json:"size"`
			SHA256 string `json:"sha256"`
		} `json:"files"`
	}
	d := json.NewDecoder(bytes.NewReader(content))
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("it isn't JSON of the form {\"files\": [{\"path\", \"size\", \"sha256\"}]}: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	if len(m.Files) == 0 {
		return nil, errors.New(`"files" is missing or empty`)
	}
	files := make([]file, 0, len(m.Files))
	seen := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		if err := checkPath(f.Path); err != nil {
			return nil, err
		}
		sum := strings.ToLower(f.SHA256)
		switch {
		case f.Path == manifestName:
			return nil, errors.New("it lists itself")
		case seen[f.Path]:
			return nil, fmt.Errorf("%s is listed twice", f.Path)
		case f.Size == nil || *f.Size < 0:
			return nil, fmt.Errorf("%s has no size", f.Path)
		case !isDigest(sum):
			return nil, fmt.Errorf("sha256 of %s is %q, not 64 hexadecimal digits", f.Path, f.SHA256)
		}
		seen[f.Path] = true
		files = append(files, file{f.Path, *f.Size, sum})
	}
	return files, nil
}

// isDigest reports whether s is a sha256 as we write it.
func isDigest(s string) bool {
	if len(s) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// compareNames checks that found has exactly the files that list names, with their sizes; what the list is, is told in the error.
func compareNames(list, found []file, what string) error {
	byName := make(map[string]file, len(found))
	for _, f := range found {
		byName[f.Path] = f
	}
	for _, want := range list {
		got, ok := byName[want.Path]
		if !ok {
			return violation("%s is missing: %s lists it with %d bytes", want.Path, what, want.Size)
		}
		if got.Size != want.Size {
			return violation("%s has %d bytes, %s says %d", want.Path, got.Size, what, want.Size)
		}
		delete(byName, want.Path)
	}
	for _, f := range found {
		if _, left := byName[f.Path]; left {
			return violation("%s isn't listed in %s: list every file, or publish without %s", f.Path, what, what)
		}
	}
	return nil
}

// compareDigests checks the digests of the files that list names; compareNames held before.
func compareDigests(list, found []file, what string) error {
	sums := make(map[string]string, len(found))
	for _, f := range found {
		sums[f.Path] = f.SHA256
	}
	for _, want := range list {
		if sums[want.Path] != want.SHA256 {
			return violation("%s has sha256 %s, %s says %s", want.Path, sums[want.Path], what, want.SHA256)
		}
	}
	return nil
}
