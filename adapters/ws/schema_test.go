package ws

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// A schema is docs/sluice.v1.schema.json. It checks the keywords of JSON Schema
// 2020-12 that the file uses; one that it does not know fails the test, so that
// none is taken for checked.
type schema struct {
	t    testing.TB
	defs map[string]any
}

func loadSchema(t testing.TB) *schema {
	t.Helper()
	text, err := os.ReadFile("../../docs/sluice.v1.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Defs map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return &schema{t, file.Defs}
}

// check says what a text breaks of a definition.
func (s *schema) check(def, text string) error {
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return err
	}
	return s.value("$", s.defs[def], v)
}

func (s *schema) value(at string, rule, v any) error {
	for keyword, arg := range rule.(map[string]any) {
		if err := s.keyword(at, keyword, arg, rule.(map[string]any), v); err != nil {
			return err
		}
	}
	return nil
}

func (s *schema) keyword(at, keyword string, arg any, rule map[string]any, v any) error {
	object, isObject := v.(map[string]any)
	array, isArray := v.([]any)
	str, isString := v.(string)
	number, isNumber := v.(json.Number)
	bad := func(ok bool, args ...any) error {
		if ok {
			return nil
		}
		return fmt.Errorf("%s: %s %v: %v", at, keyword, arg, v)
	}
	switch keyword {
	case "description":
	case "$ref":
		return s.value(at, s.defs[strings.TrimPrefix(arg.(string), "#/$defs/")], v)
	case "const":
		return bad(v == arg)
	case "enum":
		for _, a := range arg.([]any) {
			if v == a {
				return nil
			}
		}
		return bad(false)
	case "type":
		_, isBool := v.(bool)
		return bad(map[string]bool{"object": isObject, "array": isArray, "string": isString, "boolean": isBool, "integer": isNumber && !strings.ContainsAny(string(number), ".eE")}[arg.(string)])
	case "minimum", "maximum":
		if isNumber {
			n, _ := number.Float64()
			return bad(keyword == "minimum" && n >= arg.(float64) || keyword == "maximum" && n <= arg.(float64))
		}
	case "minLength", "maxLength":
		if isString {
			n := float64(utf8.RuneCountInString(str))
			return bad(keyword == "minLength" && n >= arg.(float64) || keyword == "maxLength" && n <= arg.(float64))
		}
	case "pattern":
		if isString {
			return bad(regexp.MustCompile(arg.(string)).MatchString(str))
		}
	case "minItems", "maxItems":
		if isArray {
			n := float64(len(array))
			return bad(keyword == "minItems" && n >= arg.(float64) || keyword == "maxItems" && n <= arg.(float64))
		}
	case "items":
		for i, e := range array {
			if err := s.value(fmt.Sprintf("%s[%d]", at, i), arg, e); err != nil {
				return err
			}
		}
	case "properties":
		for name, r := range arg.(map[string]any) {
			if e, ok := object[name]; ok {
				if err := s.value(at+"."+name, r, e); err != nil {
					return err
				}
			}
		}
	case "additionalProperties":
		known, _ := rule["properties"].(map[string]any)
		for name, e := range object {
			if _, ok := known[name]; ok {
				continue
			}
			if arg == false {
				return fmt.Errorf("%s: unknown member %q", at, name)
			}
			if err := s.value(at+"."+name, arg, e); err != nil {
				return err
			}
		}
	case "required":
		if isObject {
			for _, name := range arg.([]any) {
				if _, ok := object[name.(string)]; !ok {
					return fmt.Errorf("%s: no member %q", at, name)
				}
			}
		}
	case "not":
		return bad(s.value(at, arg, v) != nil)
	case "allOf", "anyOf", "oneOf":
		n, all, last := 0, arg.([]any), error(nil)
		for _, r := range all {
			if err := s.value(at, r, v); err == nil {
				n++
			} else if op, _ := object["op"].(string); last == nil || !strings.Contains(err.Error(), "$.op:") && op != "" {
				last = err
			}
		}
		if keyword == "allOf" && n == len(all) || keyword == "anyOf" && n > 0 || keyword == "oneOf" && n == 1 {
			return nil
		}
		return fmt.Errorf("%s: %d of %s hold: %w", at, n, keyword, last)
	default:
		s.t.Fatalf("the schema has the keyword %q, which is not checked", keyword)
	}
	return nil
}

// TestSchemaRefuses: the schema can fail.
func TestSchemaRefuses(t *testing.T) {
	s := loadSchema(t)
	for _, text := range []string{
		`{"op":"pub"}`, `{"op":"pub","topic":"a","queue":"b"}`, `{"op":"pub","topic":"a","d":"x","b":""}`, `{"op":"what"}`,
		`{"op":"pub","topic":"a","more":1}`, `{"op":"pub","topic":"a","prio":10}`, `{"op":"request","topic":"a"}`,
		`{"op":"ack","sub":"s","o":"1"}`, `{"op":"pub","topic":"a","h":[["x"]]}`, `{"op":"pub","topic":"a","b":"*"}`, `{"op":"sub","topic":"a"}`,
	} {
		if err := s.check("command", text); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
	for _, text := range []string{`{"op":"ok"}`, `{"op":"msg","sub":"1","o":1,"ts":1,"t":"a"}`, `{"op":"err","code":"odd","text":""}`} {
		if err := s.check("answer", text); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}
