package mlflow

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// note is kept beside a begun file: what it takes to continue it. Without a validator it can't be.
type note struct {
	Route     route  `json:"route"`
	Validator string `json:"validator"`
	Size      int64  `json:"size"`
}

// part is a file that is being downloaded.
type part struct {
	root *os.Root
	name string // of the bytes; the note is name + ".json"
	f    *os.File
	size int64 // listed
	have int64
	note note
	seen bool // an answer arrived: even an empty file is asked for once

	settled bool // the other route doesn't work: no further change
}

// openPart continues what an earlier attempt left, if that can be trusted, or begins at 0.
func openPart(root *os.Root, a artifact, first route) (*part, error) {
	p := &part{root: root, name: partName(a), size: a.size}
	f, err := root.OpenFile(p.name, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	p.f = f
	if err := p.resume(a, first); err != nil {
		_ = f.Close()
		return nil, err
	}
	return p, nil
}

func partName(a artifact) string {
	sum := sha256.Sum256([]byte(a.path))
	return filepath.Join(partFolder, hex.EncodeToString(sum[:12]))
}

// readNote is the zero note where there is none that can be read: then the file is fetched from its start.
func readNote(root *os.Root, name string) (n note) {
	b, err := root.ReadFile(name + ".json")
	if err != nil || json.Unmarshal(b, &n) != nil {
		return note{}
	}
	return n
}

func (p *part) resume(a artifact, first route) error {
	info, err := p.f.Stat()
	if err != nil {
		return err
	}
	n := readNote(p.root, p.name)
	known := n.Size == p.size && n.Validator != ""
	switch first {
	case routeS3:
		known = known && n.Route == routeS3 && n.Validator == a.etag
	default:
		known = known && (n.Route == routeProxy || n.Route == routeVersion)
	}
	if !known || !plain(n.Validator, 200) || info.Size() > p.size {
		return p.reset(note{Route: first})
	}
	p.note, p.have = n, info.Size()
	if p.have == p.size && p.size > 0 {
		p.seen = true // complete, only the rename is missing
	}
	_, err = p.f.Seek(p.have, io.SeekStart)
	return err
}

// reset begins at 0. The note is on disk before the first byte that it describes.
func (p *part) reset(n note) error {
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	if _, err := p.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	n.Size = p.size
	p.have, p.note = 0, n
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return p.root.WriteFile(p.name+".json", b, 0o640)
}

func (p *part) write(b []byte) error {
	n, err := p.f.Write(b)
	p.have += int64(n)
	return err
}

// close makes the bytes durable, so that a name or a note never promises more than there is after a power cut.
func (p *part) close() error { return errors.Join(p.f.Sync(), p.f.Close()) }

// finish gives the complete file its name. In a bucket its note stays, until all files are there: it says which object this was.
func (p *part) finish(name string) error {
	if err := p.root.Rename(p.name, name); err != nil || p.note.Route == routeS3 {
		return err
	}
	return p.root.Remove(p.name + ".json")
}
