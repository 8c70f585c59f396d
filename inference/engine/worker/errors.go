package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"modelgate/inference/engine"
)

// crossing are the errors that keep their identity over the boundary, by the bit that stands for each.
func crossing() []error {
	return []error{engine.ErrGraph, engine.ErrInput, engine.ErrClosed, context.Canceled, context.DeadlineExceeded, fs.ErrNotExist}
}

const maxErrorText = 4 << 10 // bytes

// errorMessage is how err crosses: the bits of what it is (4 bytes), and its text.
func errorMessage(id uint64, err error) message {
	bits := uint32(0)
	for i, e := range crossing() {
		if errors.Is(err, e) {
			bits |= 1 << i
		}
	}
	text := err.Error()
	text = strings.ToValidUTF8(text[:min(len(text), maxErrorText)], "")
	return message{kind: kindFailed, id: id, meta: append(binary.LittleEndian.AppendUint32(nil, bits), text...)}
}

// asError is the error that crossed as m.
func (m message) asError() error {
	if len(m.meta) < 4 || len(m.meta) > 4+maxErrorText {
		return fmt.Errorf("%w: an error of %d bytes", errProtocol, len(m.meta))
	}
	e := &crossedError{text: strings.ToValidUTF8(string(m.meta[4:]), "�")}
	bits := binary.LittleEndian.Uint32(m.meta)
	for i, known := range crossing() {
		if bits&(1<<i) != 0 {
			e.is = append(e.is, known)
		}
	}
	return e
}

// A crossedError is an error of the engine in the worker, as this side sees it.
type crossedError struct {
	text string
	is   []error
}

func (e *crossedError) Error() string { return e.text }

func (e *crossedError) Is(target error) bool { return slices.Contains(e.is, target) }
