package hf

import (
	"crypto/sha256"
	"fmt"
	"sync"
)

// A Pool shares tokenizers between the versions of a model, which mostly have the same one: a file with 250,000 pieces takes
// half a gigabyte. Files are the same when their sha256 is.
type Pool struct {
	mu      sync.Mutex // guards entries and their refs. Never held while a tokenizer is parsed, freed or waited for
	entries map[[sha256.Size]byte]*entry
}

type entry struct {
	digest [sha256.Size]byte
	refs   int           // at least 1 as long as the entry can be found in the pool
	ready  chan struct{} // closed when t and err are set
	t      *Tokenizer
	err    error
}

// A Shared is one user's reference to a tokenizer of a pool. It must be closed, once; the last one frees the tokenizer.
type Shared struct {
	*Tokenizer
	pool  *Pool
	entry *entry
	once  sync.Once
}

// NewPool makes an empty pool.
func NewPool() *Pool { return &Pool{entries: make(map[[sha256.Size]byte]*entry)} }

// Open gives a reference to the tokenizer in the file at path. A file that is already open isn't parsed again; of several
// calls for the same file at the same time one parses it, and the others wait. Safe for concurrent use.
func (p *Pool) Open(path string) (*Shared, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	e, first := p.join(sha256.Sum256(data))
	if first {
		e.t, e.err = Parse(data)
		close(e.ready)
	}
	<-e.ready
	if e.err != nil {
		p.leave(e)
		return nil, fmt.Errorf("%s: %w", path, e.err)
	}
	return &Shared{Tokenizer: e.t, pool: p, entry: e}, nil
}

// join counts one more user of the file with that digest. The first one parses it.
func (p *Pool) join(digest [sha256.Size]byte) (e *entry, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e = p.entries[digest]; e != nil {
		e.refs++
		return e, false
	}
	e = &entry{digest: digest, refs: 1, ready: make(chan struct{})}
	p.entries[digest] = e
	return e, true
}

// leave counts one user less, and says whether that was the last.
func (p *Pool) leave(e *entry) (last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.refs--
	if e.refs > 0 {
		return false
	}
	delete(p.entries, e.digest)
	return true
}

// Len is the number of tokenizers in the pool.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.entries)
}

// Close gives the reference back. The last one frees the tokenizer, after calls in progress. Closing twice is harmless.
func (s *Shared) Close() {
	s.once.Do(func() {
		if s.pool.leave(s.entry) {
			s.Tokenizer.Close()
		}
	})
}
