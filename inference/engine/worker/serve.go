package worker

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"modelgate/inference/engine"
)

// A Host is what a worker process brings along.
type Host struct {
	// Engine opens the engine that computes. It is called before the process is shut in, so that it may load libraries.
	Engine func() (engine.Engine, error)
	// Libraries are folders and files that the engine may read later.
	Libraries []string
	// Loaded is called, if set, once the graph is loaded, to give back what loading took.
	Loaded func()
	// Job does what Engine.Do is given, if set: spec is Job.Spec as JSON, and what it returns crosses as JSON too. eng is what Engine
	// opened.
	Job func(eng engine.Engine, spec json.RawMessage) (any, error)
}

// Serve is all that a worker process does: it shuts the process in, loads the graph that the parent names, and
// answers runs until the parent shuts its end. The process is to end when Serve returns: runs may still be under way.
func Serve(h Host) error {
	// Service managers and terminals send these to all processes of a gateway: the gateway says when a worker ends.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	// What exceeds a limit of files gets an error, as on a full disk.
	signal.Ignore(syscall.SIGXFSZ)
	conn, err := controlSocket()
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	s := &server{h: h, control: conn}
	m, err := readMessage(r, 0)
	if err != nil {
		return fmt.Errorf("read what to load: %w", err)
	}
	if err := m.decode(kindOpen, &s.open); err != nil {
		return err
	}
	if n := s.open.Lanes; n < 0 || n > maxLanes {
		return fmt.Errorf("%w: %d lanes, the limit is %d", errProtocol, n, maxLanes)
	}
	s.tracks = make([]track, s.open.Lanes)
	if err := closeInherited(conn, s.open.Lanes); err != nil {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	if err := s.load(); err != nil {
		return errors.Join(s.tell(errorMessage(0, err)), ended(r, s.open.MaxData))
	}
	return s.serve(r)
}

// ended waits until the parent has shut its end: it reads the answer first.
func ended(r io.Reader, maxData int64) error {
	for {
		if _, err := readMessage(r, maxData); err != nil {
			return ignoreEOF(err)
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// A server is the worker's side of one session.
type server struct {
	h       Host
	control net.Conn
	open    openMessage
	session engine.Session
	box     *box
	live    atomic.Bool

	tracks []track // by the numbers of their lanes

	mu  sync.Mutex // guards err
	err error      // what the parent did wrong on a lane
}

// A track is the worker's side of a lane.
type track struct {
	mu     sync.Mutex         // guards the fields below
	last   uint64             // the run that began last
	cancel context.CancelFunc // of it; nil once it has ended
	early  uint64             // the run that was cancelled before it began
}

// load shuts the process in, loads the graph and tells the parent of both.
func (s *server) load() error {
	if s.open.Protocol != protocolVersion {
		return fmt.Errorf("%w: the parent speaks version %d, this worker version %d: they must be of one build", errProtocol, s.open.Protocol, protocolVersion)
	}
	eng, err := s.h.Engine()
	if err != nil {
		return err
	}
	if s.box, err = shutIn(s.open, s.h.Libraries); err != nil {
		return fmt.Errorf("shut the worker in: %w", err)
	}
	// The threads that a graph's loading leaves behind keep its priority: they may only be lowered if they can be raised again.
	s.live.Store(s.open.Live || s.open.Threads > 1 && !s.box.mayRaise)
	if err := s.tell(jsonMessage(kindHello, helloMessage{Protocol: protocolVersion, Walls: s.box.name})); err != nil {
		return err
	}
	if s.open.Job != nil {
		return s.job(eng)
	}
	if s.open.Path == "" {
		return s.tell(jsonMessage(kindOpened, openedMessage{}))
	}
	s.run(func() {
		s.session, err = eng.Open(context.Background(), s.open.Path, engine.Options{Threads: s.open.Threads, Prepared: s.open.Prepared})
	})
	if err != nil {
		return err
	}
	if s.h.Loaded != nil {
		s.h.Loaded()
	}
	return s.tell(jsonMessage(kindOpened, openedMessage{Inputs: s.session.Inputs(), Outputs: s.session.Outputs()}))
}

// job does a job and sends what comes of it. All that it starts is where nobody else wants to run.
func (s *server) job(eng engine.Engine) error {
	if s.h.Job == nil {
		return errors.New("this program does no jobs")
	}
	defer s.box.lowerAll()()
	result, err := s.h.Job(eng, s.open.Job.Spec)
	if err != nil {
		return err
	}
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode what came of the job: %w", err)
	}
	return s.tell(jsonMessage(kindOpened, openedMessage{Result: text}))
}

// run calls f at the priority of now.
func (s *server) run(f func()) {
	if s.live.Load() {
		f()
		return
	}
	s.box.lowered(f)
}

// serve does what it is told on the control socket, until the parent shuts its end of that, or does wrong on any.
func (s *server) serve(r io.Reader) error {
	for {
		m, err := readMessage(r, s.open.MaxData)
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			return cmp.Or(s.err, ignoreEOF(err))
		}
		if err := s.heed(m); err != nil {
			return err
		}
	}
}

// heed does what the parent says on the control socket.
func (s *server) heed(m message) error {
	lane := m.id
	if m.kind == kindCancel && len(m.meta) == 8 {
		lane = binary.LittleEndian.Uint64(m.meta)
	}
	switch {
	case m.kind != kindLane && m.kind != kindCancel:
		return fmt.Errorf("%w: kind %d from a parent", errProtocol, m.kind)
	case s.session == nil || lane >= uint64(len(s.tracks)):
		return fmt.Errorf("%w: lane %d of %d", errProtocol, lane, len(s.tracks))
	case m.kind == kindLane:
		socket := laneSocket(int(lane))
		go s.serveLane(&s.tracks[lane], socket, socket)
	default:
		s.tracks[lane].stop(m.id)
	}
	return nil
}

// serveLane answers the runs of a lane, on a thread that either waits for one or computes. The end of the process doesn't wait for it.
func (s *server) serveLane(t *track, in io.Reader, out io.Writer) {
	r := bufio.NewReaderSize(in, 64<<10)
	for {
		m, err := readMessage(r, s.open.MaxData)
		if err == nil && m.kind != kindRun && m.kind != kindTry {
			err = fmt.Errorf("%w: kind %d on a lane", errProtocol, m.kind)
		}
		if err == nil {
			err = s.answer(t, m, out)
		}
		if ignoreEOF(err) != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			_ = s.control.Close() // has serve end, and the process
		}
		if err != nil {
			return
		}
	}
}

// begin gives the context of a run.
func (t *track) begin(id uint64) (context.Context, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id <= t.last {
		return nil, fmt.Errorf("%w: run %d after run %d", errProtocol, id, t.last)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if t.early == id {
		cancel()
	}
	t.last, t.cancel = id, cancel
	return ctx, nil
}

// stop cancels a run, which may be over, or not have begun.
func (t *track) stop(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case id > t.last:
		t.early = id
	case id == t.last && t.cancel != nil:
		t.cancel()
	}
}

func (t *track) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel()
	t.cancel = nil
}

// answer computes a run and sends what comes of it.
func (s *server) answer(t *track, m message, out io.Writer) error {
	ctx, err := t.begin(m.id)
	if err != nil {
		return err
	}
	if m.kind == kindRun && !s.live.Swap(true) {
		s.box.raise()
	}
	reply := message{kind: kindResult, id: m.id}
	s.run(func() {
		var err error
		if reply.tensors, err = s.session.Run(ctx, m.tensors); err != nil {
			reply = errorMessage(m.id, err)
		}
	})
	t.end()
	return s.send(out, reply)
}

// tell sends a message on the control socket. Only the goroutine that serves it does.
func (s *server) tell(m message) error { return s.send(s.control, m) }

// send writes a message. One that can't be written, because a graph gave what is no tensor, becomes an error message.
func (s *server) send(w io.Writer, m message) error {
	frames, err := m.frames()
	if size := total(frames); err == nil && size > s.open.MaxData {
		err = fmt.Errorf("the outputs take %d bytes, the limit is %d", size, s.open.MaxData)
	}
	if err != nil {
		if frames, err = errorMessage(m.id, fmt.Errorf("%w: %w", engine.ErrGraph, err)).frames(); err != nil {
			return err
		}
	}
	return write(w, frames)
}

// total is how many bytes of elements a message has.
func total(buffers net.Buffers) (n int64) {
	for i, b := range buffers {
		if i > 0 {
			n += int64(len(b))
		}
	}
	return n
}
