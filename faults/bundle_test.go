package faults_test

import (
	"math"
	"os"
	"path/filepath"

	"modelgate/inference/engine/enginetest"
)

// Version n of the text model adds n steps to the logit of the other label. So an answer tells which version gave it, whatever
// it says about that itself.
const (
	step = 0.25
	seed = 7
)

// A bundle is version n's folder. extra are files beside it, by name.
type bundle struct {
	n     int
	extra map[string][]byte
}

// write makes the bundle in dir, which it creates.
func (b bundle) write(dir string) error {
	if err := (enginetest.TextBundle{Seed: seed, Shift: float32(step * float64(b.n))}).Write(dir); err != nil {
		return err
	}
	files := map[string][]byte{"modelgate.yaml": []byte("positive_label: positive\n")}
	for name, content := range b.extra {
		files[name] = content
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// files are the bundle's files by name.
func (b bundle) files(dir string) (map[string][]byte, error) {
	if err := b.write(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// questions are texts of one word each, with what version 0 makes of them.
func questions() (texts []string, logits []float64) {
	words := enginetest.Words()
	weights := enginetest.Random(seed, 2*(len(words)+2)) // a row of two for each word, after those of [PAD] and [UNK]
	for i, w := range words {
		texts = append(texts, w)
		logits = append(logits, float64(weights[2*i+5])-float64(weights[2*i+4]))
	}
	return texts, logits
}

// giver is the version that gave a score to a question of that logit, or -1 if none did.
func giver(logit, score float64) int {
	steps := (logit - math.Log(score/(1-score))) / step
	n := math.Round(steps)
	if math.IsNaN(steps) || n < 0 || math.Abs(steps-n) > 0.01 {
		return -1
	}
	return int(n)
}
