package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/gofrs/flock"

	"modelgate/modelstore"
)

// DataOptions are the settings of a data folder; the zero value is good.
type DataOptions struct {
	Logger      *slog.Logger // nil: silent
	LedgerBytes int64        // the ledger begins a new file when it would grow beyond this; 0: 4 MiB
	LedgerKeep  int          // how many full ledger files stay; 0: 4
}

func (o DataOptions) withDefaults() DataOptions {
	o.Logger = orDiscard(o.Logger)
	if o.LedgerBytes <= 0 {
		o.LedgerBytes = 4 << 20
	}
	if o.LedgerKeep <= 0 {
		o.LedgerKeep = 4
	}
	return o
}

// Data is a gateway's own folder: the state of each model and the ledger. It implements modelstore.Journal and is safe for concurrent use.
type Data struct {
	dir    string
	log    *slog.Logger
	lock   *flock.Flock
	states sync.Mutex // serializes writers of state files; they write under it, and nobody else waits for it
	ledger *ledger
}

var _ modelstore.Journal = (*Data)(nil)

// OpenData opens the data folder, creating it if need be, and locks it until Close. A folder that another gateway has open is an error.
func OpenData(dir string, o DataOptions) (*Data, error) {
	o = o.withDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := makeFolders(dir, "state", "tmp"); err != nil {
		return nil, fmt.Errorf("create data folder (set MODELGATE_DATA_DIR to a folder that can be written): %w", err)
	}
	lock, err := lockData(dir, o.Logger)
	if err != nil {
		return nil, err
	}
	// Only the holder of the lock writes here, so whatever is left is of a gateway that died.
	if err := emptyFolder(filepath.Join(dir, "tmp")); err != nil {
		return nil, errors.Join(fmt.Errorf("clean data folder: %w", err), lock.Unlock())
	}
	l, err := openLedger(filepath.Join(dir, "ledger.jsonl"), o)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return &Data{dir: dir, log: o.Logger, lock: lock, ledger: l}, nil
}

// Close releases the folder. Nothing is buffered, so nothing can be lost.
func (d *Data) Close() error {
	return errors.Join(d.ledger.close(), d.lock.Unlock())
}

func lockData(dir string, log *slog.Logger) (*flock.Flock, error) {
	path := filepath.Join(dir, "lock")
	lock, err := tryExclusive(path)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if lock == nil {
		return nil, fmt.Errorf("data folder %s is in use by another modelgate (%s): stop that one, "+
			"or give this one a folder of its own with MODELGATE_DATA_DIR; both may share one MODELGATE_CACHE_DIR", dir, holder(path))
	}
	// Written in place: a rename would put another file under the name, and the lock is on this one.
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		// The lock is what counts; a full disk must not keep a gateway from serving what it has.
		log.Warn("write the process id to the lock file", "file", path, "error", err)
	}
	return lock, nil
}

func holder(path string) string {
	b, err := os.ReadFile(path)
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || convErr != nil {
		return "its process id isn't known"
	}
	return "process " + strconv.Itoa(pid)
}

func emptyFolder(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(dir, n.Name())); err != nil {
			return err
		}
	}
	return nil
}
