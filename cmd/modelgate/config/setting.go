package config

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// Hidden is shown in place of a secret.
const Hidden = "***"

// A Setting is one scalar of a Config.
type Setting struct {
	Path   string // as in the file: "tls.cert", "models.text.f1_threshold"
	Kind   string // "string", "bool", "int", "number", "duration", "size", "list"
	Help   string
	Env    string   // "MODELGATE_TLS_CERT"
	Flags  []string // "tls-cert"; the first is the one to show; none for a secret
	Secret bool
	Origin string // where the value comes from: "default", "MODELGATE_TLS_CERT", "modelgate.yaml:3", "--tls-cert"

	value   reflect.Value
	choices []string
}

// Text is the value as it would be written; a secret, or the password in an address, is Hidden.
func (s Setting) Text() string {
	t := format(s.value)
	switch {
	case t == "":
		return ""
	case s.Secret:
		return Hidden
	case strings.Contains(t, "@"):
		if u, err := url.Parse(t); err == nil && u.User != nil {
			u.User = nil
			return strings.Replace(u.String(), "://", "://"+Hidden+"@", 1)
		}
	}
	return t
}

// Value is what JSON shows.
func (s Setting) Value() any {
	switch v := s.value.Interface().(type) {
	case bool, int, float64, []string:
		return v
	case *bool:
		if v == nil {
			return nil
		}
		return *v
	case *float64:
		if v == nil {
			return nil
		}
		return *v
	}
	return s.Text()
}

// assign parses text into the setting.
func (s Setting) assign(text string) error {
	if len(s.choices) > 0 && !slices.Contains(s.choices, text) {
		return fmt.Errorf("%q is not one of %s%s", text, strings.Join(s.choices, ", "), didYouMean(text, s.choices))
	}
	return set(s.value, text)
}

// settings lists every scalar of c, in the order of the struct.
func settings(c *Config) []Setting {
	return walk(reflect.ValueOf(c).Elem(), "")
}

func walk(v reflect.Value, prefix string) []Setting {
	var all []Setting
	for i := range v.NumField() {
		f := v.Type().Field(i)
		path := prefix + key(f)
		switch f.Type.Kind() {
		case reflect.Struct:
			all = append(all, walk(v.Field(i), path+".")...)
		case reflect.Map:
			all = append(all, walkMap(v.Field(i), path+".")...)
		default:
			all = append(all, newSetting(path, f, v.Field(i)))
		}
	}
	return all
}

func walkMap(m reflect.Value, prefix string) []Setting {
	var all []Setting
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		all = append(all, walk(m.MapIndex(k).Elem(), prefix+k.String()+".")...)
	}
	return all
}

func newSetting(path string, f reflect.StructField, v reflect.Value) Setting {
	s := Setting{Path: path, Kind: kind(f.Type), Help: f.Tag.Get("jsonschema_description"), Env: envName(path),
		Secret: f.Tag.Get("secret") != "", value: v, choices: choices(f)}
	if s.Secret {
		return s // a flag could be read by every process of the machine
	}
	if short := f.Tag.Get("flag"); short != "" {
		s.Flags = append(s.Flags, short)
	}
	s.Flags = append(s.Flags, strings.NewReplacer(".", "-", "_", "-").Replace(path))
	return s
}

func key(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func choices(f reflect.StructField) []string {
	var all []string
	for part := range strings.SplitSeq(f.Tag.Get("jsonschema"), ",") {
		if c, ok := strings.CutPrefix(part, "enum="); ok {
			all = append(all, c)
		}
	}
	return all
}

func envName(path string) string {
	return "MODELGATE_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// didYouMean is " (did you mean X?)" if one of the names is close to what was written, or nothing.
func didYouMean(written string, names []string) string {
	best, least := "", len(written)/3+2
	for _, n := range names {
		if d := distance(strings.ToLower(written), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is Levenshtein's: how many letters have to be changed, added or removed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left, diagonal := i+1, i
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j+1], left)
			}
			diagonal, row[j], left = row[j+1], left, cost
		}
		row[len(b)] = left
	}
	return row[len(b)]
}
