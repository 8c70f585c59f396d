package inference

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// config is what is read of a Hugging Face config.json.
type config struct {
	ID2Label    map[string]string `json:"id2label"`
	ProblemType string            `json:"problem_type"`
	NumLabels   int               `json:"num_labels"`
}

// readConfig reads the file at path; without one c stays as it is.
func readConfig(path string, c *config) error {
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, c); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// maxClasses is far above what classifiers have.
const maxClasses = 100_000

// labels are the names of the classes in order. classes is what the graph declares, -1 where it doesn't; nil labels mean that only
// a run will tell how many there are.
func (c config) labels(classes int) ([]string, error) {
	n := len(c.ID2Label)
	if n == 0 {
		n = c.NumLabels
	}
	switch {
	case classes == 0 || classes > maxClasses || n < 0 || n > maxClasses:
		return nil, fmt.Errorf("%d classes in the graph and %d in %s: between 1 and %d can be served", classes, n, configFile, maxClasses)
	case n > 0 && classes > 0 && n != classes:
		return nil, fmt.Errorf("the graph gives %d classes, %s has %d labels: they don't belong together", classes, configFile, n)
	case n == 0 && classes < 0:
		return nil, nil
	case len(c.ID2Label) == 0:
		return plainLabels(max(n, classes)), nil
	}
	labels := make([]string, n)
	for i := range labels {
		label, ok := c.ID2Label[strconv.Itoa(i)]
		if !ok || label == "" {
			return nil, fmt.Errorf("%s: id2label has %d entries but none for %d", configFile, n, i)
		}
		labels[i] = label
	}
	return labels, distinct(labels)
}

// plainLabels are Hugging Face's names for classes that have none.
func plainLabels(n int) []string {
	labels := make([]string, n)
	for i := range labels {
		labels[i] = "LABEL_" + strconv.Itoa(i)
	}
	return labels
}

func distinct(labels []string) error {
	seen := map[string]bool{}
	for _, l := range labels {
		if seen[l] {
			return fmt.Errorf("two classes are called %.80q", l)
		}
		seen[l] = true
	}
	return nil
}
