package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"modelgate/modelstore"
)

const (
	maxReason = 16 << 10  // bytes of an entry's reason that are kept
	maxLine   = 256 << 10 // bytes of one line
)

// A ledger is an append-only file of JSON lines with its full predecessors.
type ledger struct {
	path  string
	limit int64
	keep  int
	log   *slog.Logger

	mu      sync.Mutex // serializes appends, rotation and opening for reading; it is held while a line is written, which is its purpose
	file    *os.File   // nil when closed, and after a rotation that got stuck
	closed  bool
	skipped int // unreadable lines at the last look, so that the log tells of each only once
}

func openLedger(path string, o DataOptions) (*ledger, error) {
	l := &ledger{path: path, limit: o.LedgerBytes, keep: o.LedgerKeep, log: o.Logger}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return l, nil
}

// Record appends an entry to the ledger; it is on disk when Record returns.
func (d *Data) Record(e modelstore.Entry) error {
	line, err := encodeLine(e)
	if err != nil {
		return fmt.Errorf("record a decision on %s: %w", e.Model, err)
	}
	if err := d.ledger.append(line); err != nil {
		return fmt.Errorf("record a decision on %s: %w", e.Model, err)
	}
	return nil
}

// History returns the newest entries of a model ("" for all), newest first, at most limit.
// Lines that can't be read, such as a last one that a crash cut off, are skipped and counted in the log.
func (d *Data) History(model string, limit int) ([]modelstore.Entry, error) {
	if limit <= 0 {
		return nil, nil
	}
	files, err := d.ledger.snapshot()
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	defer closeAll(files)
	var found []modelstore.Entry
	skipped := 0
	for _, f := range files {
		content, err := io.ReadAll(f)
		if err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		var bad int
		found, bad = collect(found, content, model, limit)
		skipped += bad
		if len(found) == limit {
			break
		}
	}
	d.ledger.tellSkipped(skipped)
	return found, nil
}

// collect appends the entries of model in content, last line first, until there are limit of them, and counts the bad lines it met.
func collect(found []modelstore.Entry, content []byte, model string, limit int) (_ []modelstore.Entry, bad int) {
	for len(content) > 0 && len(found) < limit {
		content = bytes.TrimSuffix(content, []byte("\n"))
		start := bytes.LastIndexByte(content, '\n') + 1
		line := content[start:]
		content = content[:start]
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		e, err := decodeLine(line)
		if err != nil {
			bad++
			continue
		}
		if model == "" || e.Model == model {
			found = append(found, e)
		}
	}
	return found, bad
}

func encodeLine(e modelstore.Entry) ([]byte, error) {
	if len(e.Reason) > maxReason {
		e.Reason = strings.ToValidUTF8(e.Reason[:maxReason], "") + "..."
	}
	line, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(line) >= maxLine {
		return nil, fmt.Errorf("the entry has %d bytes as a line, at most %d are allowed", len(line), maxLine-1)
	}
	return append(line, '\n'), nil
}

var errNoEntry = errors.New("not a ledger entry")

func decodeLine(line []byte) (modelstore.Entry, error) {
	if len(line) >= maxLine {
		return modelstore.Entry{}, errNoEntry
	}
	var e modelstore.Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return modelstore.Entry{}, err
	}
	if e.Model == "" || e.Outcome == "" {
		return modelstore.Entry{}, errNoEntry
	}
	return e, nil
}

func (l *ledger) append(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fs.ErrClosed
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	size, torn, err := l.endLocked()
	if err != nil {
		return err
	}
	if size > 0 && size+int64(len(line)) > l.limit {
		if err := l.rotateLocked(); err != nil {
			return fmt.Errorf("begin a new ledger file: %w", err)
		}
		torn = false
	}
	if torn {
		line = append([]byte{'\n'}, line...)
	}
	if _, err := l.file.Write(line); err != nil {
		return err
	}
	return l.file.Sync()
}

// endLocked tells the ledger's size and whether its last line was cut off, by a crash or a full disk.
func (l *ledger) endLocked() (size int64, torn bool, err error) {
	info, err := l.file.Stat()
	if err != nil || info.Size() == 0 {
		return 0, false, err
	}
	var last [1]byte
	if _, err := l.file.ReadAt(last[:], info.Size()-1); err != nil {
		return 0, false, err
	}
	return info.Size(), last[0] != '\n', nil
}

// rotateLocked moves the ledger to .1, .1 to .2 and so on up to the first free number; the oldest file makes room if none is free.
// A crash in between leaves a free number, which readers pass over.
func (l *ledger) rotateLocked() error {
	free := 1
	for free < l.keep && exists(l.name(free)) {
		free++
	}
	for n := free; n > 0; n-- {
		if err := os.Rename(l.name(n-1), l.name(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	old := l.file
	l.file = nil
	return errors.Join(old.Close(), l.open())
}

// open is called before the ledger is shared, or with mu held.
func (l *ledger) open() error {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	l.file = f
	return syncDir(filepath.Dir(l.path))
}

func (l *ledger) name(n int) string {
	if n == 0 {
		return l.path
	}
	return l.path + "." + strconv.Itoa(n)
}

// snapshot opens the ledger's files, newest first, so that they can be read whatever rotation does meanwhile.
func (l *ledger) snapshot() ([]*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fs.ErrClosed
	}
	var files []*os.File
	for n := range l.keep + 1 {
		f, err := os.Open(l.name(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func (l *ledger) tellSkipped(n int) {
	l.mu.Lock()
	news := n > l.skipped
	l.skipped = max(l.skipped, n)
	l.mu.Unlock()
	if news {
		l.log.Warn("the ledger has lines that can't be read; they are skipped", "lines", n, "file", l.path)
	}
}

func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return f.Close()
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // only read from
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
