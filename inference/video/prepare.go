package video

import (
	"fmt"
)

// Layout is the order of a tensor's axes.
type Layout string

// The layouts: what transformers' video models take, and what the others do.
const (
	TCHW Layout = "TCHW"
	CTHW Layout = "CTHW"
)

func (l Layout) check() error {
	if l != TCHW && l != CTHW {
		return fmt.Errorf("%w: layout is %q: it is %s or %s", ErrConfig, string(l), TCHW, CTHW)
	}
	return nil
}

func (s *spec) shape() []int64 {
	if s.layout == CTHW {
		return []int64{channels, int64(s.frames), int64(s.height), int64(s.width)}
	}
	return []int64{int64(s.frames), channels, int64(s.height), int64(s.width)}
}

// A canvas is a tensor being filled, frame by frame.
type canvas struct {
	spec    *spec
	data    []float32
	resizer *resizer // for the last frame's size: mostly all have the same
}

func newCanvas(s *spec) *canvas {
	return &canvas{spec: s, data: make([]float32, s.frames*channels*s.height*s.width)}
}

// place makes f the frame at each of the places.
func (c *canvas) place(f frame, places []int) error {
	if c.resizer == nil || c.resizer.in != [2]int{f.width, f.height} {
		whole, err := c.spec.resized(f.width, f.height)
		if err != nil {
			return err
		}
		kind := bilinear()
		if c.spec.cubic {
			kind = bicubic()
		}
		out := [2]int{c.spec.width, c.spec.height}
		c.resizer = newResizer([2]int{f.width, f.height}, whole, out, (whole[0]-out[0])/2, (whole[1]-out[1])/2, kind)
	}
	pixels := c.resizer.resize(f.rgb)
	for _, at := range places {
		c.fill(pixels, at)
	}
	return nil
}

// fill writes one frame's pixels, plane by plane.
func (c *canvas) fill(pixels []byte, at int) {
	plane := c.spec.width * c.spec.height
	for channel := range channels {
		n := at*channels + channel
		if c.spec.layout == CTHW {
			n = channel*c.spec.frames + at
		}
		table, target := &c.spec.table[channel], c.data[n*plane:(n+1)*plane]
		for i := range target {
			target[i] = table[pixels[i*channels+channel]]
		}
	}
}

// resized is the size of a whole frame after the resize, before the crop.
func (s *spec) resized(width, height int) ([2]int, error) {
	if s.edge == 0 {
		return s.whole, nil
	}
	short, long := min(width, height), max(width, height)
	longer := int(float64(s.edge*long) / float64(short))
	if longer > 64*maxSide {
		return [2]int{}, fmt.Errorf("%w: its frames are %d x %d pixels: too narrow", ErrClip, width, height)
	}
	if width <= height {
		return [2]int{s.edge, longer}, nil
	}
	return [2]int{longer, s.edge}, nil
}

// placesOf says for each chosen frame, by its number in the clip, at which places of the tensor it stands.
func placesOf(indices []int) (numbers []int, places map[int][]int) {
	places = make(map[int][]int, len(indices))
	for at, n := range indices {
		if _, ok := places[n]; !ok {
			numbers = append(numbers, n)
		}
		places[n] = append(places[n], at)
	}
	return numbers, places
}
