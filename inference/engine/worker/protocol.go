package worker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"modelgate/inference/engine"
)

// protocolVersion is that of the messages below. Both ends are one program, or two that say the same number.
const protocolVersion = 2

// A kind says what a message is.
//
//	kind    from    on       id      meta                       data
//	open    parent  control  0       JSON: an openMessage
//	hello   worker  control  0       JSON: a helloMessage
//	opened  worker  control  0       JSON: an openedMessage
//	failed  worker  control  0       which errors it is, text
//	lane    parent  control  of lane
//	cancel  parent  control  of run  its lane (8 bytes)
//	run     parent  lane     of run  descriptions of tensors    their elements, one tensor after the other
//	try     parent  lane     of run  descriptions of tensors    their elements
//	result  worker  lane     of run  descriptions of tensors    their elements
//	failed  worker  lane     of run  which errors it is, text
//
// The parent begins with open. The worker says hello once it is shut in, before it touches the graph, and opened or failed
// after. One that was given a job does it in between, and isn't sent runs. A try is a run before the version serves, computed only where nobody else
// wants to; the first run ends that time. When the parent shuts its end, the worker ends.
//
// A lane is a socket for one run at a time. The worker reads it once it was told of it; from then on each run has one answer, result or
// failed, also when it was cancelled. Numbers of runs rise on a lane; a cancellation may come before its run, or after it. So a run costs the thread that asks and the thread that computes one write and one read each, in
// which they wait for one another: nothing is passed on between threads of one process.
type kind uint8

const (
	kindOpen kind = iota + 1
	kindHello
	kindOpened
	kindRun
	kindTry
	kindResult
	kindFailed
	kindCancel
	kindLane
	kinds // how many there are, and one
)

// tensors says whether a message of this kind holds tensors.
func (k kind) tensors() bool { return k == kindRun || k == kindTry || k == kindResult }

// Every message has a header: kind (1 byte), zero (3), length of meta (4), length of data (8), id (8). Numbers are little-endian.
// Elements of tensors are as they lie in memory: both ends run on one machine.
const (
	headerSize = 24
	maxMeta    = 1 << 20 // bytes
)

// errProtocol says that the other end sent what no end of ours sends.
var errProtocol = errors.New("the other end doesn't keep to the protocol")

// A message is one frame. The tensors of a run or result are in tensors; meta is what the others hold.
type message struct {
	kind    kind
	id      uint64
	meta    []byte
	tensors []engine.Tensor
}

// openMessage says what a worker is to load.
type openMessage struct {
	Protocol  int    `json:"protocol"`
	Path      string `json:"path"` // of the graph; empty: there is none, and nothing will be run
	Threads   int    `json:"threads"`
	DataLimit int64  `json:"data_limit"` // bytes beyond what the worker has at its start; 0: no limit
	MaxData   int64  `json:"max_data"`   // bytes of tensors in a message
	Live      bool   `json:"live"`       // compute at the usual priority from the start
	Prepared  bool   `json:"prepared"`   // the graph is in the engine's own form
	Lanes     int    `json:"lanes"`
	Job       *job   `json:"job,omitempty"`
}

// helloMessage says that a worker is shut in.
type helloMessage struct {
	Protocol int    `json:"protocol"`
	Walls    string `json:"walls"` // what shuts it in, for the log
}

// openedMessage describes the loaded graph.
type openedMessage struct {
	Inputs  []engine.TensorSpec `json:"inputs"`
	Outputs []engine.TensorSpec `json:"outputs"`
	Result  json.RawMessage     `json:"result,omitempty"` // of a job
}

// job is what a child is to do in place of serving a graph.
type job struct {
	Spec      json.RawMessage `json:"spec"`
	Reads     []string        `json:"reads"`
	Writes    []string        `json:"writes"`
	FileLimit int64           `json:"file_limit"`
}

// what says what open is about, for errors.
func (o openMessage) what() string {
	if o.Job != nil {
		return "the job"
	}
	return "graph " + o.Path
}

// jsonMessage is a message whose meta is v. What is passed here can always be encoded.
func jsonMessage(k kind, v any) message {
	meta, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("worker: encode %T: %v", v, err))
	}
	return message{kind: k, meta: meta}
}

// frames encodes m: the header and meta in the first buffer, then the elements, which aren't copied.
func (m message) frames() (net.Buffers, error) {
	meta, data := m.meta, net.Buffers(nil)
	if m.kind.tensors() {
		var err error
		if meta, data, err = encodeTensors(m.tensors); err != nil {
			return nil, err
		}
	}
	if len(meta) > maxMeta {
		return nil, fmt.Errorf("the description takes %d bytes, the limit is %d", len(meta), maxMeta)
	}
	size := 0
	for _, b := range data {
		size += len(b)
	}
	first := make([]byte, headerSize, headerSize+len(meta))
	first[0] = byte(m.kind)
	binary.LittleEndian.PutUint32(first[4:], uint32(len(meta)))
	binary.LittleEndian.PutUint64(first[8:], uint64(size))
	binary.LittleEndian.PutUint64(first[16:], m.id)
	return slices.Insert(data, 0, append(first, meta...)), nil
}

// readMessage reads one message, with at most maxData bytes of elements. io.EOF means that the other end shut between messages.
func readMessage(r io.Reader, maxData int64) (message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return message{}, err
	}
	m := message{kind: kind(header[0]), id: binary.LittleEndian.Uint64(header[16:])}
	meta, data := binary.LittleEndian.Uint32(header[4:]), binary.LittleEndian.Uint64(header[8:])
	switch {
	case m.kind == 0 || m.kind >= kinds || header[1]|header[2]|header[3] != 0:
		return message{}, fmt.Errorf("%w: a header of % x", errProtocol, header)
	case meta > maxMeta:
		return message{}, fmt.Errorf("%w: a description of %d bytes, the limit is %d", errProtocol, meta, maxMeta)
	case data > uint64(maxData) || data > 0 && !m.kind.tensors():
		return message{}, fmt.Errorf("%w: %d bytes of tensors in a message of kind %d, the limit is %d", errProtocol, data, m.kind, maxData)
	}
	m.meta = make([]byte, meta)
	if _, err := io.ReadFull(r, m.meta); err != nil {
		return message{}, cut(err)
	}
	if m.kind.tensors() {
		var err error
		if m.tensors, err = decodeTensors(m.meta, data, r); err != nil {
			return message{}, cut(err)
		}
		m.meta = nil
	}
	return m, nil
}

// cut turns an end within a message into what it is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// decode reads the meta of m, which must be of kind k, into v.
func (m message) decode(k kind, v any) error {
	if m.kind != k || m.id != 0 {
		return fmt.Errorf("%w: kind %d for run %d where kind %d is due", errProtocol, m.kind, m.id, k)
	}
	if err := json.Unmarshal(m.meta, v); err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	return nil
}
