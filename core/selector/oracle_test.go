package selector

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
)

// A node is the naive evaluator's: how it is written, how tightly it holds, and
// what it comes to. A result is nil, a bool, an int64, a float64, a string or a
// textual.
type node struct {
	text  string
	level int // 0 OR, 1 AND, 2 NOT, 3 predicate, 4 sum, 5 product, 6 sign, 7 primary
	eval  func(*envelope) any
}

type textual string

var decimal = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)

func naiveNumber(v any) any {
	switch v := v.(type) {
	case int64, float64:
		return v
	case textual:
		if !decimal.MatchString(string(v)) {
			return nil
		}
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(string(v), 64); err == nil {
			return f
		}
	}
	return nil
}

func naiveFloat(v any) float64 {
	if n, ok := v.(int64); ok {
		return float64(n)
	}
	return v.(float64)
}

func naiveTruth(v any) any {
	switch v := v.(type) {
	case bool:
		return v
	case textual:
		if l := strings.ToLower(string(v)); l == "true" || l == "false" {
			return l == "true"
		}
	}
	return nil
}

func naiveCompare(op string, a, b any) any {
	if a == nil || b == nil {
		return nil
	}
	is := func(v any, kinds ...string) bool {
		for _, k := range kinds {
			if fmt.Sprintf("%T", v) == k {
				return true
			}
		}
		return false
	}
	if op != "=" && op != "<>" || is(a, "int64", "float64") || is(b, "int64", "float64") {
		a, b = naiveNumber(a), naiveNumber(b)
		if a == nil || b == nil {
			return false
		}
		var c int
		if is(a, "int64") && is(b, "int64") {
			c = big.NewInt(a.(int64)).Cmp(big.NewInt(b.(int64)))
		} else {
			c = big.NewFloat(naiveFloat(a)).Cmp(big.NewFloat(naiveFloat(b)))
		}
		return map[string]bool{"=": c == 0, "<>": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[op]
	}
	if is(a, "bool") || is(b, "bool") {
		a, b = naiveTruth(a), naiveTruth(b)
		if a == nil || b == nil {
			return false
		}
		return (a == b) == (op == "=")
	}
	return (fmt.Sprint(a) == fmt.Sprint(b)) == (op == "=")
}

func naiveCalculate(op string, a, b any) any {
	a, b = naiveNumber(a), naiveNumber(b)
	if a == nil || b == nil {
		return nil
	}
	x, exactX := a.(int64)
	y, exactY := b.(int64)
	if exactX && exactY {
		if op == "/" && y == 0 {
			return nil
		}
		var n big.Int
		switch bx, by := big.NewInt(x), big.NewInt(y); op {
		case "+":
			n.Add(bx, by)
		case "-":
			n.Sub(bx, by)
		case "*":
			n.Mul(bx, by)
		case "/":
			n.Quo(bx, by)
		}
		if n.IsInt64() {
			return n.Int64()
		}
	}
	f := map[string]func(a, b float64) float64{
		"+": func(a, b float64) float64 { return a + b }, "-": func(a, b float64) float64 { return a - b },
		"*": func(a, b float64) float64 { return a * b }, "/": func(a, b float64) float64 { return a / b },
	}[op](naiveFloat(a), naiveFloat(b))
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return f
}

func naiveNot(v any) any {
	if b, ok := v.(bool); ok {
		return !b
	}
	return nil
}

// naiveAnd is the lesser of F < U < T.
func naiveAnd(a, b any) any {
	rank := map[any]int{false: 0, nil: 1, true: 2}
	if rank[a] < rank[b] {
		return a
	}
	return b
}

func naiveOr(a, b any) any { return naiveNot(naiveAnd(naiveNot(a), naiveNot(b))) }

func naiveLike(text, like string) bool {
	if like == "" {
		return text == ""
	}
	if like[0] == '%' {
		return naiveLike(text, like[1:]) || text != "" && naiveLike(text[1:], like)
	}
	return text != "" && (like[0] == '_' || like[0] == text[0]) && naiveLike(text[1:], like[1:])
}

var headerTexts = []string{"", "a", "ab", "aab", "ba", "true", "FALSE", "0", "7", "-3", "2.5", "1e3", ".5", "7.", "0x1", "1_0", "inf", "-", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1e308", "1e309"}

// writer draws random selectors.
type writer struct{ *rapid.T }

func (w writer) pick(what ...string) string { return rapid.SampledFrom(what).Draw(w.T, "pick") }

// at writes n so that it stands where only the level may.
func (w writer) at(n node, level int) string {
	if n.level < level || w.pick("bare", "bare", "bare", "parentheses") == "parentheses" {
		return "(" + n.text + ")"
	}
	return n.text
}

// word writes a keyword in any case.
func (w writer) word(s string) string {
	return w.pick(s, strings.ToLower(s), s[:1]+strings.ToLower(s[1:]))
}

func (w writer) name() node {
	name := w.pick("h", "i", "j", "absent", "topic")
	return node{name, 7, func(e *envelope) any {
		if name == "topic" {
			return textual(e.Topic)
		}
		for _, h := range e.Headers {
			if h.Name == name {
				return textual(h.Value)
			}
		}
		return nil
	}}
}

func (w writer) literal(v any, text string) node {
	return node{text, 7, func(*envelope) any { return v }}
}

func (w writer) numberLiteral() node {
	if w.pick("exact", "approximate") == "exact" {
		n := rapid.OneOf(rapid.Int64Range(0, 9), rapid.Int64Range(0, math.MaxInt64)).Draw(w.T, "n")
		return w.literal(n, w.pick(fmt.Sprint(n), fmt.Sprintf("%#x", n), fmt.Sprintf("0%o", n), fmt.Sprint(n)+"L"))
	}
	f := rapid.SampledFrom([]float64{0, 0.5, 2.5, 7, 1000, 1e300}).Draw(w.T, "f")
	return w.literal(f, fmt.Sprintf("%e", f))
}

func (w writer) stringLiteral() node {
	s := rapid.SampledFrom(append(headerTexts, "it's")).Draw(w.T, "s")
	return w.literal(s, "'"+strings.ReplaceAll(s, "'", "''")+"'")
}

func (w writer) number(depth int) node {
	if depth == 0 {
		switch w.pick("name", "literal", "priority") {
		case "name":
			return w.name()
		case "priority":
			return node{w.pick("priority", "JMSPriority"), 7, func(e *envelope) any {
				if e.Priority > 0 {
					return int64(e.Priority - 1)
				}
				return nil
			}}
		}
		return w.numberLiteral()
	}
	a := w.number(depth - 1)
	op := w.pick("+", "-", "*", "/", "minus", "plus")
	switch op {
	case "minus":
		return node{"- " + w.at(a, 6), 6, func(e *envelope) any {
			if f, ok := naiveNumber(a.eval(e)).(float64); ok {
				return -f
			}
			return naiveCalculate("-", int64(0), a.eval(e))
		}}
	case "plus":
		return node{"+" + w.at(a, 6), 6, func(e *envelope) any { return naiveNumber(a.eval(e)) }}
	}
	b := w.number(rapid.IntRange(0, depth-1).Draw(w.T, "depth"))
	level := 4
	if op == "*" || op == "/" {
		level = 5
	}
	return node{w.at(a, level) + w.pick(" ", "\t") + op + " " + w.at(b, level+1), level, func(e *envelope) any {
		return naiveCalculate(op, a.eval(e), b.eval(e))
	}}
}

func (w writer) predicate(depth int) node {
	x := w.name()
	negated := w.pick("", "NOT") == "NOT"
	not := ""
	if negated {
		not = " " + w.word("NOT")
	}
	sign := func(v any) any {
		if negated {
			return naiveNot(v)
		}
		return v
	}
	switch w.pick("order", "equality", "between", "in", "like", "null") {
	case "order":
		a, b, op := w.number(depth), w.number(depth), w.pick("<", "<=", ">", ">=", "=", "<>")
		return node{w.at(a, 4) + op + w.at(b, 4), 3, func(e *envelope) any { return naiveCompare(op, a.eval(e), b.eval(e)) }}
	case "equality":
		op := w.pick("=", "<>")
		b := rapid.SampledFrom([]node{w.name(), w.stringLiteral(), w.literal(true, w.word("TRUE")), w.literal(false, w.word("FALSE"))}).Draw(w.T, "b")
		return node{w.at(x, 4) + op + w.at(b, 4), 3, func(e *envelope) any { return naiveCompare(op, x.eval(e), b.eval(e)) }}
	case "between":
		a, low, high := w.number(depth), w.number(depth), w.number(0)
		text := w.at(a, 4) + not + " " + w.word("BETWEEN") + " " + w.at(low, 4) + " " + w.word("AND") + " " + w.at(high, 4)
		return node{text, 3, func(e *envelope) any {
			return sign(naiveAnd(naiveCompare(">=", a.eval(e), low.eval(e)), naiveCompare("<=", a.eval(e), high.eval(e))))
		}}
	case "in":
		list := []node{w.stringLiteral(), w.numberLiteral(), w.stringLiteral()}
		text := x.text + not + " " + w.word("IN") + "(" + list[0].text + ", " + list[1].text + " ," + list[2].text + ")"
		return node{text, 3, func(e *envelope) any {
			any := naiveCompare("=", x.eval(e), list[0].eval(e))
			for _, item := range list[1:] {
				any = naiveOr(any, naiveCompare("=", x.eval(e), item.eval(e)))
			}
			return sign(any)
		}}
	case "like":
		like := rapid.StringOfN(rapid.SampledFrom([]rune("ab__%%")), 0, 6, -1).Draw(w.T, "pattern")
		return node{x.text + not + " " + w.word("LIKE") + " '" + like + "'", 3, func(e *envelope) any {
			v, ok := x.eval(e).(textual)
			if !ok {
				return nil
			}
			return sign(naiveLike(string(v), like))
		}}
	}
	return node{x.text + " " + w.word("IS") + not + " " + w.word("NULL"), 3, func(e *envelope) any { return sign(x.eval(e) == nil) }}
}

func (w writer) condition(depth int) node {
	if depth == 0 {
		if w.pick("predicate", "predicate", "name") == "name" {
			x := w.name()
			return node{x.text, 7, func(e *envelope) any { return naiveCompare("=", x.eval(e), true) }}
		}
		return w.predicate(rapid.IntRange(0, 3).Draw(w.T, "depth"))
	}
	a := w.condition(depth - 1)
	op := w.pick("OR", "AND", "NOT")
	if op == "NOT" {
		return node{w.word("NOT") + " " + w.at(a, 2), 2, func(e *envelope) any { return naiveNot(a.eval(e)) }}
	}
	b := w.condition(rapid.IntRange(0, depth-1).Draw(w.T, "depth"))
	level, join := 0, naiveOr
	if op == "AND" {
		level, join = 1, naiveAnd
	}
	return node{w.at(a, level) + " " + w.word(op) + " " + w.at(b, level), level, func(e *envelope) any {
		return join(a.eval(e), b.eval(e))
	}}
}

func TestSelectsAsTheNaiveEvaluator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := writer{t}.condition(rapid.IntRange(0, 4).Draw(t, "depth"))
		s, err := Parse(n.text)
		if err != nil {
			t.Fatalf("%s: %v", n.text, err)
		}
		checkString(t, s)
		for range 4 {
			text := rapid.SampledFrom(headerTexts)
			e := &envelope{Topic: "ab", Headers: []pair{
				{Name: "h", Value: text.Draw(t, "h")}, {Name: "h", Value: "second"}, {Name: "i", Value: text.Draw(t, "i")}, {Name: "j", Value: text.Draw(t, "j")},
			}}
			if l := rapid.IntRange(-1, 9).Draw(t, "priority"); l >= 0 {
				e.Priority = l + 1
			}
			want := map[any]string{true: "T", false: "F", nil: "U"}[n.eval(e)]
			if got := truthOf(s, e, 1); got != want {
				t.Fatalf("%s of %v is %s, want %s", n.text, e.Headers, got, want)
			}
		}
	})
}

func TestNumberInText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.SampledFrom(headerTexts), rapid.StringMatching(`[+-]?[0-9]{0,20}\.?[0-9]{0,4}([eE][+-]?[0-9]{0,4})?`)).Draw(t, "text")
		var got any
		switch v := numberIn(text); v.kind {
		case kindExact:
			got = v.n
		case kindApproximate:
			got = v.f
		}
		if want := naiveNumber(textual(text)); got != want {
			t.Fatalf("%q is %v, want %v", text, got, want)
		}
	})
}
