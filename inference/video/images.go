package video

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
)

// decodeImage decodes one JPEG or PNG file as Pillow does: a JPEG's colours are spread as libjpeg spreads them, and orientation
// tags and colour profiles are left alone.
//
// A small JPEG can hold millions of passes over its pixels, so the decoders stop reading when ctx ends.
func decodeImage(ctx context.Context, file []byte, maxPixels int64) (frame, error) {
	switch {
	case bytes.HasPrefix(file, []byte("\xff\xd8\xff")):
		c, err := jpeg.DecodeConfig(bytes.NewReader(file))
		if err := checkImage(c, err, maxPixels); err != nil {
			return frame{}, err
		}
		return decodeJPEG(until{ctx.Err, bytes.NewReader(file)})
	case bytes.HasPrefix(file, []byte("\x89PNG\r\n\x1a\n")):
		c, err := png.DecodeConfig(bytes.NewReader(file))
		if err := checkImage(c, err, maxPixels); err != nil {
			return frame{}, err
		}
		if c.ColorModel == color.Gray16Model {
			return frame{}, errors.New("16-bit grey PNGs are not supported: Pillow cuts their values off")
		}
		m, err := png.Decode(until{ctx.Err, bytes.NewReader(file)})
		if err != nil {
			return frame{}, err
		}
		return opaque(m), nil
	}
	return frame{}, errors.New("it is neither JPEG nor PNG")
}

// until reads as long as ended is nil.
type until struct {
	ended func() error
	from  io.Reader
}

func (u until) Read(p []byte) (int, error) {
	if err := u.ended(); err != nil {
		return 0, err
	}
	return u.from.Read(p)
}

func checkImage(c image.Config, err error, maxPixels int64) error {
	if err != nil {
		return err
	}
	if w, h := int64(c.Width), int64(c.Height); w < 1 || h < 1 || w > maxPixels || h > maxPixels/w {
		return fmt.Errorf("it is %d x %d pixels; at most %d pixels are taken", w, h, maxPixels)
	}
	return nil
}

// opaque takes a picture's colours as they are, whatever its transparency, as Pillow's convert("RGB") does.
func opaque(m image.Image) frame {
	b := m.Bounds()
	f := frame{make([]byte, b.Dx()*b.Dy()*channels), b.Dx(), b.Dy()}
	i := 0
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c, ok := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
			if !ok {
				panic("video: color.NRGBAModel gives another colour")
			}
			if n, ok := m.(*image.NRGBA64); ok {
				wide := n.NRGBA64At(x, y)
				c.R, c.G, c.B = byte(wide.R>>8), byte(wide.G>>8), byte(wide.B>>8)
			}
			f.rgb[i], f.rgb[i+1], f.rgb[i+2] = c.R, c.G, c.B
			i += channels
		}
	}
	return f
}
