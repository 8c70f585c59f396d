package video

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"
)

// DecoderOptions are a Decoder's limits. A zero is the default.
type DecoderOptions struct {
	FFmpeg       string        // path; "": found on the PATH or in .cache/ffmpeg
	Concurrent   int           // clips decoded at once; default: half the processors, at least 1
	Queue        int           // clips that may wait; default: 8 for each decoded at once
	MaxClipBytes int64         // of a clip; default 64 MiB
	MaxPixels    int64         // of a frame; default 9437184, a little over 4K
	MaxFrames    int64         // of a clip, chosen or not; default 18000
	MaxDuration  time.Duration // of a clip; default 10 minutes
	MaxMemory    int64         // address space of one ffmpeg; default 1 GiB
	Timeout      time.Duration // of one clip's decoding, without the wait for a turn; default 30 s
	Logger       *slog.Logger  // default: none
	Observe      func(Event)   // called as clips come and go, if set; it must not block
}

const mostPixels = 1 << 28 // three bytes of each must be counted in 31 bits

func (o *DecoderOptions) setDefaults() error {
	if o.Concurrent < 0 || o.Queue < 0 || o.MaxClipBytes < 0 || o.MaxPixels < 0 || o.MaxFrames < 0 || o.MaxDuration < 0 ||
		o.MaxMemory < 0 || o.Timeout < 0 {
		return errors.New("video: a limit is below zero")
	}
	if o.MaxPixels > mostPixels {
		return fmt.Errorf("video: MaxPixels is %d: at most %d can be allowed", o.MaxPixels, mostPixels)
	}
	if o.Concurrent == 0 {
		o.Concurrent = max(1, runtime.GOMAXPROCS(0)/2)
	}
	defaultTo(&o.Queue, 8*o.Concurrent)
	defaultTo(&o.MaxClipBytes, 64<<20)
	defaultTo(&o.MaxPixels, 9<<20)
	defaultTo(&o.MaxFrames, 18000)
	defaultTo(&o.MaxDuration, 10*time.Minute)
	defaultTo(&o.MaxMemory, 1<<30)
	defaultTo(&o.Timeout, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	return nil
}

func defaultTo[T int | int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// A Decoder decodes clips for all models of a process, a few at a time. The same clip asked for twice at once is decoded once.
// It is safe for concurrent use.
type Decoder struct {
	o     DecoderOptions
	box   *box
	turns chan struct{} // holds one for each clip being decoded

	wg sync.WaitGroup
	mu sync.Mutex // guards what follows; nothing blocks under it
	// flights are the clips that are decoded or wait for it.
	flights map[flightKey]*flight
	serial  uint64
	closed  bool
}

// flightKey tells work that is the same. Work without a clip's hash is never the same as other work.
type flightKey struct {
	clip, spec [sha256.Size]byte
	serial     uint64
}

// A flight is work under way for one or more callers.
type flight struct {
	callers int           // guarded by Decoder.mu; the last to leave ends the work
	cancel  func()        //
	done    chan struct{} // closed when tensor and err are there
	tensor  Tensor
	err     error
}

// NewDecoder finds ffmpeg, sees that it runs in its box, and starts nothing else. The caller closes the Decoder.
func NewDecoder(o DecoderOptions) (*Decoder, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	b, err := newBox(o)
	if err != nil {
		return nil, fmt.Errorf("video: %w", err)
	}
	return &Decoder{o: o, box: b, turns: make(chan struct{}, o.Concurrent), flights: map[flightKey]*flight{}}, nil
}

// Close ends what is being decoded and waits for it. Later calls of Encode fail with ErrClosed.
func (d *Decoder) Close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	for _, f := range d.flights {
		f.cancel()
	}
	d.mu.Unlock()
	d.wg.Wait()
	if closed {
		return nil
	}
	return d.box.close()
}

// checkClip refuses what needs no decoding to be refused.
func (d *Decoder) checkClip(c Clip) error {
	set := 0
	for _, is := range []bool{c.Encoded != nil, c.Images != nil, c.Raw != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("%w: exactly one of an encoded clip, images and raw frames is needed", ErrClip)
	}
	total := int64(len(c.Encoded))
	for _, image := range c.Images {
		total += int64(len(image))
	}
	frames := int64(len(c.Images))
	if c.Raw != nil {
		if err := d.checkRaw(c.Raw); err != nil {
			return err
		}
		total = int64(len(c.Raw.RGB))
		frames = total / (int64(c.Raw.Width) * int64(c.Raw.Height) * channels)
	}
	if total > d.o.MaxClipBytes {
		return fmt.Errorf("%w: it has %d bytes; at most %d are taken", ErrClip, total, d.o.MaxClipBytes)
	}
	if c.Encoded == nil && frames == 0 {
		return fmt.Errorf("%w: it has no frames", ErrClip)
	}
	return d.checkFrames(frames)
}

func (d *Decoder) checkRaw(r *Raw) error {
	if err := d.checkSize(int64(r.Width), int64(r.Height)); err != nil {
		return err
	}
	if frame := r.Width * r.Height * channels; len(r.RGB)%frame != 0 {
		return fmt.Errorf("%w: %d bytes are no whole number of %d x %d frames of %d bytes", ErrClip, len(r.RGB), r.Width, r.Height, frame)
	}
	return nil
}

func (d *Decoder) checkSize(width, height int64) error {
	if width < 1 || height < 1 {
		return fmt.Errorf("%w: its frames are %d x %d pixels", ErrClip, width, height)
	}
	if width > d.o.MaxPixels || height > d.o.MaxPixels/width {
		return fmt.Errorf("%w: its frames are %d x %d pixels; at most %d pixels are taken", ErrClip, width, height, d.o.MaxPixels)
	}
	return nil
}

func (d *Decoder) checkFrames(n int64) error {
	if n > d.o.MaxFrames {
		return fmt.Errorf("%w: it has more than %d frames", ErrClip, d.o.MaxFrames)
	}
	return nil
}

// do runs work when its turn comes, or joins the same work under way.
func (d *Decoder) do(ctx context.Context, key flightKey, work func(context.Context) (Tensor, error)) (Tensor, error) {
	if err := ctx.Err(); err != nil {
		return Tensor{}, err
	}
	key, f, joined, err := d.board(ctx, key, work)
	if err != nil {
		return Tensor{}, err
	}
	if joined {
		d.o.Observe(Event{Kind: Shared})
	}
	select {
	case <-f.done:
		return f.tensor, f.err
	case <-ctx.Done():
		d.leave(key, f)
		return Tensor{}, ctx.Err()
	}
}

// board finds, and joins, or starts the flight for key.
func (d *Decoder) board(ctx context.Context, key flightKey, work func(context.Context) (Tensor, error)) (_ flightKey, _ *flight, joined bool, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return key, nil, false, ErrClosed
	}
	if key == (flightKey{}) {
		d.serial++
		key.serial = d.serial
	}
	if f := d.flights[key]; f != nil {
		f.callers++
		return key, f, true, nil
	}
	if len(d.flights) >= d.o.Concurrent+d.o.Queue {
		return key, nil, false, fmt.Errorf("%w: %d wait already", ErrBusy, d.o.Queue)
	}
	// The work goes on for others when the caller that brought it leaves.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{callers: 1, cancel: cancel, done: make(chan struct{})}
	d.flights[key] = f
	d.wg.Go(func() { d.fly(ctx, key, f, work) })
	return key, f, false, nil
}

func (d *Decoder) leave(key flightKey, f *flight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.callers--
	if f.callers == 0 {
		f.cancel()
		d.forgetLocked(key, f)
	}
}

// forgetLocked keeps later callers from joining f.
func (d *Decoder) forgetLocked(key flightKey, f *flight) {
	if d.flights[key] == f {
		delete(d.flights, key)
	}
}

func (d *Decoder) fly(ctx context.Context, key flightKey, f *flight, work func(context.Context) (Tensor, error)) {
	defer f.cancel()
	f.tensor, f.err = d.takeTurn(ctx, work)
	d.mu.Lock()
	if d.closed && errors.Is(f.err, context.Canceled) {
		f.err = ErrClosed
	}
	d.forgetLocked(key, f)
	d.mu.Unlock()
	close(f.done)
}

func (d *Decoder) takeTurn(ctx context.Context, work func(context.Context) (Tensor, error)) (Tensor, error) {
	queued := time.Now()
	d.o.Observe(Event{Kind: Queued})
	select {
	case d.turns <- struct{}{}:
	case <-ctx.Done():
		d.o.Observe(Event{Kind: Left, Took: time.Since(queued)})
		return Tensor{}, ctx.Err()
	}
	defer func() { <-d.turns }()
	began := time.Now()
	d.o.Observe(Event{Kind: Began, Took: began.Sub(queued)})
	t, err := d.work(ctx, work)
	d.o.Observe(Event{Kind: Ended, Took: time.Since(began), Outcome: outcomeOf(err)})
	return t, err
}

// work has its time limit and becomes an error when it panics.
func (d *Decoder) work(ctx context.Context, work func(context.Context) (Tensor, error)) (Tensor, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Timeout)
	defer cancel()
	t, err := guarded(ctx, work)
	if errors.Is(err, errStarved) {
		return Tensor{}, fmt.Errorf("%w: one got too little of the processors to be ready within %v", err, d.o.Timeout)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil {
		return Tensor{}, fmt.Errorf("%w: %w %v", ErrClip, errSlow, d.o.Timeout)
	}
	return t, err
}

// guarded makes an error of a panic: a library that stumbles over a clip must not end the process.
func guarded(ctx context.Context, work func(context.Context) (Tensor, error)) (t Tensor, err error) {
	defer func() {
		if p := recover(); p != nil {
			t, err = Tensor{}, fmt.Errorf("%w: decoding it panicked: %v", ErrClip, p)
		}
	}()
	return work(ctx)
}
