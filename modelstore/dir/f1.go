package dir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"modelgate/modelstore"
)

const maxMetrics = 1 << 20

// F1 reads the first configured metric from the version's metrics.json, such as {"eval_f1": 0.81}.
func (s *Source) F1(ctx context.Context, v modelstore.Version) (modelstore.F1, error) {
	if err := s.same(ctx, v); err != nil {
		return modelstore.F1{}, fmt.Errorf("F1 of %v: %w", v, err)
	}
	b, err := s.readMetrics(v)
	if errors.Is(err, fs.ErrNotExist) {
		return modelstore.AbsentF1("there is no " + metricsFile), nil
	}
	if err != nil {
		return modelstore.F1{}, fmt.Errorf("F1 of %v: %w", v, err)
	}
	if len(b) > maxMetrics {
		return modelstore.InvalidF1("", fmt.Sprintf("%s is larger than %d bytes", metricsFile, maxMetrics)), nil
	}
	var metrics map[string]json.RawMessage
	if err := json.Unmarshal(b, &metrics); err != nil { // Python writes a bare NaN, which isn't JSON
		return modelstore.InvalidF1("", fmt.Sprintf("%s can't be read: %v", metricsFile, err)), nil
	}
	for _, name := range s.o.MetricNames {
		if raw, ok := metrics[name]; ok {
			return parseF1(name, string(raw)), nil
		}
	}
	return modelstore.AbsentF1(fmt.Sprintf("%s has no %s", metricsFile, strings.Join(s.o.MetricNames, " or "))), nil
}

func parseF1(name, raw string) modelstore.F1 {
	x, err := strconv.ParseFloat(raw, 64)
	if err != nil {
		return modelstore.InvalidF1(name, fmt.Sprintf("metric %s is %.40s, not a number from 0 to 1", name, raw))
	}
	return modelstore.KnownF1(name, x)
}

func (s *Source) readMetrics(v modelstore.Version) ([]byte, error) {
	name := folder(v) + "/" + metricsFile
	info, err := s.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	f, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxMetrics+1))
}

// same checks that the folder still holds the version that was listed.
func (s *Source) same(ctx context.Context, v modelstore.Version) error {
	if !validName(v.Model) {
		return fmt.Errorf("%w: %.80q is no valid name", modelstore.ErrNoModel, v.Model)
	}
	if v.Number < 1 {
		return fmt.Errorf("%w: %d", modelstore.ErrNoVersion, v.Number)
	}
	now, err := s.version(ctx, v.Model, v.Number)
	if err != nil {
		return err
	}
	if !now.Same(v) {
		return fmt.Errorf("%w: %s was replaced or changed since it was listed", modelstore.ErrNoVersion, now.Source)
	}
	return nil
}
