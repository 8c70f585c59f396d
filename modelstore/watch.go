package modelstore

import (
	"context"
	"errors"
)

// A Change is a model's state after something happened to it.
type Change struct {
	What   string // "snapshot", "state", "candidate", "swap", "decision"
	Status Status
}

// ErrSlowWatcher says that a watcher fell so far behind that changes had to be dropped.
var ErrSlowWatcher = errors.New("the watcher reads too slowly; watch again")

// watcher is one call of Watch.
type watcher struct {
	changes chan Change   // buffered
	end     chan struct{} // closed when no more will come
	err     error         // why; guarded by Updater.mu until end is closed
	ended   bool          // guarded by Updater.mu
}

func (w *watcher) tellLocked(c Change) {
	if w.ended {
		return
	}
	select {
	case w.changes <- c:
	default:
		w.endLocked(ErrSlowWatcher)
	}
}

func (w *watcher) endLocked(err error) {
	if !w.ended {
		w.ended, w.err = true, err
		close(w.end)
	}
}

// Watch calls f with the present state of every model and then with each change, in order, until ctx ends, f returns an error,
// or the Updater ends (ErrClosed). f is called from one goroutine and may take its time, up to 256 changes' worth.
func (u *Updater) Watch(ctx context.Context, f func(Change) error) error {
	w := &watcher{changes: make(chan Change, 256), end: make(chan struct{})}
	u.mu.Lock()
	if u.ended {
		u.mu.Unlock()
		return ErrClosed
	}
	u.watchers[w] = struct{}{}
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.watchers, w)
		u.mu.Unlock()
	}()
	for _, s := range u.List() {
		if err := f(Change{What: "snapshot", Status: s}); err != nil {
			return err
		}
	}
	for {
		select {
		case c := <-w.changes:
			if err := f(c); err != nil {
				return err
			}
		case <-w.end:
			return w.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
