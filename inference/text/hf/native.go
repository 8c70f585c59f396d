package hf

// #cgo LDFLAGS: ${SRCDIR}/../../../.cache/lib/libmodelgate_tokenizers.a -ldl -lm -lpthread
// #include "tokenizers.h"
import "C"

import (
	_ "embed" // for the sources below
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"unsafe"
)

// The sources of the library. They make `go build` link again when the library changes, which it doesn't see otherwise, and
// tell a library that was built from other sources.
var (
	//go:embed tokenizers/Cargo.toml
	cargoTOML string
	//go:embed tokenizers/Cargo.lock
	cargoLock string
	//go:embed tokenizers/src/encode.rs
	encodeRS string
	//go:embed tokenizers/src/lib.rs
	libRS string
)

var errStale = errors.New("the tokenizer library was built from other sources than this program; run `make tokenizers` and build again")

func checkSources() error {
	h := fnv.New64a()
	for _, s := range []string{cargoTOML, cargoLock, encodeRS, libRS} {
		_, _ = h.Write([]byte(s)) // never fails
	}
	if h.Sum64() != uint64(C.mg_sources()) {
		return errStale
	}
	return nil
}

// native owns one mg_tokenizer. Its methods but free are safe for concurrent use; no method but closed and free may be called
// after free.
type native struct{ t *C.mg_tokenizer }

func parseNative(data []byte) (native, error) {
	if err := checkSources(); err != nil {
		return native{}, err
	}
	var reason C.mg_buffer
	t := C.mg_new(bytesOf(unsafe.SliceData(data)), C.size_t(len(data)), &reason) //nolint:gocritic // it is about what cgo makes of the call
	if t == nil {
		return native{}, fmt.Errorf("not a tokenizer that can be used: %s", take(reason))
	}
	return native{t}, nil
}

func (n *native) closed() bool { return n.t == nil }

func (n *native) free() {
	C.mg_free(n.t)
	n.t = nil
}

func (n *native) describe() (Info, int, int64) {
	d := C.mg_describe(n.t)
	info := Info{SpecialTokens: int(d.added)}
	if d.has_truncation {
		length := min(uint64(d.truncation_length), math.MaxInt32) // more than that is no limit
		info.Truncation = &Truncation{MaxLength: int(length), Left: bool(d.truncation_left)}
	}
	if d.has_padding {
		info.Padding = &Padding{ID: int64(d.pad_id), TypeID: int64(d.pad_type_id), Left: bool(d.padding_left)}
		var token C.mg_buffer
		if C.mg_pad_token(n.t, &token) { //nolint:gocritic // it is about what cgo makes of the call
			info.Padding.Token = take(token)
		}
	}
	return info, int(d.vocab_size), int64(d.max_id)
}

func (n *native) encode(text string, o EncodeOptions) (Encoding, error) {
	var out C.mg_encoding
	var reason C.mg_buffer
	options := C.mg_options{
		max_length:      C.size_t(o.MaxLength),
		add_special:     C.bool(!o.NoSpecial),
		special_as_text: C.bool(o.SpecialAsText),
		truncate_left:   C.bool(o.TruncateLeft),
	}
	code := C.mg_encode(n.t, bytesOf(unsafe.StringData(text)), C.size_t(len(text)), options, &out, &reason) //nolint:gocritic // it is about what cgo makes of the call
	if code != C.MG_OK {
		return Encoding{}, encodeError(int(code), take(reason))
	}
	defer C.mg_encoding_free(out)
	size := int(out.len)
	from := unsafe.Slice((*uint32)(unsafe.Pointer(out.data)), 3*size)
	all := make([]int64, 3*size)
	for i, v := range from {
		all[i] = int64(v)
	}
	return Encoding{
		IDs:       all[:size:size],
		TypeIDs:   all[size : 2*size : 2*size],
		Mask:      all[2*size:],
		Truncated: bool(out.truncated),
	}, nil
}

func encodeError(code int, reason string) error {
	switch code {
	case C.MG_INVALID_UTF8:
		return ErrInvalidUTF8
	case C.MG_MAX_LENGTH_TOO_SMALL:
		return fmt.Errorf("%w: %s", ErrMaxLength, reason)
	}
	return fmt.Errorf("encode: %s", reason)
}

func (n *native) tokenID(token string) (int64, bool) {
	id := C.mg_token_id(n.t, bytesOf(unsafe.StringData(token)), C.size_t(len(token)))
	return int64(id), id >= 0
}

func (n *native) token(id int64) (string, bool) {
	var out C.mg_buffer
	if id < 0 || id > math.MaxUint32 || !C.mg_id_token(n.t, C.uint32_t(id), &out) { //nolint:gocritic // it is about what cgo makes of the call
		return "", false
	}
	return take(out), true
}

// take copies what the library allocated and frees it.
func take(b C.mg_buffer) string {
	if b.data == nil {
		return ""
	}
	defer C.mg_buffer_free(b)
	return string(unsafe.Slice((*byte)(unsafe.Pointer(b.data)), int(b.len)))
}

func bytesOf(p *byte) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(p)) }
