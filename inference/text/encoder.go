// Package text turns a text into the token ids of a model, exactly as Python's transformers does.
package text

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"unicode/utf8"

	"modelgate/inference/text/hf"
)

// DefaultMaxBytes is the longest text that is encoded where Options don't say. The cost of encoding is linear in the length
// of the text whatever the model's maximum length: up to 2.8 s a megabyte for hostile text.
const DefaultMaxBytes = 65536

var (
	// ErrInvalidUTF8 says that a text isn't valid UTF-8.
	ErrInvalidUTF8 = errors.New("the text is not valid UTF-8")
	// ErrTooLong says that a text has more bytes than the limit.
	ErrTooLong = errors.New("the text is too long")
	// ErrVocabulary says that a text gave an id that the model has no weights for.
	ErrVocabulary = errors.New("the tokenizer gave an id outside of the model's vocabulary")
)

// Options say how texts are encoded. The zero Options are good.
type Options struct {
	MaxLength     int      // most tokens of a text; 0 means what the bundle says. More than the model's positions is an error
	MaxBytes      int      // longest text in bytes; 0 means DefaultMaxBytes
	SpecialAsText bool     // "</s>" typed by a user is text, not the token
	ConfigDir     string   // folder of config.json; empty: the bundle's
	Rows          int64    // ids that the model has weights for, as its graph shows; 0: not known, and what config.json says holds alone
	Types         bool     // the model takes type ids
	TypeRows      int64    // as Rows, of the type ids
	Tokenizers    *hf.Pool // shares tokenizers between encoders; nil means not shared
}

// Tokens are an encoded text. The three slices have one length.
type Tokens struct {
	IDs, Mask, TypeIDs []int64
	Truncated          bool // some of the text was cut off
}

// An Encoder encodes the texts of one bundle. It is safe for concurrent use.
type Encoder struct {
	tokenizer *hf.Shared
	options   hf.EncodeOptions
	maxBytes  int
	padding   padding
	ids       idRange
	types     idRange
}

// idRange says which ids the model has weights for.
type idRange struct {
	end     int64  // the first id that it hasn't; 0 means not known
	from    string // what says so
	replace bool   // ids from end on become unknown; otherwise they are errors
	unknown int64
}

// within is r with the first rows ids only, if rows is known.
func (r idRange) within(rows int64) idRange {
	if rows > 0 && (r.end == 0 || rows < r.end) {
		r.end, r.from = rows, "the graph's table"
	}
	return r
}

// padding is how the bundle pads the shorter texts of a batch. Encoding doesn't pad.
type padding struct {
	id, typeID int64
	left       bool
}

// Open reads the tokenizer of the bundle in dir: tokenizer.json, and beside it tokenizer_config.json, special_tokens_map.json
// and config.json where they are there. The caller closes the Encoder.
func Open(dir string, o Options) (*Encoder, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	if err := findTokenizer(dir); err != nil {
		return nil, err
	}
	c, err := readConfigs(dir, cmp.Or(o.ConfigDir, dir))
	if err != nil {
		return nil, err
	}
	t, err := o.Tokenizers.Open(filepath.Join(dir, tokenizerFile))
	if err != nil {
		return nil, err
	}
	e, err := newEncoder(t, c, o)
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return e, nil
}

func (o Options) checked() (Options, error) {
	if o.MaxLength < 0 || o.MaxBytes < 0 {
		return o, fmt.Errorf("a negative limit: max length %d, max bytes %d", o.MaxLength, o.MaxBytes)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Tokenizers == nil {
		o.Tokenizers = hf.NewPool()
	}
	return o, nil
}

func newEncoder(t *hf.Shared, c configs, o Options) (*Encoder, error) {
	if err := c.checkTokens(t.Tokenizer); err != nil {
		return nil, err
	}
	e := &Encoder{tokenizer: t, maxBytes: o.MaxBytes}
	var err error
	if e.ids, err = c.idRange(t.Tokenizer, o.Rows); err != nil {
		return nil, err
	}
	if o.Types {
		e.types = c.typeRange(o.TypeRows)
	}
	if e.padding, err = c.padding(t.Tokenizer, e.ids); err != nil {
		return nil, err
	}
	if err := e.types.check([]int64{e.padding.typeID}); err != nil && o.Types {
		return nil, fmt.Errorf("the padding's type id: %w", err)
	}
	if e.options, err = c.encodeOptions(t.Info(), o); err != nil {
		return nil, err
	}
	// The special tokens that are put around a text are ids written in the file, which nothing has checked so far.
	if _, err := e.Encode(""); err != nil {
		return nil, fmt.Errorf("%s: the tokens around every text: %w", tokenizerFile, err)
	}
	return e, nil
}

// Encode encodes one text, the empty one too. The errors that it wraps are ErrInvalidUTF8, ErrTooLong, ErrVocabulary, and
// hf.ErrClosed after Close.
func (e *Encoder) Encode(s string) (Tokens, error) {
	if len(s) > e.maxBytes {
		return Tokens{}, fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrTooLong, len(s), e.maxBytes)
	}
	if at := invalidUTF8(s); at >= 0 {
		return Tokens{}, fmt.Errorf("%w: byte %#02x at offset %d", ErrInvalidUTF8, s[at], at)
	}
	enc, err := e.tokenizer.Encode(s, e.options)
	if err != nil {
		return Tokens{}, err
	}
	if err := errors.Join(e.ids.check(enc.IDs), e.types.check(enc.TypeIDs)); err != nil {
		return Tokens{}, err
	}
	return Tokens{IDs: enc.IDs, Mask: enc.Mask, TypeIDs: enc.TypeIDs, Truncated: enc.Truncated}, nil
}

// invalidUTF8 is the offset of the first byte that isn't part of valid UTF-8, or -1.
func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// check refuses ids without weights, or replaces them. A table that is looked up with one from its end on fails for the whole run, and
// with one below zero gives what is counted from its end, with no error.
func (r idRange) check(ids []int64) error {
	for i, id := range ids {
		switch {
		case id >= 0 && (id < r.end || r.end == 0):
		case r.replace:
			ids[i] = r.unknown
		case id < 0:
			return fmt.Errorf("%w: id %d", ErrVocabulary, id)
		default:
			return fmt.Errorf("%w: id %d, the model has %d (%s)", ErrVocabulary, id, r.end, r.from)
		}
	}
	return nil
}

// MaxLength is the most tokens that a text has, special ones included; 0 means no limit but that of the bytes.
func (e *Encoder) MaxLength() int { return e.options.MaxLength }

// MaxBytes is the length in bytes of the longest text that is encoded.
func (e *Encoder) MaxBytes() int { return e.maxBytes }

// PadID is the id that fills the shorter texts of a batch.
func (e *Encoder) PadID() int64 { return e.padding.id }

// PadTypeID is the type id that goes with PadID.
func (e *Encoder) PadTypeID() int64 { return e.padding.typeID }

// PadLeft says that the filling goes before a text, not after it.
func (e *Encoder) PadLeft() bool { return e.padding.left }

// Close gives the tokenizer back to its pool. Closing twice is harmless.
func (e *Encoder) Close() error {
	e.tokenizer.Close()
	return nil
}
