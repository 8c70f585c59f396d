package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// errNoResume says that a route can't continue where it was cut.
var errNoResume = errors.New("this route can't be resumed")

// fill gets the rest of a file into p, over the proxy first and, where that can't do it, by get-artifact.
// A change of route starts at 0: nothing says that both deliver the same bytes.
func (d *downloader) fill(ctx context.Context, p *part, a artifact) error {
	d.meter.add(p.have)
	b := d.c.newBackOff()
	for try := 1; p.have < a.size || !p.seen; try++ {
		before := p.have
		err := d.try(ctx, p, a)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		moved, merr := d.changeRoute(p, err, try)
		if merr != nil {
			return merr
		}
		if moved || p.have-before >= progressEnough { // a long file may be cut often, as long as it moves on
			try, b = 0, d.c.newBackOff()
		}
		var t *transientError
		if !moved && !errors.As(err, &t) || try >= d.c.o.Tries || !moved && t.after > d.c.o.MaxRetryWait {
			return err
		}
		if moved {
			continue
		}
		if cut := d.c.pause(ctx, b, t.after); cut != nil {
			return fmt.Errorf("%w; waiting to try again: %w", err, cut)
		}
	}
	if p.have != a.size {
		return fmt.Errorf("has %d bytes, listed with %d", p.have, a.size)
	}
	return nil
}

// changeRoute leaves a route that can't do it: the proxy when it can't be resumed, or answers nothing but errors (MLflow 2 can't
// send names in Vietnamese there), and get-artifact when that doesn't work at all. After the latter two it stays where it is.
func (d *downloader) changeRoute(p *part, err error, try int) (bool, error) {
	var e *apiError
	var t *transientError
	last := !errors.As(err, &t) || try >= d.c.o.Tries
	fails := !p.settled && p.have == 0 && errors.As(err, &e)
	to := routeVersion
	switch {
	case errors.Is(err, errNoResume):
	case fails && last && p.note.Route == routeVersion:
		to, p.settled = routeProxy, true
	case fails && last && e.status >= http.StatusInternalServerError:
		p.settled = true
	default:
		return false, nil
	}
	d.c.o.Logger.Info("download by another route", "model", d.model, "size", p.size, "route", to, "why", err)
	return true, d.restart(p, note{Route: to})
}

func (d *downloader) restart(p *part, n note) error {
	d.meter.add(-p.have)
	return p.reset(n)
}

// try asks once for what is missing.
func (d *downloader) try(ctx context.Context, p *part, a artifact) error {
	if p.have > 0 && p.note.Validator == "" {
		if err := d.restart(p, note{Route: p.note.Route}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var began atomic.Bool
	idle := time.AfterFunc(d.c.o.HeaderTimeout, func() {
		if began.Load() {
			cancel(fmt.Errorf("the server sent nothing for %v", d.c.o.IdleTimeout))
			return
		}
		cancel(fmt.Errorf("the server didn't begin to send within %v", d.c.o.HeaderTimeout))
	})
	defer idle.Stop()
	body, err := d.from.open(ctx, d, p, a)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	began.Store(true)
	idle.Reset(d.c.o.IdleTimeout)
	p.seen = true
	return d.sort(ctx, p, d.copy(p, a, &watched{r: body, pet: func() { idle.Reset(d.c.o.IdleTimeout) }}))
}

// open asks over the part's route.
func (x *proxyPlace) open(ctx context.Context, d *downloader, p *part, a artifact) (io.ReadCloser, error) {
	header := http.Header{"Accept-Encoding": {"identity"}}
	if p.have > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(p.have, 10)+"-")
		header.Set("If-Range", p.note.Validator)
	}
	resp, err := x.c.send(ctx, http.MethodGet, x.fileURL(p.note.Route, a), nil, header)
	if err != nil {
		return nil, err
	}
	if err := d.begin(p, a, resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// sort tells the errors of a copy apart: those of our disk and of a lying server are final, those of the network are not.
func (d *downloader) sort(ctx context.Context, p *part, err error) error {
	var w *writeError
	if err == nil || errors.As(err, &w) || errors.Is(err, errTooLong) {
		return err
	}
	err = fmt.Errorf("after %d of %d bytes: %w", p.have, p.size, because(ctx, err))
	if p.note.Validator == "" && p.note.Route == routeProxy && !p.settled {
		return fmt.Errorf("%w: %w", errNoResume, err)
	}
	return transient(err)
}

// begin checks the head of an answer and puts p where the body starts.
func (d *downloader) begin(p *part, a artifact, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		return checkRange(resp, p.have, a.size)
	case http.StatusOK:
	case http.StatusRequestedRangeNotSatisfiable:
		if err := d.restart(p, note{Route: p.note.Route}); err != nil {
			return err
		}
		return transient(errors.New("the registry has fewer bytes than an earlier attempt got; starting again"))
	default:
		b, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // only to explain the status, which counts
		return d.c.statusError(resp, b)
	}
	if kind(resp) == "text/html" && !strings.HasPrefix(path.Ext(a.path), ".htm") {
		return fmt.Errorf("the server at %s sends HTML instead of the file: is there a login page in front of MLflow?", d.c.where())
	}
	if resp.Header.Get("Content-Encoding") != "" {
		return fmt.Errorf("the registry sends it encoded as %q, which wasn't asked for", clip(resp.Header.Get("Content-Encoding")))
	}
	if n := resp.ContentLength; n >= 0 && n != a.size {
		return fmt.Errorf("the registry sends %d bytes of a file that it lists with %d", n, a.size)
	}
	n := note{Route: p.note.Route, Validator: validator(resp)}
	if n.Validator == "" && n.Route == routeProxy && a.size >= d.c.o.LargeFile && !p.settled {
		return errNoResume
	}
	return d.restart(p, n)
}

// checkRange refuses a part other than the one that was asked for.
func checkRange(resp *http.Response, from, size int64) error {
	want := fmt.Sprintf("bytes %d-%d/%d", from, size-1, size)
	if got := resp.Header.Get("Content-Range"); got != want || from == 0 {
		return fmt.Errorf("the registry sends range %q, asked for was %q", clip(got), want)
	}
	return nil
}

// validator is what If-Range may carry: a strong entity tag or a date. "" means that the route can't be resumed safely.
func validator(resp *http.Response) string {
	if resp.Header.Get("Accept-Ranges") != "bytes" {
		return ""
	}
	tag := resp.Header.Get("ETag")
	if tag != "" && !strings.HasPrefix(tag, "W/") && plain(tag, 200) {
		return tag
	}
	if date := resp.Header.Get("Last-Modified"); plain(date, 100) {
		return date
	}
	return ""
}

var errTooLong = errors.New("the registry sends more bytes than it lists")

type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// copy appends the body to p, up to the listed size and not a byte further.
func (d *downloader) copy(p *part, a artifact, body io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := body.Read(buf)
		if int64(n) > a.size-p.have {
			if err := d.restart(p, note{Route: d.from.first()}); err != nil {
				return &writeError{err}
			}
			return fmt.Errorf("%w (%d)", errTooLong, a.size)
		}
		if n > 0 {
			if err := p.write(buf[:n]); err != nil {
				return &writeError{err}
			}
			d.meter.add(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF) && p.have == a.size:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}

// watched calls pet whenever bytes arrive.
type watched struct {
	r   io.Reader
	pet func()
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if n > 0 {
		w.pet()
	}
	return n, err
}
