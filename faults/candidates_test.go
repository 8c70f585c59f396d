package faults_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"modelgate/inference/engine/enginetest"
	modelgatev1 "modelgate/proto/modelgate/v1"
)

// A candidate is a version that must not come to serve. Where it says how, its failure has to name that.
type candidate struct {
	fault, how string
	write      func(n int) func(dir string) error
	says       string
}

// loadTimeout is how long the gateways of these rows let a candidate load, and warm up.
const loadTimeout = "4s"

func graphFile(n int, content string) func(string) error {
	return spoil(n, "model.onnx", with(content))
}

// candidates are the hostile versions, in the order of the numbers that they get.
func candidates() []candidate {
	type harm = enginetest.Harm
	trapped := func(at int, h harm) func(int) func(string) error {
		return func(n int) func(string) error { return trap(n, at, h) }
	}
	return []candidate{
		{"an ONNX file that is cut off", "half of its bytes", func(n int) func(string) error {
			return spoil(n, "model.onnx", func(whole []byte) []byte { return whole[:len(whole)/2] })
		}, "model.onnx"},
		{"garbage for an ONNX file", "4 KB of any bytes", func(n int) func(string) error {
			return graphFile(n, strings.Repeat("\x08\x07\xff\xfe garbage \x00", 300))
		}, "model.onnx"},
		{"HTML for an ONNX file", "a page of a proxy that wants a log-in", func(n int) func(string) error {
			return graphFile(n, "<!doctype html><html><body><h1>Sign in</h1></body></html>")
		}, "model.onnx"},
		{"a Git LFS pointer for an ONNX file", "three lines of text", func(n int) func(string) error {
			return graphFile(n, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n")
		}, "model.onnx"},
		{"a graph with other inputs", "one input of 16 numbers", func(n int) func(string) error {
			return graphFile(n, string(enginetest.MLP(16, 8, 2, 1).Bytes()))
		}, "input"},
		{"a graph that answers NaN", "the root of a negative number, on every text", trapped(enginetest.Always, enginetest.TurnsNaN), "NaN"},
		{"a graph that always answers the same", "weights that count for nothing; golden answers that say otherwise", func(n int) func(string) error {
			return golden(n, trap(n, enginetest.Always, enginetest.Forgets))
		}, "golden answers don't come out"},
		{"golden answers that don't come out", "the answers of another version", func(n int) func(string) error {
			return golden(n+4, bundle{n: n}.write)
		}, "golden answers don't come out"},
		{"other labels", "no and positive for negative and positive", func(n int) func(string) error {
			return spoil(n, "config.json", func(whole []byte) []byte { return bytes.Replace(whole, []byte("negative"), []byte("no"), 1) })
		}, "labels"},
		{"a graph that is slow", "a Loop of 1,500 rounds on every text, where a version may take twenty times as long as the one that serves", trapped(enginetest.Always, enginetest.Takes(1500)),
			"max_slowdown"},
		{"a graph that takes minutes to load", "constants that the optimizer multiplies: 8 products of 8000 x 8000", trapped(enginetest.AtLoad, enginetest.Multiplies(8000)), ""},
		{"an endless loop in every run", "a Loop whose condition stays true", trapped(enginetest.Always, enginetest.Loops), ""},
		{"nested functions", "two kilobytes that expand to 2^26 nodes", func(n int) func(string) error {
			return graphFile(n, string(enginetest.NestedText(len(enginetest.Words())+2)))
		}, "function"},
		{"a graph that allocates terabytes when it is loaded", "ConstantOfShape of 2^40 numbers", trapped(enginetest.AtLoad, enginetest.Allocates(1<<40)), ""},
		{"a graph that allocates terabytes in every run", "ConstantOfShape of 2^40 numbers", trapped(enginetest.Always, enginetest.Allocates(1<<40)), ""},
		{"INT_MIN / -1 when it is loaded", "a division of constants", trapped(enginetest.AtLoad, enginetest.Divides), "SIGFPE"},
		{"INT_MIN / -1 at the warm-up", "a division in every run", trapped(enginetest.Always, enginetest.Divides), "SIGFPE"},
		{"a tokenizer that is no JSON", "half of its bytes", func(n int) func(string) error {
			return spoil(n, "tokenizer.json", func(whole []byte) []byte { return whole[:len(whole)/2] })
		}, "tokenizer.json"},
		{"a tokenizer with arrays in arrays", "100,000 brackets", func(n int) func(string) error {
			return spoil(n, "tokenizer.json", with(strings.Repeat("[", 100000)))
		}, "tokenizer.json"},
		{"a tokenizer that makes 2^40 characters of one", "40 replacements that double it", func(n int) func(string) error {
			double := `{"type": "Replace", "pattern": {"String": "\u00a7"}, "content": "\u00a7\u00a7"},`
			return spoil(n, "tokenizer.json", func(whole []byte) []byte {
				return bytes.Replace(whole, []byte(`{"type": "Lowercase"}`), []byte(`{"type": "Sequence", "normalizers": [`+strings.Repeat(double, 40)+`{"type": "Lowercase"}]}`), 1)
			})
		}, "times as long"},
		{"a tokenizer whose ids the graph doesn't know", "an id above the vocabulary", func(n int) func(string) error {
			return spoil(n, "tokenizer.json", func(whole []byte) []byte {
				return []byte(strings.ReplaceAll(string(whole), `"[UNK]": 1`, `"[UNK]": 1000000`))
			})
		}, ""},
	}
}

// scoreOf is the score that version n gives a question of that logit.
func scoreOf(n int, logit float64) float64 { return 1 / (1 + math.Exp(step*float64(n)-logit)) }

// golden writes a bundle with the answers that version n gives.
func golden(n int, write func(string) error) func(string) error {
	return func(dir string) error {
		if err := write(dir); err != nil {
			return err
		}
		var lines []string
		texts, logits := questions()
		for i, text := range texts {
			score := scoreOf(n, logits[i])
			line, err := json.Marshal(map[string]any{"request": map[string]string{"text": text}, "tolerance": 1e-3, "scores": map[string]float64{"negative": 1 - score, "positive": score}})
			if err != nil {
				return err
			}
			lines = append(lines, string(line))
		}
		return os.WriteFile(filepath.Join(dir, "golden.jsonl"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	}
}

// A version that is at fault is published while another serves, under load: callers notice nothing, and it never answers.
func TestHostileVersions(t *testing.T) {
	first := begin(t, row{"graphs", "a version that is as it should be", "it serves", "the same way as the hostile ones"})
	first.env = append(first.env, "MODELGATE_LOAD_TIMEOUT="+loadTimeout, "MODELGATE_KEEP_PREVIOUS=100ms", "MODELGATE_MODELS_TEXT_MAX_SLOWDOWN=20")
	first.publish(1, bundle{n: 1}.write)
	g := first.start("--models", first.models())
	g.serves(1)
	first.ask(g)
	first.during(func() {
		first.publish(2, golden(2, bundle{n: 2}.write))
		g.serves(2)
		first.answeredBy(2)
	})
	first.onlyBy(1, 2)
	g.alone()
	before := g.level()
	for i, c := range candidates() {
		t.Run(strings.ReplaceAll(c.fault, " ", "_"), func(t *testing.T) {
			b := begin(t, row{"graphs", c.fault, "it is refused; the one that serves answers", c.how})
			defer g.reportTo(t)()
			n := i + 3
			b.ask(g)
			b.during(func() {
				if err := publishIn(first.models(), n, c.write(n)); err != nil {
					t.Fatal(err)
				}
				d := g.refused(n)
				b.note("%s: %s", d.GetCode(), shorten(d.GetReason()))
				t.Log(b.out.note)
				if !strings.Contains(d.GetReason(), c.says) {
					t.Errorf("refused because of %q, want %q in it", d.GetReason(), c.says)
				}
			})
			b.onlyBy(2)
			b.level(g, before)
		})
	}
}

// refused waits until version n is known to have failed, for good or for now.
func (g *gateway) refused(n int) *modelgatev1.LedgerEntry {
	g.t.Helper()
	var d *modelgatev1.LedgerEntry
	g.await(fmt.Sprintf("the refusal of version %d", n), func(m *modelgatev1.Model) bool {
		d = m.GetLastDecision()
		return d.GetCandidate().GetVersion() == fmt.Sprint(n) && d.GetCode() != "" && m.GetActive().GetVersion() != fmt.Sprint(n)
	})
	return d
}

// reportTo has the gateway fail another test than the one that started it, until the function that it returns is called.
func (g *gateway) reportTo(t *testing.T) func() {
	old := g.t
	g.t = t
	return func() { g.t = old }
}

// shorten makes a reason fit a cell of the table: without the folders in it, and not too long.
func shorten(s string) string {
	const most = 160
	s = regexp.MustCompile(`(open )?/[^ :]*/files/?:? ?`).ReplaceAllString(s, "")
	s = strings.NewReplacer("|", "/", "\n", " ", "the bundle can't be served: ", "").Replace(s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
