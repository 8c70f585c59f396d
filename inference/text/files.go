package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The files of a bundle that this package reads.
const (
	tokenizerFile       = "tokenizer.json"        //nolint:gosec // a file name, not a credential
	tokenizerConfigFile = "tokenizer_config.json" //nolint:gosec // a file name, not a credential
	specialTokensFile   = "special_tokens_map.json"
	modelConfigFile     = "config.json"
)

// maxConfigSize is the size of the largest configuration file that is read. Those with thousands of added tokens have 1 MB.
const maxConfigSize = 16 << 20

// slowFiles are what tokenizers that are written in Python are saved as.
var slowFiles = [...]string{
	"sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "bpe.codes", "vocab.json", "vocab.txt", "merges.txt",
}

// findTokenizer says what is missing where dir has no tokenizer.json.
func findTokenizer(dir string) error {
	path := filepath.Join(dir, tokenizerFile)
	st, err := os.Stat(path)
	switch {
	case err == nil && st.Mode().IsRegular():
		return nil
	case err == nil:
		return fmt.Errorf("%s is not a file", path)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for %s: %w", tokenizerFile, err)
	}
	for _, name := range slowFiles {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return slowOnly(dir, name)
		}
	}
	return fmt.Errorf("%s: %s is missing; publish the tokenizer with the model: tokenizer.save_pretrained(folder)", dir, tokenizerFile)
}

func slowOnly(dir, name string) error {
	if name == "bpe.codes" {
		return fmt.Errorf("%s: %s is missing, there is only PhoBERT's %s; transformers can't convert that: "+
			"run tools/parity/phobert.py on the folder", dir, tokenizerFile, name)
	}
	return fmt.Errorf("%s: %s is missing, there is only the slow tokenizer's %s; save the fast tokenizer with "+
		"AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)", dir, tokenizerFile, name)
}

// readJSON reads a file of dir into v. A file that isn't there leaves v as it is.
func readJSON(dir, name string, v any) error {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if len(data) > maxConfigSize {
		return fmt.Errorf("%s is larger than %d MiB", f.Name(), maxConfigSize>>20)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}
