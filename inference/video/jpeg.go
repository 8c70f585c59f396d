package video

import (
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
)

// decodeJPEG decodes with the standard library and then does what it doesn't: it spreads halved colours over the pixels
// smoothly, as libjpeg does, where image/jpeg repeats them.
func decodeJPEG(file io.Reader) (frame, error) {
	m, err := jpeg.Decode(file)
	if err != nil {
		return frame{}, err
	}
	switch m := m.(type) {
	case *image.Gray:
		return opaque(m), nil
	case *image.YCbCr:
		return spread(m)
	case *image.RGBA:
		return opaque(m), nil
	}
	return frame{}, errors.New("its colours are CMYK: only grey, RGB and YCbCr are supported")
}

// spread makes a picture of full colour from one whose colours may be halved in either direction.
func spread(m *image.YCbCr) (frame, error) {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	halfX, halfY := 1, 1
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio444:
	case image.YCbCrSubsampleRatio422:
		halfX = 2
	case image.YCbCrSubsampleRatio440:
		halfY = 2
	case image.YCbCrSubsampleRatio420:
		halfX, halfY = 2, 2
	default:
		return frame{}, fmt.Errorf("its colours are spread as %v: 4:4:4, 4:2:2, 4:4:0 and 4:2:0 are supported", m.SubsampleRatio)
	}
	cw, ch := (w+halfX-1)/halfX, (h+halfY-1)/halfY
	cb, cr := plane{m.Cb, m.CStride, cw, ch}, plane{m.Cr, m.CStride, cw, ch}
	f := frame{make([]byte, w*h*channels), w, h}
	blue, red := make([]byte, 2*cw), make([]byte, 2*cw)
	scratch := make([]int, cw)
	for y := range h {
		cb.row(y, halfX, halfY, scratch, blue)
		cr.row(y, halfX, halfY, scratch, red)
		toRGB(m.Y[y*m.YStride:y*m.YStride+w], blue, red, f.rgb[y*w*channels:])
	}
	return f, nil
}

// A plane is one of a picture's two colour planes.
type plane struct {
	data          []byte
	stride        int
	width, height int
}

// row works out row y of the picture from the plane's rows: three parts of the nearer, one of the farther, in both directions.
// The constants that round are libjpeg's, which alternate.
func (p plane) row(y, halfX, halfY int, scratch []int, out []byte) {
	near := p.data[y/halfY*p.stride:][:p.width]
	smoothX := halfX == 2 && p.width > 2 // libjpeg leaves narrow pictures alone
	if halfY == 1 {
		switch {
		case halfX == 1:
			copy(out, near)
		case !smoothX:
			double(near, out)
		default:
			widen(near, out)
		}
		return
	}
	if halfX == 2 && !smoothX {
		double(near, out)
		return
	}
	far := min(max(y/2-1+y%2*2, 0), p.height-1)
	other := p.data[far*p.stride:][:p.width]
	for x := range near {
		scratch[x] = 3*int(near[x]) + int(other[x])
	}
	if halfX == 1 {
		for x, v := range scratch {
			out[x] = byte((v + 1 + y%2) >> 2)
		}
		return
	}
	widenSums(scratch, out)
}

func double(in, out []byte) {
	for x, v := range in {
		out[2*x], out[2*x+1] = v, v
	}
}

func widen(in, out []byte) {
	last := len(in) - 1
	out[0], out[2*last+1] = in[0], in[last]
	for x, v := range in {
		if x > 0 {
			out[2*x] = byte((3*int(v) + int(in[x-1]) + 1) >> 2)
		}
		if x < last {
			out[2*x+1] = byte((3*int(v) + int(in[x+1]) + 2) >> 2)
		}
	}
}

func widenSums(sums []int, out []byte) {
	last := len(sums) - 1
	out[0], out[2*last+1] = byte((4*sums[0]+8)>>4), byte((4*sums[last]+7)>>4)
	for x, v := range sums {
		if x > 0 {
			out[2*x] = byte((3*v + sums[x-1] + 8) >> 4)
		}
		if x < last {
			out[2*x+1] = byte((3*v + sums[x+1] + 7) >> 4)
		}
	}
}

// toRGB turns a row of brightness and colour into pixels, with libjpeg's constants: 16 bits behind the point.
func toRGB(luma, blue, red, out []byte) {
	const half = 1 << 15
	for x, l := range luma {
		y, cb, cr := int32(l), int32(blue[x])-128, int32(red[x])-128
		o := out[x*channels : x*channels+channels]
		o[0] = clamp(y + (91881*cr+half)>>16)
		o[1] = clamp(y + (-22554*cb-46802*cr+half)>>16)
		o[2] = clamp(y + (116130*cb+half)>>16)
	}
}
