package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
)

// Duration is a time.Duration that is written as "30m".
type Duration time.Duration

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes "30m".
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// JSONSchema describes how a duration is written.
func (Duration) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$|^0$`, Examples: []any{"30s", "10m", "1h30m"}}
}

// Bytes is a size that is written as a number of bytes or as "64KiB".
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func (b Bytes) String() string {
	for _, u := range byteUnits {
		if b > 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText writes "64KiB".
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// JSONSchema describes how a size is written.
func (Bytes) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "integer", Minimum: "0"},
		{Type: "string", Pattern: `^[0-9]+(KiB|MiB|GiB)?$`, Examples: []any{"64KiB", "4MiB"}},
	}}
}

func parseBytes(s string) (Bytes, error) {
	number, factor := s, int64(1)
	for _, u := range byteUnits {
		if cut, ok := strings.CutSuffix(s, u.name); ok {
			number, factor = strings.TrimSpace(cut), u.size
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return 0, fmt.Errorf("%q is not a size; write bytes, or a whole number with KiB, MiB or GiB, such as 64KiB", s)
	}
	return Bytes(n * factor), nil
}

// set parses text into v. The error says what was expected.
func set(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
	case *bool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*p = b
	case **bool:
		*p = new(bool)
		return set(reflect.ValueOf(*p).Elem(), text)
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		*p = n
	case *float64:
		f, err := parseFloat(text)
		if err != nil {
			return err
		}
		*p = f
	case **float64:
		f, err := parseFloat(text)
		if err != nil {
			return err
		}
		*p = &f
	case *Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is not a duration; write a number and a unit, such as 30s, 10m or 1h30m", text)
		}
		*p = Duration(d)
	case *Bytes:
		b, err := parseBytes(text)
		if err != nil {
			return err
		}
		*p = b
	case *[]string:
		*p = nil
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*p = append(*p, item)
			}
		}
	default:
		panic(fmt.Sprintf("config: a setting of type %v", v.Type()))
	}
	return nil
}

func parseFloat(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f-f != 0 { // NaN and the infinities
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return f, nil
}

// kind is a setting's type as people call it.
func kind(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[Bytes]():
		return "size"
	case reflect.TypeFor[[]string]():
		return "list"
	case reflect.TypeFor[*float64](), reflect.TypeFor[float64]():
		return "number"
	case reflect.TypeFor[int]():
		return "int"
	case reflect.TypeFor[*bool]():
		return "bool"
	}
	return t.Kind().String()
}

// format writes v as set would read it again.
func format(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case []string:
		return strings.Join(x, ",")
	case *bool:
		if x == nil {
			return ""
		}
		return strconv.FormatBool(*x)
	case *float64:
		if x == nil {
			return ""
		}
		return strconv.FormatFloat(*x, 'g', -1, 64)
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	default:
		return fmt.Sprint(x)
	}
}
