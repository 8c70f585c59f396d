package inference_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"modelgate/inference"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/video"
)

type object = map[string]any

// goldenLine is what a publisher writes of in for the model in dir, opened as the bundle says.
func goldenLine(t testing.TB, dir string, decoder *video.Decoder, in inference.Input) object {
	t.Helper()
	m := openModel(t, dir, inference.Options{Decoder: decoder})
	p, err := m.Predict(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	request, scores := object{}, object{}
	if in.Text != nil {
		request["text"] = *in.Text
	}
	if v := in.Video; v != nil && v.Images != nil {
		var images []string
		for _, b := range v.Images {
			images = append(images, base64.StdEncoding.EncodeToString(b))
		}
		request["video"] = object{"frames": object{"images": images}}
	} else if v != nil {
		request["video"] = object{"raw": object{"rgb": base64.StdEncoding.EncodeToString(v.Raw.RGB), "width": v.Raw.Width, "height": v.Raw.Height}}
	}
	for _, c := range p.Classes {
		scores[c.Label] = c.Score
	}
	return object{"request": request, "scores": scores, "tolerance": 1e-4}
}

func writeGolden(t testing.TB, dir string, lines ...object) {
	t.Helper()
	var b strings.Builder
	for _, l := range lines {
		line, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	writeFile(t, dir, "golden.jsonl", b.String())
}

// longText has more than a TextBundle's 64 tokens, and the score of its beginning depends on where it is cut.
func longText() string { return strings.Repeat(strings.Join(enginetest.Words(), " ")+" ", 4) }

// goldenText is a bundle with three golden answers.
func goldenText(t testing.TB) (dir string, lines []object) {
	t.Helper()
	dir = writeBundle(t, enginetest.TextBundle{Seed: 1})
	for _, s := range []string{"a good film", "awful", longText()} {
		lines = append(lines, goldenLine(t, dir, nil, input(s)))
	}
	writeGolden(t, dir, lines...)
	return dir, lines
}

func examine(t testing.TB, dir string, o inference.Options) (inference.Checked, error) {
	t.Helper()
	return openModel(t, dir, o).Examine(t.Context())
}

// The gateway's own settings are none of the publisher's business.
func TestGoldenAnswersHold(t *testing.T) {
	dir, _ := goldenText(t)
	high := 0.99
	for name, o := range map[string]inference.Options{
		"as published":       {},
		"cut shorter":        {MaxLength: 4},
		"special as text":    {SpecialAsText: true},
		"short texts only":   {MaxTextBytes: 100},
		"another decision":   {PositiveLabel: "negative", Threshold: &high},
		"one at a time":      {MaxBatch: 1, Workers: 1, MaxQueue: 1},
		"with its tokenizer": {MaxLength: 8, SpecialAsText: true, MaxTextBytes: 1 << 20},
	} {
		c, err := examine(t, dir, o)
		if err != nil || c.Examples != 3 || c.Largest > 1e-6 || c.Contract {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if c, err := examine(t, writeBundle(t, enginetest.TextBundle{}), inference.Options{}); err != nil || c != (inference.Checked{}) {
		t.Errorf("without golden answers: %+v, %v", c, err)
	}
}

func TestGoldenClipsHold(t *testing.T) {
	decoder := newDecoder(t)
	for name, c := range map[string]struct {
		bundle enginetest.VideoBundle
		inputs []inference.Input
	}{
		"video":  {enginetest.VideoBundle{}, []inference.Input{{Video: plain(red, 4)}, {Video: pictures(t, blue, 3)}}},
		"fusion": {enginetest.VideoBundle{Fusion: true, Seed: 3}, []inference.Input{{Text: new(string), Video: plain(red, 4)}, {Text: input("good").Text, Video: pictures(t, blue, 4)}}},
	} {
		dir := filepath.Join(t.TempDir(), "bundle")
		if err := c.bundle.Write(dir); err != nil {
			t.Fatal(err)
		}
		var lines []object
		for _, in := range c.inputs {
			lines = append(lines, goldenLine(t, dir, decoder, in))
		}
		writeGolden(t, dir, lines...)
		got, err := examine(t, dir, inference.Options{Decoder: decoder})
		if err != nil || got.Examples != 2 || got.Largest > 1e-6 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		// The second clip is told to be like the first.
		lines[1]["scores"] = lines[0]["scores"]
		writeGolden(t, dir, lines...)
		_, err = examine(t, dir, inference.Options{Decoder: decoder})
		wantBundleError(t, name, err, "1 of 2 golden answers", "line 2", "images")
	}
}

func wantBundleError(t testing.TB, name string, err error, says ...string) {
	t.Helper()
	if !errors.Is(err, inference.ErrBundle) {
		t.Errorf("%s: %v, want ErrBundle", name, err)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: %q doesn't say %q", name, err, s)
		}
	}
	if len(err.Error()) > 2000 || errors.Is(err, inference.ErrInput) {
		t.Errorf("%s: %d bytes, or a caller's fault: %v", name, len(err.Error()), err)
	}
}

// The error says which example, which label, what was expected and what came out.
func TestGoldenAnswersThatDiffer(t *testing.T) {
	scores := func(l object) object { return l["scores"].(object) }
	score := func(l object, label string) float64 { return scores(l)[label].(float64) }
	for name, c := range map[string]struct {
		edit func(t *testing.T, dir string, lines []object)
		says func(lines []object) []string
	}{
		"one score": {func(_ *testing.T, _ string, lines []object) {
			scores(lines[1])["positive"] = score(lines[1], "positive") - 0.125
		}, func(lines []object) []string {
			want := score(lines[1], "positive")
			return []string{"1 of 3 golden answers", `line 2, the text "awful"`, `label "positive"`, fmt.Sprintf("should have the score %.6f and has %.6f", want, want+0.125),
				"difference of 0.125", "tolerance 0.0001"}
		}},
		"the farthest is told": {func(_ *testing.T, _ string, lines []object) {
			scores(lines[0])["negative"] = score(lines[0], "negative") + 0.001
			scores(lines[2])["negative"] = score(lines[2], "negative") - 0.002
		}, func([]object) []string { return []string{"2 of 3", "line 3", `"good bad great`, `..."`, "0.002"} }},
		"another graph": {func(t *testing.T, dir string, _ []object) {
			g := enginetest.LinearText(len(enginetest.Words())+2, 2, 1, 0.5)
			writeFile(t, dir, "model.onnx", string(g.Bytes()))
		}, func([]object) []string { return []string{"of 3 golden answers", "on this machine"} }},
		"a tokenizer that differs": {func(t *testing.T, dir string, _ []object) {
			b, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir, "tokenizer.json", strings.Replace(string(b), `"awful"`, `"Awful"`, 1))
		}, func([]object) []string { return []string{"2 of 3", "line 2"} }},
		"another length": {func(t *testing.T, dir string, _ []object) {
			writeFile(t, dir, "modelgate.yaml", "max_length: 32")
		}, func([]object) []string { return []string{"1 of 3", "line 3"} }},
		"within a larger tolerance": {func(_ *testing.T, _ string, lines []object) {
			scores(lines[1])["positive"] = score(lines[1], "positive") - 0.01
			lines[1]["tolerance"] = 0.02
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir, lines := goldenText(t)
			c.edit(t, dir, lines)
			writeGolden(t, dir, lines...)
			got, err := examine(t, dir, inference.Options{})
			if c.says == nil {
				if err != nil || got.Largest < 0.0099 || got.Largest > 0.0101 {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			wantBundleError(t, name, err, c.says(lines)...)
		})
	}
}

func TestBadGoldenFiles(t *testing.T) {
	const good = `{"request": {"text": "good"}, "scores": {"negative": 0.5, "positive": 0.5}, "tolerance": 0.1}`
	line := func(request, scores, tolerance string) string {
		return fmt.Sprintf(`{"request": %s, "scores": %s, "tolerance": %s}`, request, scores, tolerance)
	}
	const text, scores = `{"text": "good"}`, `{"negative": 0.5, "positive": 0.5}`
	for name, c := range map[string]struct {
		content string
		says    []string
	}{
		"empty":                  {"", []string{"no example"}},
		"blank lines":            {"\n \n", []string{"no example"}},
		"not JSON":               {good + "\nhello\n", []string{"line 2", "not JSON"}},
		"cut off":                {good[:40], []string{"line 1", "not JSON"}},
		"two values":             {good + good, []string{"not JSON"}},
		"not UTF-8":              {line("{\"text\": \"\xff\"}", scores, "0.01"), []string{"not JSON"}},
		"an array":               {"[1]", []string{"no JSON object"}},
		"deep":                   {strings.Repeat("[", 1<<20), []string{"not JSON"}},
		"NaN":                    {line(text, `{"negative": NaN, "positive": 0.5}`, "0.01"), []string{"not JSON"}},
		"huge":                   {line(text, `{"negative": 1e999, "positive": 0.5}`, "0.01"), []string{"scores"}},
		"above one":              {line(text, `{"negative": 1.5, "positive": 0.5}`, "0.01"), []string{`"negative" has 1.5`}},
		"a score as text":        {line(text, `{"negative": "0.5", "positive": 0.5}`, "0.01"), []string{`"negative"`, "string"}},
		"a score of null":        {line(text, `{"negative": null, "positive": 0.5}`, "0.01"), []string{`"negative"`, "missing"}},
		"no tolerance":           {`{"request": {"text": "good"}, "scores": {}}`, []string{"tolerance", "missing"}},
		"tolerance of zero":      {line(text, scores, "0"), []string{"tolerance is 0"}},
		"negative tolerance":     {line(text, scores, "-0.1"), []string{"tolerance is -0.1"}},
		"tolerance for anything": {line(text, scores, "1"), []string{"at most 0.1"}},
		"no request":             {`{"scores": {}, "tolerance": 0.1}`, []string{"request"}},
		"unknown field":          {strings.Replace(good, `"tolerance"`, `"limit": 1, "tolerance"`, 1), []string{`unknown field "limit"`}},
		"wrong case":             {strings.Replace(good, `"text"`, `"Text"`, 1), []string{`unknown field "Text"`}},
		"twice":                  {strings.Replace(good, `"tolerance"`, `"tolerance": 0.01, "tolerance"`, 1), []string{"twice"}},
		"a label twice":          {line(text, `{"negative": 0.1, "negative": 0.5, "positive": 0.5}`, "0.1"), []string{"twice"}},
		"a label too few":        {line(text, `{"negative": 0.5}`, "0.1"), []string{"lack", "positive"}},
		"a label too many":       {line(text, `{"negative": 0.5, "positive": 0.5, "other": 0}`, "0.1"), []string{"other"}},
		"other labels":           {line(text, `{"0": 0.5, "1": 0.5}`, "0.1"), []string{"negative"}},
		"an empty text":          {line(`{"text": ""}`, scores, "0.1"), []string{"doesn't take this example", "empty"}},
		"no input":               {line(`{}`, scores, "0.1"), []string{"doesn't take this example", "an empty request"}},
		"a clip":                 {line(`{"video": {"clip": "AAAA"}}`, scores, "0.1"), []string{"takes text only"}},
		"a reference":            {line(`{"video": {"uri": "s3://a/b"}}`, scores, "0.1"), []string{`unknown field "uri"`}},
		"two clips":              {line(`{"video": {"clip": "AAAA", "frames": {"images": []}}}`, scores, "0.1"), []string{"exactly one"}},
		"no base64":              {line(`{"video": {"clip": "%"}}`, scores, "0.1"), []string{"video"}},
		"raw without pixels":     {line(`{"video": {"raw": {"width": 1, "height": 1}}}`, scores, "0.1"), []string{"missing"}},
		"text as a number":       {line(`{"text": 7}`, scores, "0.1"), []string{"text", "number"}},
		"text of null":           {line(`{"text": null}`, scores, "0.1"), []string{"text", "missing"}},
		"a long text":            {line(`{"text": "`+strings.Repeat("good ", 20_000)+`"}`, scores, "0.1"), []string{"too long"}},
		"a long line":            {strings.Repeat(" ", 33<<20), []string{"line 1", "32 MiB"}},
		"a long file":            {strings.Repeat(strings.Repeat(" ", 1<<20)+"\n", 65), []string{"64 MiB"}},
		"too many scores":        {line(text, "{"+numbered(`"%d": 0`, 100_001)+"}", "0.1"), []string{"more than 100000 fields"}},
		"too many images":        {line(`{"video": {"frames": {"images": [`+numbered(`"%d"`, 100_001)+`]}}}`, scores, "0.1"), []string{"more than 100000 images"}},
		"too many":               {strings.Repeat(line(text, scores, "0.1")+"\n", 1001), []string{"1000"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeBundle(t, enginetest.TextBundle{})
			g := enginetest.LinearText(len(enginetest.Words())+2, 2, 1, 0)
			writeFile(t, dir, "model.onnx", string(g.Bytes()))
			if name == "too many" { // each of them holds
				writeFile(t, dir, "model.onnx", string(shape{tail: zero}.graph().Bytes()))
			}
			writeFile(t, dir, "golden.jsonl", c.content)
			got, err := examine(t, dir, inference.Options{})
			wantBundleError(t, name, err, append(c.says, "golden.jsonl")...)
			if got != (inference.Checked{}) {
				t.Errorf("%+v beside an error", got)
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		dir := writeBundle(t, enginetest.TextBundle{})
		writeFile(t, dir, "golden.jsonl/x", "")
		_, err := examine(t, dir, inference.Options{})
		wantBundleError(t, "a folder", err, "is no file")
	})
}

func numbered(format string, n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ",")
}

// What isn't the bundle's fault isn't put down to it: the version is tried again.
func TestCheckThatIsCutOff(t *testing.T) {
	dir, _ := goldenText(t)
	m := openModel(t, dir, inference.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Check(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, inference.ErrBundle) {
		t.Errorf("%v", err)
	}
	clips := filepath.Join(t.TempDir(), "clips")
	if err := (enginetest.VideoBundle{}).Write(clips); err != nil {
		t.Fatal(err)
	}
	decoder := newDecoder(t)
	writeGolden(t, clips, goldenLine(t, clips, decoder, inference.Input{Video: plain(red, 4)}))
	m = openModel(t, clips, inference.Options{Decoder: decoder})
	if err := m.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := decoder.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Check(t.Context()); !errors.Is(err, inference.ErrClosed) || errors.Is(err, inference.ErrBundle) {
		t.Errorf("%v", err)
	}
}

// An ffmpeg that the machine keeps from running says nothing of the bundle: the version is tried again.
func TestCheckThatTheMachineFails(t *testing.T) {
	dir, program := filepath.Join(t.TempDir(), "bundle"), filepath.Join(t.TempDir(), "ffmpeg")
	if err := (enginetest.VideoBundle{}).Write(dir); err != nil {
		t.Fatal(err)
	}
	broken := "#!/bin/sh\n[ \"$1\" = -version ] && echo ffmpeg version 0 && exit\nexit 126\n"
	if err := os.WriteFile(program, []byte(broken), 0o700); err != nil {
		t.Fatal(err)
	}
	decoder, err := video.NewDecoder(video.DecoderOptions{FFmpeg: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = decoder.Close() })
	gif := base64.StdEncoding.EncodeToString([]byte("GIF89a and what follows"))
	writeGolden(t, dir, object{"request": object{"video": object{"clip": gif}}, "scores": object{"negative": 0.5, "positive": 0.5}, "tolerance": 0.1})
	_, err = examine(t, dir, inference.Options{Decoder: decoder})
	if err == nil || !strings.Contains(err.Error(), "exit status 126") || errors.Is(err, inference.ErrBundle) {
		t.Errorf("%v, want the exit status, and not ErrBundle", err)
	}
}

// A golden answer may take long because others have the processors.
func TestCheckWithASlowRun(t *testing.T) {
	dir, lines := goldenText(t)
	writeGolden(t, dir, lines...)
	if _, err := examine(t, dir, inference.Options{MaxRun: time.Nanosecond}); !errors.Is(err, inference.ErrSlowRun) || errors.Is(err, inference.ErrBundle) {
		t.Errorf("%v, want ErrSlowRun, and not ErrBundle", err)
	}
}

// A check that would never end is the bundle's fault: trying again would be as long. One that its caller ends isn't.
func TestCheckIsBounded(t *testing.T) {
	dir, lines := goldenText(t)
	writeGolden(t, dir, lines...)
	m := openModel(t, dir, inference.Options{MaxCheck: time.Nanosecond})
	if err := m.Check(t.Context()); !errors.Is(err, inference.ErrBundle) || !strings.Contains(err.Error(), "longer than is allowed") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Check(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, inference.ErrBundle) {
		t.Errorf("got %v", err)
	}
}
