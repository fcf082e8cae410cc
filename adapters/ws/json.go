package ws

import (
	"encoding/base64"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// maxDepth bounds how deep the arrays and objects of one message nest.
const maxDepth = 64

// A syntaxError says what is wrong with a message, and at which byte.
type syntaxError struct {
	at   int
	text string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.text, e.at) }

// A lexer takes values off one JSON text (RFC 8259), strictly. The text has
// been found to be UTF-8. Strings are unescaped in place, so that what it
// returns aliases the text and nothing is allocated. It is a decoder.
type lexer struct {
	buf []byte
	pos int
	// fresh says that nothing was taken yet of the object or array that was
	// begun last.
	fresh bool
}

func (l *lexer) reset(text []byte) { *l = lexer{buf: text} }

func (l *lexer) at() int { return l.pos }

func (l *lexer) fail(text string) error { return &syntaxError{l.pos, text} }

func (l *lexer) failAt(at int, text string) error { return &syntaxError{at, text} }

// peek skips white space and returns the byte in front, 0 at the end.
func (l *lexer) peek() byte {
	for l.pos < len(l.buf) {
		switch c := l.buf[l.pos]; c {
		case ' ', '\t', '\n', '\r':
			l.pos++
		default:
			return c
		}
	}
	return 0
}

// front is what kind of value comes.
func (l *lexer) front() kind {
	switch l.peek() {
	case '"':
		return kindText
	case '{':
		return kindObject
	}
	return kindOther
}

// take skips white space and takes the byte c, or fails.
func (l *lexer) take(c byte, what string) error {
	if l.peek() != c {
		return l.fail("want " + what)
	}
	l.pos++
	return nil
}

// end fails unless nothing is left.
func (l *lexer) end() error {
	if l.peek(); l.pos < len(l.buf) {
		return l.fail("something follows the object")
	}
	return nil
}

// object begins an object.
func (l *lexer) object() error {
	l.fresh = true
	return l.take('{', "an object")
}

// name takes the next name of an object, and its colon, or the object's end.
// Whether a name repeats is for the caller to say.
func (l *lexer) name() (name string, at int, more bool, err error) {
	if more, err = l.more('}', "a comma or the object's end"); !more || err != nil {
		return "", l.pos, false, err
	}
	l.peek()
	at = l.pos
	if name, err = l.str(); err == nil {
		err = l.take(':', "a colon")
	}
	return name, at, true, err
}

// array begins an array.
func (l *lexer) array() error {
	l.fresh = true
	return l.take('[', "an array")
}

// element reports whether another element of an array comes, or takes the
// array's end.
func (l *lexer) element() (more bool, err error) {
	return l.more(']', "a comma or the array's end")
}

func (l *lexer) more(closing byte, what string) (bool, error) {
	c := l.peek()
	switch {
	case l.fresh && c != closing:
		l.fresh = false
		return true, nil
	case !l.fresh && c == ',':
		l.pos++
		return true, nil
	case c == closing:
		l.fresh = false
		l.pos++
		return false, nil
	}
	return false, l.fail("want " + what)
}

// str takes a string.
func (l *lexer) str() (string, error) {
	b, err := l.text()
	return view(b), err
}

// req takes a request's number or name and keeps its text, which is given back
// as it came.
func (l *lexer) req() ([]byte, error) {
	l.peek()
	start := l.pos
	if l.peek() == '"' {
		if err := l.skipString(); err != nil {
			return nil, err
		}
		if l.pos-start > maxReqBytes+2 {
			return nil, l.failAt(start, errReqLong)
		}
	} else if _, err := l.integer(maxSafe); err != nil {
		return nil, err
	}
	return l.buf[start:l.pos:l.pos], nil
}

// number takes an integer and returns its digits.
func (l *lexer) number() (string, error) {
	l.peek()
	at := l.pos
	_, err := l.integer(maxSafe)
	return view(l.buf[at:l.pos]), err
}

// view views bytes as a string, which is valid as long as they stay as they
// are.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// text is str as bytes.
func (l *lexer) text() ([]byte, error) {
	if err := l.take('"', "a string"); err != nil {
		return nil, err
	}
	start := l.pos
	for i := start; i < len(l.buf); i++ {
		switch c := l.buf[i]; {
		case c == '"':
			l.pos = i + 1
			return l.buf[start:i:i], nil
		case c == '\\':
			return l.unescape(start, i)
		case c < ' ':
			return nil, l.failAt(i, "a control character in a string")
		}
	}
	return nil, l.failAt(len(l.buf), "a string does not end")
}

// unescape takes a string that begins at start and has its first escape at
// from, writing what the escapes stand for over the text.
func (l *lexer) unescape(start, from int) ([]byte, error) {
	to := from
	for i := from; i < len(l.buf); {
		c := l.buf[i]
		switch {
		case c == '"':
			l.pos = i + 1
			return l.buf[start:to:to], nil
		case c < ' ':
			return nil, l.failAt(i, "a control character in a string")
		case c != '\\':
			l.buf[to] = c
			to, i = to+1, i+1
			continue
		}
		if i+1 >= len(l.buf) {
			break
		}
		r, n, ok := escapeAt(l.buf, i)
		if !ok {
			return nil, l.failAt(i, "an escape of no character")
		}
		// An escape is never shorter than what it stands for, so nothing
		// unread is overwritten.
		to += utf8.EncodeRune(l.buf[to:i+n], r)
		i += n
	}
	return nil, l.failAt(len(l.buf), "a string does not end")
}

// escapeAt is the character that the escape at i stands for, and how long the
// escape is.
func escapeAt(b []byte, i int) (r rune, n int, ok bool) {
	if i+1 >= len(b) {
		return 0, 0, false
	}
	if b[i+1] != 'u' {
		c := escaped(b[i+1])
		return rune(c), 2, c != 0
	}
	if r, ok = hex4(b[i+2:]); !ok || !utf16.IsSurrogate(r) {
		return r, 6, ok
	}
	low := rune(0)
	if rest := b[i+6:]; len(rest) >= 2 && rest[0] == '\\' && rest[1] == 'u' {
		low, ok = hex4(rest[2:])
	}
	r = utf16.DecodeRune(r, low)
	return r, 12, ok && r != utf8.RuneError
}

// escaped is the byte that a backslash and c stand for, 0 for none.
func escaped(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// binary takes a string of base64 and decodes it, in place (RFC 4648, section 4,
// with padding).
func (l *lexer) binary() ([]byte, error) {
	l.peek()
	at := l.pos
	b, err := l.text()
	if err != nil {
		return nil, err
	}
	for i, c := range b {
		if c == '\n' || c == '\r' {
			return nil, l.failAt(at+1+i, "a line break in base64")
		}
	}
	n, err := base64.StdEncoding.Strict().Decode(b, b)
	if err != nil {
		return nil, l.failAt(at, "bad base64")
	}
	return b[:n:n], nil
}

// integer takes an integer from 0 to limit.
func (l *lexer) integer(limit uint64) (uint64, error) {
	l.peek()
	at, n := l.pos, uint64(0)
	for l.pos < len(l.buf) && '0' <= l.buf[l.pos] && l.buf[l.pos] <= '9' {
		digit := uint64(l.buf[l.pos] - '0')
		if n > (limit-digit)/10 || limit < digit {
			return 0, l.failAt(at, fmt.Sprintf("want an integer from 0 to %d", limit))
		}
		n = n*10 + digit
		l.pos++
	}
	digits := l.pos - at
	if digits == 0 || digits > 1 && l.buf[at] == '0' || l.pos < len(l.buf) && isNumber(l.buf[l.pos]) {
		return 0, l.failAt(at, fmt.Sprintf("want an integer from 0 to %d", limit))
	}
	return n, nil
}

func isNumber(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == '-' || c == '+' || c == 'e' || c == 'E'
}

// boolean takes true or false.
func (l *lexer) boolean() (bool, error) {
	l.peek()
	switch rest := l.buf[l.pos:]; {
	case len(rest) >= 4 && string(rest[:4]) == "true":
		l.pos += 4
		return true, nil
	case len(rest) >= 5 && string(rest[:5]) == "false":
		l.pos += 5
		return false, nil
	}
	return false, l.fail("want true or false")
}
