package ws

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// Heads of CBOR items (RFC 8949, section 3).
const (
	cborUint  = 0 << 5
	cborNeg   = 1 << 5
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborArray = 4 << 5
	cborMap   = 5 << 5
	cborTag   = 6 << 5
	cborMore  = 7 << 5

	cborFalse   = 0xf4
	cborTrue    = 0xf5
	cborNull    = 0xf6
	cborHalf    = 0xf9
	cborSingle  = 0xfa
	cborDouble  = 0xfb
	cborBreak   = 0xff
	cborNoCount = 31
)

// A cborLexer takes values off one CBOR item (RFC 8949), as strictly as the
// lexer does off JSON. Strings of indefinite length are refused. It is a
// decoder.
type cborLexer struct {
	buf []byte
	pos int
	// left is how many items are to come of what is open: entries of an object,
	// elements of an array, -1 up to a break.
	left  [4]int64
	depth int
	// most is how long the JSON text of a value may become; out is its buffer.
	most int
	out  []byte
}

func (l *cborLexer) reset(message []byte) {
	l.buf, l.pos, l.depth, l.out = message, 0, 0, l.out[:0]
}

func (l *cborLexer) at() int { return l.pos }

func (l *cborLexer) fail(text string) error { return &syntaxError{l.pos, text} }

func (l *cborLexer) failAt(at int, text string) error { return &syntaxError{at, text} }

// major is the major type in front; 0xff at the end.
func (l *cborLexer) major() byte {
	if l.pos >= len(l.buf) {
		return 0xff
	}
	return l.buf[l.pos] &^ 31
}

func (l *cborLexer) front() kind {
	switch l.major() {
	case cborText:
		return kindText
	case cborMap:
		return kindObject
	}
	return kindOther
}

// head takes an item's head. n is its argument, endless where its length is
// not given.
func (l *cborLexer) head() (major byte, n uint64, endless bool, err error) {
	if l.pos >= len(l.buf) {
		return 0, 0, false, l.fail("the message ends early")
	}
	b := l.buf[l.pos]
	major, n = b&^31, uint64(b&31)
	size := 0
	switch {
	case n < 24:
	case n < 28:
		size = 1 << (n - 24)
	case n == cborNoCount && (major == cborArray || major == cborMap):
		l.pos++
		return major, 0, true, nil
	case n == cborNoCount && (major == cborText || major == cborBytes):
		return 0, 0, false, l.fail("a string of indefinite length")
	default:
		return 0, 0, false, l.fail("a bad item")
	}
	if len(l.buf)-l.pos-1 < size {
		return 0, 0, false, l.failAt(len(l.buf), "the message ends early")
	}
	l.pos++
	if size > 0 {
		n = 0
	}
	for range size {
		n = n<<8 | uint64(l.buf[l.pos])
		l.pos++
	}
	return major, n, false, nil
}

// open begins an object or array.
func (l *cborLexer) open(major byte, what string) error {
	if l.major() != major {
		return l.fail("want " + what)
	}
	at := l.pos
	_, n, endless, err := l.head()
	switch {
	case err != nil:
		return err
	case l.depth == len(l.left):
		return l.failAt(at, "nested too deep")
	case endless:
		l.left[l.depth] = -1
	default:
		l.left[l.depth] = int64(min(n, math.MaxInt64))
	}
	l.depth++
	return nil
}

// more reports whether something of what is open is to come, or closes it.
func (l *cborLexer) more() bool {
	left := &l.left[l.depth-1]
	switch {
	case *left > 0:
		*left--
		return true
	case *left < 0 && (l.pos >= len(l.buf) || l.buf[l.pos] != cborBreak):
		return true
	case *left < 0:
		l.pos++
	}
	l.depth--
	return false
}

func (l *cborLexer) object() error { return l.open(cborMap, "an object") }

func (l *cborLexer) name() (name string, at int, more bool, err error) {
	if !l.more() {
		return "", l.pos, false, nil
	}
	at = l.pos
	name, err = l.str()
	return name, at, true, err
}

func (l *cborLexer) array() error { return l.open(cborArray, "an array") }

func (l *cborLexer) element() (more bool, err error) { return l.more(), nil }

func (l *cborLexer) str() (string, error) {
	b, err := l.text()
	return view(b), err
}

func (l *cborLexer) text() ([]byte, error) {
	at := l.pos
	b, err := l.chunk(cborText, "a string")
	if err == nil && !utf8.Valid(b) {
		err = l.failAt(at, "a string that is not UTF-8")
	}
	return b, err
}

func (l *cborLexer) binary() ([]byte, error) { return l.chunk(cborBytes, "bytes") }

// chunk takes a string of text or bytes.
func (l *cborLexer) chunk(major byte, what string) ([]byte, error) {
	if l.major() != major {
		return nil, l.fail("want " + what)
	}
	at := l.pos
	_, n, _, err := l.head()
	if err != nil {
		return nil, err
	}
	if n > uint64(len(l.buf)-l.pos) {
		return nil, l.failAt(at, "a string does not end")
	}
	b := l.buf[l.pos : l.pos+int(n) : l.pos+int(n)]
	l.pos += int(n)
	return b, nil
}

func (l *cborLexer) integer(limit uint64) (uint64, error) {
	at := l.pos
	major, n, _, err := l.head()
	if err == nil && (major != cborUint || n > limit) {
		err = l.failAt(at, fmt.Sprintf("want an integer from 0 to %d", limit))
	}
	return n, err
}

func (l *cborLexer) number() (string, error) {
	n, err := l.integer(maxSafe)
	start := len(l.out)
	l.out = strconv.AppendUint(l.out, n, 10)
	return view(l.out[start:]), err
}

func (l *cborLexer) boolean() (bool, error) {
	if l.pos < len(l.buf) {
		switch b := l.buf[l.pos]; b {
		case cborTrue, cborFalse:
			l.pos++
			return b == cborTrue, nil
		}
	}
	return false, l.fail("want true or false")
}

func (l *cborLexer) req() ([]byte, error) {
	start := l.pos
	if l.front() == kindText {
		b, err := l.text()
		if err == nil && len(b) > maxReqBytes {
			err = l.failAt(start, errReqLong)
		}
		if err != nil {
			return nil, err
		}
	} else if _, err := l.integer(maxSafe); err != nil {
		return nil, err
	}
	return l.buf[start:l.pos:l.pos], nil
}

func (l *cborLexer) end() error {
	if l.pos < len(l.buf) {
		return l.fail("something follows the object")
	}
	return nil
}

// skip takes any item, checking that it is well-formed.
func (l *cborLexer) skip() error { return l.skipAt(0) }

func (l *cborLexer) skipAt(depth int) error {
	if depth > maxDepth {
		return l.fail(fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	switch l.major() {
	case cborText:
		_, err := l.text()
		return err
	case cborBytes:
		_, err := l.binary()
		return err
	}
	at := l.pos
	major, n, endless, err := l.head()
	if err != nil {
		return err
	}
	switch major {
	case cborTag:
		return l.skipAt(depth + 1)
	case cborMore:
		if l.buf[at] == cborMore|24 && n < 32 {
			return l.failAt(at, "a bad item")
		}
		return nil
	case cborMap, cborArray:
		for i := uint64(0); endless || i < n; i++ {
			if endless && l.pos < len(l.buf) && l.buf[l.pos] == cborBreak {
				l.pos++
				return nil
			}
			if err := l.skipAt(depth + 1); err != nil {
				return err
			}
			if major == cborMap {
				if err := l.skipAt(depth + 1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// value takes an item as JSON (RFC 8949, section 6.1): numbers, text, true,
// false, null, arrays, and objects with names of text. What JSON does not know
// is refused.
func (l *cborLexer) value() ([]byte, error) {
	start := len(l.out)
	err := l.transcode(0)
	return l.out[start:len(l.out):len(l.out)], err
}

func (l *cborLexer) transcode(depth int) error {
	if len(l.out) > l.most {
		return fmt.Errorf("%w: the payload as JSON has more than %d bytes", core.ErrTooLarge, l.most)
	}
	if depth > maxDepth {
		return l.fail(fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	if l.major() == cborText {
		b, err := l.text()
		if err == nil {
			l.out = adapters.AppendJSONText(l.out, b)
		}
		return err
	}
	at := l.pos
	major, n, endless, err := l.head()
	if err != nil {
		return err
	}
	switch major {
	case cborUint:
		l.out = strconv.AppendUint(l.out, n, 10)
		return nil
	case cborNeg:
		l.out = append(l.out, '-')
		if n == math.MaxUint64 {
			l.out = append(l.out, "18446744073709551616"...)
			return nil
		}
		l.out = strconv.AppendUint(l.out, n+1, 10)
		return nil
	case cborArray, cborMap:
		return l.transcodeAll(major, n, endless, depth)
	case cborMore:
		return l.transcodeSimple(at, n)
	}
	return l.failAt(at, `JSON knows no such value: bytes stand in "b"`)
}

func (l *cborLexer) transcodeAll(major byte, n uint64, endless bool, depth int) error {
	brackets := "[]"
	if major == cborMap {
		brackets = "{}"
	}
	l.out = append(l.out, brackets[0])
	for i := uint64(0); endless || i < n; i++ {
		if endless && l.pos < len(l.buf) && l.buf[l.pos] == cborBreak {
			l.pos++
			break
		}
		if i > 0 {
			l.out = append(l.out, ',')
		}
		if major == cborMap {
			name, err := l.text()
			if err != nil {
				return err
			}
			l.out = append(adapters.AppendJSONText(l.out, name), ':')
		}
		if err := l.transcode(depth + 1); err != nil {
			return err
		}
	}
	l.out = append(l.out, brackets[1])
	return nil
}

func (l *cborLexer) transcodeSimple(at int, n uint64) error {
	var f float64
	switch l.buf[at] {
	case cborFalse:
		l.out = append(l.out, "false"...)
		return nil
	case cborTrue:
		l.out = append(l.out, "true"...)
		return nil
	case cborNull:
		l.out = append(l.out, "null"...)
		return nil
	case cborHalf:
		f = halfFloat(uint16(n))
	case cborSingle:
		f = float64(math.Float32frombits(uint32(n)))
	case cborDouble:
		f = math.Float64frombits(n)
	default:
		return l.failAt(at, "JSON knows no such value")
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return l.failAt(at, "JSON knows no such number")
	}
	l.out = strconv.AppendFloat(l.out, f, 'g', -1, 64)
	return nil
}

// halfFloat is a number of 16 bits (RFC 8949, appendix D).
func halfFloat(b uint16) float64 {
	exponent, mantissa := int(b>>10&31), float64(b&1023)
	var f float64
	switch exponent {
	case 0:
		f = math.Ldexp(mantissa, -24)
	case 31:
		if f = math.Inf(1); mantissa != 0 {
			f = math.NaN()
		}
	default:
		f = math.Ldexp(mantissa+1024, exponent-25)
	}
	if b&0x8000 != 0 {
		f = -f
	}
	return f
}
