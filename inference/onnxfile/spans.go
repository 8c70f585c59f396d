package onnxfile

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A Span is where some of a graph's external data lies in its file.
type Span struct{ Offset, Length int64 }

const maxSpans = 1 << 20

// Spans tells where the external data of the graph at path lies, weights that ONNX Runtime has packed for its kernels included. The
// file is one that ONNX Runtime wrote: it says offset and length of each.
func Spans(path string) ([]Span, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var spans []Span
	p := newParser()
	p.entry = func(key, value string) (err error) {
		spans, err = appendSpans(spans, key, value)
		if err == nil && len(spans) > maxSpans {
			err = fmt.Errorf("%w: it refers to too many pieces of side files", ErrFormat)
		}
		return err
	}
	if _, err := p.parse(newCursor(f, st.Size())); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return spans, nil
}

// appendSpans reads one entry. offset comes before the length that belongs to it. Packed weights are prepacked_<n>, "kernel's
// key|offset;length;hash", the last part once for each buffer.
func appendSpans(spans []Span, key, value string) ([]Span, error) {
	number := func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%w: external data with %s %.100q", ErrFormat, key, value)
		}
		return n, nil
	}
	switch {
	case key == "offset":
		n, err := number(value)
		return append(spans, Span{n, 0}), err
	case key == "length" && len(spans) > 0 && spans[len(spans)-1].Length == 0:
		n, err := number(value)
		spans[len(spans)-1].Length = n
		return spans, err
	case !strings.HasPrefix(key, "prepacked_"):
		return spans, nil
	}
	_, buffers, _ := strings.Cut(value, "|")
	for buffer := range strings.SplitSeq(buffers, "|") {
		from, rest, _ := strings.Cut(buffer, ";")
		length, _, _ := strings.Cut(rest, ";")
		offset, err := number(from)
		if err != nil {
			return nil, err
		}
		n, err := number(length)
		if err != nil {
			return nil, err
		}
		spans = append(spans, Span{offset, n})
	}
	return spans, nil
}
