package selector

import (
	"strings"
	"unicode/utf8"
)

// A pattern is a LIKE's: '_' stands for any one character, '%' for any number
// of them, and the escape takes that meaning from the one behind it.
type pattern struct {
	text   string
	escape string // one character, empty without ESCAPE
	// parts are what is between the pattern's percent signs: the first begins
	// the text, the last ends it, and those between follow in order. One part
	// is the whole text.
	parts []part
}

// A part is a run of characters without '%'.
type part struct {
	// runs are the strings between the '_' of the part, one more than those.
	runs []string
}

// parsePattern returns what was expected where the escape stands before
// anything but '%', '_' and itself, which SQL-92 8.5 forbids.
func parsePattern(text, escape string) (p pattern, expected string) {
	p = pattern{text: text, escape: escape}
	var run []byte
	var runs []string
	endRun := func() {
		runs = append(runs, string(run))
		run = run[:0]
	}
	endPart := func() {
		endRun()
		p.parts = append(p.parts, part{runs})
		runs = nil
	}
	for i := 0; i < len(text); {
		_, n := utf8.DecodeRuneInString(text[i:])
		switch c := text[i : i+n]; {
		case c == escape:
			i += n
			_, n = utf8.DecodeRuneInString(text[i:])
			if c = text[i : i+n]; c != "%" && c != "_" && c != escape {
				return pattern{}, "a pattern with %, _ or the escape itself behind each escape"
			}
			run = append(run, c...)
		case c == "%":
			endPart()
		case c == "_":
			endRun()
		default:
			run = append(run, c...)
		}
		i += n
	}
	endPart()
	return p, ""
}

// match reports whether the whole of s is like the pattern.
func (p *pattern) match(s string) bool {
	first, last := p.parts[0], p.parts[len(p.parts)-1]
	n, ok := first.prefix(s)
	if !ok {
		return false
	}
	s = s[n:]
	if len(p.parts) == 1 {
		return s == ""
	}
	// The earliest place is the best for each part, as it leaves most to the
	// next ones.
	for _, m := range p.parts[1 : len(p.parts)-1] {
		if s, ok = m.after(s); !ok {
			return false
		}
	}
	return last.suffix(s)
}

// prefix returns how many bytes at the beginning of s the part takes.
func (p part) prefix(s string) (n int, ok bool) {
	for i, run := range p.runs {
		if i > 0 {
			if n == len(s) {
				return 0, false
			}
			_, size := utf8.DecodeRuneInString(s[n:])
			n += size
		}
		if !strings.HasPrefix(s[n:], run) {
			return 0, false
		}
		n += len(run)
	}
	return n, true
}

// suffix reports whether s ends with the part.
func (p part) suffix(s string) bool {
	for i := len(p.runs) - 1; ; i-- {
		if !strings.HasSuffix(s, p.runs[i]) {
			return false
		}
		s = s[:len(s)-len(p.runs[i])]
		if i == 0 {
			return true
		}
		if s == "" {
			return false
		}
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
}

// after returns what is behind the first place of s where the part is.
func (p part) after(s string) (rest string, ok bool) {
	for {
		i := strings.Index(s, p.runs[0])
		if i < 0 {
			return "", false
		}
		s = s[i:]
		if n, ok := p.prefix(s); ok {
			return s[n:], true
		}
		if s == "" {
			return "", false
		}
		_, size := utf8.DecodeRuneInString(s)
		s = s[size:]
	}
}
