package selector

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A token is one word of a selector.
type token struct {
	kind tokenKind
	pos  int
	// text is the keyword in capitals, the symbol, the name, or the string,
	// without its quotes; a number's is as it was written.
	text string
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenKeyword
	tokenSymbol
	tokenName
	tokenQuotedName
	tokenString
	tokenExact
	tokenApproximate
)

// describe is the token as an error shows it.
func (t token) describe() string {
	switch t.kind {
	case tokenEnd:
		return "the end"
	case tokenString:
		return "a string"
	}
	return shorten(t.text)
}

func shorten(s string) string {
	const most = 32
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
}

func invalid(pos int, expected, found string) error {
	return &SyntaxError{At: pos, Expected: expected, Found: found}
}

// keyword returns s in capitals if it is one of the grammar's words.
func keyword(s string) (string, bool) {
	for _, k := range [...]string{"NULL", "TRUE", "FALSE", "NOT", "AND", "OR", "BETWEEN", "LIKE", "IN", "IS", "ESCAPE"} {
		// Not EqualFold, to which the Kelvin sign is a K.
		if len(s) == len(k) && strings.ToUpper(s) == k {
			return k, true
		}
	}
	return "", false
}

// nameStart and namePart are Java's Character.isJavaIdentifierStart and
// isJavaIdentifierPart, but for the characters that the latter ignores.
func nameStart(r rune) bool {
	return r == '_' || r == '$' || unicode.In(r, unicode.L, unicode.Nl, unicode.Sc, unicode.Pc)
}

func namePart(r rune) bool {
	return nameStart(r) || unicode.In(r, unicode.Nd, unicode.Mn, unicode.Mc)
}

// nameEnd is where the name ends that begins at i; i, if none does.
func nameEnd(s string, i int) int {
	is := nameStart
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !is(r) {
			break
		}
		i += n
		is = namePart
	}
	return i
}

// scan reads the token that begins at or after i, and returns where it ends.
func scan(s string, i int) (t token, end int, err error) {
	for i < len(s) && strings.IndexByte(" \t\r\n\f", s[i]) >= 0 {
		i++
	}
	if i == len(s) {
		return token{pos: i}, i, nil
	}
	if end = nameEnd(s, i); end > i {
		if k, ok := keyword(s[i:end]); ok {
			return token{tokenKeyword, i, k}, end, nil
		}
		return token{tokenName, i, s[i:end]}, end, nil
	}
	next := byte(0)
	if i+1 < len(s) {
		next = s[i+1]
	}
	switch c := s[i]; {
	case c == '\'':
		text, end, err := scanQuoted(s, i, "a string's closing '")
		return token{tokenString, i, text}, end, err
	case c == '"':
		text, end, err := scanQuoted(s, i, `a name's closing "`)
		if err == nil && text == "" {
			err = invalid(i+1, "a header's name", `"\""`)
		}
		return token{tokenQuotedName, i, text}, end, err
	case isDigit(c) || c == '.' && isDigit(next):
		return scanNumber(s, i)
	case c == '-' && next == '-' || c == '/' && next == '*':
		return token{}, 0, invalid(i, "a word, as there are no comments here,", shorten(s[i:i+2]))
	case c == '<' && (next == '>' || next == '=') || c == '>' && next == '=':
		return token{tokenSymbol, i, s[i : i+2]}, i + 2, nil
	case strings.IndexByte("=<>+-*/(),", c) >= 0:
		return token{tokenSymbol, i, s[i : i+1]}, i + 1, nil
	}
	_, n := utf8.DecodeRuneInString(s[i:])
	return token{}, 0, invalid(i, "a name, a value or an operator", strconv.Quote(s[i:i+n]))
}

// scanQuoted reads what is between the quote at i and the next one of its kind
// that is not doubled.
func scanQuoted(s string, i int, closing string) (text string, end int, err error) {
	quote := s[i : i+1]
	for end = i + 1; ; end += 2 {
		n := strings.Index(s[end:], quote)
		if n < 0 {
			return "", 0, invalid(len(s), closing, "the end")
		}
		end += n
		if !strings.HasPrefix(s[end+1:], quote) {
			return strings.ReplaceAll(s[i+1:end], quote+quote, quote), end + 1, nil
		}
	}
}

// scanNumber reads a literal: an exact one, which has only digits (and may have
// a radix and an L), or an approximate one.
func scanNumber(s string, i int) (t token, end int, err error) {
	t = token{kind: tokenExact, pos: i}
	end = i
	digits := func() {
		for end < len(s) && isDigit(s[end]) {
			end++
		}
	}
	at := func(letters string) bool { return end < len(s) && strings.IndexByte(letters, s[end]) >= 0 }
	if s[i] == '0' && i+1 < len(s) && strings.IndexByte("xXbB", s[i+1]) >= 0 {
		// What is wrong with its digits is found as they are converted.
		end = nameOrDigitsEnd(s, i)
		t.text = s[i:end]
		return t, end, nil
	}
	digits()
	if at(".") {
		t.kind = tokenApproximate
		end++
		digits()
	}
	if at("eE") {
		t.kind = tokenApproximate
		end++
		if at("+-") {
			end++
		}
		from := end
		digits()
		if end == from {
			return t, 0, invalid(end, "an exponent's digits", found(s, end))
		}
	}
	switch {
	case at("fFdD"):
		t.kind = tokenApproximate
		end++
	case t.kind == tokenExact && at("lL"):
		end++
	}
	if after := nameOrDigitsEnd(s, end); after > end {
		return t, 0, invalid(end, "an operator after a number", shorten(s[end:after]))
	}
	t.text = s[i:end]
	return t, end, nil
}

// found describes what is at i where no token is.
func found(s string, i int) string {
	if i == len(s) {
		return "the end"
	}
	_, n := utf8.DecodeRuneInString(s[i:])
	return strconv.Quote(s[i : i+n])
}

// nameOrDigitsEnd is where the run of letters and digits from i ends.
func nameOrDigitsEnd(s string, i int) int {
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !namePart(r) {
			break
		}
		i += n
	}
	return i
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// literalNumber is the value of a number's token, with its sign, as the least
// of the whole numbers has no positive counterpart.
func literalNumber(t token, negative bool) (v value, expected string) {
	if t.kind == tokenApproximate {
		f, err := strconv.ParseFloat(strings.TrimRight(t.text, "fFdD"), 64)
		if err != nil {
			return null, "a number in the range of a double"
		}
		if negative {
			f = -f
		}
		return approximate(f), ""
	}
	text, base := t.text, 10
	if last := text[len(text)-1]; last == 'l' || last == 'L' {
		text = text[:len(text)-1]
	}
	switch lower := strings.ToLower(text); {
	case strings.HasPrefix(lower, "0x"):
		text, base = text[2:], 16
	case strings.HasPrefix(lower, "0b"):
		text, base = text[2:], 2
	case len(text) > 1 && text[0] == '0':
		text, base = text[1:], 8
	}
	if negative {
		text = "-" + text
	}
	n, err := strconv.ParseInt(text, base, 64)
	if err != nil {
		return null, "a whole number of 64 bits, decimal, 0x…, 0b… or octal 0…"
	}
	return exact(n), ""
}
