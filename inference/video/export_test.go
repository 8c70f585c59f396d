package video

import (
	"context"
	"crypto/sha256"
	"os"
)

// Do is what Encode does with the work that a clip makes. Work of one name is the same; the name "" is never the same.
func (d *Decoder) Do(ctx context.Context, name string, work func(context.Context) (Tensor, error)) (Tensor, error) {
	var key flightKey
	if name != "" {
		key.clip = sha256.Sum256([]byte(name))
	}
	return d.do(ctx, key, work)
}

// Callers is how many wait for work of any name.
func (d *Decoder) Callers() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, f := range d.flights {
		n += f.callers
	}
	return n
}

// Input are the arguments that open a clip of a kind.
func (d *Decoder) Input(kind string) []string { return d.input(container(kind), false) }

// Sniff is the kind of a clip.
func Sniff(clip []byte) (string, error) {
	kind, err := sniff(clip)
	return string(kind), err
}

// Sealed is the file that ffmpeg gets.
func Sealed(clip []byte) (*os.File, error) { return sealed(clip) }
