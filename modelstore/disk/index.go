package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"modelgate/modelstore"
)

// A record says which content a version has. It is written by holders of the bundle's lock, shared or not, and removed by its exclusive holder.
type record struct {
	Version modelstore.Version `json:"version"`
	Digest  string             `json:"digest"`
	Used    time.Time          `json:"used"`
}

// keyOf names a version by what makes two versions the same (see modelstore.Version.Same), as a file name.
func keyOf(v modelstore.Version) string {
	// Strings, a number and a time always make JSON.
	id, _ := json.Marshal([]any{v.Model, v.Registered, v.Number, v.Created.UTC().Format(time.RFC3339Nano), v.Source})
	return sha256Hex(id)
}

func checkVersion(v modelstore.Version) error {
	if v.Number < 1 {
		return fmt.Errorf("version number %d: they start at 1", v.Number)
	}
	return checkModel(v.Model)
}

func (c *Cache) recordPath(key string) string { return c.path("index", key+".json") }

// readRecord reads one record; one that is missing or unreadable isn't there (a sweep removes it).
func (c *Cache) readRecord(key string) (r record, ok bool, err error) {
	content, err := os.ReadFile(c.recordPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false, nil
	}
	if err != nil {
		return record{}, false, err
	}
	r, err = decodeRecord(content, key)
	if err != nil {
		c.log.Warn("a record in the cache's index is damaged", "file", c.recordPath(key), "error", err)
		return record{}, false, nil
	}
	return r, true, nil
}

func decodeRecord(content []byte, key string) (record, error) {
	var r record
	if err := json.Unmarshal(content, &r); err != nil {
		return record{}, err
	}
	if keyOf(r.Version) != key || !isDigest(r.Digest) {
		return record{}, errors.New("it doesn't belong under its name, or has no digest")
	}
	return r, nil
}

// writeRecord notes that v has this content and is used now.
func (c *Cache) writeRecord(v modelstore.Version, digest string) error {
	v.Digest = digest
	content, err := json.MarshalIndent(record{v, digest, c.o.Now().UTC()}, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(c.recordPath(keyOf(v)), c.path("tmp"), append(content, '\n'))
}

// records reads the whole index; unreadable records are passed over, and their keys returned.
func (c *Cache) records() (all []record, bad []string, err error) {
	names, err := os.ReadDir(c.path("index"))
	if err != nil {
		return nil, nil, err
	}
	for _, n := range names {
		key, ok := strings.CutSuffix(n.Name(), ".json")
		if !ok {
			continue
		}
		r, ok, err := c.readRecord(key)
		switch {
		case err != nil:
			return nil, nil, err
		case ok:
			all = append(all, r)
		case exists(c.recordPath(key)):
			bad = append(bad, key)
		}
	}
	return all, bad, nil
}
