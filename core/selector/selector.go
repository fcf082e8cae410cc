package selector

import "github.com/sluicemq/sluice/core"

// What bounds a selector's text, and how deep its parentheses, NOTs and signs
// may be nested.
const (
	MaxBytes = 8 << 10
	MaxDepth = 64
)

// A Selector is a parsed selector. It is never changed, so any number of
// goroutines may use it. A nil one, like a blank text, selects everything.
type Selector struct {
	root expr // nil where the text was blank
}

// Parse reads a selector. The error wraps [core.ErrInvalid] and names the byte
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
func (s *Selector) Match(e *core.Envelope, at core.Offset) bool {
	return s == nil || s.root == nil || s.root.eval(e, at).isTrue()
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
