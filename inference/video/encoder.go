package video

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Options say what a bundle's Hugging Face files don't.
type Options struct {
	Decoder   *Decoder // required; shared, and not closed with the Encoder
	ConfigDir string   // folder of config.json; "" is the folder of the processor's file
	Sampling  Sampling // "" is Linspace
	Layout    Layout   // "" is TCHW
	Rotation  Rotation // "" is IgnoreRotation
	Frames    int      // 0: as the files say
}

// An Encoder prepares clips for one model. It is safe for concurrent use and holds nothing to close.
type Encoder struct {
	decoder *Decoder
	spec    spec
	key     [sha256.Size]byte // of the spec: encoders that prepare clips alike share their work
}

// Open reads a bundle's processor file and config.json. Its errors wrap ErrConfig.
func Open(dir string, o Options) (*Encoder, error) {
	if o.Decoder == nil {
		return nil, errors.New("video: Options.Decoder is missing")
	}
	if o.ConfigDir == "" {
		o.ConfigDir = dir
	}
	if o.Sampling == "" {
		o.Sampling = Linspace
	}
	if o.Layout == "" {
		o.Layout = TCHW
	}
	if o.Rotation == "" {
		o.Rotation = IgnoreRotation
	}
	if err := errors.Join(o.Sampling.check(), o.Layout.check(), o.Rotation.check()); err != nil {
		return nil, err
	}
	if o.Frames < 0 || o.Frames > maxChosen {
		return nil, fmt.Errorf("%w: %d frames: they are 1 to %d", ErrConfig, o.Frames, maxChosen)
	}
	s, err := readSpec(dir, o.ConfigDir, o.Frames)
	if err != nil {
		return nil, err
	}
	s.sampling, s.layout, s.rotation = o.Sampling, o.Layout, o.Rotation
	return &Encoder{decoder: o.Decoder, spec: s, key: sha256.Sum256(fmt.Append(nil, s))}, nil
}

// A Choice is what a bundle says, or leaves to us, of how frames are chosen, turned and resized.
type Choice struct {
	Sampling Sampling
	Rotation Rotation
	Resample int // PIL's number of the filter: 2 is bilinear, 3 bicubic
}

// Choice is what the Encoder does, with what holds where the bundle says nothing.
func (e *Encoder) Choice() Choice {
	c := Choice{e.spec.sampling, e.spec.rotation, bilinearFilter}
	if e.spec.cubic {
		c.Resample = bicubicFilter
	}
	return c
}

// Shape is the shape of every Tensor that Encode gives.
func (e *Encoder) Shape() []int64 { return e.spec.shape() }

// Encode waits for its turn and makes a tensor of a clip. Its errors wrap ErrClip where the clip is at fault, ErrBusy where too
// many wait already, and ctx's where it ended.
func (e *Encoder) Encode(ctx context.Context, c Clip) (Tensor, error) {
	if err := e.decoder.checkClip(c); err != nil {
		return Tensor{}, err
	}
	work := func(ctx context.Context) (Tensor, error) {
		start := time.Now()
		t, err := e.encode(ctx, c)
		t.Decode = time.Since(start)
		return t, err
	}
	var key flightKey
	if c.Encoded != nil {
		key = flightKey{clip: hash(c.Encoded), spec: e.key}
	}
	return e.decoder.do(ctx, key, work)
}

// hash hashes piece by piece: the runtime can't stop what hashes a piece, and a collection of garbage, for which all must stop, would
// wait for the whole clip.
func hash(clip []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for piece := range slices.Chunk(clip, 64<<10) {
		h.Write(piece) // never fails
	}
	h.Sum(sum[:0])
	return sum
}

func (e *Encoder) encode(ctx context.Context, c Clip) (Tensor, error) {
	canvas := newCanvas(&e.spec)
	var n int
	var err error
	switch {
	case c.Encoded != nil:
		n, err = e.encoded(ctx, c.Encoded, canvas)
	case c.Raw != nil:
		n, err = e.raw(ctx, c.Raw, canvas)
	default:
		n, err = e.images(ctx, c.Images, canvas)
	}
	if err != nil {
		return Tensor{}, err
	}
	return Tensor{Shape: e.spec.shape(), Data: canvas.data, Frames: n, Repeated: n < e.spec.frames}, nil
}

func (e *Encoder) encoded(ctx context.Context, clip []byte, canvas *canvas) (int, error) {
	var places map[int][]int
	choose := func(n int) (numbers []int) {
		numbers, places = placesOf(e.spec.sampling.indices(n, e.spec.frames))
		return numbers
	}
	return e.decoder.decode(ctx, clip, e.spec.rotation, choose, func(number int, f frame) error { return canvas.place(f, places[number]) })
}

func (e *Encoder) raw(ctx context.Context, r *Raw, canvas *canvas) (int, error) {
	bytes := r.Width * r.Height * channels
	n := len(r.RGB) / bytes
	numbers, places := placesOf(e.spec.sampling.indices(n, e.spec.frames))
	for _, i := range numbers {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := canvas.place(frame{r.RGB[i*bytes : (i+1)*bytes], r.Width, r.Height}, places[i]); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (e *Encoder) images(ctx context.Context, files [][]byte, canvas *canvas) (int, error) {
	numbers, places := placesOf(e.spec.sampling.indices(len(files), e.spec.frames))
	for _, i := range numbers {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		f, err := decodeImage(ctx, files[i], e.decoder.o.MaxPixels)
		if err != nil {
			return 0, fmt.Errorf("%w: image %d: %w", ErrClip, i, err)
		}
		if err := canvas.place(f, places[i]); err != nil {
			return 0, err
		}
	}
	return len(files), nil
}
