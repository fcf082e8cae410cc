package configs

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/sluicemq/sluice/adapters"
)

// Reference is the table of every key, in Markdown. The limits have their own.
func Reference() []byte {
	var b strings.Builder
	b.WriteString("| key | default | what it is |\n|---|---|---|\n")
	var walk func(v reflect.Value, prefix string)
	walk = func(v reflect.Value, prefix string) {
		if _, ok := v.Addr().Interface().(*adapters.Limits); ok {
			b.WriteString("| `limits.…` | | see the table of limits |\n")
			return
		}
		for _, f := range fieldsOf(v) {
			key := join(prefix, f.name)
			switch {
			case f.value.Kind() == reflect.Struct:
				walk(f.value, key)
			case f.value.Kind() == reflect.Slice && f.value.Type().Elem().Kind() == reflect.Struct:
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, inline(f.value), cell(f.doc))
				walk(reflect.New(f.value.Type().Elem()).Elem(), key+"[]")
			default:
				value := ""
				if !strings.Contains(key, "[]") {
					value = strings.Trim(strings.TrimSpace(plain(f.value)), `"'`)
				}
				if value != "" {
					value = "`" + value + "`"
				}
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, value, cell(f.doc))
			}
		}
	}
	walk(reflect.ValueOf(Default()).Elem(), "")
	return []byte(b.String())
}

// inline is a list of mappings in one line.
func inline(v reflect.Value) string {
	var items []string
	for i := range v.Len() {
		if s, ok := lone(v.Index(i)); ok {
			items = append(items, "`"+strings.Trim(s, `"'`)+"`")
			continue
		}
		var parts []string
		for _, f := range fieldsOf(v.Index(i)) {
			if !f.value.IsZero() {
				parts = append(parts, f.name+": "+strings.TrimSpace(plain(f.value)))
			}
		}
		items = append(items, "`{"+strings.Join(parts, ", ")+"}`")
	}
	return strings.Join(items, ", ")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// LimitsReference is the table of limits, in Markdown.
func LimitsReference() []byte {
	var b strings.Builder
	b.WriteString("| key | default | bounds |\n|---|---|---|\n")
	l := adapters.DefaultLimits()
	for _, f := range limitFields(&l) {
		fmt.Fprintf(&b, "| `limits.%s` | %s | %s |\n", f.name, plain(f.value), cell(f.doc))
	}
	return []byte(b.String())
}
