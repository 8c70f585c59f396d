package video

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A queue has ffmpegs run only where nobody else wants to. A prediction is a matter of milliseconds, a clip of seconds: beside each
// other on busy processors the predictions would wait for the clip as long as the clip for them. One that others keep from running at
// all is raised, to a tenth of what others get.
type queue struct {
	log    *slog.Logger
	warned sync.Once    // that priorities can't be set
	raised atomic.Int64 // until when, in nanoseconds since 1970, ffmpegs begin where they would be raised to
}

const (
	patience = 3 * time.Second // for how long an ffmpeg may be kept from running
	recess   = time.Minute     // for how long others begin raised where a running one can't be
)

// join lowers the child until leave is called, which must be before the child is waited for.
func (q *queue) join(pid int) (leave func()) {
	set := lowestPriority
	if time.Now().UnixNano() < q.raised.Load() {
		set = lowPriority
	}
	if err := set(pid); err != nil {
		q.warned.Do(func() {
			q.log.Warn("ffmpeg runs at the usual priority: predictions are slower while clips are decoded", "error", err)
		})
	}
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { q.watch(pid, ended) })
	return func() {
		close(ended)
		watching.Wait()
	}
}

// watch raises the child when it has run for less than a quarter of its time.
func (q *queue) watch(pid int, ended <-chan struct{}) {
	started := time.Now()
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		if used, err := processorTime(pid); err != nil || used > time.Since(started)/4 {
			continue
		}
		if err := lowPriority(pid); err != nil { // only root may; the next ones don't need to be raised
			q.raised.Store(time.Now().Add(recess).UnixNano())
			q.log.Debug("others keep ffmpeg from running", "error", err)
		}
		return
	}
}

// errStarved is the error of a child whose time ran out while others had the processors.
var errStarved = fmt.Errorf("%w: ffmpeg had to wait for others", ErrBusy)

// unknownWait is the wait of a child of which isn't known whether it only slept.
const unknownWait = time.Duration(-1)

// starved says whether a child ran for less than half of its time because others had the processors: for most of the rest it wanted to
// run. One that slept was not kept from anything.
func starved(s *os.ProcessState, wall, waited time.Duration) bool {
	if s == nil {
		return false
	}
	ran := s.UserTime() + s.SystemTime()
	return ran < wall/2 && (waited == unknownWait || waited > (wall-ran)/2)
}
