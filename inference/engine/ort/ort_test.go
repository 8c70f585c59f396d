package ort_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"modelgate/inference/engine"
	"modelgate/inference/engine/enginetest"
	"modelgate/inference/engine/ort"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB) engine.Engine {
	e, err := ort.Open(ort.Options{LibraryPath: enginetest.Library(t)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEngine(t *testing.T) { enginetest.Run(t, open) }

func TestVersion(t *testing.T) {
	e, err := ort.Open(ort.Options{LibraryPath: enginetest.Library(t)})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(e.Version(), "1.") {
		t.Errorf("version %q", e.Version())
	}
	if _, err := ort.Open(ort.Options{LibraryPath: "/elsewhere/libonnxruntime.so"}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second library: %v", err)
	}
}

func TestFindLibrary(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, ort.LibraryName())
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, given := range []string{file, dir} {
		if got, err := ort.FindLibrary(given); err != nil || got != file {
			t.Errorf("FindLibrary(%s) = %s, %v", given, got, err)
		}
	}
	for _, given := range []string{filepath.Join(dir, "absent.so"), t.TempDir()} {
		if got, err := ort.FindLibrary(given); err == nil {
			t.Errorf("FindLibrary(%s) = %s", given, got)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ort.FindLibrary(""); err == nil || !strings.Contains(err.Error(), "make build") || !strings.Contains(err.Error(), filepath.Dir(exe)) {
		t.Errorf("nothing beside the executable: %v", err)
	}
}
