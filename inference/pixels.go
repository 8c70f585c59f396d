package inference

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"modelgate/inference/engine"
	"modelgate/inference/video"
)

const (
	clipRank = 5 // batch, frames, channels, height, width, or channels before frames
	colours  = 3
	// maxQueuedPixels bounds what clips hold that wait for a run: one is megabytes.
	maxQueuedPixels = 512 << 20
)

// errNoDecoder isn't the bundle's fault: the machine lacks what decodes clips.
var errNoDecoder = machineError{errors.New("it takes clips, and there is no ffmpeg to decode them: install it (Debian: apt-get install ffmpeg), " +
	"or name the program (setting ffmpeg, MODELGATE_FFMPEG, --ffmpeg), and start again")}

// findPixels is the index of the input that takes a clip, -1 where none does.
func findPixels(inputs []engine.TensorSpec) int {
	at := slices.IndexFunc(inputs, func(s engine.TensorSpec) bool { return strings.TrimPrefix(s.Name, "video_") == "pixel_values" })
	if at < 0 && len(inputs) == 1 && len(inputs[0].Shape) == clipRank {
		return 0
	}
	return at
}

// pixels are the input of a graph that takes a clip.
type pixels struct {
	encoder *video.Encoder
	shape   []int64 // of a clip, without the batch
}

func newPixels(b *bundle, spec engine.TensorSpec, o Options) (*pixels, error) {
	switch {
	case spec.Type != engine.Float32:
		return nil, fmt.Errorf("%s: input %s: float32 is needed", b.graph, spec)
	case spec.Shape != nil && len(spec.Shape) != clipRank:
		return nil, fmt.Errorf("%s: input %s: the shape (batch, frames, channels, height, width) is needed", b.graph, spec)
	case spec.Shape != nil && spec.Shape[0] > 1:
		return nil, fmt.Errorf("%s: input %s has a fixed batch of %d: export it with a dynamic batch dimension", b.graph, spec, spec.Shape[0])
	case o.Decoder == nil:
		return nil, errNoDecoder
	}
	enc, err := video.Open(b.clipHome, video.Options{
		Decoder: o.Decoder, ConfigDir: b.configHome, Sampling: video.Sampling(b.settings.VideoSampling), Layout: layoutOf(b, spec),
		Rotation: video.Rotation(b.settings.VideoRotation),
	})
	if err != nil {
		return nil, err
	}
	p := &pixels{encoder: enc, shape: enc.Shape()}
	for i, n := range p.shape {
		if spec.Shape != nil && spec.Shape[i+1] > 0 && spec.Shape[i+1] != n {
			return nil, fmt.Errorf("%s: input %s, and the processor's files give clips of shape %v: they don't belong together", b.graph, spec, p.shape)
		}
	}
	return p, nil
}

func (p *pixels) choice() *video.Choice {
	c := p.encoder.Choice()
	return &c
}

// layoutOf is the order of the axes: what the settings say, else where the graph has its three channels.
func layoutOf(b *bundle, spec engine.TensorSpec) video.Layout {
	switch s := spec.Shape; {
	case b.settings.VideoLayout != "":
		return video.Layout(b.settings.VideoLayout)
	case s != nil && s[1] == colours && s[2] != colours:
		return video.CTHW
	}
	return video.TCHW
}

// encode makes a tensor of a clip.
func (p *pixels) encode(ctx context.Context, c video.Clip) (engine.Tensor, Notes, error) {
	began := time.Now()
	t, err := p.encoder.Encode(ctx, c)
	switch {
	case errors.Is(err, video.ErrClip):
		return engine.Tensor{}, Notes{}, fmt.Errorf("%w: %w", ErrInput, err)
	case errors.Is(err, video.ErrBusy):
		return engine.Tensor{}, Notes{}, fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, video.ErrClosed):
		return engine.Tensor{}, Notes{}, fmt.Errorf("%w: %w", ErrClosed, err)
	case err != nil:
		return engine.Tensor{}, Notes{}, machineError{fmt.Errorf("prepare the clip: %w", err)}
	}
	return engine.Tensor{Shape: t.Shape, Data: t.Data}, Notes{FramesRepeated: t.Repeated, Waited: max(0, time.Since(began)-t.Decode)}, nil
}

// random is noise in the shape of a clip, the same for the same seed. It costs no decoder's turn.
func (p *pixels) random(seed uint64) engine.Tensor {
	n, err := engine.Elements(p.shape)
	if err != nil {
		panic("inference: a video encoder's shape: " + err.Error())
	}
	r := rand.New(rand.NewPCG(seed, seed))
	data := make([]float32, n)
	for i := range data {
		data[i] = r.Float32()*4 - 2 // what normalised pixels reach
	}
	return engine.Tensor{Shape: p.shape, Data: data}
}

// stack joins the clips, which all have one shape.
func (p *pixels) stack(name string, clips []engine.Tensor) (engine.Tensor, error) {
	rows := make([][]float32, len(clips))
	for i, c := range clips {
		row, ok := c.Data.([]float32)
		if !ok || !slices.Equal(c.Shape, p.shape) {
			return engine.Tensor{}, fmt.Errorf("input %s: the example holds %v%v, not a clip", name, c.Type(), c.Shape)
		}
		rows[i] = row
	}
	data := rows[0]
	if len(rows) > 1 {
		data = slices.Concat(rows...)
	}
	return engine.Tensor{Shape: append([]int64{int64(len(clips))}, p.shape...), Data: data}, nil
}

// maxQueue is how many inputs may wait: as many as configured, and no more clips than fit maxQueuedPixels.
func maxQueue(configured int, clip []int64) int {
	n, err := engine.Elements(clip)
	if clip == nil || err != nil {
		return configured
	}
	fits := max(maxQueuedPixels/(4*n), 1)
	if configured > 0 {
		return min(configured, fits)
	}
	return min(defaultQueue, fits)
}

const defaultQueue = 1024
