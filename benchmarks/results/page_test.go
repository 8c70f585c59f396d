package results_test

import (
	"os"
	"path/filepath"
	"testing"

	"modelgate/benchmarks/results"
)

func TestSections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "RESULTS.md")
	write := func(name, text string) {
		t.Helper()
		if err := results.WriteSection(path, name, text); err != nil {
			t.Fatal(err)
		}
	}
	write("swap", "# Swaps\n\nold\n")
	write("clips", "# Clips\n")
	write("swap", "# Swaps\n\nnew\n\n")
	const want = "<!-- swap begins -->\n# Swaps\n\nnew\n<!-- swap ends -->\n\n<!-- clips begins -->\n# Clips\n<!-- clips ends -->\n"
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%v, the page is %q", err, got)
	}
	if err := os.WriteFile(path, []byte("<!-- swap begins -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := results.WriteSection(path, "swap", "x"); err == nil {
		t.Error("half a section was replaced")
	}
}
