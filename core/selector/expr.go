package selector

import (
	"bytes"
	"math"
	"strconv"
)

// An expr is a part of a selector. It is never changed. Envelopes are handed
// down as they are, since a struct of ours around them would be allocated.
type expr interface {
	eval(e Message, at uint64) value
	yields() yield
	level() level
	appendTo(dst []byte) []byte
}

// A yield is what is known of an expression's values beforehand; all of them
// may be NULL.
type yield uint8

const (
	anything yield = iota // text: what it spells shows as it is used
	aCondition
	aNumber
	aString
)

func (y yield) String() string {
	return [...]string{"text", "a condition", "a number", "a string"}[y]
}

// A level is how tightly an expression holds together.
type level uint8

const (
	levelOr level = iota
	levelAnd
	levelNot
	levelComparison
	levelSum
	levelProduct
	levelSign
	levelPrimary
)

// appendAt writes x where only what holds as tightly as least may stand bare.
func appendAt(dst []byte, x expr, least level) []byte {
	if x.level() >= least {
		return x.appendTo(dst)
	}
	dst = x.appendTo(append(dst, '('))
	return append(dst, ')')
}

// appendList writes the operands with a word between each two.
func appendList(dst []byte, list []expr, word string, least level) []byte {
	for i, x := range list {
		if i > 0 {
			dst = append(dst, word...)
		}
		dst = appendAt(dst, x, least)
	}
	return dst
}

// either is an OR of all its operands.
type either []expr

func (x either) eval(e Message, at uint64) value {
	v := falseValue
	for _, operand := range x {
		switch o := operand.eval(e, at); {
		case o.isTrue():
			return o
		case o.kind == kindNull:
			v = o
		}
	}
	return v
}

func (x either) yields() yield              { return aCondition }
func (x either) level() level               { return levelOr }
func (x either) appendTo(dst []byte) []byte { return appendList(dst, x, " OR ", levelAnd) }

// all is an AND of all its operands.
type all []expr

func (x all) eval(e Message, at uint64) value {
	v := trueValue
	for _, operand := range x {
		switch o := operand.eval(e, at); {
		case o.isFalse():
			return o
		case o.kind == kindNull:
			v = o
		}
	}
	return v
}

func (x all) yields() yield              { return aCondition }
func (x all) level() level               { return levelAnd }
func (x all) appendTo(dst []byte) []byte { return appendList(dst, x, " AND ", levelNot) }

// negation is a NOT.
type negation struct{ x expr }

func (x negation) eval(e Message, at uint64) value { return not(x.x.eval(e, at)) }
func (x negation) yields() yield                   { return aCondition }
func (x negation) level() level                    { return levelNot }
func (x negation) appendTo(dst []byte) []byte {
	return appendAt(append(dst, "NOT "...), x.x, levelNot)
}

// flag is a name that stands for a condition.
type flag struct{ name expr }

func (x flag) eval(e Message, at uint64) value {
	return compare(opEqual, x.name.eval(e, at), trueValue)
}

func (x flag) yields() yield              { return aCondition }
func (x flag) level() level               { return levelPrimary }
func (x flag) appendTo(dst []byte) []byte { return x.name.appendTo(dst) }

type comparison struct {
	op   operator
	a, b expr
}

func (x *comparison) eval(e Message, at uint64) value {
	a := x.a.eval(e, at)
	if a.kind == kindNull {
		return null
	}
	return compare(x.op, a, x.b.eval(e, at))
}

func (x *comparison) yields() yield { return aCondition }
func (x *comparison) level() level  { return levelComparison }
func (x *comparison) appendTo(dst []byte) []byte {
	dst = appendAt(dst, x.a, levelSum)
	dst = append(append(append(dst, ' '), operators[x.op]...), ' ')
	return appendAt(dst, x.b, levelSum)
}

// between is x >= low AND x <= high.
type between struct {
	x, low, high expr
	negated      bool
}

func (x *between) eval(e Message, at uint64) value {
	v := x.x.eval(e, at)
	low := compare(opGreaterOrEqual, v, x.low.eval(e, at))
	high := compare(opLessOrEqual, v, x.high.eval(e, at))
	switch {
	case low.isFalse() || high.isFalse():
		return boolean(x.negated)
	case low.kind == kindNull || high.kind == kindNull:
		return null
	}
	return boolean(!x.negated)
}

func (x *between) yields() yield { return aCondition }
func (x *between) level() level  { return levelComparison }
func (x *between) appendTo(dst []byte) []byte {
	dst = appendNot(appendAt(dst, x.x, levelSum), x.negated)
	dst = appendAt(append(dst, " BETWEEN "...), x.low, levelSum)
	return appendAt(append(dst, " AND "...), x.high, levelSum)
}

func appendNot(dst []byte, negated bool) []byte {
	if negated {
		return append(dst, " NOT"...)
	}
	return dst
}

// among is an IN: name = one OR name = another.
type among struct {
	name    expr
	list    []literal
	negated bool
}

func (x *among) eval(e Message, at uint64) value {
	v := x.name.eval(e, at)
	if v.kind == kindNull {
		return null
	}
	for i := range x.list {
		if compare(opEqual, v, x.list[i].v).isTrue() {
			return boolean(!x.negated)
		}
	}
	return boolean(x.negated)
}

func (x *among) yields() yield { return aCondition }
func (x *among) level() level  { return levelComparison }
func (x *among) appendTo(dst []byte) []byte {
	dst = append(appendNot(x.name.appendTo(dst), x.negated), " IN ("...)
	for i := range x.list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = x.list[i].appendTo(dst)
	}
	return append(dst, ')')
}

type like struct {
	name    expr
	pattern pattern
	negated bool
}

func (x *like) eval(e Message, at uint64) value {
	v := x.name.eval(e, at)
	if v.kind == kindNull {
		return null
	}
	return boolean(x.pattern.match(v.s) != x.negated)
}

func (x *like) yields() yield { return aCondition }
func (x *like) level() level  { return levelComparison }
func (x *like) appendTo(dst []byte) []byte {
	dst = append(appendNot(x.name.appendTo(dst), x.negated), " LIKE "...)
	dst = appendQuoted(dst, '\'', x.pattern.text)
	if x.pattern.escape != "" {
		dst = appendQuoted(append(dst, " ESCAPE "...), '\'', x.pattern.escape)
	}
	return dst
}

// isNull is an IS NULL: the one condition that is never unknown.
type isNull struct {
	name    expr
	negated bool
}

func (x isNull) eval(e Message, at uint64) value {
	return boolean((x.name.eval(e, at).kind == kindNull) != x.negated)
}

func (x isNull) yields() yield { return aCondition }
func (x isNull) level() level  { return levelComparison }
func (x isNull) appendTo(dst []byte) []byte {
	dst = append(x.name.appendTo(dst), " IS"...)
	return append(appendNot(dst, x.negated), " NULL"...)
}

// chain is a sum or a product, worked out from left to right.
type chain struct {
	first expr
	rest  []link
}

type link struct {
	op operator
	x  expr
}

func (x *chain) eval(e Message, at uint64) value {
	v := x.first.eval(e, at)
	for i := range x.rest {
		if v.kind == kindNull {
			return null
		}
		v = calculate(x.rest[i].op, v, x.rest[i].x.eval(e, at))
	}
	return v
}

func (x *chain) yields() yield { return aNumber }

func (x *chain) level() level {
	if op := x.rest[0].op; op == opMultiply || op == opDivide {
		return levelProduct
	}
	return levelSum
}

func (x *chain) appendTo(dst []byte) []byte {
	tighter := x.level() + 1
	dst = appendAt(dst, x.first, tighter)
	for _, l := range x.rest {
		dst = append(append(append(dst, ' '), operators[l.op]...), ' ')
		dst = appendAt(dst, l.x, tighter)
	}
	return dst
}

// signed is a sign before what is no literal.
type signed struct {
	negative bool
	x        expr
}

func (x signed) eval(e Message, at uint64) value {
	v := x.x.eval(e, at).number()
	if x.negative {
		return negate(v)
	}
	return v
}

// negate is the number below zero that v is above it, or NULL.
func negate(v value) value {
	switch {
	case v.kind == kindExact && v.n != math.MinInt64:
		return exact(-v.n)
	case v.isNumber():
		return approximate(-v.float())
	}
	return null
}

func (x signed) yields() yield { return aNumber }
func (x signed) level() level  { return levelSign }
func (x signed) appendTo(dst []byte) []byte {
	sign := byte('+')
	if x.negative {
		sign = '-'
	}
	dst = append(dst, sign)
	if _, ok := x.x.(signed); ok {
		dst = append(dst, ' ')
	}
	return appendAt(dst, x.x, levelSign)
}

// literal is a value that the selector itself gives.
type literal struct{ v value }

func (x literal) eval(Message, uint64) value { return x.v }

func (x literal) yields() yield {
	switch x.v.kind {
	case kindBoolean:
		return aCondition
	case kindString:
		return aString
	}
	return aNumber
}

func (x literal) level() level { return levelPrimary }

func (x literal) appendTo(dst []byte) []byte {
	switch x.v.kind {
	case kindBoolean:
		if x.v.isTrue() {
			return append(dst, "TRUE"...)
		}
		return append(dst, "FALSE"...)
	case kindExact:
		return strconv.AppendInt(dst, x.v.n, 10)
	case kindApproximate:
		from := len(dst)
		dst = strconv.AppendFloat(dst, x.v.f, 'g', -1, 64)
		if !bytes.ContainsAny(dst[from:], ".e") {
			dst = append(dst, ".0"...)
		}
		return dst
	}
	return appendQuoted(dst, '\'', x.v.s)
}
