package selector

// An operator stands between two operands.
type operator uint8

const (
	opEqual operator = iota
	opUnequal
	opLess
	opLessOrEqual
	opGreater
	opGreaterOrEqual
	opAdd
	opSubtract
	opMultiply
	opDivide
)

// operators are as they are written, by their numbers.
var operators = [...]string{"=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/"}

// operatorOf returns the operator that the token is, if it is one from first to
// last.
func operatorOf(t token, first, last operator) (op operator, ok bool) {
	if t.kind != tokenSymbol {
		return 0, false
	}
	for op = first; op <= last; op++ {
		if operators[op] == t.text {
			return op, true
		}
	}
	return 0, false
}

// orders reports whether the operator needs its operands in an order, which
// only numbers have (JMS 2.0, 3.8.1.1).
func (op operator) orders() bool { return opLess <= op && op <= opGreaterOrEqual }

// holds reports whether a comparison is true of operands that lie so.
func (op operator) holds(order int) bool {
	switch op {
	case opEqual:
		return order == 0
	case opUnequal:
		return order != 0
	case opLess:
		return order < 0
	case opLessOrEqual:
		return order <= 0
	case opGreater:
		return order > 0
	}
	return order >= 0
}
