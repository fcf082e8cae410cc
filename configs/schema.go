package configs

import (
	"encoding/json"
	"reflect"

	"github.com/sluicemq/sluice/core"
)

// schema is a JSON Schema, or a part of one.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	Minimum     *int               `json:"minimum,omitempty"`
	Maximum     *int               `json:"maximum,omitempty"`
	MaxLength   int                `json:"maxLength,omitempty"`
	AnyOf       []*schema          `json:"anyOf,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	// Additional is false for mappings, which are strict.
	Additional *bool `json:"additionalProperties,omitempty"`
}

// Schema is the JSON Schema of a configuration file, for editors.
func Schema() []byte {
	s := schemaOf(reflect.ValueOf(new(Config)).Elem())
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "Sluice configuration"
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // nothing in it can fail
	}
	return append(text, '\n')
}

const (
	sizePattern     = `^[0-9]+(\.[0-9]+)? ?(B|[kKMGT]B|[KMGT]iB)?$`
	durationPattern = `^(0|([0-9]+w)?([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*)$`
)

func schemaOf(v reflect.Value) *schema {
	zero := 0
	switch x := v.Interface().(type) {
	case Size, intSize:
		return &schema{AnyOf: []*schema{{Type: "integer", Minimum: &zero}, {Type: "string", Pattern: sizePattern}}}
	case Duration:
		return &schema{AnyOf: []*schema{{Type: "integer", Minimum: &zero, Maximum: &zero}, {Type: "string", Pattern: durationPattern}}}
	case Who:
		return &schema{Type: "string", Pattern: `^(users|anonymous|(user|role):.+)$`}
	case core.Filter, Pattern:
		return &schema{Type: "string", MaxLength: core.MaxTopicBytes}
	case worded:
		return &schema{Type: "string", Enum: x.words()}
	}
	switch v.Kind() {
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int, reflect.Int64:
		return &schema{Type: "integer"}
	case reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Slice:
		return &schema{Type: "array", Items: schemaOf(reflect.New(v.Type().Elem()).Elem())}
	case reflect.Struct:
		strict := false
		s := &schema{Type: "object", Properties: make(map[string]*schema), Additional: &strict}
		for _, f := range fieldsOf(v) {
			sub := schemaOf(f.value)
			sub.Description = f.doc
			s.Properties[f.name] = sub
		}
		if _, ok := v.Addr().Interface().(scalarForm); ok {
			return &schema{AnyOf: []*schema{{Type: "string"}, s}}
		}
		return s
	}
	return &schema{Type: "string"}
}
