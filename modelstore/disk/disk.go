// Package disk keeps what a gateway must remember across restarts: the bundles, the state of each model and the ledger of decisions.
//
// The data folder belongs to one gateway; its file "lock" is locked as long as the gateway runs:
//
//	state/<model>.json      what the Updater knows of a model, replaced atomically; the state before it is <model>.json.bak
//	ledger.jsonl            one decision a line, appended; ledger.jsonl.1 is the file before it, and so on
//
// The cache folder may be shared by gateways of one user on one machine (locks are flock(2), so no network file system):
//
//	bundles/<digest>/files/         the files of a version, never written again; what is here is complete, since it got here by rename
//	bundles/<digest>/entries.json   path, size and sha256 of each of them
//	prepared/<digest>/<key>/files/  what was made of a bundle so that it loads fast: as immutable, and made again where it is damaged
//	prepared/<digest>/<key>/entries.json  path, size and sha256 of each of its files
//	index/<key>.json                which digest a version has and when it was last used; key is a hash of the version's identity
//	partial/<key>/files/            a download that isn't complete; a later attempt resumes it
//	locks/<digest>.lock             held shared while a bundle is in use, exclusively while it is removed
//	locks/partial-<key>.lock        held exclusively by the gateway that downloads
//	locks/prepared-<digest>-<key>.lock  held shared while what was prepared is in use, exclusively while it is removed
//	locks/partial-prepared-<digest>-<key>.lock  held exclusively by the gateway that prepares
//	locks/sweep.lock                held exclusively by the gateway that cleans up
//	tmp/, trash/                    small files being written, folders being removed
//
// Files of a bundle are read-only. Folders aren't, so that a plain "rm -r" removes a cache: what hurts a running gateway
// is a file that is overwritten in place, not one that is unlinked.
package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"github.com/google/renameio/v2"
)

var modelName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`)

// checkModel refuses names that are no plain file name.
func checkModel(name string) error {
	if !modelName.MatchString(name) {
		return fmt.Errorf("model name %q: use letters, digits, '_' and '-', at most 64 of them, starting with a letter or digit", name)
	}
	return nil
}

// makeFolders creates root and the folders below it, readable by their owner only.
func makeFolders(root string, below ...string) error {
	for _, name := range append([]string{"."}, below...) {
		if err := os.MkdirAll(filepath.Join(root, name), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// replaceFile writes a file durably: after a crash it has either its old content or the new one. tmp is on the same file system.
func replaceFile(path, tmp string, content []byte) error {
	if err := renameio.WriteFile(path, content, 0o600, renameio.WithTempDir(tmp), renameio.WithStaticPermissions(0o600)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// orDiscard is the logger that was given, or one that drops everything.
func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
