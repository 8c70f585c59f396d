package text_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"modelgate/inference/text"
	"modelgate/inference/text/hf"
)

const parityDir = "testdata/parity"

// families are the folders of testdata/parity, each a tokenizer as it is published.
var families = [...]string{"xlmr", "phobert", "bert", "roberta"}

// TestParity compares the ids of thousands of texts with those of Python's transformers, written by tools/parity.
func TestParity(t *testing.T) {
	strings := readLines[string](t, filepath.Join(parityDir, "strings.jsonl.gz"))
	if len(strings) < 3000 {
		t.Fatalf("%d texts, want at least 3000", len(strings))
	}
	for _, family := range families {
		dir := filepath.Join(parityDir, family)
		want := readLines[map[string][]int64](t, filepath.Join(dir, "ids.jsonl.gz"))
		if len(want) != len(strings) {
			t.Fatalf("%s: %d rows of ids for %d texts; run `make parity`", family, len(want), len(strings))
		}
		pool := hf.NewPool()
		whole := unlimited(t, dir)
		for _, mode := range []struct {
			name string
			dir  string
			o    text.Options
		}{
			{"none", whole, text.Options{}},
			{"16", dir, text.Options{MaxLength: 16}},
			{"128", dir, text.Options{MaxLength: 128}},
			{"bundle", dir, text.Options{}},
			{"left16", edited(t, dir, "tokenizer_config.json", "truncation_side", "left"), text.Options{MaxLength: 16}},
			{"text", whole, text.Options{SpecialAsText: true}},
		} {
			t.Run(family+"/"+mode.name, func(t *testing.T) {
				mode.o.Tokenizers = pool
				mode.o.MaxBytes = 1 << 20
				compare(t, open(t, mode.dir, mode.o), mode.name, strings, want)
			})
		}
	}
}

func compare(t *testing.T, e *text.Encoder, mode string, texts []string, want []map[string][]int64) {
	t.Helper()
	wrong := 0
	for i, s := range texts {
		ids, differs := want[i][mode]
		if !differs {
			ids = want[i]["none"]
		}
		got, err := e.Encode(s)
		if err != nil {
			t.Fatalf("text %d %.60q: %v", i, s, err)
		}
		truncated := e.MaxLength() != 0 && len(want[i]["none"]) > e.MaxLength()
		switch {
		case !slices.Equal(got.IDs, ids):
			wrong++
			if wrong <= 5 {
				t.Errorf("text %d %.60q: ids %v, transformers has %v", i, s, head(got.IDs), head(ids))
			}
		case got.Truncated != truncated:
			t.Errorf("text %d %.60q: truncated is %v", i, s, got.Truncated)
		case len(got.Mask) != len(ids) || slices.Contains(got.Mask, 0):
			t.Errorf("text %d %.60q: mask %v", i, s, got.Mask)
		case len(got.TypeIDs) != len(ids) || slices.Max(got.TypeIDs) != 0:
			t.Errorf("text %d %.60q: type ids %v", i, s, got.TypeIDs)
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d texts have other ids than in transformers", wrong, len(texts))
	}
}

func head(ids []int64) []int64 { return ids[:min(len(ids), 30)] }

func readLines[T any](t *testing.T, path string) []T {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatalf("%v; run `make parity` to make the fixtures", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var rows []T
	in := bufio.NewScanner(z)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var row T
		if err := json.Unmarshal(in.Bytes(), &row); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		rows = append(rows, row)
	}
	if err := in.Err(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return rows
}

func open(t *testing.T, dir string, o text.Options) *text.Encoder {
	t.Helper()
	e, err := text.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// unlimited is a copy of dir without a maximum length.
func unlimited(t *testing.T, dir string) string {
	t.Helper()
	dir = edited(t, dir, "config.json", "max_position_embeddings", nil)
	return edited(t, dir, "tokenizer_config.json", "model_max_length", 1e30) // as transformers writes "none"
}

// edited is a copy of dir in which a key of a JSON file has another value.
func edited(t *testing.T, dir, file, key string, value any) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(to, file)
	object := map[string]any{}
	if data, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(data, &object); err != nil {
			t.Fatal(err)
		}
	}
	object[key] = value
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}
