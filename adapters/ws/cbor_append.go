package ws

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// appendCBORHead appends the head of an item, as short as it can be.
func appendCBORHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

// appendCBORText appends a string of text. Bytes that are not UTF-8 become
// U+FFFD, as they do in JSON.
func appendCBORText(dst []byte, s string) []byte {
	if utf8.ValidString(s) {
		return append(appendCBORHead(dst, cborText, uint64(len(s))), s...)
	}
	n := 0
	for _, r := range s {
		n += utf8.RuneLen(r)
	}
	dst = appendCBORHead(dst, cborText, uint64(n))
	for _, r := range s {
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

func appendCBORBytes(dst, b []byte) []byte {
	return append(appendCBORHead(dst, cborBytes, uint64(len(b))), b...)
}

// appendCBORDelivery appends the members that adapters.AppendJSONDelivery
// appends, in the same order, and returns how many they are. What is base64
// there is bytes here; a JSON payload is the same value in CBOR (RFC 8949,
// section 6.2), or, where CBOR cannot hold it, text. It does not allocate but
// for growing dst.
func appendCBORDelivery(dst []byte, d *core.Delivery, now time.Time) ([]byte, int) {
	e := d.Envelope
	o := object{coding: codingCBOR, buf: dst}
	o.int("o", int64(d.Offset))
	o.int("ts", e.Time.UnixMilli())
	if d.Attempt > 1 {
		o.int("n", int64(d.Attempt))
	}
	if d.Retained {
		o.yes("retained")
	}
	o.str("t", e.Topic)
	if e.Key != "" {
		o.str("key", e.Key)
	}
	if e.ID != "" {
		o.str("id", e.ID)
	}
	if len(e.Headers) > 0 {
		o.name("h")
		o.buf = appendCBORHeaders(o.buf, e.Headers)
	}
	if e.ReplyTo != "" {
		o.str("reply", e.ReplyTo)
	}
	if e.CorrelationID != nil {
		if utf8.Valid(e.CorrelationID) {
			o.str("corr", view(e.CorrelationID))
		} else {
			o.name("corr64")
			o.buf = appendCBORBytes(o.buf, e.CorrelationID)
		}
	}
	if !e.Expires.IsZero() {
		o.int("ttl", e.Expires.UnixMilli()-now.UnixMilli())
	}
	if level, ok := e.Priority.Level(); ok {
		o.int("prio", int64(level))
	}
	if e.ContentType != "" {
		o.str("type", e.ContentType)
	}
	if p := &e.Publisher; *p != (core.Publisher{}) {
		o.name("pub")
		o.buf = appendCBORPublisher(o.buf, p)
	}
	if !utf8.Valid(e.Payload) {
		o.name("b")
		return appendCBORBytes(o.buf, e.Payload), o.count
	}
	o.name("d")
	if adapters.IsStructured(e.ContentType, e.Payload) {
		if buf, ok := appendCBORValue(o.buf, e.Payload); ok {
			return buf, o.count
		}
	}
	return appendCBORText(o.buf, view(e.Payload)), o.count
}

// appendCBORHeaders appends a map where adapters.AppendJSONHeaders appends an
// object, else an array of pairs.
func appendCBORHeaders(dst []byte, headers []core.Header) []byte {
	form := byte(cborArray)
	if adapters.HeadersFitObject(headers) {
		form = cborMap
	}
	dst = appendCBORHead(dst, form, uint64(len(headers)))
	for i := range headers {
		if form == cborArray {
			dst = append(dst, cborArray|2)
		}
		dst = appendCBORText(dst, headers[i].Name)
		dst = appendCBORText(dst, headers[i].Value)
	}
	return dst
}

func appendCBORPublisher(dst []byte, p *core.Publisher) []byte {
	o := object{coding: codingCBOR, buf: append(dst, cborMap), start: len(dst)}
	if p.Principal != "" {
		o.str("user", p.Principal)
	}
	if p.Client != "" {
		o.str("client", p.Client)
	}
	if p.Protocol != "" {
		o.str("via", p.Protocol)
	}
	return o.end()
}

// appendCBORValue appends what a JSON text says, which is known to be valid. It
// reports false, and leaves dst as it was, where CBOR cannot hold it: integers
// of more than 64 bits, numbers too large for 64 bits of floating point, half
// surrogate pairs, and what nests too deep.
func appendCBORValue(dst, text []byte) ([]byte, bool) {
	t := transcoder{in: text, out: dst}
	if !t.value(0) {
		return dst, false
	}
	return t.out, true
}

// A transcoder writes valid JSON as CBOR.
type transcoder struct {
	in  []byte
	pos int
	out []byte
}

// peek skips white space and returns the byte in front.
func (t *transcoder) peek() byte {
	for {
		switch c := t.in[t.pos]; c {
		case ' ', '\t', '\n', '\r':
			t.pos++
		default:
			return c
		}
	}
}

func (t *transcoder) value(depth int) bool {
	if depth > maxDepth {
		return false
	}
	switch c := t.peek(); c {
	case '{':
		return t.all(cborMap, '}', depth)
	case '[':
		return t.all(cborArray, ']', depth)
	case '"':
		return t.text()
	case 't':
		t.pos += len("true")
		t.out = append(t.out, cborTrue)
	case 'f':
		t.pos += len("false")
		t.out = append(t.out, cborFalse)
	case 'n':
		t.pos += len("null")
		t.out = append(t.out, cborNull)
	default:
		return t.number()
	}
	return true
}

// all takes an object or array. Its count is not known before its end: a byte
// is left for the head, and what follows moves where that is not enough.
func (t *transcoder) all(major, closing byte, depth int) bool {
	t.pos++
	start, n := len(t.out), uint64(0)
	t.out = append(t.out, 0)
	for t.peek() != closing {
		if n++; n > 1 {
			t.pos++ // the comma
		}
		if major == cborMap {
			if t.peek(); !t.text() {
				return false
			}
			t.peek()
			t.pos++ // the colon
		}
		if !t.value(depth + 1) {
			return false
		}
	}
	t.pos++
	t.putHead(start, major, n)
	return true
}

// putHead writes the head of what was appended behind start, where a byte was
// left for it.
func (t *transcoder) putHead(start int, major byte, n uint64) {
	var room [9]byte
	head := appendCBORHead(room[:0], major, n)
	if more := len(head) - 1; more > 0 {
		t.out = append(t.out, room[:more]...)
		copy(t.out[start+len(head):], t.out[start+1:len(t.out)-more])
	}
	copy(t.out[start:], head)
}

// text takes a string.
func (t *transcoder) text() bool {
	t.pos++
	from := t.pos
	for t.in[t.pos] != '"' && t.in[t.pos] != '\\' {
		t.pos++
	}
	if t.in[t.pos] == '"' {
		t.out = appendCBORText(t.out, view(t.in[from:t.pos]))
		t.pos++
		return true
	}
	start := len(t.out)
	t.out = append(append(t.out, 0), t.in[from:t.pos]...)
	for {
		switch c := t.in[t.pos]; c {
		case '"':
			t.pos++
			t.putHead(start, cborText, uint64(len(t.out)-start-1))
			return true
		case '\\':
			r, n, ok := escapeAt(t.in, t.pos)
			if !ok {
				return false
			}
			t.out = utf8.AppendRune(t.out, r)
			t.pos += n
		default:
			t.out = append(t.out, c)
			t.pos++
		}
	}
}

// number takes a number: an integer of up to 64 bits and a sign, or else a
// floating point number.
func (t *transcoder) number() bool {
	from := t.pos
	integer := true
	for t.pos < len(t.in) && isNumber(t.in[t.pos]) {
		c := t.in[t.pos]
		integer = integer && c != '.' && c != 'e' && c != 'E'
		t.pos++
	}
	text := view(t.in[from:t.pos])
	if text == "-0" {
		integer = false
	}
	if integer {
		digits, major := text, byte(cborUint)
		if text[0] == '-' {
			digits, major = text[1:], cborNeg
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if major == cborNeg {
			n--
		}
		t.out = appendCBORHead(t.out, major, n)
		return err == nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if f32 := float32(f); float64(f32) == f {
		t.out = binary.BigEndian.AppendUint32(append(t.out, cborSingle), math.Float32bits(f32))
	} else {
		t.out = binary.BigEndian.AppendUint64(append(t.out, cborDouble), math.Float64bits(f))
	}
	return err == nil
}
