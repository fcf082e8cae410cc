package selector

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// A parser descends through the grammar, one function a level. After its first
// error it sees nothing but the end of the text, so that all of them return.
type parser struct {
	text string
	t    token // the next one
	end  int   // where it ends
	// depth counts the parentheses, NOTs and signs around it.
	depth int
	err   error
}

// parse reads a selector of any length.
func parse(s string) (*Selector, error) {
	if !utf8.ValidString(s) {
		at := strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError })
		for strings.HasPrefix(s[at:], "\uFFFD") { // that is one, written out
			at += 3
			at += strings.IndexFunc(s[at:], func(r rune) bool { return r == utf8.RuneError })
		}
		return nil, invalid(at, "UTF-8", strconv.Quote(s[at:at+1]))
	}
	p := parser{text: s}
	p.next()
	if p.t.kind == tokenEnd && p.err == nil {
		return &Selector{}, nil
	}
	start := p.t.pos
	root := p.condition(start, p.or())
	if p.t.kind != tokenEnd {
		p.fail("an operator or the end")
	}
	if p.err != nil {
		return nil, p.err
	}
	return &Selector{root}, nil
}

// next goes on to the next token.
func (p *parser) next() {
	if p.err == nil {
		p.t, p.end, p.err = scan(p.text, p.end)
	}
	if p.err != nil {
		p.t = token{pos: len(p.text)}
	}
}

// fail says that the next token should be another.
func (p *parser) fail(expected string) { p.failAt(p.t.pos, expected, p.t.describe()) }

func (p *parser) failAt(pos int, expected, found string) {
	if p.err == nil {
		p.err = invalid(pos, expected, found)
		p.next()
	}
}

// take goes on if the next token is that keyword or symbol.
func (p *parser) take(kind tokenKind, text string) bool {
	if p.t.kind != kind || p.t.text != text {
		return false
	}
	p.next()
	return true
}

func (p *parser) want(kind tokenKind, text string) {
	if !p.take(kind, text) {
		p.fail(text)
	}
}

// nest reads what is behind a token that nests.
func (p *parser) nest(read func() expr) expr {
	if p.depth == MaxDepth {
		p.fail("no more than " + strconv.Itoa(MaxDepth) + " levels of nesting")
		return literal{}
	}
	p.depth++
	p.next()
	x := read()
	p.depth--
	return x
}

// condition is x as a condition, if it can be one; it began at start.
func (p *parser) condition(start int, x expr) expr {
	switch y := x.yields(); y {
	case aCondition:
		return x
	case anything:
		return flag{x}
	default:
		p.failAt(start, "a condition", y.String())
		return x
	}
}

// number checks that x can be a number.
func (p *parser) number(start int, x expr) expr {
	if y := x.yields(); y == aCondition || y == aString {
		p.failAt(start, "a number", y.String())
	}
	return x
}

// conditions reads one operand, or several with the keyword between each two.
func (p *parser) conditions(word string, read func() expr) (list []expr) {
	for {
		start := p.t.pos
		x := read()
		if list == nil && (p.t.kind != tokenKeyword || p.t.text != word) {
			return []expr{x}
		}
		list = append(list, p.condition(start, x))
		if !p.take(tokenKeyword, word) {
			return list
		}
	}
}

func (p *parser) or() expr {
	if list := p.conditions("OR", p.and); len(list) > 1 {
		return either(list)
	} else {
		return list[0]
	}
}

func (p *parser) and() expr {
	if list := p.conditions("AND", p.not); len(list) > 1 {
		return all(list)
	} else {
		return list[0]
	}
}

func (p *parser) not() expr {
	if p.t.kind != tokenKeyword || p.t.text != "NOT" {
		return p.comparison()
	}
	return p.nest(func() expr {
		start := p.t.pos
		return negation{p.condition(start, p.not())}
	})
}

func (p *parser) comparison() expr {
	start := p.t.pos
	x := p.sum()
	if op, ok := operatorOf(p.t, opEqual, opGreaterOrEqual); ok {
		p.next()
		second := p.t.pos
		y := p.sum()
		if op.orders() {
			p.number(start, x)
			p.number(second, y)
		}
		return &comparison{op, x, y}
	}
	if p.take(tokenKeyword, "IS") {
		p.name(start, x)
		negated := p.take(tokenKeyword, "NOT")
		p.want(tokenKeyword, "NULL")
		return isNull{x, negated}
	}
	negated := p.take(tokenKeyword, "NOT")
	switch {
	case p.take(tokenKeyword, "BETWEEN"):
		return p.between(start, x, negated)
	case p.take(tokenKeyword, "IN"):
		p.name(start, x)
		return &among{x, p.list(), negated}
	case p.take(tokenKeyword, "LIKE"):
		p.name(start, x)
		if x.yields() == aNumber {
			p.failAt(start, "a name of text before LIKE", "one of a number")
		}
		return &like{x, p.pattern(), negated}
	case negated:
		p.fail("BETWEEN, IN or LIKE")
	}
	return x
}

// name checks that x is a name, as only that may stand before IS, IN and LIKE.
func (p *parser) name(start int, x expr) {
	switch x.(type) {
	case header, Field:
	default:
		p.failAt(start, "a name before IS, IN or LIKE", "another expression")
	}
}

func (p *parser) between(start int, x expr, negated bool) expr {
	p.number(start, x)
	start = p.t.pos
	low := p.number(start, p.sum())
	p.want(tokenKeyword, "AND")
	start = p.t.pos
	high := p.number(start, p.sum())
	return &between{x, low, high, negated}
}

// list reads an IN's literals.
func (p *parser) list() (list []literal) {
	p.want(tokenSymbol, "(")
	for {
		start := p.t.pos
		item, ok := p.sign().(literal)
		if !ok || item.yields() == aCondition {
			p.failAt(start, "a string or a number in IN", "another expression")
			return nil
		}
		list = append(list, item)
		if p.take(tokenSymbol, ")") {
			return list
		}
		if !p.take(tokenSymbol, ",") {
			p.fail(", or )")
			return nil
		}
	}
}

func (p *parser) pattern() pattern {
	text := p.string("a pattern, which is a string,")
	escape := token{}
	if p.take(tokenKeyword, "ESCAPE") {
		escape = p.string("an escape of one character")
		if utf8.RuneCountInString(escape.text) != 1 {
			p.failAt(escape.pos, "an escape of one character", strconv.Itoa(utf8.RuneCountInString(escape.text)))
		}
	}
	if p.err != nil {
		return pattern{}
	}
	parsed, expected := parsePattern(text.text, escape.text)
	if expected != "" {
		p.failAt(text.pos, expected, shorten(text.text))
	}
	return parsed
}

func (p *parser) string(expected string) token {
	t := p.t
	if t.kind != tokenString {
		p.fail(expected)
		return t
	}
	p.next()
	return t
}

func (p *parser) sum() expr     { return p.chain(opAdd, opSubtract, p.product) }
func (p *parser) product() expr { return p.chain(opMultiply, opDivide, p.sign) }

func (p *parser) chain(first, last operator, read func() expr) expr {
	start := p.t.pos
	x := read()
	op, ok := operatorOf(p.t, first, last)
	if !ok {
		return x
	}
	c := &chain{first: p.number(start, x)}
	for ; ok; op, ok = operatorOf(p.t, first, last) {
		p.next()
		start = p.t.pos
		c.rest = append(c.rest, link{op, p.number(start, read())})
	}
	return c
}

// sign reads an operand with or without a sign. The sign of a literal is the
// literal's Field.
func (p *parser) sign() expr {
	op, ok := operatorOf(p.t, opAdd, opSubtract)
	if !ok {
		return p.primary()
	}
	negative := op == opSubtract
	return p.nest(func() expr {
		if p.t.kind == tokenExact || p.t.kind == tokenApproximate {
			return p.literalNumber(negative)
		}
		start := p.t.pos
		x := p.number(start, p.sign())
		l, ok := x.(literal)
		switch {
		case ok && negative:
			return literal{negate(l.v)}
		case ok:
			return l
		}
		return signed{negative, x}
	})
}

func (p *parser) literalNumber(negative bool) expr {
	v, expected := literalNumber(p.t, negative)
	if expected != "" {
		p.fail(expected)
		return literal{}
	}
	p.next()
	return literal{v}
}

func (p *parser) primary() expr {
	t := p.t
	switch t.kind {
	case tokenName:
		x, ok := resolve(t.text)
		if !ok {
			p.fail("one of JMSPriority, JMSTimestamp, JMSMessageID, JMSCorrelationID, JMSType, JMSReplyTo and JMSDeliveryMode, or a name that does not begin with JMS,")
			return literal{}
		}
		p.next()
		return x
	case tokenQuotedName:
		p.next()
		return header{t.text}
	case tokenString:
		p.next()
		return literal{value{kind: kindString, s: t.text}}
	case tokenExact, tokenApproximate:
		return p.literalNumber(false)
	case tokenKeyword:
		if t.text == "TRUE" || t.text == "FALSE" {
			p.next()
			return literal{boolean(t.text == "TRUE")}
		}
	case tokenSymbol:
		if t.text == "(" {
			return p.nest(func() expr {
				x := p.or()
				if !p.take(tokenSymbol, ")") {
					p.fail("an operator or )")
				}
				return x
			})
		}
	}
	p.fail("a name or a value")
	return literal{}
}
