package ort

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// checkExternal refuses a graph whose weights would come from anywhere but plain files of its own below its folder. ONNX Runtime
// itself loads hard links, and knows a location that stands for an address in memory.
func checkExternal(graph string, locations []string) error {
	dir := filepath.Dir(graph)
	for _, loc := range locations {
		if err := checkLocation(dir, loc); err != nil {
			return fmt.Errorf("external data %q: %w", loc, err)
		}
	}
	return nil
}

func checkLocation(dir, loc string) error {
	if strings.ContainsAny(loc, "\x00*\\") || !filepath.IsLocal(loc) || strings.Contains(loc, "..") {
		return fmt.Errorf("%w: it must name a file in the graph's own folder", errExternal)
	}
	path := dir
	parts := strings.Split(filepath.Clean(loc), string(filepath.Separator))
	for i, part := range parts {
		path = filepath.Join(path, part)
		st, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("%w: publish it beside the graph", err)
		}
		switch last := i == len(parts)-1; {
		case st.Mode()&os.ModeSymlink != 0:
			return fmt.Errorf("%w: %s is a symbolic link", errExternal, path)
		case last && !st.Mode().IsRegular():
			return fmt.Errorf("%w: %s is not a regular file", errExternal, path)
		case last && links(st) > 1:
			return fmt.Errorf("%w: %s has several hard links", errExternal, path)
		}
	}
	return nil
}

func links(st os.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(sys.Nlink) //nolint:unconvert // its type differs between systems
	}
	return 1
}
