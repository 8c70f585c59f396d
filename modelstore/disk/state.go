package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"modelgate/modelstore"
)

// stateFormat is the number of the format below; a file of a higher one is left alone.
const stateFormat = 1

// stateFile is what a state file holds. The digest tells a damaged file from a good one that merely looks odd.
type stateFile struct {
	Format int             `json:"format"`
	SHA256 string          `json:"sha256"` // of State, compact
	State  json.RawMessage `json:"state"`
}

// errNewer says that a newer program wrote the file. It isn't damaged, so it must not be replaced.
var errNewer = errors.New("written by a newer modelgate")

// Load returns the state that was saved last, or the zero Saved.
//
// A restart must serve, so a damaged state file is no error: it is kept as <model>.json.damaged, the state before it
// (one Save older) is taken, or the zero Saved if that one is damaged too, and the ledger and the log say so.
// A file that a newer modelgate wrote is an error.
func (d *Data) Load(model string) (modelstore.Saved, error) {
	if err := checkModel(model); err != nil {
		return modelstore.Saved{}, err
	}
	d.states.Lock()
	defer d.states.Unlock()
	path := d.statePath(model)
	s, damage := readState(path)
	switch {
	case damage == nil || errors.Is(damage, fs.ErrNotExist):
		return s, nil
	case !errors.As(damage, new(*damagedError)):
		return modelstore.Saved{}, fmt.Errorf("state of %s: %w", model, damage)
	}
	s, ok, err := d.restoreBackup(path)
	if err != nil {
		return modelstore.Saved{}, fmt.Errorf("replace the damaged state of %s: %w", model, err)
	}
	what := "nothing older is known, so what serves, pins, holds and quarantine are forgotten"
	if ok {
		what = fmt.Sprintf("the state before it is used, in which %v serves", s.Active)
	}
	d.reportDamage(model, s.Active, fmt.Sprintf("%v; it is kept as %s.json.damaged; %s", damage, model, what))
	return s, nil
}

// restoreBackup copies the damaged file aside and puts the backup, or nothing (ok is false), in its place,
// in an order that a crash can cut anywhere.
func (d *Data) restoreBackup(path string) (s modelstore.Saved, ok bool, err error) {
	damaged, err := os.ReadFile(path)
	if err != nil {
		return modelstore.Saved{}, false, err
	}
	tmp := filepath.Join(d.dir, "tmp")
	if err := replaceFile(path+".damaged", tmp, damaged); err != nil {
		return modelstore.Saved{}, false, err
	}
	s, err = readState(path + ".bak")
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*damagedError)) {
		return modelstore.Saved{}, false, os.Remove(path)
	}
	if err != nil {
		return modelstore.Saved{}, false, err
	}
	content, err := encodeState(s)
	if err != nil {
		return modelstore.Saved{}, false, err
	}
	return s, true, replaceFile(path, tmp, content)
}

// reportDamage tells the operator, in the log and in the ledger.
func (d *Data) reportDamage(model string, active modelstore.Version, reason string) {
	d.log.Error("state of a model was damaged", "model", model, "reason", reason)
	err := d.Record(modelstore.Entry{
		Time: time.Now().UTC(), Model: model, Active: active,
		Outcome: modelstore.Noted, Code: "state_damaged", Reason: reason, Actor: "restart",
	})
	if err != nil {
		d.log.Error("the ledger doesn't tell of it", "model", model, "error", err)
	}
}

// Save makes the state durable before it returns: afterwards, and after a crash in the middle, the file is the old or the new one.
func (d *Data) Save(model string, s modelstore.Saved) error {
	if err := checkModel(model); err != nil {
		return err
	}
	content, err := encodeState(s)
	if err != nil {
		return fmt.Errorf("state of %s: %w", model, err)
	}
	d.states.Lock()
	defer d.states.Unlock()
	path, tmp := d.statePath(model), filepath.Join(d.dir, "tmp")
	if err := backUp(path, tmp); err != nil {
		return fmt.Errorf("save state of %s: %w", model, err)
	}
	if err := replaceFile(path, tmp, content); err != nil {
		return fmt.Errorf("save state of %s: %w", model, err)
	}
	return nil
}

// backUp copies a good state file to its .bak. A damaged one must not replace a good backup.
func backUp(path, tmp string) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := decodeState(content); err != nil {
		if errors.Is(err, errNewer) {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	return replaceFile(path+".bak", tmp, content)
}

func (d *Data) statePath(model string) string { return filepath.Join(d.dir, "state", model+".json") }

// A damagedError says that a state file was read but is not what Save wrote.
type damagedError struct {
	path string
	err  error
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("state file %s is damaged: %v", e.path, e.err)
}
func (e *damagedError) Unwrap() error { return e.err }

func readState(path string) (modelstore.Saved, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return modelstore.Saved{}, err
	}
	s, err := decodeState(content)
	if errors.Is(err, errNewer) {
		return modelstore.Saved{}, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		return modelstore.Saved{}, &damagedError{path, err}
	}
	return s, nil
}

func encodeState(s modelstore.Saved) ([]byte, error) {
	state, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	content, err := json.MarshalIndent(stateFile{stateFormat, sha256Hex(state), state}, "", "  ")
	return append(content, '\n'), err
}

func decodeState(content []byte) (modelstore.Saved, error) {
	var f stateFile
	if err := json.Unmarshal(content, &f); err != nil {
		return modelstore.Saved{}, err
	}
	if f.Format > stateFormat {
		return modelstore.Saved{}, fmt.Errorf("%w (format %d; this one reads %d): run that version, or set MODELGATE_DATA_DIR to another folder",
			errNewer, f.Format, stateFormat)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, f.State); err != nil {
		return modelstore.Saved{}, err
	}
	if sum := sha256Hex(compact.Bytes()); sum != f.SHA256 {
		return modelstore.Saved{}, fmt.Errorf("sha256 of the state is %s, the file says %q", sum, f.SHA256)
	}
	var s modelstore.Saved
	if err := json.Unmarshal(f.State, &s); err != nil {
		return modelstore.Saved{}, err
	}
	return s, nil
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
