package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"reflect"
	"strings"
	"testing"

	"modelgate/inference/engine"
)

// These tests are inside the package: what crosses the socket is nobody's interface but that of the two ends.

const testMaxData = 1 << 20

func samples() []message {
	return []message{
		jsonMessage(kindOpen, openMessage{Protocol: 1, Path: "/models/text/model.onnx", Threads: 2, DataLimit: 1 << 30, MaxData: 1 << 20}),
		jsonMessage(kindHello, helloMessage{Protocol: 1, Walls: "landlock"}),
		jsonMessage(kindOpened, openedMessage{
			Inputs:  []engine.TensorSpec{{Name: "x", Type: engine.Int64, Shape: []int64{-1, -1}}},
			Outputs: []engine.TensorSpec{{Name: "y", Type: engine.Float32, Shape: []int64{-1, 2}, Map: true}},
		}),
		{kind: kindRun, id: 7, tensors: []engine.Tensor{
			{Shape: []int64{2, 3}, Data: []int64{1, 2, 3, -4, 5, 1 << 60}},
			{Shape: []int64{2}, Data: []string{"", "xin chào \x00"}},
		}},
		{kind: kindResult, id: 1 << 40, tensors: []engine.Tensor{
			{Shape: []int64{1, 2}, Data: []float32{0.5, -1}, Keys: []string{"no", "yes"}},
			{Shape: []int64{0}, Data: []float64{}},
			{Shape: []int64{3}, Data: []bool{true, false, true}},
			{Shape: []int64{}, Data: []int32{5}},
			{Shape: []int64{2, 1}, Data: []uint8{1, 255}},
		}},
		{kind: kindRun, id: 1, tensors: []engine.Tensor{}},
		errorMessage(9, fmt.Errorf("%w: text", engine.ErrGraph)),
		{kind: kindCancel, id: 3},
		{kind: kindTry, id: 2, tensors: []engine.Tensor{}},
		{kind: kindLane, id: 3},
	}
}

func encode(t testing.TB, m message) []byte {
	t.Helper()
	buffers, err := m.frames()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Join(buffers, nil)
}

func TestMessagesCross(t *testing.T) {
	for _, m := range samples() {
		raw := encode(t, m)
		got, err := readMessage(bytes.NewReader(raw), testMaxData)
		if err != nil {
			t.Errorf("kind %d: %v", m.kind, err)
			continue
		}
		if len(m.meta) == 0 {
			m.meta, got.meta = nil, nil
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("kind %d: %+v became %+v", m.kind, m, got)
		}
		for n := range raw {
			if _, err := readMessage(bytes.NewReader(raw[:n]), testMaxData); err == nil {
				t.Errorf("kind %d, cut to %d of %d bytes, is accepted", m.kind, n, len(raw))
			}
		}
	}
}

func TestMessagesThatAreRefused(t *testing.T) {
	run := samples()[3]
	change := func(at int, v byte) []byte {
		raw := encode(t, run)
		raw[at] = v
		return raw
	}
	for name, raw := range map[string][]byte{
		"kind 0":                 change(0, 0),
		"unknown kind":           change(0, byte(kinds)),
		"reserved byte":          change(2, 1),
		"meta too long":          change(7, 1),
		"data too long":          change(11, 1),
		"data in a cancel":       change(0, byte(kindCancel)),
		"more tensors than said": change(headerSize, 1),
		"less tensors than said": change(headerSize, 3),
		"unknown type":           change(headerSize+2, 8),
		"other type":             change(headerSize+2, byte(engine.Float32)),
		"too many dimensions":    change(headerSize+3, maxRank+1),
		"too many keys":          change(headerSize+7, 255),
		"negative dimension":     change(headerSize+16+7, 255),
	} {
		if m, err := readMessage(bytes.NewReader(raw), testMaxData); !errors.Is(err, errProtocol) && !strings.Contains(fmt.Sprint(err), "EOF") {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	long := encode(t, message{kind: kindRun, id: 1, tensors: []engine.Tensor{{Shape: []int64{2}, Data: []int64{1, 2}}}})
	long[headerSize+16] = 1
	if m, err := readMessage(bytes.NewReader(long), testMaxData); !errors.Is(err, errProtocol) {
		t.Errorf("two elements for one: %+v, %v", m, err)
	}
	flag := encode(t, message{kind: kindRun, id: 1, tensors: []engine.Tensor{{Shape: []int64{1}, Data: []bool{true}}}})
	flag[len(flag)-1] = 2
	if _, err := readMessage(bytes.NewReader(flag), testMaxData); !errors.Is(err, errProtocol) {
		t.Errorf("a bool of 2: %v", err)
	}
}

func TestErrorsCross(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("%w: operator Foo", engine.ErrGraph),
		fmt.Errorf("%w: input x", engine.ErrInput),
		engine.ErrClosed, context.Canceled, context.DeadlineExceeded,
		fmt.Errorf("%w: %w", engine.ErrGraph, &fs.PathError{Op: "open", Path: "model.onnx", Err: fs.ErrNotExist}),
		errors.New("this machine lacks a locale"),
	} {
		m, readErr := readMessage(bytes.NewReader(encode(t, errorMessage(4, err))), testMaxData)
		if readErr != nil {
			t.Fatal(readErr)
		}
		got := m.asError()
		if got.Error() != err.Error() {
			t.Errorf("%q became %q", err, got)
		}
		for _, kind := range crossing() {
			if errors.Is(got, kind) != errors.Is(err, kind) {
				t.Errorf("%v: whether it is %q was lost", err, kind)
			}
		}
	}
	if got := errorMessage(1, errors.New(strings.Repeat("đ", maxErrorText))).asError().Error(); len(got) > maxErrorText {
		t.Errorf("an error of %d bytes", len(got))
	}
}

// FuzzMessage: whatever arrives is a message that reads the same when it is sent again, or it is refused.
func FuzzMessage(f *testing.F) {
	for _, m := range samples() {
		f.Add(encode(f, m))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := readMessage(bytes.NewReader(raw), testMaxData)
		if err != nil {
			return
		}
		again := encode(t, m)
		if !bytes.Equal(again, raw[:len(again)]) {
			t.Errorf("% x\nbecame\n% x", raw[:len(again)], again)
		}
		_ = m.asError()
		_ = m.decode(kindOpened, &openedMessage{})
	})
}

// FuzzFromWorker: a worker that was taken over sends what it likes. The parent gives answers to those who wait, or refuses.
func FuzzFromWorker(f *testing.F) {
	var all []byte
	for _, m := range samples() {
		f.Add(encode(f, m))
		all = append(all, encode(f, m)...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := &child{hello: make(chan message, 2)}
		c.outputs.Store(1)
		r := bytes.NewReader(raw)
		for {
			m, err := readMessage(r, testMaxData)
			if err != nil {
				break
			}
			if c.check(m, m.id) == nil && m.kind == kindResult && len(m.tensors) != 1 {
				t.Errorf("an answer of %d tensors", len(m.tensors))
			}
			if c.check(m, m.id+1) == nil {
				t.Errorf("the answer to run %d is that to another", m.id)
			}
			if c.deliver(m) == nil && m.id != 0 {
				t.Errorf("somebody waits for kind %d, id %d", m.kind, m.id)
			}
		}
	})
}

// echo gives its inputs back.
type echo struct{}

func (echo) Inputs() []engine.TensorSpec  { return nil }
func (echo) Outputs() []engine.TensorSpec { return nil }
func (echo) Close() error                 { return nil }
func (echo) Run(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	return in, nil
}

// FuzzFromParent: a worker that hears nonsense ends, or answers what wasn't nonsense.
func FuzzFromParent(f *testing.F) {
	var all []byte
	for _, m := range samples()[3:] {
		f.Add(encode(f, m))
		all = append(all, encode(f, m)...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, raw []byte) {
		ours, theirs := net.Pipe()
		s := &server{control: theirs, open: openMessage{MaxData: testMaxData}, session: echo{}, box: &box{priority: &priority{}}, tracks: make([]track, 1)}
		s.live.Store(true)
		r := bytes.NewReader(raw)
		for {
			m, err := readMessage(r, testMaxData)
			if err != nil || m.kind == kindLane || s.heed(m) != nil { // there is no socket of a lane
				break
			}
		}
		var answers bytes.Buffer
		s.serveLane(&s.tracks[0], bytes.NewReader(raw), &answers)
		for answers.Len() > 0 {
			if m, err := readMessage(&answers, testMaxData); err != nil || m.kind != kindResult && m.kind != kindFailed {
				t.Errorf("%v, an answer of kind %d", err, m.kind)
				break
			}
		}
		_ = ours.Close()
		_ = theirs.Close()
	})
}

// A cancellation comes on another socket than its run: before it, or after its end.
func TestCancelBeforeItsRun(t *testing.T) {
	var lane track
	begin := func(id uint64, cancelled bool) {
		t.Helper()
		ctx, err := lane.begin(id)
		if err != nil || (ctx.Err() != nil) != cancelled {
			t.Errorf("run %d: %v, %v; cancelled: %v", id, err, ctx.Err(), cancelled)
		}
	}
	lane.stop(5)
	begin(5, true)
	lane.end()
	lane.stop(5)
	begin(6, false)
	lane.stop(8)
	lane.end()
	begin(8, true)
	lane.end()
	if _, err := lane.begin(8); !errors.Is(err, errProtocol) {
		t.Errorf("a run that was there before: %v", err)
	}
}
