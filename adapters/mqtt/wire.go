package mqtt

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
	"unsafe"
)

// A version is the protocol level of a connection.
type version byte

const (
	v31  version = 3
	v311 version = 4
	v5   version = 5
)

// The types of packets, in the upper half of a packet's first byte.
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

// maxString is the longest string or binary that MQTT can carry.
const maxString = 65535

// A header is a packet's fixed header.
type header struct {
	first  byte
	size   int // of the fixed header
	length int // Remaining Length
}

func (h header) kind() byte { return h.first >> 4 }

// parseHeader reads a fixed header. ok is false while bytes of it are missing.
func parseHeader(b []byte) (h header, ok bool, err error) {
	if len(b) < 2 {
		return header{}, false, nil
	}
	h.first = b[0]
	if c := b[1]; c < 0x80 {
		h.size, h.length = 2, int(c)
		return h, true, nil
	}
	n, size, err := varint(b[1:])
	if err != nil || size == 0 {
		return header{}, false, err
	}
	h.size, h.length = 1+size, n
	return h, true, nil
}

// varint reads a variable byte integer; size is 0 while bytes of it are
// missing.
func varint(b []byte) (n, size int, err error) {
	for i := 0; i < 4; i++ {
		if i == len(b) {
			return 0, 0, nil
		}
		n |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return n, i + 1, nil
		}
	}
	return 0, 0, errVarint
}

func appendVarint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

func appendUint16(b []byte, n uint16) []byte { return binary.BigEndian.AppendUint16(b, n) }

// appendString appends a string of at most maxString bytes.
func appendString(b []byte, s string) []byte {
	b = append(b, byte(len(s)>>8), byte(len(s)))
	return append(b, s...)
}

// A scanner takes fields off a packet's body. bad stays set once one was
// missing or malformed. What it returns aliases the body.
type scanner struct {
	rest []byte
	bad  bool
}

func (s *scanner) fail() { s.bad, s.rest = true, nil }

func (s *scanner) byte() byte {
	if len(s.rest) < 1 {
		s.fail()
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return b
}

func (s *scanner) uint16() uint16 {
	if len(s.rest) < 2 {
		s.fail()
		return 0
	}
	n := binary.BigEndian.Uint16(s.rest)
	s.rest = s.rest[2:]
	return n
}

func (s *scanner) uint32() uint32 {
	if len(s.rest) < 4 {
		s.fail()
		return 0
	}
	n := binary.BigEndian.Uint32(s.rest)
	s.rest = s.rest[4:]
	return n
}

// varint reads a variable byte integer, which must be in its shortest form
// ([MQTT-1.5.5-1]).
func (s *scanner) varint() int {
	n, size, err := varint(s.rest)
	if err != nil || size == 0 || size != varintSize(n) {
		s.fail()
		return 0
	}
	s.rest = s.rest[size:]
	return n
}

func (s *scanner) bytes() []byte {
	n := int(s.uint16())
	if n > len(s.rest) {
		s.fail()
		return nil
	}
	b := s.rest[:n:n]
	s.rest = s.rest[n:]
	return b
}

// string reads a UTF-8 string ([MQTT-1.5.4-1], [MQTT-1.5.4-2]).
func (s *scanner) string() string {
	b := s.bytes()
	if !validString(b) {
		s.fail()
		return ""
	}
	return alias(b)
}

func validString(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// alias views bytes as a string; it is valid as long as they are not written.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
