package selector

import (
	"math"
	"strconv"
	"strings"
)

// A value is what an expression comes to. NULL and, of a condition, unknown are
// the same.
type value struct {
	kind kind
	n    int64   // an exact number; 1 for TRUE
	f    float64 // an approximate number, always finite
	s    string  // a string, or text that is only lent
}

type kind uint8

const (
	kindNull kind = iota
	kindBoolean
	kindExact
	kindApproximate
	// kindString is a string that stays one.
	kindString
	// kindText came with the envelope: it is a string, and what it spells.
	kindText
)

var (
	null       = value{}
	trueValue  = value{kind: kindBoolean, n: 1}
	falseValue = value{kind: kindBoolean}
)

func (v value) isTrue() bool  { return v.kind == kindBoolean && v.n == 1 }
func (v value) isFalse() bool { return v.kind == kindBoolean && v.n == 0 }

func boolean(b bool) value {
	if b {
		return trueValue
	}
	return falseValue
}

func exact(n int64) value { return value{kind: kindExact, n: n} }

// approximate is NULL for what is no number.
func approximate(f float64) value {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return null
	}
	return value{kind: kindApproximate, f: f}
}

// unsetIfEmpty is the text of a part of the envelope whose zero value is unset.
func unsetIfEmpty(s string) value {
	if s == "" {
		return null
	}
	return value{kind: kindText, s: s}
}

// not is NOT of three values.
func not(v value) value {
	if v.kind != kindBoolean {
		return null
	}
	return boolean(v.n == 0)
}

// number is v where it is a number, or the number that its text spells; else
// it is NULL.
func (v value) number() value {
	switch v.kind {
	case kindExact, kindApproximate:
		return v
	case kindText:
		return numberIn(v.s)
	}
	return null
}

// truth is likewise for booleans.
func (v value) truth() value {
	switch {
	case v.kind == kindBoolean:
		return v
	case v.kind == kindText && strings.EqualFold(v.s, "true"):
		return trueValue
	case v.kind == kindText && strings.EqualFold(v.s, "false"):
		return falseValue
	}
	return null
}

func (v value) float() float64 {
	if v.kind == kindExact {
		return float64(v.n)
	}
	return v.f
}

// isNumber says that v is one already.
func (v value) isNumber() bool { return v.kind == kindExact || v.kind == kindApproximate }

// compare is a comparison: unknown where either side is NULL, FALSE where they
// are not alike.
func compare(op operator, a, b value) value {
	if a.kind == kindNull || b.kind == kindNull {
		return null
	}
	switch {
	case op.orders() || a.isNumber() || b.isNumber():
		a, b = a.number(), b.number()
		if a.kind == kindNull || b.kind == kindNull {
			return falseValue
		}
		return boolean(op.holds(order(a, b)))
	case a.kind == kindBoolean || b.kind == kindBoolean:
		a, b = a.truth(), b.truth()
		if a.kind == kindNull || b.kind == kindNull {
			return falseValue
		}
		return boolean((a.n == b.n) == (op == opEqual))
	}
	return boolean((a.s == b.s) == (op == opEqual))
}

// order says how two numbers lie: negative, zero or positive.
func order(a, b value) int {
	if a.kind == kindExact && b.kind == kindExact {
		switch {
		case a.n < b.n:
			return -1
		case a.n > b.n:
			return 1
		}
		return 0
	}
	switch x, y := a.float(), b.float(); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// calculate is an arithmetic operation: NULL where either side is no number or
// there is no result.
func calculate(op operator, a, b value) value {
	a, b = a.number(), b.number()
	if a.kind == kindNull || b.kind == kindNull {
		return null
	}
	if a.kind == kindExact && b.kind == kindExact {
		if op == opDivide && b.n == 0 {
			return null
		}
		if n, fits := calculateExact(op, a.n, b.n); fits {
			return exact(n)
		}
	}
	x, y := a.float(), b.float()
	switch op {
	case opAdd:
		return approximate(x + y)
	case opSubtract:
		return approximate(x - y)
	case opMultiply:
		return approximate(x * y)
	}
	return approximate(x / y)
}

// calculateExact says whether the result fits into 64 bits. It divides by zero
// as Go does.
func calculateExact(op operator, a, b int64) (n int64, fits bool) {
	switch op {
	case opAdd:
		n = a + b
		return n, (n > a) == (b > 0)
	case opSubtract:
		n = a - b
		return n, (n < a) == (b > 0)
	case opMultiply:
		if a == 0 || b == 0 {
			return 0, true
		}
		n = a * b
		return n, n/b == a && !(a == -1 && b == math.MinInt64) && !(b == -1 && a == math.MinInt64)
	}
	return a / b, !(a == math.MinInt64 && b == -1)
}

// numberIn is the decimal number that a text spells, NULL if it spells none: an
// optional sign, digits with an optional point among or beside them, an
// optional exponent. It is exact where it has neither and fits into 64 bits.
//
// strconv alone would take more (hexadecimal, "inf", underscores), and allocate
// an error for each text that is no number.
func numberIn(s string) value {
	i := 0
	negative := false
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		negative = s[i] == '-'
		i++
	}
	var (
		n         int64 // below zero, as there is more room
		fits      = true
		digits    int
		magnitude int // of the leading digit that is not zero: 1 is below 10
		leading   bool
	)
	for ; i < len(s) && isDigit(s[i]); i++ {
		d := int64(s[i] - '0')
		if n < math.MinInt64/10 || n*10 < math.MinInt64+d {
			fits = false
		} else {
			n = n*10 - d
		}
		digits++
		if leading = leading || d != 0; leading {
			magnitude++
		}
	}
	if i == len(s) && digits > 0 && fits && (negative || n != math.MinInt64) {
		if !negative {
			n = -n
		}
		return exact(n)
	}
	if i < len(s) && s[i] == '.' {
		for i++; i < len(s) && isDigit(s[i]); i++ {
			digits++
			if leading = leading || s[i] != '0'; !leading {
				magnitude--
			}
		}
	}
	if digits == 0 {
		return null
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		sign := 1
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			if s[i] == '-' {
				sign = -1
			}
			i++
		}
		from, exponent := i, 0
		for ; i < len(s) && isDigit(s[i]); i++ {
			exponent = min(exponent*10+int(s[i]-'0'), 1<<30)
		}
		if i == from {
			return null
		}
		magnitude += sign * exponent
	}
	if i < len(s) || leading && magnitude > 309 {
		return null
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return null
	}
	return approximate(f)
}
