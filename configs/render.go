package configs

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// YAML is the whole configuration as a file that Load reads.
func (c *Config) YAML() []byte {
	var b strings.Builder
	writeFields(&b, reflect.ValueOf(c).Elem(), "", true)
	return []byte(b.String())
}

// writeFields writes the keys of a struct, also those that are zero if whole.
func writeFields(b *strings.Builder, v reflect.Value, indent string, whole bool) {
	for _, f := range fieldsOf(v) {
		if whole || !f.value.IsZero() {
			writeField(b, f, indent, whole)
		}
	}
}

func writeField(b *strings.Builder, f field, indent string, whole bool) {
	switch f.value.Kind() {
	case reflect.Struct:
		fmt.Fprintf(b, "%s%s:\n", indent, f.name)
		writeFields(b, f.value, indent+"  ", whole)
	case reflect.Slice:
		fmt.Fprintf(b, "%s%s:%s\n", indent, f.name, list(f.value, indent+"  "))
	default:
		fmt.Fprintf(b, "%s%s: %s\n", indent, f.name, scalar(f.value))
	}
}

// list is a list behind its key: in brackets where it holds plain values.
func list(v reflect.Value, indent string) string {
	if v.Len() == 0 {
		return " []"
	}
	if v.Type().Elem().Kind() != reflect.Struct {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = scalar(v.Index(i))
		}
		return " [" + strings.Join(items, ", ") + "]"
	}
	var b strings.Builder
	for i := range v.Len() {
		b.WriteString("\n" + indent + "- ")
		if s, ok := lone(v.Index(i)); ok {
			b.WriteString(s)
			continue
		}
		var item strings.Builder
		writeFields(&item, v.Index(i), indent+"  ", false)
		b.WriteString(strings.TrimSuffix(strings.TrimPrefix(item.String(), indent+"  "), "\n"))
	}
	return b.String()
}

// lone is the plain value that stands for a struct of which only the first
// key is set, where there is such a form.
func lone(v reflect.Value) (string, bool) {
	if _, ok := v.Addr().Interface().(scalarForm); !ok {
		return "", false
	}
	fields := fieldsOf(v)
	for _, f := range fields[1:] {
		if !f.value.IsZero() {
			return "", false
		}
	}
	return scalar(fields[0].value), !fields[0].value.IsZero()
}

// scalar is a plain value as YAML.
func scalar(v reflect.Value) string {
	s := ""
	switch m := v.Interface().(type) {
	case encoding.TextMarshaler:
		text, err := m.MarshalText()
		if err != nil {
			panic(err)
		}
		return string(text)
	default:
		switch v.Kind() {
		case reflect.String:
			s = v.String()
		case reflect.Float64:
			return strconv.FormatFloat(v.Float(), 'g', -1, 64)
		default:
			return fmt.Sprint(v.Interface())
		}
	}
	quoted, err := yaml.Marshal(&yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}}})
	text := strings.TrimSpace(string(quoted))
	if err != nil || strings.Contains(text, "\n") {
		return strconv.Quote(s)
	}
	return text[1 : len(text)-1]
}

const templateHead = `# Sluice's configuration: every key, with its default, commented out.
#
#   sluice serve --config FILE      runs the broker with a file such as this
#   sluice config check FILE        says what is wrong with one
#   sluice config show FILE         prints what is in force
#
# A key can also be set by the environment: its name in capitals behind
# SLUICE_, underscores for dots, so SLUICE_LOG_LEVEL for log.level. A list may
# then be written with commas, and anything that is not a plain value as YAML
# in brackets. The environment wins over the file.
#
# Sizes are written 4096, 64KiB, 1MiB, 8GiB; durations 500ms, 90s, 5m, 7d.
# A relative path is relative to the file that it stands in.
`

// Template is a file that names every key with its default, commented out.
func Template() []byte {
	var b strings.Builder
	b.WriteString(templateHead)
	for _, f := range fieldsOf(reflect.ValueOf(Default()).Elem()) {
		b.WriteString("\n# " + sentence(f.doc) + "\n")
		templateField(&b, f, "#")
	}
	return []byte(b.String())
}

func templateField(b *strings.Builder, f field, indent string) {
	switch f.value.Kind() {
	case reflect.Struct:
		fmt.Fprintf(b, "%s%s:\n", indent, f.name)
		for _, sub := range fieldsOf(f.value) {
			if sub.value.Kind() == reflect.Slice && sub.value.Type().Elem().Kind() == reflect.Struct || sub.value.Kind() == reflect.Struct {
				fmt.Fprintf(b, "%s  # %s\n", indent, sentence(sub.doc))
				templateField(b, sub, indent+"  ")
				continue
			}
			line := fmt.Sprintf("%s  %s: %s", indent, sub.name, strings.TrimSpace(plain(sub.value)))
			fmt.Fprintf(b, "%-40s # %s\n", line, sub.doc)
		}
	case reflect.Slice:
		fmt.Fprintf(b, "%s%s:%s\n", indent, f.name, list(f.value, indent+"  "))
		if elem := f.value.Type().Elem(); elem.Kind() == reflect.Struct {
			templateKeys(b, reflect.New(elem).Elem(), indent+"    # ", "each has ")
		}
	default:
		fmt.Fprintf(b, "%s%s: %s\n", indent, f.name, plain(f.value))
	}
}

// templateKeys explains the keys of a list's items.
func templateKeys(b *strings.Builder, v reflect.Value, indent, intro string) {
	for i, f := range fieldsOf(v) {
		if i > 0 {
			intro = strings.Repeat(" ", len(intro))
		}
		fmt.Fprintf(b, "%s%s%s: %s\n", indent, intro, f.name, f.doc)
		sub := f.value
		if sub.Kind() == reflect.Slice {
			sub = reflect.New(sub.Type().Elem()).Elem()
		}
		if sub.Kind() == reflect.Struct {
			templateKeys(b, sub, indent+strings.Repeat(" ", len(intro)+2), "")
		}
	}
}

func plain(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		return list(v, "")
	}
	return scalar(v)
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }
