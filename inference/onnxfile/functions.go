package onnxfile

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxExpanded is how many nodes a graph may have once its functions are inlined. The runtime inlines them at load: a file of two
// kilobytes with 26 functions that each call the next twice would keep it busy for hours.
const maxExpanded = 1 << 20

// A function is what a function of the file (or the main graph) calls, and how often.
type function struct {
	calls map[Op]int
	size  int // nodes once inlined; 0 = not counted yet
	open  bool
}

func (f *function) call(op Op, times int) {
	if f.calls == nil {
		f.calls = map[Op]int{}
	}
	f.calls[op] += times
}

func (p *parser) function(c *cursor) error {
	var f function
	var name Op
	g := newGraph(nil)
	p.graphs = append(p.graphs, g)
	err := fields(c, func(num protowire.Number, typ protowire.Type) (used bool, err error) {
		switch {
		case typ != protowire.BytesType:
			return false, nil
		case num == 1:
			name.Type, err = c.text()
			return true, err
		case num == 10:
			name.Domain, err = c.text()
			return true, err
		case num == 4:
			s, err := c.text()
			g.inputs[s] = true
			return true, err
		case num == 7:
			return p.in(c, func(n *cursor) error { return p.node(n, g, &f) })
		case num == 11:
			return p.in(c, func(a *cursor) error { return p.attribute(a, g, &node{}, &f) })
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if name.Domain == "ai.onnx" {
		name.Domain = ""
	}
	// Overloads count too: each copies what the one before it calls.
	if p.overloads++; p.overloads > maxOps {
		return c.bad("it defines too many functions")
	}
	// Overloads share a name here: the larger sum stands for all of them.
	if old := p.functions[name]; old != nil {
		for op, n := range old.calls {
			f.call(op, n)
		}
	}
	p.functions[name] = &f
	return nil
}

// checkCalls refuses graphs whose functions call themselves or blow up when inlined.
func (p *parser) checkCalls() error {
	n, err := p.expand(&p.main, 0)
	if err == nil && n > maxExpanded {
		err = fmt.Errorf("%w: its functions expand to more than a million nodes", ErrFormat)
	}
	return err
}

// expand counts the nodes of f once inlined, up to maxExpanded + 1.
func (p *parser) expand(f *function, depth int) (int, error) {
	if f.open {
		return 0, fmt.Errorf("%w: one of its functions calls itself", ErrFormat)
	}
	if depth > 1000 {
		return 0, fmt.Errorf("%w: its functions are nested too deeply", ErrFormat)
	}
	if f.size > 0 {
		return f.size, nil
	}
	f.open = true
	defer func() { f.open = false }()
	total := 1
	for op, times := range f.calls {
		one := 1
		if g := p.functions[op]; g != nil {
			var err error
			if one, err = p.expand(g, depth+1); err != nil {
				return 0, err
			}
		}
		total = min(total+one*times, maxExpanded+1)
	}
	f.size = total
	return total, nil
}
