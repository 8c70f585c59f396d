package results

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// WriteSection puts text in place of the section of that name in the page at path, or at its end, and leaves the rest as it is.
func WriteSection(path, name, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	page, err := replace(string(old), name, text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(page), 0o644) //nolint:gosec // for everybody to read
}

func replace(page, name, text string) (string, error) {
	begin, end := fmt.Sprintf("<!-- %s begins -->\n", name), fmt.Sprintf("<!-- %s ends -->\n", name)
	section := begin + strings.TrimSpace(text) + "\n" + end
	before, rest, found := strings.Cut(page, begin)
	if !found {
		if page != "" {
			page = strings.TrimRight(page, "\n") + "\n\n"
		}
		return page + section, nil
	}
	_, after, ended := strings.Cut(rest, end)
	if !ended {
		return "", fmt.Errorf("%q is missing", strings.TrimSpace(end))
	}
	return before + section + after, nil
}
