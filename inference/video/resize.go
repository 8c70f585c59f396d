package video

import (
	"math"
	"runtime"
)

// A filter is how pixels are weighted when a picture is resized. Shrinking widens it, so that no pixel is left out.
type filter struct {
	support float64
	weight  func(float64) float64
}

func bilinear() filter {
	return filter{1, func(x float64) float64 { return max(0, 1-math.Abs(x)) }}
}

func bicubic() filter {
	const a = -0.5
	return filter{2, func(x float64) float64 {
		x = math.Abs(x)
		switch {
		case x < 1:
			return ((a+2)*x-(a+3))*x*x + 1
		case x < 2:
			return (((x-5)*x+8)*x - 4) * a
		}
		return 0
	}}
}

// An axis holds, for each pixel of the result along one axis, which pixels of the source it is made of and how much of each,
// in integers with precision bits behind the point. These are the weights that torchvision uses for 8-bit pictures: floating
// point differs in one pixel of a few thousand.
type axis struct {
	first     []int
	weights   [][]int32
	precision uint
}

func newAxis(in, out int, f filter) axis {
	scale := float64(in) / float64(out)
	widen := max(scale, 1)
	support := f.support * widen
	a := axis{first: make([]int, out), weights: make([][]int32, out)}
	exact := make([][]float64, out)
	largest := 0.0
	for i := range out {
		center := scale * (float64(i) + 0.5)
		low := max(int(center-support+0.5), 0)
		high := min(int(center+support+0.5), in)
		a.first[i] = low
		exact[i] = make([]float64, max(high-low, 0))
		total := 0.0
		for j := range exact[i] {
			exact[i][j] = f.weight((float64(j+low) - center + 0.5) / widen)
			total += exact[i][j]
		}
		for j := range exact[i] {
			exact[i][j] /= total
			largest = max(largest, exact[i][j])
		}
	}
	for a.precision < 22 && int(0.5+largest*float64(int(1)<<(a.precision+1))) < 1<<15 {
		a.precision++
	}
	for i, ws := range exact {
		a.weights[i] = make([]int32, len(ws))
		for j, w := range ws {
			a.weights[i][j] = int32(math.Round(w * float64(int(1)<<a.precision))) // halves go away from zero
		}
	}
	return a
}

// A resizer makes frames of one size into a part of frames of another: the rectangle that the crop keeps.
type resizer struct {
	in            [2]int // width, height of the source
	out           [2]int // width, height of the result
	x, y          axis   // only of the kept columns and rows
	scaleX        bool
	scaleY        bool
	left, top     int // of the kept rectangle, where an axis isn't scaled
	rowLow, rowHi int // the source's rows that the result needs
	middle        []byte
	result        []byte
}

// newResizer resizes pictures of in (width, height) to whole and keeps the rectangle of size out at (left, top).
func newResizer(in, whole, out [2]int, left, top int, f filter) *resizer {
	r := &resizer{in: in, out: out, left: left, top: top, scaleX: in[0] != whole[0], scaleY: in[1] != whole[1]}
	if r.scaleX {
		r.x = newAxis(in[0], whole[0], f).part(left, out[0])
	}
	r.rowLow, r.rowHi = top, top+out[1]
	if r.scaleY {
		r.y = newAxis(in[1], whole[1], f).part(top, out[1])
		r.rowLow, r.rowHi = in[1], 0
		for i, first := range r.y.first {
			r.rowLow, r.rowHi = min(r.rowLow, first), max(r.rowHi, first+len(r.y.weights[i]))
		}
	}
	r.middle = make([]byte, (r.rowHi-r.rowLow)*out[0]*channels)
	r.result = make([]byte, out[0]*out[1]*channels)
	return r
}

func (a axis) part(from, n int) axis {
	a.first, a.weights = a.first[from:from+n], a.weights[from:from+n]
	return a
}

// rowsAtOnce is how many rows are made before others have their turn. A frame takes many milliseconds, and the runtime lets a
// goroutine go on for ten: a prediction would wait that long for a processor, each time that it needs one.
const rowsAtOnce = 32

// resize gives the kept rectangle of one frame. What it returns is overwritten by the next call.
func (r *resizer) resize(rgb []byte) []byte {
	stride, width := r.in[0]*channels, r.out[0]*channels
	for row := r.rowLow; row < r.rowHi; row++ {
		if row%rowsAtOnce == 0 {
			runtime.Gosched()
		}
		source := rgb[row*stride : (row+1)*stride]
		target := r.middle[(row-r.rowLow)*width : (row-r.rowLow+1)*width]
		if r.scaleX {
			r.x.across(source, target)
		} else {
			copy(target, source[r.left*channels:])
		}
	}
	if !r.scaleY {
		return r.middle
	}
	sums := make([]int32, width)
	for i, first := range r.y.first {
		r.y.down(i, r.middle[(first-r.rowLow)*width:], r.result[i*width:(i+1)*width], sums)
	}
	return r.result
}

// across resizes one row.
func (a axis) across(source, target []byte) {
	half := int32(1) << (a.precision - 1)
	for i, first := range a.first {
		red, green, blue := half, half, half
		pixels := source[first*channels:]
		for j, w := range a.weights[i] {
			p := pixels[j*channels : j*channels+channels : j*channels+channels]
			red += int32(p[0]) * w
			green += int32(p[1]) * w
			blue += int32(p[2]) * w
		}
		t := target[i*channels : i*channels+channels]
		t[0], t[1], t[2] = clamp(red>>a.precision), clamp(green>>a.precision), clamp(blue>>a.precision)
	}
}

// down makes row i of the result from the rows that begin at source.
func (a axis) down(i int, source, target []byte, sums []int32) {
	for k := range sums {
		sums[k] = int32(1) << (a.precision - 1)
	}
	for j, w := range a.weights[i] {
		row := source[j*len(target) : (j+1)*len(target)]
		for k, v := range row {
			sums[k] += int32(v) * w
		}
	}
	for k, s := range sums {
		target[k] = clamp(s >> a.precision)
	}
}

func clamp(v int32) byte { return byte(min(max(v, 0), 255)) }
