package inference_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"modelgate/inference"
)

func readLines[T any](t *testing.T, path string) []T {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []T
	scan := bufio.NewScanner(z)
	scan.Buffer(nil, 8<<20)
	for scan.Scan() {
		var v T
		if err := json.Unmarshal(scan.Bytes(), &v); err != nil {
			t.Fatalf("%s: line %d: %v", path, len(out)+1, err)
		}
		out = append(out, v)
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// The scores of a small transformer over thousands of texts are those that transformers' tokenizers and ONNX Runtime gave in
// Python, one text at a time, though many texts are here at once and share runs.
func TestScoreParity(t *testing.T) {
	parity := filepath.Join("text", "testdata", "parity")
	texts := readLines[string](t, filepath.Join(parity, "strings.jsonl.gz"))
	for _, family := range []string{"xlmr", "phobert", "bert", "roberta"} {
		t.Run(family, func(t *testing.T) {
			want := readLines[float64](t, filepath.Join("testdata", "transformer", family+".jsonl.gz"))
			if len(want) != len(texts) || len(texts) < 3000 {
				t.Fatalf("%d scores for %d texts: run inference/testdata/make.py", len(want), len(texts))
			}
			dir := t.TempDir()
			for _, from := range []string{filepath.Join(parity, family), filepath.Join("testdata", "transformer")} {
				if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
					t.Fatal(err)
				}
			}
			m := openModel(t, dir, inference.Options{MaxTextBytes: 1 << 20})
			compareScores(t, m, texts, want)
		})
	}
}

func compareScores(t *testing.T, m *inference.Model, texts []string, want []float64) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards worst, refused
	worst, refused := 0.0, 0
	const callers = 16
	for c := range callers {
		wg.Go(func() {
			for i := c; i < len(texts); i += callers {
				p, err := m.Predict(t.Context(), input(texts[i]))
				blank := strings.TrimSpace(texts[i]) == ""
				if blank != errors.Is(err, inference.ErrInput) || !blank && err != nil {
					t.Errorf("text %d %.60q: %v", i, texts[i], err)
				}
				mu.Lock()
				if err != nil {
					refused++
				} else {
					worst = max(worst, math.Abs(scoresOf(p, "LABEL_1")[0]-want[i]))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if worst > 1e-4 {
		t.Errorf("the worst score is off by %v", worst)
	}
	t.Logf("%d texts, %d refused as empty, worst difference %.1g", len(texts), refused, worst)
}
