package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// An Object is one that is being read. Its caller closes it.
type Object struct {
	Name Name
	Size int64  // of the whole object, as the endpoint declares it
	ETag string // changes with the content; "" if the endpoint gave none

	e      *Endpoint
	ctx    context.Context // of the request whose body this is
	cancel func()
	body   io.ReadCloser
	left   int64
}

// Reference opens the object that a caller's reference names, if it is allowed and has at most so many bytes. Until it is read to its
// end, no more than ReadTimeout may pass.
func (e *Endpoint) Reference(ctx context.Context, uri string, most int64) (*Object, error) {
	n, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if !e.prefixes.Contain(n) {
		return nil, ErrNotAllowed
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.o.ReadTimeout, fmt.Errorf("%w: it wasn't read within %v", ErrUnavailable, e.o.ReadTimeout))
	obj, err := e.Read(ctx, n, 0, "")
	if err != nil {
		cancel()
		return nil, err
	}
	obj.cancel = cancel
	if obj.Size > most {
		_ = obj.Close()
		return nil, fmt.Errorf("%w: it has %d bytes; at most %d are taken", ErrTooLarge, obj.Size, most)
	}
	return obj, nil
}

// Read opens an object from a byte on. With an ETag, an object that has another one by now is ErrChanged. Whether the name is
// allowed is the caller's business.
func (e *Endpoint) Read(ctx context.Context, n Name, from int64, etag string) (*Object, error) {
	var o minio.GetObjectOptions
	if from > 0 {
		if err := o.SetRange(from, 0); err != nil {
			return nil, err
		}
	}
	if etag != "" {
		if err := o.SetMatchETag(etag); err != nil {
			return nil, err
		}
	}
	body, info, header, err := e.core.GetObject(ctx, n.Bucket, n.Key, o)
	if err != nil {
		return nil, e.explain(ctx, err)
	}
	size, err := wholeSize(header, info.Size, from)
	if err == nil && etag != "" && info.ETag != etag {
		err = fmt.Errorf("%w: it has another ETag", ErrChanged)
	}
	if err != nil {
		_ = body.Close()
		return nil, err
	}
	return &Object{Name: n, Size: size, ETag: info.ETag, e: e, ctx: ctx, cancel: func() {}, body: body, left: size - from}, nil
}

// wholeSize reads an object's size from an answer, and sees that it begins where it was asked to.
func wholeSize(h http.Header, length, from int64) (int64, error) {
	if length < 0 {
		return 0, fmt.Errorf("%w: the answer doesn't say its size", ErrUnavailable)
	}
	got := h.Get("Content-Range")
	if from == 0 {
		if got != "" {
			return 0, fmt.Errorf("%w: asked for everything, it sends a part", ErrUnavailable)
		}
		return length, nil
	}
	want := fmt.Sprintf("bytes %d-%d/%d", from, from+length-1, from+length)
	if got != want {
		return 0, fmt.Errorf("%w: asked for the bytes from %d on, it sends range %q of %s", ErrChanged, from, clip(got), strconv.FormatInt(length, 10))
	}
	return from + length, nil
}

// Read gives the object's bytes, and never more of them than Size says. An end before that is an error.
func (o *Object) Read(b []byte) (int, error) {
	if o.left == 0 {
		return 0, io.EOF
	}
	n, err := o.body.Read(b[:min(int64(len(b)), o.left)])
	o.left -= int64(n)
	switch {
	case err == nil || errors.Is(err, io.EOF) && o.left == 0:
		return n, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, o.e.explain(o.ctx, err)
}

// All reads what is left.
func (o *Object) All() ([]byte, error) {
	b := make([]byte, o.left)
	n, err := io.ReadFull(o, b)
	if err != nil {
		return nil, fmt.Errorf("after %d of %d bytes: %w", n, len(b), err)
	}
	return b, nil
}

// Close ends the reading.
func (o *Object) Close() error {
	err := o.body.Close()
	o.cancel()
	return err
}

// listTimeout ends listings that go on for ever, as long as no entry comes.
const listTimeout = 5 * time.Minute

// An Entry is an object in a listing.
type Entry struct {
	Path string // relative to the folder that was listed; not checked in any way
	Size int64
	ETag string
}

// List calls each for the objects in a folder and below it, until an error, which it returns. How many that may be is the caller's
// business. Names are as the endpoint has them: not trusted.
func (e *Endpoint) List(ctx context.Context, folder Name, each func(Entry) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, listTimeout, fmt.Errorf("%w: the list of %v has no end after %v", ErrUnavailable, folder, listTimeout))
	defer cancel()
	noOwner := false
	prefix := folder.Key + "/"
	if folder.Key == "" {
		prefix = ""
	}
	for info := range e.core.ListObjectsIter(ctx, folder.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, FetchOwner: &noOwner}) {
		if info.Err != nil {
			return e.explain(ctx, info.Err)
		}
		path, ok := strings.CutPrefix(info.Key, prefix)
		if !ok {
			return fmt.Errorf("%w: asked for what is below %q, it lists %q", ErrUnavailable, prefix, clip(info.Key))
		}
		if err := each(Entry{Path: path, Size: info.Size, ETag: info.ETag}); err != nil {
			return err
		}
	}
	return context.Cause(ctx) // an ended context ends the listing without a word
}
