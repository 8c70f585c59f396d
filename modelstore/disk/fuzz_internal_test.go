package disk

import (
	"path/filepath"
	"testing"
	"time"

	"modelgate/modelstore"
)

// FuzzParseManifest: whatever a publisher writes, what is taken names files inside the folder, each once, with a size and a digest.
func FuzzParseManifest(f *testing.F) {
	sum := sha256Hex(nil)
	for _, s := range []string{
		`{"files": [{"path": "a/b", "size": 0, "sha256": "` + sum + `"}]}`,
		`{"files": [{"path": "../a", "size": 0, "sha256": "` + sum + `"}]}`,
		`{"files": [{"path": "a", "size": 1e3, "sha256": "` + sum + `"}], "files": []}`,
		`{"files": null}`, `[]`, `{`, "", "null", `{"files": [null]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		files, err := parseManifest(content)
		if err != nil {
			return
		}
		seen := map[string]bool{manifestName: true}
		for _, e := range files {
			if !filepath.IsLocal(e.Path) || seen[e.Path] || e.Size < 0 || !isDigest(e.SHA256) {
				t.Errorf("took %+v", e)
			}
			seen[e.Path] = true
		}
		if len(files) == 0 || !isDigest(digestOf(files)) {
			t.Errorf("took %d files", len(files))
		}
	})
}

// FuzzLedgerLine: a line is refused or gives an entry that can be written and read again, and no content makes History's reader stumble.
func FuzzLedgerLine(f *testing.F) {
	line, err := encodeLine(modelstore.Entry{Time: time.UnixMilli(1).UTC(), Model: "text", Outcome: modelstore.Swapped})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add(line[:20])
	f.Add(append(append([]byte("\x00\n\n"), line...), line...))
	f.Add([]byte(`{"model": "text", "outcome": "swapped", "active": {"f1": {"value": 1e999}}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		found, bad := collect(nil, content, "", 3)
		if len(found) > 3 || bad < 0 {
			t.Errorf("%d entries", len(found))
		}
		e, err := decodeLine(content)
		if err != nil {
			return
		}
		again, err := encodeLine(e)
		if err != nil {
			// Escapes make a line longer than it was, which only matters near the limit; times beyond year 9999 aren't written.
			return
		}
		if _, err := decodeLine(again); err != nil {
			t.Errorf("%q is read but not again as %q: %v", content, again, err)
		}
	})
}

// FuzzDecodeState: a state file is what Save wrote, or it is refused.
func FuzzDecodeState(f *testing.F) {
	good, err := encodeState(modelstore.Saved{Active: modelstore.Version{Model: "text", Number: 3, F1: modelstore.KnownF1("f1", 0.9)}, Pin: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"format": 2}`))
	f.Add([]byte(`{"format": 1, "sha256": "` + sha256Hex([]byte("{}")) + `", "state": {}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := decodeState(content)
		if err != nil {
			return
		}
		again, err := encodeState(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(again); err != nil {
			t.Errorf("%q is read but not again as %q: %v", content, again, err)
		}
	})
}
