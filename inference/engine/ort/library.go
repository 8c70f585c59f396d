package ort

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// LibraryName is the file name of ONNX Runtime's library on this system.
func LibraryName() string {
	if runtime.GOOS == "darwin" {
		return "libonnxruntime.dylib"
	}
	return "libonnxruntime.so"
}

// FindLibrary says which library to load: explicit, where it is given (a file, or a folder that holds the library), else the one
// beside the executable.
func FindLibrary(explicit string) (string, error) {
	if explicit != "" {
		return libraryAt(explicit)
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find ONNX Runtime: %w", err)
	}
	if path, err := filepath.EvalSymlinks(exe); err == nil {
		exe = path
	}
	path, err := libraryAt(filepath.Dir(exe))
	if err != nil {
		return "", fmt.Errorf("find ONNX Runtime: %w: build with `make build`, which puts it beside the binary, or name the file of ONNX Runtime %s or newer", err, MinVersion)
	}
	return path, nil
}

func libraryAt(path string) (string, error) {
	st, err := os.Stat(path)
	if err == nil && st.IsDir() {
		path = filepath.Join(path, LibraryName())
		st, err = os.Stat(path)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("no file %s", path)
	case err != nil:
		return "", err
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file", path)
	}
	return filepath.Abs(path)
}
