package configs

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// An origin is where a key was set: a file and line, or a variable.
type origin struct {
	file string
	line int
}

func (o origin) String() string {
	if o.line == 0 {
		return o.file
	}
	return o.file + ":" + strconv.Itoa(o.line)
}

// A decoder lays YAML over a configuration by its keys and gathers what is
// wrong.
type decoder struct {
	source string            // file or variable that is read
	lines  bool              // source is a file, whose lines mean something
	origin map[string]origin // by key
	errs   []error
}

func (d *decoder) at(n *yaml.Node) origin {
	if !d.lines {
		return origin{file: d.source}
	}
	return origin{file: d.source, line: n.Line}
}

func (d *decoder) fail(n *yaml.Node, key string, err error) {
	if key == "" {
		d.errs = append(d.errs, fmt.Errorf("%v: %w", d.at(n), err))
		return
	}
	d.errs = append(d.errs, fmt.Errorf("%v: %s: %w", d.at(n), key, err))
}

// scalarForm is a struct that a lone YAML scalar stands for as well: setScalar
// sets its first field.
type scalarForm interface{ setScalar(string) error }

func (l *Listener) setScalar(s string) error { l.Address = s; return nil }

func (b *Binding) setScalar(s string) error {
	f, err := core.ParseFilter(s)
	b.Filter = f
	return err
}

// decode lays n over v, which key names.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.origin[key] = d.at(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a key without a value leaves the default
	}
	if f, ok := v.Addr().Interface().(*core.Filter); ok {
		d.scalar(n, key, func(s string) (err error) { *f, err = core.ParseFilter(s); return err })
		return
	}
	if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.scalar(n, key, func(s string) error { return t.UnmarshalText([]byte(s)) })
		return
	}
	if s, ok := v.Addr().Interface().(scalarForm); ok && n.Kind == yaml.ScalarNode {
		d.scalar(n, key, s.setScalar)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, key)
	case reflect.Slice:
		d.sequence(n, v, key)
	default:
		d.scalar(n, key, func(s string) error { return setScalar(v, s) })
	}
}

func (d *decoder) scalar(n *yaml.Node, key string, set func(string) error) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, key, fmt.Errorf("want one value, not a %s", kindName(n)))
		return
	}
	if err := set(n.Value); err != nil {
		d.fail(n, key, err)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, key, fmt.Errorf("want keys with values, not a %s", kindName(n)))
		return
	}
	fields := fieldsOf(v)
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		sub := join(key, name.Value)
		if line, ok := seen[name.Value]; ok {
			d.fail(name, sub, fmt.Errorf("said twice, first in line %d", line))
			continue
		}
		seen[name.Value] = name.Line
		f, ok := fields.find(name.Value)
		if !ok {
			d.fail(name, sub, Unknown("key", name.Value, fields.names()))
			continue
		}
		d.decode(n.Content[i+1], f.value, sub)
	}
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, key string) {
	items := n.Content
	switch {
	case n.Kind == yaml.SequenceNode:
	case n.Kind == yaml.ScalarNode && !d.lines:
		// In a variable a list may be written with commas.
		items = nil
		for item := range strings.SplitSeq(n.Value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: item})
			}
		}
	default:
		d.fail(n, key, fmt.Errorf("want a list, not a %s", kindName(n)))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		d.decode(item, list.Index(i), key+"["+strconv.Itoa(i)+"]")
	}
	v.Set(list)
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	}
	return fmt.Sprintf("value (%q)", n.Value)
}

func setScalar(v reflect.Value, s string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		switch s {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			return fmt.Errorf("%q is not true or false", s)
		}
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		v.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		v.SetFloat(f)
	default:
		panic("configs: a field of kind " + v.Kind().String())
	}
	return nil
}

// A field is one key of a mapping.
type field struct {
	name, doc string
	value     reflect.Value
}

type fieldList []field

// fieldsOf lists the keys of a struct in order. Those of the table of limits
// are its rows.
func fieldsOf(v reflect.Value) fieldList {
	if l, ok := v.Addr().Interface().(*adapters.Limits); ok {
		return limitFields(l)
	}
	var list fieldList
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag; tag.Get("yaml") != "" {
			list = append(list, field{name: tag.Get("yaml"), doc: tag.Get("doc"), value: v.Field(i)})
		}
	}
	return list
}

// limitFields makes the rows of the table assignable in the units that their
// values are written in.
func limitFields(l *adapters.Limits) fieldList {
	var list fieldList
	for _, row := range l.Table() {
		f := field{name: row.Name, doc: row.Bounds, value: reflect.ValueOf(row.Value).Elem()}
		switch p := row.Value.(type) {
		case *time.Duration:
			f.value = reflect.ValueOf((*Duration)(p)).Elem()
		case *int:
			if row.Unit == adapters.Bytes {
				f.value = reflect.ValueOf((*intSize)(p)).Elem()
			}
		}
		if row.Unit == adapters.PerSecond {
			f.doc += ", a second"
		}
		list = append(list, f)
	}
	return list
}

// An intSize is a Size that stands in an int.
type intSize int

func (s *intSize) UnmarshalText(text []byte) error {
	size, err := ParseSize(string(text))
	if err == nil && int64(int(size)) != int64(size) {
		err = fmt.Errorf("%q is too large", text)
	}
	*s = intSize(size)
	return err
}

func (s intSize) MarshalText() ([]byte, error) { return Size(s).MarshalText() }

func (l fieldList) find(name string) (field, bool) {
	for _, f := range l {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

func (l fieldList) names() []string {
	names := make([]string, len(l))
	for i, f := range l {
		names[i] = f.name
	}
	return names
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// Unknown is the error for a word that nobody knows, what names it, with the
// known one that is meant most likely, or all of them where they are not many.
func Unknown(what, word string, known []string) error {
	best, distance := "", 1+len(word)/3
	for _, k := range known {
		if n := editDistance(word, k); n <= distance && (best == "" || n < distance) {
			best, distance = k, n
		}
		if best == "" && len(word) > 2 && (strings.HasPrefix(k, word) || strings.HasPrefix(word, k)) {
			best = k
		}
	}
	if best != "" {
		return fmt.Errorf("unknown %s, did you mean %q?", what, best)
	}
	if len(known) > 20 {
		return fmt.Errorf("unknown %s", what)
	}
	return errors.New("unknown " + what + "; there are " + strings.Join(known, ", "))
}

// editDistance is how many letters are to be put in, taken out, changed or
// swapped with their neighbour to make b of a.
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			n := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, rows[i-2][j-2]+1)
			}
			rows[i][j] = n
		}
	}
	return rows[len(a)][len(b)]
}
