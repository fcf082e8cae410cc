package ws

import (
	"encoding/binary"
	"unicode/utf8"
)

// The first byte of a whole, unfragmented frame (RFC 6455, section 5.2).
const (
	frameText   = 0x81
	frameBinary = 0x82
	frameClose  = 0x88
	framePing   = 0x89
	framePong   = 0x8a
)

// maxFrameHeader is the longest header of a server's frame, which is not
// masked.
const maxFrameHeader = 10

// maxControl is the longest payload of a control frame (RFC 6455, section 5.5).
const maxControl = 125

// appendHeader appends the header of a frame with n bytes of payload.
func appendHeader(dst []byte, first byte, n int) []byte {
	switch {
	case n <= 125:
		return append(dst, first, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(n))
}

// headerRoom is what openFrame leaves for the header: enough for most messages.
const headerRoom = 4

// openFrame begins a frame whose length is not known yet; closeFrame ends it.
func openFrame(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// closeFrame puts the header in front of the payload that was appended since
// openFrame, at which time dst was start long.
func closeFrame(dst []byte, start int, first byte) []byte {
	var header [maxFrameHeader]byte
	n := len(dst) - start - headerRoom
	h := appendHeader(header[:0], first, n)
	if more := len(h) - headerRoom; more > 0 {
		dst = append(dst, header[:more]...)
	}
	if len(h) != headerRoom {
		copy(dst[start+len(h):], dst[start+headerRoom:start+headerRoom+n])
	}
	copy(dst[start:], h)
	return dst[:start+len(h)+n]
}

func appendControl(dst []byte, first byte, payload string) []byte {
	return append(appendHeader(dst, first, len(payload)), payload...)
}

// appendClose appends a close frame; the text is cut to what fits, between two
// runes.
func appendClose(dst []byte, code int, text string) []byte {
	if n := maxControl - 2; len(text) > n {
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n]
	}
	dst = appendHeader(dst, frameClose, 2+len(text))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, text...)
}
