package ws

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

func TestLexerStrings(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`"abc"`, "abc"},
		{`""`, ""},
		{`"a\"\\\/\b\f\n\r\tz"`, "a\"\\/\b\f\n\r\tz"},
		{`"\u00e4\u20AC"`, "ä€"},
		{`"\ud83d\ude00!"`, "😀!"},
		{`"ä\u0000€"`, "ä\x00€"},
	} {
		l := lexer{buf: []byte(c.in)}
		got, err := l.str()
		if err != nil || got != c.want || l.pos != len(c.in) {
			t.Errorf("%s: got %q, %v, at %d", c.in, got, err, l.pos)
		}
	}
	for _, c := range []struct {
		in string
		at int
	}{
		{`abc`, 0}, {`"abc`, 4}, {`"a\`, 3}, {`"a\x"`, 2}, {`"\u12"`, 1}, {`"\ud800"`, 1},
		{`"\ud800\u0041"`, 1}, {`"\udc00"`, 1}, {"\"a\nb\"", 2}, {"\"\\n\x01\"", 3}, {`"\ud83d\ude0`, 1},
	} {
		l := lexer{buf: []byte(c.in)}
		got, err := l.str()
		var e *syntaxError
		if err == nil {
			t.Errorf("%s: accepted as %q", c.in, got)
		} else if e, _ = err.(*syntaxError); e == nil || e.at != c.at {
			t.Errorf("%s: %v, want at byte %d", c.in, err, c.at)
		}
	}
}

func TestLexerIntegers(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit uint64
		want  uint64
		ok    bool
	}{
		{"0", 9, 0, true}, {"9", 9, 9, true}, {"10", 9, 0, false}, {"18446744073709551615", 1<<64 - 1, 1<<64 - 1, true},
		{"18446744073709551616", 1<<64 - 1, 0, false}, {"01", 99, 0, false}, {"-1", 9, 0, false}, {"1.0", 9, 0, false},
		{"1e1", 99, 0, false}, {`"1"`, 9, 0, false}, {"", 9, 0, false}, {"1]", 9, 1, true}, {"5", 4, 0, false},
	} {
		l := lexer{buf: []byte(c.in)}
		got, err := l.integer(c.limit)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("%s up to %d: got %d, %v", c.in, c.limit, got, err)
		}
	}
}

// FuzzLexer holds the lexer against encoding/json.
func FuzzLexer(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, seed := range []string{`{"a":[1,2.5e3,null]}`, `"\ud83d\ude00"`, `[[[[]]]]`, `-0`, `{"a":{"b":"c"}}`, "\"\x7f\"", `12`, `[{"":0},""]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return
		}
		keep := bytes.Clone(text)
		l := lexer{buf: text}
		err := l.skip()
		if err == nil {
			err = l.end()
		}
		if !bytes.Equal(keep, text) {
			t.Fatalf("skip changed %q to %q", keep, text)
		}
		valid := json.Valid(text)
		if err == nil && !valid {
			t.Fatalf("%q accepted", keep)
		}
		if err != nil && valid && !strings.Contains(err.Error(), "deeper") {
			t.Fatalf("%q refused: %v", keep, err)
		}
		l = lexer{buf: text}
		if s, err := l.str(); err == nil && l.end() == nil {
			var want string
			if err := json.Unmarshal(keep, &want); err != nil || want != s {
				t.Fatalf("%q: got %q, want %q, %v", keep, s, want, err)
			}
		}
	})
}
