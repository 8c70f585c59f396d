package inference

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
	"time"

	"modelgate/inference/engine"
)

// ErrKiller says that this very input ended the process that computes the model, not long ago: it isn't tried again for a while. It is
// no verdict.
var ErrKiller = errors.New("this input ended the process that computes the model")

// Supervision says what follows when the process that computes a model ends. The zero Supervision is good.
type Supervision struct {
	RefuseFor time.Duration // for how long an input that ended the process isn't tried again; 0 means DefaultRefuseFor
	Killers   int           // how many different inputs must end the process for the version to be at fault; 0 means DefaultKillers

	// The functions below are called, if set, from several goroutines. They must not block, nor use the model.

	Died      func(engine.Cause) // the process ended without being told to
	Restarted func()             // another is in its place
	Refused   func()             // an input wasn't tried again
	// Charged says that an input ended the process of a version that serves, for the first few inputs: those before AtFault is called.
	Charged func(what string)
	// AtFault says that the version, which serves, is at fault, and why. It is called again with each further input that ends the process.
	AtFault func(why string)
}

// The defaults of a Supervision.
const (
	DefaultRefuseFor = 10 * time.Minute
	DefaultKillers   = 3
)

func (s Supervision) withDefaults() Supervision {
	if s.RefuseFor == 0 {
		s.RefuseFor = DefaultRefuseFor
	}
	if s.Killers == 0 {
		s.Killers = DefaultKillers
	}
	for _, f := range []*func(){&s.Restarted, &s.Refused} {
		if *f == nil {
			*f = func() {}
		}
	}
	for _, f := range []*func(string){&s.Charged, &s.AtFault} {
		if *f == nil {
			*f = func(string) {}
		}
	}
	if s.Died == nil {
		s.Died = func(engine.Cause) {}
	}
	return s
}

// mostKillers bounds how many inputs a model remembers: the oldest go first.
const mostKillers = 1024

// killers are the inputs that ended the process that computes a model, or had to be ended with it.
//
// One that crashed it counts against the version. One that hung doesn't: when a run is cut off is its caller's choice, and callers in a
// hurry must not take a version away. Both are refused for a while.
type killers struct {
	Supervision
	deaths atomic.Int64
	some   atomic.Bool // there are some: nothing is hashed before
	live   atomic.Bool // the version was checked: from now on callers decide what it computes

	mu      sync.Mutex // guards the fields below
	known   map[digest]*killer
	order   []digest // of known, oldest first
	crashed int      // how many different inputs crashed the process, forgotten ones included
}

type digest [sha256.Size]byte

type killer struct {
	until   time.Time // when it may be tried again
	crashed bool      // it counts against the version
}

// newKillers supervises a model.
func newKillers(s Supervision) *killers {
	return &killers{Supervision: s.withDefaults(), known: map[digest]*killer{}}
}

// died is for the engine.
func (k *killers) died(cause engine.Cause) {
	k.deaths.Add(1)
	k.Died(cause)
}

// refusal is nil, or why ex isn't to be run now.
func (k *killers) refusal(ex Example) error {
	if !k.some.Load() {
		return nil
	}
	d := digestOf(ex)
	k.mu.Lock()
	defer k.mu.Unlock()
	found := k.known[d]
	if found == nil {
		return nil
	}
	left := time.Until(found.until)
	if left <= 0 {
		return nil
	}
	return fmt.Errorf("%w: it isn't tried again for %v", ErrKiller, max(left.Round(time.Second), time.Second))
}

// charge notes err, that of a run of ex alone, if it says that ex ended the process.
func (k *killers) charge(ex Example, err error) {
	var crash *engine.CrashError
	if !errors.As(err, &crash) || !crash.Proven {
		return
	}
	d := digestOf(ex)
	n, told := k.add(d, crash.Cause == engine.Crashed)
	if !k.live.Load() {
		return
	}
	if told && n < k.Killers {
		k.Charged(fmt.Sprintf("an input (sha256 %.12x…) ended the process that computes it, %s, and isn't tried again for %v: %v", d, crash.Cause, k.RefuseFor, crash.Err))
	}
	if n >= k.Killers {
		k.AtFault(fmt.Sprintf("%d different inputs ended the process that computes it; the last time %v", n, crash.Err))
	}
}

// add remembers an input. n is how many different ones have crashed the process if this is a new one, else 0. told says that it is one of
// the first few.
func (k *killers) add(d digest, crashed bool) (n int, told bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.some.Store(true)
	found := k.known[d]
	if found == nil {
		found = &killer{}
		k.known[d] = found
		k.order = append(k.order, d)
		told = len(k.order) <= min(k.Killers, mostKillers)
		if len(k.order) > mostKillers {
			delete(k.known, k.order[0])
			k.order = k.order[1:]
		}
	}
	found.until = time.Now().Add(k.RefuseFor)
	if !crashed || found.crashed {
		return 0, told
	}
	found.crashed = true
	k.crashed++
	return k.crashed, told
}

// Health is what the process that computes a model went through, since the model was opened.
type Health struct {
	Deaths  int // of the process, whoever is to blame
	Killers int // different inputs that crashed it
	Refused int // inputs that aren't tried again for now
}

// Health says how the process that computes the model fares. Without one of its own, it is zero.
func (m *Model) Health() Health {
	k := m.killers
	h := Health{Deaths: int(k.deaths.Load())}
	k.mu.Lock()
	defer k.mu.Unlock()
	h.Killers = k.crashed
	now := time.Now()
	for _, x := range k.known {
		if x.until.After(now) {
			h.Refused++
		}
	}
	return h
}

// PID is the process that computes the model alone; 0: there is none.
func (m *Model) PID() int {
	if p, ok := m.session.(engine.Process); ok {
		return p.PID()
	}
	return 0
}

// digestOf is the sha256 of what a graph gets of ex: types, shapes and elements.
func digestOf(ex Example) digest {
	h := sha256.New()
	var b []byte
	for _, t := range ex.Tensors {
		b = binary.LittleEndian.AppendUint64(b[:0], uint64(t.Type()))
		b = binary.LittleEndian.AppendUint64(b, uint64(len(t.Shape)))
		for _, d := range t.Shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(d))
		}
		h.Write(b)
		hashElements(h, t.Data)
	}
	var d digest
	h.Sum(d[:0])
	return d
}

func hashElements(h hash.Hash, data any) {
	switch d := data.(type) {
	case []uint8:
		h.Write(d)
	case []string:
		for _, s := range d {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s))))
			h.Write([]byte(s))
		}
	case []float32:
		hashNumbers(h, d)
	case []float64:
		hashNumbers(h, d)
	case []int64:
		hashNumbers(h, d)
	case []int32:
		hashNumbers(h, d)
	case []bool:
		hashNumbers(h, d)
	default:
		panic(fmt.Sprintf("inference: an example of %T", data))
	}
}

// hashNumbers writes a few at a time: a clip has millions.
func hashNumbers[T any](h hash.Hash, d []T) {
	const some = 8 << 10
	var b []byte
	for len(d) > 0 {
		n := min(some, len(d))
		var err error
		if b, err = binary.Append(b[:0], binary.LittleEndian, d[:n]); err != nil {
			panic(fmt.Sprintf("inference: hash %T: %v", d, err)) // no number
		}
		h.Write(b)
		d = d[n:]
	}
}
