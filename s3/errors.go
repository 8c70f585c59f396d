package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/minio/minio-go/v7"
)

// What callers tell apart. An error that wraps one may say more than a stranger should read: where the endpoint is, what it said.
// The sentinels' own texts are for everybody.
var (
	ErrURI         = errors.New("this is no reference to an object: write s3://bucket/key")
	ErrNotAllowed  = errors.New("references to this bucket or folder are not allowed")
	ErrNotFound    = errors.New("there is no such object that may be read")
	ErrTooLarge    = errors.New("the object is too large")
	ErrChanged     = errors.New("the object has changed, or can't be read from the middle on")
	ErrUnavailable = errors.New("the object store can't be read now")
)

// explain sorts what the client below returns.
func (e *Endpoint) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var said minio.ErrorResponse
	if !errors.As(err, &said) {
		var ue *url.Error // it repeats the whole address
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, e.Where(), err)
	}
	text := clip(said.Code + ": " + said.Message)
	switch {
	case said.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %s says %s", ErrNotFound, e.Where(), text)
	case said.StatusCode == http.StatusPreconditionFailed, said.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %s says %s", ErrChanged, e.Where(), text)
	case said.StatusCode == http.StatusForbidden && said.Code == minio.AccessDenied:
		// That is also what a caller hears who may not list: whether the object is there is a secret.
		return fmt.Errorf("%w: %s says %s; may the access key read it?", ErrNotFound, e.Where(), text)
	case said.StatusCode == http.StatusForbidden, said.StatusCode == http.StatusUnauthorized, said.StatusCode == http.StatusBadRequest:
		return fmt.Errorf("%w: %s refuses the request: %s; are access key, secret key, region and clock right?", ErrUnavailable, e.Where(), text)
	}
	return fmt.Errorf("%w: %s says %d %s", ErrUnavailable, e.Where(), said.StatusCode, text)
}

const maxText = 300

// clip shortens text from outside and replaces what would confuse a terminal.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}
