package inference

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// settings is modelgate.yaml: what the other files of a bundle don't say.
type settings struct {
	PositiveLabel string   `yaml:"positive_label"` // the class that decisions are about
	Threshold     *float64 `yaml:"threshold"`      // from which score on; in [0, 1]
	MaxLength     int      `yaml:"max_length"`     // tokens of a text
	SpecialTokens string   `yaml:"special_tokens"` // "ids": what a user types may be a special token; "text": it never is
	VideoSampling string   `yaml:"video_sampling"` // how frames are chosen: "linspace", the default, or "hf"
	VideoLayout   string   `yaml:"video_layout"`   // order of a clip's axes: "TCHW" or "CTHW"; default: the graph's, else TCHW
	VideoRotation string   `yaml:"video_rotation"` // of clips that say that they are shown turned: "ignore", the default, or "apply"
}

var settingKeys = []string{"positive_label", "threshold", "max_length", "special_tokens", "video_sampling", "video_layout", "video_rotation"}

const maxSettings = 16 << 10 // bytes

func (s settings) specialAsText() bool { return s.SpecialTokens == "text" }

// readSettings reads the file at path strictly; without one s stays as it is.
func readSettings(path string, s *settings) error {
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// The parser's time grows with the square of the nesting.
	if len(data) > maxSettings || bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > 100 {
		return fmt.Errorf("%s has %d bytes or too many brackets: it holds only the keys %v", path, len(data), settingKeys)
	}
	if err := decodeSettings(data, s); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case s.Threshold != nil && !inUnit(*s.Threshold):
		return fmt.Errorf("%s: threshold is %v: it must be in [0, 1]", path, *s.Threshold)
	case s.MaxLength < 0:
		return fmt.Errorf("%s: max_length is %d: it must be positive", path, s.MaxLength)
	case s.SpecialTokens != "" && s.SpecialTokens != "ids" && s.SpecialTokens != "text":
		return fmt.Errorf("%s: special_tokens is %.80q: it is ids or text", path, s.SpecialTokens)
	}
	return nil
}

func decodeSettings(data []byte, s *settings) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it can't be read: %v", p)
		}
	}()
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		return err
	}
	if err := checkKeys(f); err != nil {
		return err
	}
	return yaml.Unmarshal(data, s)
}

// checkKeys refuses keys that nobody would read, and values that aren't plain.
func checkKeys(f *ast.File) error {
	for _, doc := range f.Docs {
		var pairs []*ast.MappingValueNode
		switch body := doc.Body.(type) {
		case nil, *ast.CommentGroupNode, *ast.NullNode:
		case *ast.MappingNode:
			pairs = body.Values
		case *ast.MappingValueNode:
			pairs = []*ast.MappingValueNode{body}
		default:
			return fmt.Errorf("line %d: keys and values are needed", body.GetToken().Position.Line)
		}
		for _, p := range pairs {
			key, line := p.Key.GetToken().Value, p.Key.GetToken().Position.Line
			if !slices.Contains(settingKeys, key) {
				return fmt.Errorf("line %d: unknown key %.80q: %s", line, key, didYouMean(key))
			}
			if !isPlain(p.Value) {
				return fmt.Errorf("line %d: %s: one plain value is needed", line, key)
			}
		}
	}
	return nil
}

func isPlain(value ast.Node) bool {
	switch value.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return false
	}
	_, ok := value.(ast.ScalarNode)
	return ok
}

func didYouMean(key string) string {
	best := slices.MinFunc(settingKeys, func(a, b string) int { return distance(key, a) - distance(key, b) })
	if distance(key, best) <= max(len(best)/3, 2) {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return fmt.Sprintf("the keys are %v", settingKeys)
}

// distance is the number of characters to add, drop or change to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
