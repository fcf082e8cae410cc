package core

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"unicode/utf8"
)

// A plainReader decodes JSON of one type of struct, of which there may be
// hundreds of thousands to read at a start. What json.Marshal writes of a struct
// whose fields are numbers, plain strings, bytes and slices of such structs it
// reads in one pass, without garbage and seven times as fast; anything else, be
// it an escape, another order or a field of another version, it leaves to
// encoding/json, so that what is accepted, and as what, is always the same.
type plainReader[T any] struct {
	shape *plainShape
	rest  []byte
	// left counts what was left to encoding/json.
	left int
}

// A plainShape is a struct as json.Marshal writes it: its fields, in order.
type plainShape struct{ fields []plainField }

type plainField struct {
	key  string      // with quotes and colon
	of   *plainShape // where it is a struct, or a slice of them
	last string      // which the next one may share: many are the same
}

func newPlainReader[T any]() *plainReader[T] {
	return &plainReader[T]{shape: plainShapeOf(reflect.TypeFor[T]())}
}

func plainShapeOf(t reflect.Type) *plainShape {
	s := new(plainShape)
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		f := plainField{key: `"` + name + `":`}
		of := t.Field(i).Type
		if of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct {
			f.of = plainShapeOf(of)
		}
		s.fields = append(s.fields, f)
	}
	return s
}

// read decodes a value into v, whose slices it uses again. The strings are v's
// own.
func (p *plainReader[T]) read(value []byte, v *T) error {
	p.rest = value
	if p.object(p.shape, reflect.ValueOf(v).Elem()) && len(p.rest) == 0 {
		return nil
	}
	p.left++
	var again T
	err := json.Unmarshal(value, &again)
	*v = again
	return err
}

// take and word take a byte, or a few, if they come next.
func (p *plainReader[T]) take(c byte) bool {
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *plainReader[T]) word(w string) bool {
	if len(p.rest) < len(w) || string(p.rest[:len(w)]) != w {
		return false
	}
	p.rest = p.rest[len(w):]
	return true
}

// object reads a struct, and is false where it is not written plainly; so are
// those that follow.
func (p *plainReader[T]) object(s *plainShape, v reflect.Value) bool {
	if !p.take('{') {
		return false
	}
	end := p.take('}')
	for i := range s.fields {
		f, field := &s.fields[i], v.Field(i)
		if end || !p.word(f.key) {
			if field.Kind() == reflect.Slice && f.of != nil {
				field.SetLen(0)
			} else {
				field.SetZero()
			}
			continue
		}
		if !p.value(f, field) {
			return false
		}
		if end = p.take('}'); !end && !p.take(',') {
			return false
		}
	}
	return end
}

func (p *plainReader[T]) value(f *plainField, v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Struct:
		return p.object(f.of, v)
	case reflect.Slice:
		if f.of != nil {
			return p.list(f, v)
		}
		text, ok := p.text()
		if !ok {
			return false
		}
		b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(b, text)
		v.SetBytes(b[:n])
		return err == nil
	case reflect.String:
		text, ok := p.text()
		if ok && f.last != string(text) {
			f.last = string(text)
		}
		v.SetString(f.last)
		return ok
	case reflect.Bool:
		v.SetBool(len(p.rest) > 0 && p.rest[0] == 't')
		return p.word("true") || p.word("false")
	case reflect.Int, reflect.Int64:
		minus := p.take('-')
		n, ok := p.number()
		if minus {
			n = -n
		}
		v.SetInt(n)
		return ok
	case reflect.Uint8, reflect.Uint64:
		n, ok := p.number()
		v.SetUint(uint64(n))
		return ok && !v.OverflowUint(uint64(n))
	}
	return false
}

// list reads a slice of structs.
func (p *plainReader[T]) list(f *plainField, v reflect.Value) bool {
	if !p.take('[') {
		return false
	}
	n := 0
	for end := p.take(']'); !end; n++ {
		if n == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(n + 1)
		if !p.object(f.of, v.Index(n)) {
			return false
		}
		if end = p.take(']'); !end && !p.take(',') {
			return false
		}
	}
	v.SetLen(n)
	return n > 0
}

// text reads a string without escapes.
func (p *plainReader[T]) text() (text []byte, ok bool) {
	if !p.take('"') {
		return nil, false
	}
	n := bytes.IndexByte(p.rest, '"')
	if n < 0 {
		return nil, false
	}
	text, p.rest = p.rest[:n], p.rest[n+1:]
	ascii := true
	for _, c := range text {
		if c < ' ' || c == '\\' {
			return nil, false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	return text, ascii || utf8.Valid(text)
}

// number reads a whole number of up to 18 digits.
func (p *plainReader[T]) number() (n int64, ok bool) {
	i := 0
	for ; i < len(p.rest) && p.rest[i]-'0' <= 9; i++ {
		n = 10*n + int64(p.rest[i]-'0')
	}
	ok = i > 0 && i <= 18 && (i == 1 || p.rest[0] != '0')
	p.rest = p.rest[i:]
	return n, ok
}
