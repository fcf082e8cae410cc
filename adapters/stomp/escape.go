package stomp

import "bytes"

// escapes names the escape sequences of each version in an answer to a client
// that sent another one.
var escapes = [...]string{v10: "none", v11: `\n, \c and \\`, v12: `\r, \n, \c and \\`}

// unescape decodes a header's name or value in place. It reports false for a
// sequence that the version does not know, which is a fatal error (STOMP 1.2
// "Value Encoding"). 1.0 has no escapes.
func unescape(b []byte, v version) ([]byte, bool) {
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return b, true
	}
	to := i
	for ; i < len(b); i++ {
		c := b[i]
		if c == '\\' {
			i++
			if i == len(b) {
				return b, false
			}
			switch e := b[i]; {
			case e == 'n':
				c = '\n'
			case e == 'c':
				c = ':'
			case e == '\\':
			case e == 'r' && v == v12:
				c = '\r'
			default:
				return b, false
			}
		}
		b[to] = c
		to++
	}
	return b[:to], true
}

// appendName appends a header's name as the version writes it. What it cannot
// express is replaced: a NUL everywhere; in 1.0, which has no escapes, also a
// line feed and a colon.
func appendName(dst []byte, s string, v version) []byte { return appendText(dst, s, v, true) }

// appendValue appends a header's value likewise; a colon in it needs no
// replacement in 1.0.
func appendValue(dst []byte, s string, v version) []byte { return appendText(dst, s, v, false) }

// plain reports whether no version writes a string differently.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\', '\n', '\r', ':', 0:
			return false
		}
	}
	return true
}

// expressible reports whether a version can write a header's name or value
// without replacing anything.
func expressible(s string, v version, name bool) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case 0:
			return false
		case '\n':
			if v == v10 {
				return false
			}
		case '\r':
			// A receiver may take a final CR for a part of the line's end.
			if v != v12 {
				return false
			}
		case ':':
			if v == v10 && name {
				return false
			}
		}
	}
	return true
}

func appendText(dst []byte, s string, v version, name bool) []byte {
	if plain(s) {
		return append(dst, s...)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == 0:
			dst = append(dst, "\uFFFD"...)
		case v == v10 && (c == '\n' || c == '\r'):
			dst = append(dst, ' ')
		case v == v10 && c == ':' && name:
			dst = append(dst, '_')
		case v == v10:
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == ':':
			dst = append(dst, `\c`...)
		case c == '\\':
			dst = append(dst, `\\`...)
		case c == '\r' && v == v12:
			dst = append(dst, `\r`...)
		case c == '\r':
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
