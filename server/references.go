package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"modelgate/inference"
	pb "modelgate/proto/modelgate/v1"
	"modelgate/s3"
)

// References say how clips are read that requests name instead of sending them.
type References struct {
	Endpoint   *s3.Endpoint // where they are; nil: requests that name one are refused
	ClipBytes  int64        // of one clip; default 64 MiB
	TotalBytes int64        // of all that are in memory at the same time; default 4 clips of the largest size
	Concurrent int          // clips that are read at the same time; default 8
	Waiting    int          // requests that may wait for one of those places; default 64
	// MemoryWait is how long an open object waits for memory; default 5 s. It must be less than an endpoint waits for its reader.
	MemoryWait time.Duration
}

func (r References) withDefaults() References {
	r.ClipBytes = cmp.Or(r.ClipBytes, 64<<20)
	r.TotalBytes = cmp.Or(r.TotalBytes, 4*r.ClipBytes)
	r.Concurrent = cmp.Or(r.Concurrent, 8)
	r.Waiting = cmp.Or(r.Waiting, 64)
	r.MemoryWait = cmp.Or(r.MemoryWait, 5*time.Second)
	return r
}

func (r References) check() error {
	if min(r.ClipBytes, r.TotalBytes) < 0 || r.MemoryWait < 0 || min(r.Concurrent, r.Waiting) < 0 {
		return errors.New("a limit on references is negative")
	}
	if r.TotalBytes < r.ClipBytes {
		return fmt.Errorf("%d bytes for clips by reference are fewer than one clip may have, %d", r.TotalBytes, r.ClipBytes)
	}
	return nil
}

// errReferencesFull says that too many clips are being read, or are in memory.
var errReferencesFull = errors.New("too many clips are being read from the object store; try again soon")

// referenceReader reads clips by reference, within bounds.
type referenceReader struct {
	References
	places chan struct{} // holds one for each clip that is being read
	bytes  *semaphore.Weighted
	inside atomic.Int64 // requests that read or wait to
}

func newReferenceReader(r References) *referenceReader {
	return &referenceReader{References: r, places: make(chan struct{}, r.Concurrent), bytes: semaphore.NewWeighted(r.TotalBytes)}
}

// read reads a clip into memory, where it counts until release is called. release is never nil.
func (r *referenceReader) read(ctx context.Context, uri string) (clip []byte, release func(), err error) {
	release = func() {}
	defer r.inside.Add(-1)
	if r.inside.Add(1) > int64(r.Concurrent+r.Waiting) {
		return nil, release, errReferencesFull
	}
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
	case <-ctx.Done():
		return nil, release, ctx.Err()
	}
	object, err := r.Endpoint.Reference(ctx, uri, r.ClipBytes)
	if err != nil {
		return nil, release, err
	}
	defer func() { _ = object.Close() }()
	if err := r.reserve(ctx, object.Size); err != nil {
		return nil, release, err
	}
	if clip, err = object.All(); err != nil {
		r.bytes.Release(object.Size)
		return nil, release, err
	}
	return clip, func() { r.bytes.Release(object.Size) }, nil
}

func (r *referenceReader) reserve(ctx context.Context, n int64) error {
	waiting, cancel := context.WithTimeout(ctx, r.MemoryWait)
	defer cancel()
	err := r.bytes.Acquire(waiting, n)
	switch {
	case err == nil: // even if ctx has ended since: what was taken is given back by whoever got it
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errReferencesFull
}

// dereference reads the clip that a request names into in, if it names one that a pinned model would take. The caller calls release
// when the clip has been judged.
func (s *Server) dereference(ctx context.Context, with *pinned, req *pb.PredictRequest, in *inference.Input) (release func(), err error) {
	source, is := req.GetVideo().GetSource().(*pb.Video_Uri)
	switch {
	case !is:
		return func() {}, nil
	case s.references.Endpoint == nil:
		return func() {}, invalid("NO_REFERENCES", "references are not configured: send the clip itself, as clip, frames or raw")
	case !with.takesClips():
		return func() {}, nil // the model says so itself
	}
	in.Video.Encoded, release, err = s.references.read(ctx, source.Uri)
	return release, s.publicError(ctx, source.Uri, err)
}

// takesClips reports whether a clip would be looked at.
func (p *pinned) takesClips() bool {
	if p.own == nil || p.late != nil {
		return true
	}
	kind := p.own.Model().Info().Kind
	return kind != inference.KindTokens && kind != inference.KindString
}

// publicError is err without what it says of the endpoint, which goes into the log instead.
func (s *Server) publicError(ctx context.Context, uri string, err error) error {
	for _, public := range []error{s3.ErrUnavailable, s3.ErrNotFound} {
		if ctx.Err() == nil && errors.Is(err, public) {
			s.o.Logger.WarnContext(ctx, "a clip could not be read by reference", "uri", uri, "error", err)
			return public
		}
	}
	return err
}
