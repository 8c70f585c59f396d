package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"modelgate/examples"
	"modelgate/inference/engine/enginetest"
)

// A bundleKind writes versions of one sort of bundle.
type bundleKind struct {
	name  string
	write func(dir string, n int) error // n counts from 1
}

// exampleBundle alternates between the two committed versions of the text model.
func exampleBundle() bundleKind {
	return bundleKind{name: "examples/models/text", write: func(dir string, n int) error {
		bundle, err := fs.Sub(examples.Models(), fmt.Sprintf("text/%d", 1+n%2))
		if err != nil {
			return err
		}
		if err := os.CopyFS(dir, bundle); err != nil {
			return err
		}
		// Each copy gets an F1 of its own, which the manifest doesn't know. Without one the cache computes the same digests.
		return os.Remove(filepath.Join(dir, "manifest.json"))
	}}
}

// largeBundle has a table of 80,000 rows by 64 numbers, 20 MB.
func largeBundle() bundleKind {
	const rows, classes = 80_000, 64
	labels := strings.Fields(strings.Repeat("label ", classes))
	for i := range labels {
		labels[i] = fmt.Sprintf("label%d", i)
	}
	graphs := map[int][]byte{} // two, made once: making them is no part of a swap
	return bundleKind{name: "a graph with a large table", write: func(dir string, n int) error {
		if err := (enginetest.TextBundle{Labels: labels}).Write(dir); err != nil {
			return err
		}
		seed := n % 2
		if graphs[seed] == nil {
			graphs[seed] = enginetest.LinearText(rows, classes, uint64(seed), 0).Bytes()
		}
		return os.WriteFile(filepath.Join(dir, "model.onnx"), graphs[seed], 0o600)
	}}
}

// add publishes version n below models, whole, with an F1 that is better than that of n-1.
func (b bundleKind) add(models string, n int) error {
	staged := filepath.Join(models, "text", ".staged")
	if err := b.write(staged, n); err != nil {
		return err
	}
	f1 := fmt.Appendf(nil, `{"eval_f1": %.6f}`, 0.5+float64(n)*1e-5)
	if err := os.WriteFile(filepath.Join(staged, "metrics.json"), f1, 0o600); err != nil {
		return err
	}
	return os.Rename(staged, filepath.Join(models, "text", fmt.Sprint(n)))
}

// size is the number of bytes in version n.
func (b bundleKind) size(models string, n int) (total int64, err error) {
	err = filepath.WalkDir(filepath.Join(models, "text", fmt.Sprint(n)), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
