package selector

import "fmt"

// What bounds a selector's text, and how deep its parentheses, NOTs and signs
// may be nested.
const (
	MaxBytes = 8 << 10
	MaxDepth = 64
)

// A Message gives the names in a selector their values. It is only asked during
// Match.
type Message interface {
	// Field returns one of the broker's own fields, NULL where it is unset.
	Field(Field) Value
	// Header returns the first header of that name.
	Header(name string) (value string, ok bool)
}

// A Value is what a name stands for. The zero Value is NULL.
type Value = value

// Text is text that was sent: a string, and the number or boolean it spells. It
// is NULL where it is empty.
func Text(s string) Value { return unsetIfEmpty(s) }

// String is a string that is never read as a number.
func String(s string) Value { return value{kind: kindString, s: s} }

// Whole is a whole number.
func Whole(n int64) Value { return exact(n) }

// A SyntaxError says where a text stops being a selector.
type SyntaxError struct {
	// At is the byte, from 0.
	At              int
	Expected, Found string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("selector: expected %s at byte %d, found %s", e.Expected, e.At, e.Found)
}

// A Selector is a parsed selector. It is never changed, so any number of
// goroutines may use it. A nil one, like a blank text, selects everything.
type Selector struct {
	root expr // nil where the text was blank
}

// Parse reads a selector. The error is a [*SyntaxError], which names the byte
// (from 0) at which the text stops being a selector and what was expected
// there. Operands that can never have the right type are errors, too. A blank
// text selects everything, as an empty selector does in JMS.
func Parse(s string) (*Selector, error) {
	if len(s) > MaxBytes {
		return nil, invalid(MaxBytes, "the end, as a selector has at most 8192 bytes", "more")
	}
	return parse(s)
}

// Match reports whether the selector is true for an envelope with that offset:
// neither false nor unknown. It does not block, keeps nothing of the envelope
// and does not allocate. What it costs grows with the selector; a LIKE looks at
// its text once, but for a pattern with an underscore between two percent
// signs, which can cost the product of both their lengths.
func (s *Selector) Match(m Message, at uint64) bool {
	return s == nil || s.root == nil || s.root.eval(m, at).isTrue()
}

// String is the selector in one form for all the texts that mean it: keywords
// in capitals, the broker's names for what has two, parentheses where they are
// needed. Parse reads it as an equal selector, except where the spaces between
// the words make it longer than MaxBytes.
func (s *Selector) String() string {
	if s == nil || s.root == nil {
		return ""
	}
	return string(s.root.appendTo(nil))
}
