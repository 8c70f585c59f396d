package onnxfile

// findLookups notes, for each input of integers, how many rows the tables have that are looked up with it: an id from there on fails
// the whole run, and one below zero counts from the end.
func (p *parser) findLookups() {
	if p.kept > maxKept {
		return
	}
	for i := range p.f.Inputs {
		in := &p.f.Inputs[i]
		if in.Kind == Tensor && (in.Elem == Int64 || in.Elem == Int32) {
			in.Rows = p.rows(in.Name)
		}
	}
}

// shaping are operators of ai.onnx that give the ids of their first input in another form.
var shaping = names("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

// shapes says whether n is one of those. The runtime uses its own operator even where a function of the file has its name, here and
// with what looks up.
func shapes(n *node, those map[string]bool) bool { return n.Domain == "" && those[n.Type] }

// rows is the least number of rows of a table that the main graph looks up with the ids of input; 0: it has no such table.
func (p *parser) rows(input string) (least int64) {
	ids := map[string]bool{input: true}
	for _, n := range p.mainGraph.nodes {
		if len(n.in) == 0 || len(n.out) == 0 {
			continue
		}
		if ids[n.in[0]] && shapes(n, shaping) {
			ids[n.out[0]] = true
		}
		for _, r := range p.lookups(n, ids) {
			if least == 0 || r < least {
				least = r
			}
		}
	}
	return least
}

// lookups are the rows of the tables in which n looks up ids.
func (p *parser) lookups(n *node, ids map[string]bool) (rows []int64) {
	look := func(table, by int, axis int64) {
		if table < len(n.in) && by < len(n.in) && ids[n.in[by]] {
			if r := p.length(n.in[table], axis); r > 0 {
				rows = append(rows, r)
			}
		}
	}
	switch n.Op {
	case Op{"", "Gather"}:
		look(0, 1, n.axis)
	case Op{"com.microsoft", "EmbedLayerNormalization"}: // words, kinds and places in one
		look(2, 0, 0)
		look(4, 1, 0)
		look(3, 8, 0)
	}
	return rows
}

// length is that of a weight along an axis, which may have been converted on its way; 0: it isn't known.
func (p *parser) length(name string, axis int64) int64 {
	for range maxTrail {
		s := p.mainGraph.find(name)
		switch c := s.init; {
		case c != nil && axis >= 0 && axis < int64(len(c.dims)):
			return c.dims[axis]
		case s.node == nil || len(s.node.in) == 0 || !shapes(s.node, converting):
			return 0
		}
		name = s.node.in[0]
	}
	return 0
}

var converting = names("Cast", "DequantizeLinear", "Identity")
