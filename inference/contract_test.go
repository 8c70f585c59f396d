package inference_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
)

// textContract is what a publisher says of a TextBundle.
func textContract() object {
	return object{
		"kind": "text", "labels": []string{"negative", "positive"}, "positive_label": "", "threshold": 0.5, "max_length": 64,
		"inputs": object{"input_ids": []any{"tensor(int64)", []any{nil, nil}}, "attention_mask": []any{"tensor(int64)", []any{nil, nil}}},
	}
}

func clipContract(kind string) object {
	c := textContract()
	side := enginetest.ClipSide
	c["kind"], c["frames"], c["crop"] = kind, enginetest.ClipFrames, []int{side, side}
	c["video_sampling"], c["video_rotation"], c["resample"] = "linspace", "ignore", 2
	inputs := object{"pixel_values": []any{"tensor(float)", []any{nil, enginetest.ClipFrames, 3, side, side}}}
	if kind == "video" {
		delete(c, "max_length")
	} else {
		inputs = object{"video_pixel_values": inputs["pixel_values"]}
		for _, name := range []string{"input_ids", "attention_mask"} {
			inputs["text_"+name] = []any{"tensor(int64)", []any{nil, nil}}
		}
	}
	c["inputs"] = inputs
	return c
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A contract holds or not wherever it comes from.
func bothWays(t *testing.T, dir, contract string, o inference.Options, check func(c inference.Checked, err error)) {
	t.Helper()
	fromRegistry := o
	fromRegistry.Contract = contract
	check(examine(t, dir, fromRegistry))
	writeFile(t, dir, "contract.json", contract)
	check(examine(t, dir, o))
	writeFile(t, dir, "contract.json", "{}")
}

func TestContractsThatHold(t *testing.T) {
	decoder := newDecoder(t)
	write := func(b interface{ Write(string) error }) string {
		dir := filepath.Join(t.TempDir(), "bundle")
		if err := b.Write(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	high := 0.9
	for name, c := range map[string]struct {
		dir      string
		contract object
		options  inference.Options
	}{
		"text":             {write(enginetest.TextBundle{}), textContract(), inference.Options{}},
		"video":            {write(enginetest.VideoBundle{}), clipContract("video"), inference.Options{}},
		"fusion":           {write(enginetest.VideoBundle{Fusion: true}), clipContract("fusion"), inference.Options{}},
		"the gateway's":    {write(enginetest.TextBundle{}), textContract(), inference.Options{MaxLength: 8, PositiveLabel: "positive", Threshold: &high, SpecialAsText: true}},
		"nothing promised": {write(enginetest.TextBundle{}), object{"max_length": nil}, inference.Options{}},
		"for others":       {write(enginetest.TextBundle{}), object{"kind": "text", "languages": []string{"vi"}}, inference.Options{}},
	} {
		c.options.Decoder = decoder
		bothWays(t, c.dir, encoded(t, c.contract), c.options, func(got inference.Checked, err error) {
			if err != nil || !got.Contract || got.Examples != 0 {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		})
	}
}

// The error says which promise is broken, what was promised and what there is.
func TestBrokenContracts(t *testing.T) {
	decoder := newDecoder(t)
	for name, c := range map[string]struct {
		kind   string
		change object
		says   []string
	}{
		"kind":              {"text", object{"kind": "fusion"}, []string{"kind", `"fusion"`, `"text"`}},
		"labels":            {"text", object{"labels": []string{"harmful", "safe"}}, []string{"labels", "harmful", "negative"}},
		"order of labels":   {"text", object{"labels": []string{"positive", "negative"}}, []string{"labels", `["positive" "negative"]`, `["negative" "positive"]`}},
		"no labels":         {"text", object{"labels": []string{}}, []string{"labels"}},
		"positive label":    {"text", object{"positive_label": "positive"}, []string{"positive_label"}},
		"threshold":         {"text", object{"threshold": 0.6}, []string{"threshold", "0.6", "0.5"}},
		"max length":        {"text", object{"max_length": 512}, []string{"max_length", "512", "64"}},
		"frames":            {"video", object{"frames": 16}, []string{"frames", "16", "4"}},
		"frames of a text":  {"text", object{"frames": 16}, []string{"frames", "16", "0"}},
		"crop":              {"video", object{"crop": []int{224, 224}}, []string{"crop", "[224 224]", "[16 16]"}},
		"crop of a text":    {"text", object{"crop": []int{224, 224}}, []string{"crop"}},
		"sampling":          {"video", object{"video_sampling": "hf"}, []string{"video_sampling", `"hf"`, `"linspace"`}},
		"rotation":          {"fusion", object{"video_rotation": "apply"}, []string{"video_rotation", `"apply"`, `"ignore"`}},
		"resample":          {"video", object{"resample": 3}, []string{"resample", "3", "2"}},
		"sampling of text":  {"text", object{"video_sampling": "hf"}, []string{"video_sampling", `"hf"`, `""`}},
		"no inputs":         {"text", object{"inputs": object{}}, []string{"inputs", "input_ids"}},
		"another input":     {"fusion", object{"inputs": object{"pixel_values": []any{"tensor(float)", []any{nil}}}}, []string{"inputs", "video_pixel_values"}},
		"type of an input":  {"text", object{"inputs": object{"input_ids": []any{"tensor(int64)", []any{nil, nil}}, "attention_mask": []any{"tensor(int32)", []any{nil, nil}}}}, []string{`input "attention_mask"`, "int32", "int64"}},
		"shape of an input": {"text", object{"inputs": object{"input_ids": []any{"tensor(int64)", []any{nil, 128}}, "attention_mask": []any{"tensor(int64)", []any{nil, nil}}}}, []string{`input "input_ids"`, "[-1 128]", "[-1 -1]"}},
	} {
		t.Run(name, func(t *testing.T) {
			contract := textContract()
			dir := writeBundle(t, enginetest.TextBundle{})
			if c.kind != "text" {
				contract = clipContract(c.kind)
				dir = filepath.Join(t.TempDir(), "bundle")
				if err := (enginetest.VideoBundle{Fusion: c.kind == "fusion"}).Write(dir); err != nil {
					t.Fatal(err)
				}
			}
			maps.Copy(contract, c.change)
			bothWays(t, dir, encoded(t, contract), inference.Options{Decoder: decoder}, func(_ inference.Checked, err error) {
				wantBundleError(t, name, err, append(c.says, "contract", "doesn't hold")...)
			})
		})
	}
}

// What the bundle says of a clip's frames is held against the contract, and so is what it leaves to us.
func TestContractsAboutFrames(t *testing.T) {
	o := inference.Options{Decoder: newDecoder(t)}
	usual := `{"video_sampling": "linspace", "video_rotation": "ignore", "resample": 2}`
	for name, c := range map[string]struct{ settings, processor, promised, says string }{
		"hf":          {"video_sampling: hf\n", "", `{"video_sampling": "hf"}`, `video_sampling: it says "linspace", the model has "hf"`},
		"apply":       {"video_rotation: apply\n", "", `{"video_rotation": "apply"}`, `video_rotation: it says "ignore", the model has "apply"`},
		"bicubic":     {"", `"resample": 3, `, `{"resample": 3}`, "resample: it says 2, the model has 3"},
		"said anyway": {"video_sampling: linspace\nvideo_rotation: ignore\n", `"resample": 2, `, usual, ""},
		"nothing":     {"video_sampling: hf\nvideo_rotation: apply\n", `"resample": 3, `, `{"video_sampling": null, "resample": null}`, "doesn't hold"},
	} {
		dir := filepath.Join(t.TempDir(), "bundle")
		if err := (enginetest.VideoBundle{}).Write(dir); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "modelgate.yaml", c.settings)
		processor, err := os.ReadFile(filepath.Join(dir, "preprocessor_config.json"))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "preprocessor_config.json", strings.Replace(string(processor), "{", "{"+c.processor, 1))
		bothWays(t, dir, c.promised, o, func(got inference.Checked, err error) {
			if err != nil || !got.Contract {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		})
		if c.says != "" {
			bothWays(t, dir, usual, o, func(_ inference.Checked, err error) { wantBundleError(t, name, err, c.says) })
		}
	}
}

// A file that is there promises something.
func TestContractFilesThatAreNone(t *testing.T) {
	dir := writeBundle(t, enginetest.TextBundle{})
	writeFile(t, dir, "contract.json", "")
	_, err := examine(t, dir, inference.Options{})
	wantBundleError(t, "empty", err, "contract.json", "not JSON")
	dir = writeBundle(t, enginetest.TextBundle{})
	writeFile(t, dir, "contract.json/x", "")
	_, err = examine(t, dir, inference.Options{})
	wantBundleError(t, "a folder", err, "contract.json is no file")
}

func TestBadContracts(t *testing.T) {
	dir := writeBundle(t, enginetest.TextBundle{})
	for name, c := range map[string]struct{ contract, says string }{
		"not JSON":             {"hello \x00 world", "not JSON"},
		"an array":             {"[]", "no JSON object"},
		"a number":             {"7", "no JSON object"},
		"deep":                 {strings.Repeat(`{"inputs":`, 20_000), "not JSON"},
		"twice":                {`{"kind": "text", "kind": "video"}`, "twice"},
		"labels as text":       {`{"labels": "negative"}`, "labels"},
		"a label as a number":  {`{"labels": [1]}`, "labels"},
		"frames as text":       {`{"frames": "16"}`, "frames"},
		"sampling as a number": {`{"video_sampling": 1}`, "video_sampling"},
		"resample as text":     {`{"resample": "bicubic"}`, "resample"},
		"half a frame":         {`{"frames": 1.5}`, "frames"},
		"inputs as text":       {`{"inputs": "x"}`, "inputs"},
		"an input as text":     {`{"inputs": {"input_ids": "int64"}}`, "[type, dimensions] is needed"},
		"an input of three":    {`{"inputs": {"input_ids": ["tensor(int64)", [], 1]}}`, "[type, dimensions] is needed"},
		"a dimension as text":  {`{"inputs": {"input_ids": ["tensor(int64)", ["batch"]]}}`, "inputs"},
		"an input there twice": {`{"inputs": {"a": ["x", []], "a": ["x", []]}}`, "twice"},
	} {
		bothWays(t, dir, c.contract, inference.Options{}, func(_ inference.Checked, err error) {
			wantBundleError(t, name, err, c.says)
		})
	}
}
