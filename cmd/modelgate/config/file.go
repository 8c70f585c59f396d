package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A value is one scalar as somebody wrote it, and where.
type value struct {
	path, text, origin string
}

// modelName is what can be served, and what can be part of a folder's name.
var modelName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`)

// readFile reads the values of a YAML file. It refuses every key that no setting has.
func readFile(name string, content []byte) (values []value, err error) {
	defer func() {
		if p := recover(); p != nil { // the parser's, for some malformed files
			values, err = nil, fmt.Errorf("%s is not YAML: %v", name, p)
		}
	}()
	f, err := parser.ParseBytes(content, 0)
	if err != nil {
		return nil, fmt.Errorf("%s is not YAML:\n%s", name, yaml.FormatError(err, false, true))
	}
	r := fileReader{name: name}
	switch {
	case len(f.Docs) > 1:
		return nil, fmt.Errorf("%s holds %d YAML documents; write one", name, len(f.Docs))
	case len(f.Docs) == 0 || f.Docs[0].Body == nil:
		return nil, nil
	}
	r.mapping(f.Docs[0].Body, reflect.TypeFor[Config](), "")
	if r.err != nil {
		return nil, r.err
	}
	return r.values, nil
}

// fileReader walks a file's tree beside the type that it is to fill, and stops at the first error.
type fileReader struct {
	name   string
	values []value
	err    error
}

func (r *fileReader) fail(n ast.Node, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", r.at(n), fmt.Sprintf(format, args...))
	}
}

func (r *fileReader) at(n ast.Node) string {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return fmt.Sprintf("%s:%d", r.name, t.Position.Line)
	}
	return r.name
}

// mapping reads a section. typ is a struct, or a map to pointers of one.
func (r *fileReader) mapping(n ast.Node, typ reflect.Type, prefix string) {
	var pairs []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		pairs = m.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{m}
	case *ast.NullNode, *ast.CommentGroupNode:
		return
	default:
		what := strings.TrimSuffix(prefix, ".")
		if what == "" {
			what = "a configuration"
		}
		r.fail(n, "%s is a section: write keys and values below it", what)
		return
	}
	for _, p := range pairs {
		r.pair(p, typ, prefix)
	}
}

func (r *fileReader) pair(p *ast.MappingValueNode, typ reflect.Type, prefix string) {
	k, ok := p.Key.(*ast.StringNode)
	if !ok {
		r.fail(p.Key, "the key %s is not a word", p.Key)
		return
	}
	name := k.Value
	if typ.Kind() == reflect.Map {
		if !modelName.MatchString(name) {
			r.fail(k, "model name %q: use letters, digits, '_' and '-', at most 64, starting with a letter or digit", name)
			return
		}
		r.mapping(p.Value, typ.Elem().Elem(), prefix+name+".")
		return
	}
	fields := fieldsOf(typ)
	f, ok := fields[name]
	switch {
	case !ok:
		r.fail(k, "unknown key %q%s%s", name, inSection(prefix), suggestKey(name, fields))
	case f.Type.Kind() == reflect.Struct || f.Type.Kind() == reflect.Map:
		r.mapping(p.Value, f.Type, prefix+name+".")
	default:
		r.scalar(p.Value, f.Type, prefix+name)
	}
}

func inSection(prefix string) string {
	if prefix == "" {
		return ""
	}
	return " in " + strings.TrimSuffix(prefix, ".")
}

func suggestKey(name string, fields map[string]reflect.StructField) string {
	names := slices.Sorted(maps.Keys(fields))
	if s := didYouMean(name, names); s != "" {
		return s
	}
	return "; the keys here are " + strings.Join(names, ", ")
}

func fieldsOf(typ reflect.Type) map[string]reflect.StructField {
	m := make(map[string]reflect.StructField)
	for i := range typ.NumField() {
		m[key(typ.Field(i))] = typ.Field(i)
	}
	return m
}

func (r *fileReader) scalar(n ast.Node, typ reflect.Type, path string) {
	if typ == reflect.TypeFor[[]string]() {
		r.list(n, path)
		return
	}
	if _, ok := n.(*ast.NullNode); ok {
		return // "key:" with nothing behind it leaves the default
	}
	if text, ok := r.plain(n, path); ok {
		r.values = append(r.values, value{path, text, r.at(n)})
	}
}

func (r *fileReader) list(n ast.Node, path string) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fail(n, "%s is a list: write [a, b]", path)
		return
	}
	var items []string
	for _, item := range s.Values {
		text, ok := r.plain(item, path)
		if !ok {
			return
		}
		if strings.Contains(text, ",") {
			r.fail(item, "%s: %q must not contain a comma", path, text)
		}
		items = append(items, text)
	}
	r.values = append(r.values, value{path, strings.Join(items, ","), r.at(n)})
}

// plain is the text of a scalar, as it was written.
func (r *fileReader) plain(n ast.Node, path string) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	r.fail(n, "%s is a single value, not a %s", path, strings.ToLower(n.Type().String()))
	return "", false
}
