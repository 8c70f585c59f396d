// Package hf encodes text with Hugging Face tokenizers, a Rust library that is linked in statically.
//
// The library is built by tools/build-tokenizers.sh (`make tokenizers`) from the crate in tokenizers/.
package hf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// MaxFileSize is the size of the largest tokenizer.json that is read. The largest in wide use have about 35 MB; parsed, a
// file takes some thirty times its size in memory.
const MaxFileSize = 64 << 20

var (
	// ErrClosed says that the tokenizer was closed.
	ErrClosed = errors.New("the tokenizer is closed")
	// ErrInvalidUTF8 says that a text isn't valid UTF-8.
	ErrInvalidUTF8 = errors.New("the text is not valid UTF-8")
	// ErrMaxLength says that a maximum length leaves no room for the special tokens around every text.
	ErrMaxLength = errors.New("the maximum length is too small")
)

// EncodeOptions say how a text is encoded. The zero EncodeOptions encode it whole, with special tokens around it.
type EncodeOptions struct {
	MaxLength     int  // most tokens, special ones included; 0 means no limit
	TruncateLeft  bool // cut the beginning of a long text, not its end
	SpecialAsText bool // "</s>" in a text is four characters, not the token
	NoSpecial     bool // put no special tokens around the text
}

// An Encoding is an encoded text. The three slices have one length.
type Encoding struct {
	IDs, TypeIDs, Mask []int64
	Truncated          bool // some of the text was cut off
}

// Info is what a tokenizer.json says about how it was used when it was saved.
type Info struct {
	SpecialTokens int // special tokens put around a text
	Truncation    *Truncation
	Padding       *Padding
}

// Truncation is the truncation block of a tokenizer.json. Encode doesn't follow it.
type Truncation struct {
	MaxLength int
	Left      bool
}

// Padding is the padding block of a tokenizer.json. Encode doesn't follow it.
type Padding struct {
	ID, TypeID int64
	Token      string
	Left       bool
}

// A Tokenizer turns texts into token ids. It is safe for concurrent use; calls run beside each other, except that calls with
// and without SpecialAsText on one Tokenizer wait for each other.
type Tokenizer struct {
	mu     sync.RWMutex // guards native. Held for reading by every call into the library, so that Close waits for them
	native native
	info   Info
	size   int
	maxID  int64
}

// Load reads the tokenizer.json at path. A file that is malformed in whatever way, or larger than MaxFileSize, is an error.
func Load(path string) (*Tokenizer, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("%s is larger than %d MiB, which no tokenizer is", path, MaxFileSize>>20)
	}
	return data, nil
}

// Parse makes a tokenizer from the content of a tokenizer.json. The data isn't kept.
func Parse(data []byte) (*Tokenizer, error) {
	n, err := parseNative(data)
	if err != nil {
		return nil, err
	}
	if err := checkGrowth(data); err != nil {
		n.free()
		return nil, err
	}
	t := &Tokenizer{native: n}
	t.info, t.size, t.maxID = n.describe()
	return t, nil
}

// Encode encodes text. Any text that is valid UTF-8 can be encoded, the empty one too. The cost is linear in its length,
// however small MaxLength is, so that callers limit the length of what they pass.
func (t *Tokenizer) Encode(text string, o EncodeOptions) (Encoding, error) {
	if o.MaxLength < 0 {
		return Encoding{}, fmt.Errorf("%w: %d", ErrMaxLength, o.MaxLength)
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.native.closed() {
		return Encoding{}, ErrClosed
	}
	return t.native.encode(text, o)
}

// VocabSize is the number of tokens, added ones included.
func (t *Tokenizer) VocabSize() int { return t.size }

// MaxID is the largest id of the vocabulary, added tokens included.
func (t *Tokenizer) MaxID() int64 { return t.maxID }

// Info is what the file says about how it was used. The blocks it points to aren't to be changed.
func (t *Tokenizer) Info() Info { return t.info }

// TokenID is the id of a token. A closed tokenizer has no tokens.
func (t *Tokenizer) TokenID(token string) (int64, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.native.closed() {
		return 0, false
	}
	return t.native.tokenID(token)
}

// Token is the token of an id. A closed tokenizer has no tokens.
func (t *Tokenizer) Token(id int64) (string, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.native.closed() {
		return "", false
	}
	return t.native.token(id)
}

// Close frees the tokenizer. It waits for calls in progress; an Encode after it returns ErrClosed. Closing twice is harmless.
func (t *Tokenizer) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.native.free()
}
