package faults_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"modelgate/inference/engine/enginetest"
)

// A trapped bundle is version n with a harm in its graph. Those where it waits for a word know trapWord, which no question holds.
const (
	trapWord = "trap"
	onWord   = 0
)

// trap writes version n, whose graph does a harm: on trapWord (onWord), on every text (enginetest.Always) or when it is loaded
// (enginetest.AtLoad).
func trap(n, at int, harm enginetest.Harm) func(dir string) error {
	return func(dir string) error {
		if err := (bundle{n: n}).write(dir); err != nil {
			return err
		}
		id := len(enginetest.Words()) + 2
		if err := addWord(filepath.Join(dir, "tokenizer.json"), trapWord, id); err != nil {
			return err
		}
		if at == onWord {
			at = id
		}
		return enginetest.Trap(id+1, seed, float32(step*float64(n)), at, harm).WriteFile(filepath.Join(dir, "model.onnx"))
	}
}

// addWord gives a word of its own to the word-level tokenizer at path.
func addWord(path, word string, id int) error {
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	last := enginetest.Words()[len(enginetest.Words())-1]
	before := []byte(fmt.Sprintf("%q: %d", last, id-1))
	if bytes.Count(whole, before) != 1 {
		return fmt.Errorf("%s doesn't hold %s once", path, before)
	}
	return os.WriteFile(path, bytes.Replace(whole, before, fmt.Appendf(before, ", %q: %d", word, id), 1), 0o600)
}

// models is the folder that the bed's gateways serve, for rows without a registry.
func (b *bed) models() string { return filepath.Join(b.dir, "models") }

// publish makes version n appear in the folder of models, whole. write makes its files; the F1 grows with n.
func (b *bed) publish(n int, write func(dir string) error) {
	b.t.Helper()
	if err := publishIn(b.models(), n, write); err != nil {
		b.t.Fatal(err)
	}
}

func publishIn(models string, n int, write func(dir string) error) error {
	tmp := filepath.Join(models, "text", ".next")
	if err := os.MkdirAll(filepath.Dir(tmp), 0o750); err != nil {
		return err
	}
	if err := write(tmp); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "metrics.json"), fmt.Appendf(nil, `{"eval_f1": %v}`, 0.8+float64(n)/1000), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(models, "text", strconv.Itoa(n)))
}

// spoil writes version n with one of its files replaced.
func spoil(n int, file string, change func(whole []byte) []byte) func(dir string) error {
	return func(dir string) error {
		if err := (bundle{n: n}).write(dir); err != nil {
			return err
		}
		path := filepath.Join(dir, file)
		whole, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		return os.WriteFile(path, change(whole), 0o600)
	}
}

// with is for spoil: a file of that content.
func with(content string) func([]byte) []byte {
	return func([]byte) []byte { return []byte(content) }
}
