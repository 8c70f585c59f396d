package hf

import (
	"encoding/json"
	"fmt"
)

// The bounds of what a normalizer may do to a text. A few replacements that double a character each make a text of any length of one
// character, and the library ends the process where there is no memory for it. For each byte of a text it keeps seventeen.
const (
	maxGrowth  = 64   // times the text's length, by replacements
	maxPrepend = 1024 // bytes put before a text
)

// checkGrowth refuses a file, which the library has taken, whose normalizer may make texts far longer than they are.
func checkGrowth(data []byte) error {
	// Maps, since the fields of a struct would match names in any case, and the library reads them as they are.
	var file map[string]json.RawMessage
	if err := json.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("not a tokenizer that can be used: %w", err)
	}
	times, err := growth(file["normalizer"])
	if err != nil {
		return fmt.Errorf("not a tokenizer that can be used: its normalizer: %w", err)
	}
	if times > maxGrowth {
		return fmt.Errorf("not a tokenizer that can be used: its normalizer may make a text %.3g times as long, more than %d times", times, maxGrowth)
	}
	return nil
}

// growth is by how much a normalizer lengthens a text at most. What kind it is doesn't have to be said: its fields tell.
func growth(normalizer json.RawMessage) (float64, error) {
	var n map[string]json.RawMessage
	if len(normalizer) == 0 {
		return 1, nil
	}
	if err := json.Unmarshal(normalizer, &n); err != nil {
		return 1, nil //nolint:nilerr // a mere name, which the library refuses or knows
	}
	times := 1.0
	if all, ok := n["normalizers"]; ok {
		var list []json.RawMessage
		if err := json.Unmarshal(all, &list); err != nil {
			return 0, err
		}
		for _, one := range list {
			t, err := growth(one)
			if err != nil {
				return 0, err
			}
			times *= t
		}
	}
	if before, ok := n["prepend"]; ok {
		var s string
		if err := json.Unmarshal(before, &s); err != nil {
			return 0, err
		}
		if len(s) > maxPrepend {
			return 0, fmt.Errorf("it puts %d bytes before a text, more than %d", len(s), maxPrepend)
		}
	}
	content, ok := n["content"]
	if !ok {
		return times, nil
	}
	var by string
	if err := json.Unmarshal(content, &by); err != nil {
		return 0, err
	}
	return times * replacement(n["pattern"], by), nil
}

// replacement is by how much a text grows where each match of pattern is replaced.
func replacement(pattern json.RawMessage, by string) float64 {
	var p map[string]string
	if json.Unmarshal(pattern, &p) == nil && p["String"] != "" {
		return max(1, float64(len(by))/float64(len(p["String"])))
	}
	return 1 + float64(len(by)) // an expression may match between any two characters
}
