package modelgate

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// explain says what was done, where, and what the caller can do. The status stays what it was.
func (c *Client) explain(err error, doing string) error {
	return fmt.Errorf("%s at %s: %w%s", doing, c.target, err, c.advice(status.Code(err)))
}

func (c *Client) advice(code codes.Code) string {
	switch code {
	case codes.Unavailable:
		return " (no healthy server answered; is it running, and does it serve a model yet?)"
	case codes.DeadlineExceeded:
		return " (the deadline passed; allow more time with the context or Options.Timeout)"
	case codes.ResourceExhausted:
		return " (send fewer requests at once, or wait as long as RetryDelay says)"
	case codes.Unauthenticated:
		if c.o.Token == "" {
			return " (set Options.Token)"
		}
		return " (the server doesn't know this Options.Token)"
	}
	return ""
}

// RetryDelay is how long the server asks to wait before the same call is tried again; false if it said nothing about that.
func RetryDelay(err error) (time.Duration, bool) {
	s, ok := status.FromError(err)
	if !ok {
		return 0, false
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}
