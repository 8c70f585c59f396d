package onnxfile

import (
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	windowSize = 32 << 10
	maxString  = 64 << 10 // bytes of a name or another string that is kept
)

// A cursor walks the protobuf message between off and end. Sub-messages share the window, so that a file is read once, front to
// back, and large fields are stepped over without being read.
type cursor struct {
	w        *window
	off, end int64
}

// A window is the part of the file that is in memory.
type window struct {
	r     io.ReaderAt
	buf   []byte
	start int64 // offset of buf[0] in the file
	size  int64 // of the file
}

func newCursor(r io.ReaderAt, size int64) *cursor {
	return &cursor{w: &window{r: r, size: size, buf: make([]byte, 0, windowSize)}, end: size}
}

// at returns n bytes at off, fewer at the end of the file.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off >= w.start && off+int64(n) <= w.start+int64(len(w.buf)) {
		i := off - w.start
		return w.buf[i : i+int64(n)], nil
	}
	want := int(min(int64(cap(w.buf)), w.size-off))
	got, err := w.r.ReadAt(w.buf[:max(want, 0)], off)
	w.start, w.buf = off, w.buf[:got]
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return w.buf[:min(n, len(w.buf))], nil
}

// varint reads a varint.
func (c *cursor) varint() (uint64, error) {
	b, err := c.w.at(c.off, int(min(10, c.end-c.off)))
	if err != nil {
		return 0, err
	}
	v, n := protowire.ConsumeVarint(b)
	if n < 0 {
		return 0, c.bad("a number is cut short or too long")
	}
	c.off += int64(n)
	return v, nil
}

// next reads a field's tag; ok is false at the end of the message.
func (c *cursor) next() (num protowire.Number, typ protowire.Type, ok bool, err error) {
	if c.off >= c.end {
		return 0, 0, false, nil
	}
	v, err := c.varint()
	if err != nil {
		return 0, 0, false, err
	}
	num, typ = protowire.DecodeTag(v)
	if num < protowire.MinValidNumber {
		return 0, 0, false, c.bad("a field has no valid number")
	}
	return num, typ, true, nil
}

// message steps over a length-delimited field and returns a cursor over what it holds.
func (c *cursor) message() (*cursor, error) {
	n, err := c.varint()
	if err != nil {
		return nil, err
	}
	if n > uint64(c.end-c.off) {
		return nil, c.bad("a field is longer than what holds it")
	}
	sub := &cursor{w: c.w, off: c.off, end: c.off + int64(n)}
	c.off = sub.end
	return sub, nil
}

// text reads a length-delimited field of at most maxString bytes, which must be text: names end up in messages to callers.
func (c *cursor) text() (string, error) {
	sub, err := c.message()
	if err != nil {
		return "", err
	}
	n := sub.end - sub.off
	if n > maxString {
		return "", c.bad("a name is longer than 64 KiB")
	}
	b := make([]byte, n)
	if got, err := c.w.r.ReadAt(b, sub.off); int64(got) < n {
		return "", fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if !utf8.Valid(b) {
		return "", c.bad("a name is not valid UTF-8")
	}
	return string(b), nil
}

// skip steps over a field's value.
func (c *cursor) skip(typ protowire.Type) error {
	switch typ {
	case protowire.VarintType:
		_, err := c.varint()
		return err
	case protowire.BytesType:
		_, err := c.message()
		return err
	case protowire.Fixed32Type:
		return c.step(4)
	case protowire.Fixed64Type:
		return c.step(8)
	case protowire.StartGroupType, protowire.EndGroupType:
	}
	return c.bad("a field has a kind that ONNX doesn't use")
}

func (c *cursor) step(n int64) error {
	if n > c.end-c.off {
		return c.bad("a field is cut short")
	}
	c.off += n
	return nil
}

func (c *cursor) bad(why string) error {
	return fmt.Errorf("%w: at byte %d: %s", ErrFormat, c.off, why)
}
