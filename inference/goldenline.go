package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"modelgate/inference/video"
)

const (
	maxTolerance = 0.1        // a larger one would prove nothing
	maxItems     = maxClasses // fields of an object, or images of a clip: each takes many times its bytes in the file
)

// A goldenLine is one line of golden.jsonl: {"request": ..., "scores": {label: score}, "tolerance": t}. The request is what one would
// post to the API: "text", and "video" with "clip", "frames" or "raw".
type goldenLine struct {
	in        Input
	scores    map[string]float64
	tolerance float64
}

func parseGolden(line []byte) (g goldenLine, err error) {
	if !utf8.Valid(line) || !json.Valid(line) {
		return g, errors.New("it is not JSON")
	}
	fields, err := fieldsOf(line, "request", "scores", "tolerance")
	if err != nil {
		return g, err
	}
	if g.in, err = parseRequest(fields["request"]); err != nil {
		return g, fmt.Errorf("request: %w", err)
	}
	if g.scores, err = parseScores(fields["scores"]); err != nil {
		return g, fmt.Errorf("scores: %w", err)
	}
	if err := parse(fields["tolerance"], &g.tolerance); err != nil {
		return g, fmt.Errorf("tolerance: %w", err)
	}
	if !(g.tolerance > 0 && g.tolerance <= maxTolerance) {
		return g, fmt.Errorf("tolerance is %g: it is more than 0 and at most %g", g.tolerance, maxTolerance)
	}
	return g, nil
}

func parseRequest(data json.RawMessage) (in Input, err error) {
	fields, err := fieldsOf(data, "text", "video")
	if err != nil {
		return in, err
	}
	if raw, ok := fields["text"]; ok {
		in.Text = new(string)
		if err := parse(raw, in.Text); err != nil {
			return in, fmt.Errorf("text: %w", err)
		}
	}
	if raw, ok := fields["video"]; ok {
		if in.Video, err = parseClip(raw); err != nil {
			return in, fmt.Errorf("video: %w", err)
		}
	}
	return in, nil
}

func parseClip(data json.RawMessage) (*video.Clip, error) {
	fields, err := fieldsOf(data, "clip", "frames", "raw")
	if err != nil {
		return nil, err
	}
	if len(fields) != 1 {
		return nil, errors.New("exactly one of clip, frames and raw is needed")
	}
	c := &video.Clip{}
	if raw, ok := fields["clip"]; ok {
		return c, parse(raw, &c.Encoded)
	}
	if raw, ok := fields["frames"]; ok {
		frames, err := fieldsOf(raw, "images")
		if err != nil {
			return nil, err
		}
		if bytes.Count(frames["images"], []byte(",")) >= maxItems {
			return nil, fmt.Errorf("it has more than %d images", maxItems)
		}
		return c, parse(frames["images"], &c.Images)
	}
	raw, err := fieldsOf(fields["raw"], "rgb", "width", "height")
	if err != nil {
		return nil, err
	}
	c.Raw = &video.Raw{}
	return c, errors.Join(parse(raw["rgb"], &c.Raw.RGB), parse(raw["width"], &c.Raw.Width), parse(raw["height"], &c.Raw.Height))
}

func parseScores(data json.RawMessage) (map[string]float64, error) {
	fields, err := fieldsOf(data)
	if err != nil {
		return nil, err
	}
	const slack = 1e-4 // as probabilities has it
	scores := make(map[string]float64, len(fields))
	for label, raw := range fields {
		var score float64
		if err := parse(raw, &score); err != nil {
			return nil, fmt.Errorf("%s: %w", short(label), err)
		}
		if score < -slack || score > 1+slack {
			return nil, fmt.Errorf("%s has %g: scores are from 0 to 1", short(label), score)
		}
		scores[label] = score
	}
	return scores, nil
}

// parse reads a value that must be there.
func parse(data json.RawMessage, into any) error {
	if len(data) == 0 || string(data) == "null" {
		return errors.New("it is missing")
	}
	err := json.Unmarshal(data, into)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%s is no %v", short(wrong.Value), wrong.Type)
	}
	return err
}

// fieldsOf reads a JSON object, in which no field may be there twice, and only those that are known; without known ones any. The
// standard library would take the last of two, and Text for text.
func fieldsOf(data []byte, known ...string) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is no JSON object, or missing")
	}
	fields := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, errors.New("it is no JSON object")
		}
		if known != nil && !slices.Contains(known, key) {
			return nil, fmt.Errorf("unknown field %s: the fields are %q", short(key), known)
		}
		if _, twice := fields[key]; twice {
			return nil, fmt.Errorf("the field %s is there twice", short(key))
		}
		if len(fields) == maxItems {
			return nil, fmt.Errorf("it has more than %d fields", maxItems)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		fields[key] = value
	}
	return fields, nil
}

// describe says which example it is, for people.
func (g goldenLine) describe() string {
	var s string
	if g.in.Text != nil {
		s = "the text " + short(clipped(*g.in.Text, 60))
	}
	if v := g.in.Video; v != nil {
		if s != "" {
			s += " with "
		}
		switch {
		case v.Images != nil:
			s += fmt.Sprintf("a clip of %d images", len(v.Images))
		case v.Raw != nil:
			s += fmt.Sprintf("a clip of raw frames of %d x %d", v.Raw.Width, v.Raw.Height)
		default:
			s += fmt.Sprintf("a clip of %d bytes", len(v.Encoded))
		}
	}
	if s == "" {
		return "an empty request"
	}
	return s
}

// clipped is the beginning of s, at most n characters of it.
func clipped(s string, n int) string {
	for i := range s {
		if n--; n < 0 {
			return s[:i] + "..."
		}
	}
	return s
}
