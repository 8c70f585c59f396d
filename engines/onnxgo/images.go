package onnxgo

import (
	"errors"
	"fmt"
	"slices"
)

// images refuses what isn't a batch of images: (batch, channels, height, width).
func (c *call) images() error {
	if len(c.in[0]) != 4 {
		return fmt.Errorf("shape %v: only (batch, channels, height, width) is supported", c.in[0])
	}
	return nil
}

// noAutoPad takes the attribute auto_pad, which may say that there is none.
func (c *call) noAutoPad() error {
	a, ok, err := c.attr("auto_pad", kindString)
	delete(c.attrs, "auto_pad")
	if ok && err == nil && a.s != "NOTSET" {
		return fmt.Errorf("auto_pad %s isn't supported: write the pads", a.s)
	}
	return err
}

// A window is what moves over an image.
type window struct{ kernel, strides, dilations, pads []int64 }

// window reads the attributes of a convolution or pooling. Without equal pads on all sides onnx-go mixes up sides.
func (c *call) window(kernel []int64) (w window, err error) {
	var errs [5]error
	errs[0] = c.noAutoPad()
	if _, ok := c.given["kernel_shape"]; !ok && kernel != nil {
		c.set("kernel_shape", attr{kind: kindInts, ints: kernel})
		w.kernel = kernel
	} else {
		w.kernel, errs[1] = c.list("kernel_shape", 2, 0, 1)
	}
	w.strides, errs[2] = c.list("strides", 2, 1, 1)
	w.dilations, errs[3] = c.list("dilations", 2, 1, 1)
	w.pads, errs[4] = c.list("pads", 4, 0, 0)
	if err := errors.Join(errs[:]...); err != nil {
		return w, err
	}
	for _, p := range w.pads {
		if p != w.pads[0] {
			return w, fmt.Errorf("pads %v: only equal ones are supported", w.pads)
		}
	}
	return w, nil
}

// over is the shape of what the window gives of an image.
func (w window) over(in []int64) ([]int64, error) {
	out := slices.Clone(in)
	for i := range w.kernel {
		length := in[2+i] + 2*w.pads[0] - w.dilations[i]*(w.kernel[i]-1) - 1
		if length < 0 {
			return nil, fmt.Errorf("the kernel %v is larger than the image %v", w.kernel, in)
		}
		out[2+i] = length/w.strides[i] + 1
	}
	return out, nil
}

func conv(c *call) ([]int64, error) {
	if err := errors.Join(c.images(), c.must("group", 1)); err != nil {
		return nil, err
	}
	weights := c.in[1]
	if len(weights) != 4 || weights[1] != c.in[0][1] {
		return nil, fmt.Errorf("weights of shape %v for images of shape %v aren't supported", weights, c.in[0])
	}
	if len(c.in) == 3 && !slices.Equal(c.in[2], weights[:1]) {
		return nil, fmt.Errorf("a bias of shape %v for %d channels", c.in[2], weights[0])
	}
	w, err := c.window(weights[2:])
	if err != nil {
		return nil, err
	}
	if !slices.Equal(w.kernel, weights[2:]) {
		return nil, fmt.Errorf("kernel_shape %v, but weights of shape %v", w.kernel, weights)
	}
	out, err := w.over(c.in[0])
	if err == nil {
		out[1] = weights[0]
	}
	return out, err
}

func maxPool(c *call) ([]int64, error) {
	if err := errors.Join(c.images(), c.must("ceil_mode", 0), c.must("storage_order", 0)); err != nil {
		return nil, err
	}
	w, err := c.window(nil)
	if err != nil {
		return nil, err
	}
	if w.dilations[0] != 1 || w.dilations[1] != 1 || w.pads[0] != 0 {
		return nil, fmt.Errorf("dilations %v and pads %v aren't supported", w.dilations, w.pads)
	}
	if w.kernel[0] >= c.in[0][2] || w.kernel[1] >= c.in[0][3] {
		return nil, fmt.Errorf("a kernel_shape of %v for images of shape %v: only smaller ones are supported", w.kernel, c.in[0])
	}
	delete(c.attrs, "dilations") // onnx-go refuses even the usual ones
	return w.over(c.in[0])
}

func globalAveragePool(c *call) ([]int64, error) {
	if err := c.images(); err != nil {
		return nil, err
	}
	return []int64{c.in[0][0], c.in[0][1], 1, 1}, nil
}

func batchNormalization(c *call) ([]int64, error) {
	if err := errors.Join(c.images(), c.must("training_mode", 0), c.must("spatial", 1), c.number("epsilon"), c.number("momentum")); err != nil {
		return nil, err
	}
	for i := range c.in[1:] {
		if _, ok := c.constant(1 + i); !ok || !slices.Equal(c.in[1+i], c.in[0][1:2]) {
			return nil, fmt.Errorf("input %d isn't a weight of %d numbers", 1+i, c.in[0][1])
		}
	}
	return c.in[0], nil
}
