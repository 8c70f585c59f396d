package inference

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"modelgate/inference/text"
)

const (
	goldenFile     = "golden.jsonl"
	maxGolden      = 64 << 20 // bytes of the file
	maxGoldenLine  = 32 << 20 // bytes of a line
	maxGoldenLines = 1000
)

// compareGolden runs every example of golden.jsonl as Predict would, encoded by g, and compares the scores. It goes on after a
// difference, so that the error tells how many there are and how large the largest is.
func (m *Model) compareGolden(ctx context.Context, g graph) (examples int, largest float64, err error) {
	path := filepath.Join(m.bundle.dir, goldenFile)
	f, err := openGolden(path)
	if f == nil || err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines := bufio.NewScanner(io.LimitReader(f, maxGolden))
	lines.Buffer(nil, maxGoldenLine)
	var worst *deviation
	wrong, read := 0, 0
	for lines.Scan() {
		read++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if examples++; examples > maxGoldenLines {
			return 0, 0, fmt.Errorf("%s holds more than %d examples", goldenFile, maxGoldenLines)
		}
		d, err := m.tryGolden(ctx, g, lines.Bytes())
		if err != nil {
			return 0, 0, fmt.Errorf("%s, line %d: %w", goldenFile, read, err)
		}
		largest = max(largest, d.size())
		if d.size() > d.tolerance {
			wrong++
			if worst == nil || d.size() > worst.size() {
				d.line, worst = read, &d
			}
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return 0, 0, fmt.Errorf("%s: line %d has more than %d MiB", goldenFile, read+1, maxGoldenLine>>20)
	case err != nil:
		return 0, 0, machineError{fmt.Errorf("read %s: %w", path, err)}
	case examples == 0:
		return 0, 0, fmt.Errorf("%s holds no example: leave it out, or publish with one", goldenFile)
	case worst != nil:
		return 0, 0, fmt.Errorf("%s: %d of %d golden answers don't come out on this machine; the farthest off is %w", goldenFile, wrong, examples, worst)
	}
	return examples, largest, nil
}

// openGolden is nil where there is no such file.
func openGolden(path string) (*os.File, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", goldenFile)
	case st.Size() > maxGolden:
		return nil, fmt.Errorf("%s has %d bytes: at most %d MiB are read", goldenFile, st.Size(), maxGolden>>20)
	}
	return os.Open(path)
}

// tryGolden runs one example and returns the score that is farthest from its golden answer.
func (m *Model) tryGolden(ctx context.Context, g graph, line []byte) (deviation, error) {
	want, err := parseGolden(line)
	if err != nil {
		return deviation{}, err
	}
	want.in.Patient = true
	if m.options.noClips && want.in.Video != nil {
		return deviation{tolerance: want.tolerance}, nil
	}
	p, err := m.predict(ctx, g, want.in)
	switch {
	case err == nil:
	case errors.Is(err, ErrInput) || errors.Is(err, text.ErrVocabulary):
		return deviation{}, fmt.Errorf("the model doesn't take this example, %s: %w", want.describe(), err)
	case errors.Is(err, ErrFull) || errors.Is(err, ErrClosed) || errors.Is(err, ErrSlowRun) || ctx.Err() != nil:
		// A slow run may be the machine's: before it serves, a model computes where nobody else wants to.
		return deviation{}, machineError{fmt.Errorf("run the example, %s: %w", want.describe(), err)}
	default:
		return deviation{}, fmt.Errorf("run the example, %s: %w", want.describe(), err)
	}
	if err := want.sameLabels(m.labels); err != nil {
		return deviation{}, err
	}
	worst := deviation{what: want.describe(), tolerance: want.tolerance, want: math.NaN()}
	for _, c := range p.Classes {
		if d := math.Abs(c.Score - want.scores[c.Label]); math.IsNaN(worst.want) || d > worst.size() {
			worst.label, worst.want, worst.got = c.Label, want.scores[c.Label], c.Score
		}
	}
	return worst, nil
}

func (g goldenLine) sameLabels(labels []string) error {
	var missing []string
	for _, l := range labels {
		if _, ok := g.scores[l]; !ok {
			missing = append(missing, l)
		}
	}
	if missing == nil && len(g.scores) == len(labels) {
		return nil
	}
	unknown := maps.Clone(g.scores)
	for _, l := range labels {
		delete(unknown, l)
	}
	return fmt.Errorf("the model's labels are %s: its scores lack %s and have %s besides", short(labels), short(missing), short(slices.Sorted(maps.Keys(unknown))))
}

// A deviation is how far a score is from a golden answer.
type deviation struct {
	line      int
	what      string // the example
	label     string
	want, got float64
	tolerance float64
}

func (d deviation) size() float64 { return math.Abs(d.got - d.want) }

func (d deviation) Error() string {
	return fmt.Sprintf("line %d, %s: the label %s should have the score %.6f and has %.6f: the difference of %.3g is more than the tolerance %g",
		d.line, d.what, short(d.label), d.want, d.got, d.size(), d.tolerance)
}

// short writes v, which others made, for an error: text is quoted, and there is not too much of it.
func short(v any) string {
	const most = 160
	s := fmt.Sprint(v)
	switch v.(type) {
	case string, []string:
		s = fmt.Sprintf("%q", v)
	}
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
