package inference

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"modelgate/inference/engine"
	"modelgate/inference/video"
)

const contractFile = "contract.json"

// A contract is what a publisher promises of a model. What isn't in it isn't promised; fields that aren't known here are for others.
type contract struct {
	kind      string // "text", "video" or "fusion"
	labels    []string
	positive  *string
	threshold *float64
	inputs    map[string]contractInput
	maxLength int // 0: nothing is said
	frames    int
	crop      []int64 // height and width
	sampling  string  // how frames are chosen, turned and resized, with what holds where the bundle says nothing
	rotation  string
	resample  int
}

// A contractInput is one of the graph's inputs: in JSON [type, dimensions], with ONNX Runtime's names and null for an open dimension.
type contractInput struct {
	dtype string
	dims  []int64
}

// keepsContracts compares the model with what its bundle and the registry promise. info is the graph's with the bundle's own
// settings. ok says that there is a promise.
func (m *Model) keepsContracts(info Info) (ok bool, err error) {
	inBundle, err := readSmall(filepath.Join(m.bundle.dir, contractFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for _, c := range []struct {
		from, text string
		there      bool
	}{{contractFile, string(inBundle), err == nil}, {"the registry's contract", m.options.Contract, m.options.Contract != ""}} {
		if !c.there {
			continue
		}
		promised, err := parseContract([]byte(c.text))
		if err == nil {
			err = m.keeps(promised, info)
		}
		if err != nil {
			return false, fmt.Errorf("%s doesn't hold: %w", c.from, err)
		}
		ok = true
	}
	return ok, nil
}

func parseContract(data []byte) (c contract, err error) {
	if !json.Valid(data) {
		return c, fmt.Errorf("it is not JSON: %s", short(clipped(string(data), 80)))
	}
	fields, err := fieldsOf(data)
	if err != nil {
		return c, err
	}
	var inputs map[string]json.RawMessage
	for name, into := range map[string]any{
		"kind": &c.kind, "labels": &c.labels, "positive_label": &c.positive, "threshold": &c.threshold,
		"max_length": &c.maxLength, "frames": &c.frames, "crop": &c.crop,
		"video_sampling": &c.sampling, "video_rotation": &c.rotation, "resample": &c.resample,
	} {
		raw, there := fields[name]
		if !there || string(raw) == "null" {
			continue
		}
		if err := parse(raw, into); err != nil {
			return c, fmt.Errorf("%s: %w", name, err)
		}
	}
	if raw, there := fields["inputs"]; there && string(raw) != "null" {
		if inputs, err = fieldsOf(raw); err != nil {
			return c, fmt.Errorf("inputs: %w", err)
		}
		c.inputs, err = parseInputs(inputs)
	}
	return c, err
}

func parseInputs(fields map[string]json.RawMessage) (map[string]contractInput, error) {
	inputs := make(map[string]contractInput, len(fields))
	for name, raw := range fields {
		var pair []json.RawMessage
		if err := parse(raw, &pair); err != nil || len(pair) != 2 {
			return nil, fmt.Errorf("inputs: %s: [type, dimensions] is needed", short(name))
		}
		var in contractInput
		var dims []*int64
		if err := errors.Join(parse(pair[0], &in.dtype), parse(pair[1], &dims)); err != nil {
			return nil, fmt.Errorf("inputs: %s: %w", short(name), err)
		}
		for _, d := range dims {
			if d == nil {
				d = new(int64)
				*d = -1
			}
			in.dims = append(in.dims, *d)
		}
		inputs[name] = in
	}
	return inputs, nil
}

// keeps says which promise the model breaks.
func (m *Model) keeps(c contract, info Info) error {
	own := m.bundle.settings
	kind := string(info.Kind)
	if info.Kind == KindTokens || info.Kind == KindString {
		kind = "text"
	}
	threshold := DefaultThreshold
	if own.Threshold != nil {
		threshold = *own.Threshold
	}
	var frames int
	var crop []int64
	if s := info.Clip; s != nil {
		frames, crop = int(s[0]*s[1]/colours), s[2:] // frames and channels, in either order
	}
	switch {
	case c.kind != "" && c.kind != kind:
		return broken("kind", c.kind, kind)
	case c.labels != nil && !slices.Equal(c.labels, m.labels):
		return broken("labels", c.labels, m.labels)
	case c.positive != nil && *c.positive != own.PositiveLabel:
		return broken("positive_label", *c.positive, own.PositiveLabel)
	case c.threshold != nil && *c.threshold != threshold:
		return broken("threshold", *c.threshold, threshold)
	case c.maxLength != 0 && c.maxLength != info.MaxLength:
		return broken("max_length", c.maxLength, info.MaxLength)
	case c.frames != 0 && c.frames != frames:
		return broken("frames", c.frames, frames)
	case c.crop != nil && !slices.Equal(c.crop, crop):
		return broken("crop", c.crop, crop)
	}
	if err := c.keepsChoice(info.Choice); err != nil || c.inputs == nil {
		return err
	}
	return sameInputs(c.inputs, m.session.Inputs())
}

// keepsChoice says which promise about a clip's frames is broken. own is nil for a model that takes no clip.
func (c contract) keepsChoice(own *video.Choice) error {
	if own == nil {
		own = &video.Choice{}
	}
	switch {
	case c.sampling != "" && c.sampling != string(own.Sampling):
		return broken("video_sampling", c.sampling, string(own.Sampling))
	case c.rotation != "" && c.rotation != string(own.Rotation):
		return broken("video_rotation", c.rotation, string(own.Rotation))
	case c.resample != 0 && c.resample != own.Resample:
		return broken("resample", c.resample, own.Resample)
	}
	return nil
}

func broken(item string, promised, found any) error {
	return fmt.Errorf("%s: it says %s, the model has %s", item, short(promised), short(found))
}

// dtypes are the types' names in ONNX Runtime.
var dtypes = map[engine.DType]string{
	engine.Float32: "tensor(float)", engine.Float64: "tensor(double)", engine.Int64: "tensor(int64)", engine.Int32: "tensor(int32)",
	engine.Uint8: "tensor(uint8)", engine.Bool: "tensor(bool)", engine.String: "tensor(string)",
}

func sameInputs(promised map[string]contractInput, specs []engine.TensorSpec) error {
	names := slices.Sorted(maps.Keys(promised))
	found := make([]string, len(specs))
	for i, s := range specs {
		found[i] = s.Name
	}
	slices.Sort(found)
	if !slices.Equal(names, found) {
		return broken("inputs", names, found)
	}
	for _, s := range specs {
		p, dtype := promised[s.Name], cmp.Or(dtypes[s.Type], s.Type.String())
		if p.dtype != dtype || !slices.Equal(p.dims, s.Shape) {
			return broken("input "+short(s.Name), fmt.Sprint(p.dtype, p.dims), fmt.Sprint(dtype, s.Shape))
		}
	}
	return nil
}
