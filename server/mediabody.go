package server

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"sync"
	"time"
)

var (
	errMediaSlow = errors.New("the body came too slowly")
	errBodyCut   = errors.New("the body broke off")
	errTooMuch   = errors.New("more than is allowed here")
)

const (
	noLimit       = math.MaxInt64
	interruptTime = 100 * time.Millisecond // for a read in progress
	lingerTime    = 5 * time.Second        // for a caller that still sends to read why it should not
)

// A mediaBody is the body of a large upload. Its deadline moves on with each piece that arrives, up to the end of the whole; the
// server's own, for bodies of a message's size, would cut it off.
type mediaBody struct {
	r    io.Reader
	rc   *http.ResponseController
	idle time.Duration
	end  time.Time
	left int64 // may still be read

	mu                    sync.Mutex // guards what follows, and is held while deadlines are set
	interrupted, finished bool
}

func newMediaBody(r io.Reader, rc *http.ResponseController, l Limits) *mediaBody {
	return &mediaBody{r: r, rc: rc, idle: l.UploadIdle, end: time.Now().Add(l.UploadTime), left: noLimit}
}

// allow lets n more bytes be read.
func (b *mediaBody) allow(n int64) { b.left = n }

func (b *mediaBody) Read(p []byte) (int, error) {
	if len(p) > 0 && b.left == 0 {
		return 0, errTooMuch
	}
	deadline := time.Now().Add(b.idle)
	if deadline.After(b.end) {
		deadline = b.end
	}
	if !b.setDeadline(deadline) {
		return 0, errUploadEnded
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	if b.left != noLimit {
		b.left -= int64(n)
	}
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline):
		return n, errUploadEnded // it was interrupted
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, errMediaSlow // which ends the request's context too, and with it the upload
	}
	return n, fmt.Errorf("%w: %w", errBodyCut, err)
}

// setDeadline is false once the body was interrupted.
func (b *mediaBody) setDeadline(t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.interrupted {
		_ = b.rc.SetReadDeadline(t) // only a connection that is gone has none
	}
	return !b.interrupted
}

// interrupt ends the read in progress and all to come, unless the body is done. A read may have a moment more, in which a caller that
// is sending comes to a stop by itself: a read that fails would have the server cut the connection, and with it the answer.
func (b *mediaBody) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.finished {
		b.interrupted = true
		_ = b.rc.SetReadDeadline(time.Now().Add(interruptTime))
	}
}

// done says that the body was read to its end. From there on the server watches whether the caller leaves, and would take a deadline
// that passes for that: the one that a read behind the end has set.
func (b *mediaBody) done() {
	b.setDeadline(time.Time{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished = true
}

// linger lets the server read on for a moment, so that a caller that is still sending gets to read the answer.
func (b *mediaBody) linger() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.finished {
		_ = b.rc.SetReadDeadline(time.Now().Add(lingerTime))
	}
}
