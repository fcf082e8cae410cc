package ws

import (
	"fmt"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A coding is how the protocol's objects are written: JSON in text messages, or
// CBOR (RFC 8949) in binary ones.
type coding uint8

const (
	codingJSON coding = iota
	codingCBOR
)

// protocol is the subprotocol's name.
func (k coding) protocol() string { return [...]string{"sluice.v1.json", "sluice.v1.cbor"}[k] }

// frame is the first byte of a message's frame.
func (k coding) frame() byte { return [...]byte{frameText, frameBinary}[k] }

// A decoder takes values off one message, in either coding. What it returns
// aliases the message, which it may change, and nothing is allocated.
type decoder interface {
	reset(message []byte)
	// front is what kind of value comes; at is where it begins then.
	front() kind
	at() int
	object() error
	name() (name string, at int, more bool, err error)
	array() error
	element() (more bool, err error)
	str() (string, error)
	text() ([]byte, error)
	binary() ([]byte, error)
	integer(limit uint64) (uint64, error)
	number() (string, error)
	boolean() (bool, error)
	// value takes any value and returns its JSON text.
	value() ([]byte, error)
	req() ([]byte, error)
	skip() error
	end() error
	failAt(at int, text string) error
}

// A kind is as much of a value's kind as the grammar asks for.
type kind uint8

const (
	kindOther kind = iota
	kindText
	kindObject
)

var errReqLong = fmt.Sprintf(`"req" is longer than %d bytes`, maxReqBytes)

// An object is an answer while it is written. Its members come in the order of
// the calls.
type object struct {
	coding
	buf   []byte
	start int // of the answer, in CBOR the map's head
	count int // of members
}

// begin begins an answer behind dst.
func (k coding) begin(dst []byte, op string) object {
	o := object{coding: k, buf: dst, start: len(dst)}
	if k == codingCBOR {
		o.buf = append(o.buf, cborMap)
		o.str("op", op)
		return o
	}
	o.buf = append(append(append(o.buf, `{"op":"`...), op...), '"')
	return o
}

// end ends it and returns the buffer.
func (o *object) end() []byte {
	if o.coding == codingJSON {
		return append(o.buf, '}')
	}
	o.buf[o.start] |= byte(o.count) // no answer has more than 23 members
	return o.buf
}

func (o *object) name(name string) {
	o.count++
	if o.coding == codingCBOR {
		o.buf = appendCBORText(o.buf, name)
		return
	}
	o.buf = append(append(append(o.buf, `,"`...), name...), `":`...)
}

func (o *object) str(name, value string) {
	if o.name(name); o.coding == codingCBOR {
		o.buf = appendCBORText(o.buf, value)
		return
	}
	o.buf = adapters.AppendJSONString(o.buf, value)
}

// int adds a number that is not negative.
func (o *object) int(name string, value int64) {
	if o.coding == codingCBOR {
		o.name(name)
		o.buf = appendCBORHead(o.buf, cborUint, uint64(max(value, 0)))
		return
	}
	o.count++
	o.buf = adapters.AppendJSONInt(o.buf, name, value)
}

// yes adds a member that is true.
func (o *object) yes(name string) {
	if o.name(name); o.coding == codingCBOR {
		o.buf = append(o.buf, cborTrue)
		return
	}
	o.buf = append(o.buf, "true"...)
}

// req adds the request's number or name, as it came.
func (o *object) req(req []byte) {
	if req != nil {
		o.name("req")
		o.buf = append(o.buf, req...)
	}
}

// appendDelivery appends the members of a delivery and returns how many they
// are, which matters in CBOR.
func (k coding) appendDelivery(dst []byte, d *core.Delivery, now time.Time) ([]byte, int) {
	if k == codingCBOR {
		return appendCBORDelivery(dst, d, now)
	}
	return adapters.AppendJSONDelivery(dst, d, now), 0
}
