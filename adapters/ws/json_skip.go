package ws

import "fmt"

// value takes any value and returns its text, verbatim.
func (l *lexer) value() ([]byte, error) {
	l.peek()
	start := l.pos
	if err := l.skip(); err != nil {
		return nil, err
	}
	return l.buf[start:l.pos:l.pos], nil
}

// skip takes any value without changing the text. It does not recurse: what is
// open stands in a word of bits, 1 for an object.
func (l *lexer) skip() error {
	var objects uint64
	depth := 0
	for {
		switch c := l.peek(); {
		case c == '{' || c == '[':
			if depth == maxDepth {
				return l.fail(fmt.Sprintf("nested deeper than %d", maxDepth))
			}
			l.pos++
			depth++
			objects <<= 1
			if c == '{' {
				objects |= 1
			}
			if closing := l.peek(); closing == c+2 {
				break // '{'+2 is '}' and '['+2 is ']': empty
			}
			if c == '{' {
				if err := l.skipName(); err != nil {
					return err
				}
			}
			continue
		case c == '"':
			if err := l.skipString(); err != nil {
				return err
			}
		case c == '-' || '0' <= c && c <= '9':
			if err := l.skipNumber(); err != nil {
				return err
			}
		default:
			if err := l.skipWord(); err != nil {
				return err
			}
		}
		// A value has ended: close what it ends, go on with what it does not.
		for {
			if depth == 0 {
				return nil
			}
			object := objects&1 == 1
			c := l.peek()
			if c == ',' {
				l.pos++
				if object {
					l.peek()
					if err := l.skipName(); err != nil {
						return err
					}
				}
				break
			}
			if object && c != '}' || !object && c != ']' {
				return l.fail("want a comma or the end of what is open")
			}
			l.pos++
			depth--
			objects >>= 1
		}
	}
}

func (l *lexer) skipName() error {
	if err := l.skipString(); err != nil {
		return err
	}
	return l.take(':', "a colon")
}

func (l *lexer) skipString() error {
	if l.pos >= len(l.buf) || l.buf[l.pos] != '"' {
		return l.fail("want a string")
	}
	for i := l.pos + 1; i < len(l.buf); i++ {
		switch c := l.buf[i]; {
		case c == '"':
			l.pos = i + 1
			return nil
		case c < ' ':
			return l.failAt(i, "a control character in a string")
		case c == '\\':
			i++
			if i >= len(l.buf) {
				break
			}
			if l.buf[i] == 'u' {
				if _, ok := hex4(l.buf[i+1:]); !ok {
					return l.failAt(i-1, "an escape without four hexadecimal digits")
				}
				i += 4
			} else if escaped(l.buf[i]) == 0 {
				return l.failAt(i-1, "an unknown escape")
			}
		}
	}
	return l.failAt(len(l.buf), "a string does not end")
}

func (l *lexer) skipNumber() error {
	at := l.pos
	digits := func() int {
		n := l.pos
		for l.pos < len(l.buf) && '0' <= l.buf[l.pos] && l.buf[l.pos] <= '9' {
			l.pos++
		}
		return l.pos - n
	}
	next := func(set string) bool {
		if l.pos < len(l.buf) {
			for i := range len(set) {
				if l.buf[l.pos] == set[i] {
					l.pos++
					return true
				}
			}
		}
		return false
	}
	next("-")
	whole := l.pos
	n := digits()
	ok := n == 1 || n > 1 && l.buf[whole] != '0'
	if ok && next(".") {
		ok = digits() > 0
	}
	if ok && next("eE") {
		next("+-")
		ok = digits() > 0
	}
	if !ok {
		return l.failAt(at, "a bad number")
	}
	return nil
}

func (l *lexer) skipWord() error {
	for _, word := range [...]string{"true", "false", "null"} {
		if rest := l.buf[l.pos:]; len(rest) >= len(word) && string(rest[:len(word)]) == word {
			l.pos += len(word)
			return nil
		}
	}
	return l.fail("want a value")
}
