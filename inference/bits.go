package inference

import (
	"encoding/binary"
	"fmt"
	"io"

	"modelgate/inference/engine"
)

// writeBits writes t's elements, bit for bit, to a writer that doesn't fail.
func writeBits(w io.Writer, t engine.Tensor) {
	switch d := t.Data.(type) {
	case []string:
		_, _ = fmt.Fprintf(w, "%q", d)
	default:
		_ = binary.Write(w, binary.LittleEndian, d) // numbers and bools only
	}
}
