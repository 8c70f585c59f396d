package hf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// The bounds of what a file may make of a text before it is cut into tokens. A few steps that double a character each make a text of
// any length of one character, and the library ends the process where there is no memory for it. For each byte of a text it keeps
// seventeen.
const (
	maxGrowth = 64 // times the text's length
	maxSteps  = 64 // that follow one another, of a pre-tokenizer: each may put a character before a piece
)

var errNoObject = errors.New("it isn't an object")

// A part is a normalizer or a pre-tokenizer as it stands in the file: a map, since the fields of a struct would match names in any
// case, and the library reads them as they are.
type part map[string]json.RawMessage

// checkGrowth refuses a file, which the library has taken, that may make texts far longer than they are.
func checkGrowth(data []byte) error {
	var file part
	if err := json.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("not a tokenizer that can be used: %w", err)
	}
	before, times, err := growth(file["normalizer"])
	if err != nil {
		return fmt.Errorf("not a tokenizer that can be used: its normalizer: %w", err)
	}
	cut, steps, err := cutGrowth(file["pre_tokenizer"])
	if err != nil {
		return fmt.Errorf("not a tokenizer that can be used: its pre-tokenizer: %w", err)
	}
	if steps > maxSteps {
		return fmt.Errorf("not a tokenizer that can be used: its pre-tokenizer has %d steps, more than %d", steps, maxSteps)
	}
	// What is put before a text is put before each of its pieces between special tokens, and a piece may be one byte.
	if times *= (1 + before) * cut; times > maxGrowth {
		return fmt.Errorf("not a tokenizer that can be used: it may make a text %.3g times as long, more than %d times", times, maxGrowth)
	}
	return nil
}

// read is a part of the file, nil where there is none. The library also takes some as lists of their fields, which nobody writes.
func read(data json.RawMessage) (p part, err error) {
	if data = bytes.TrimSpace(data); len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	if data[0] != '{' {
		return nil, errNoObject
	}
	return p, json.Unmarshal(data, &p)
}

// text is a field that is a string, "" where it isn't there.
func (p part) text(field string) (s string, err error) {
	if data, ok := p[field]; ok {
		err = json.Unmarshal(data, &s)
	}
	return s, err
}

// list is a field that is a list of parts.
func (p part) list(field string) (parts []json.RawMessage, err error) {
	if data, ok := p[field]; ok {
		err = json.Unmarshal(data, &parts)
	}
	return parts, err
}

// growth is how many bytes a normalizer puts before a text, and by how much it lengthens it, at most. What kind it is doesn't have to
// be said where its fields tell.
func growth(normalizer json.RawMessage) (before, times float64, err error) {
	n, err := read(normalizer)
	if err != nil {
		return 0, 0, err
	}
	all, err := n.list("normalizers")
	if err != nil {
		return 0, 0, err
	}
	times = 1
	for _, one := range all {
		b, t, err := growth(one)
		if err != nil {
			return 0, 0, err
		}
		before, times = before+b, times*t
	}
	put, err := n.text("prepend")
	if err != nil {
		return 0, 0, err
	}
	own, err := n.lengthens()
	return before + float64(len(put)), times * own, err
}

// lengthens is by how much a single normalizer makes a text longer.
func (p part) lengthens() (float64, error) {
	times := 1.0
	kind, err := p.text("type")
	if err != nil {
		return 0, err
	}
	if kind == "ByteLevel" {
		times = 2 // a character of two bytes for each byte that isn't ASCII
	}
	charsmap, err := p.text("precompiled_charsmap")
	if err != nil {
		return 0, err
	}
	characters, err := mapped(charsmap)
	if err != nil {
		return 0, err
	}
	times *= characters
	if _, ok := p["content"]; !ok {
		return times, nil
	}
	by, err := p.text("content")
	return times * replacement(p["pattern"], by), err
}

// cutGrowth is by how much a pre-tokenizer lengthens a text at most, and of how many steps it is.
func cutGrowth(preTokenizer json.RawMessage) (times float64, steps int, err error) {
	p, err := read(preTokenizer)
	if err != nil {
		return 0, 0, err
	}
	all, err := p.list("pretokenizers")
	if err != nil {
		return 0, 0, err
	}
	times, steps = 1, 1
	for _, one := range all {
		t, s, err := cutGrowth(one)
		if err != nil {
			return 0, 0, err
		}
		times, steps = times*t, steps+s
	}
	kind, err := p.text("type")
	if _, ok := p["trim_offsets"]; ok || kind == "ByteLevel" {
		times *= 2
	}
	return times, steps, err
}

// replacement is by how much a text grows where each match of pattern is replaced.
func replacement(pattern json.RawMessage, by string) float64 {
	var p map[string]string
	if json.Unmarshal(pattern, &p) == nil && p["String"] != "" {
		return max(1, float64(len(by))/float64(len(p["String"])))
	}
	return 1 + float64(len(by)) // an expression may match between any two characters
}
