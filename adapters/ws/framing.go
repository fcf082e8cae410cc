package ws

import (
	"encoding/binary"
	"errors"

	"github.com/gorilla/websocket"
)

// What the library lets pass, and answers as if it were something else.
var (
	errHalfCode = errors.New("a close frame with half a code")
	errLength   = errors.New("a length with its highest bit set")
)

// closeBadGateway is a close code that the library takes for none: it was
// registered later than the others (RFC 6455, section 11.7, IANA).
const closeBadGateway = 1014

// A framing follows the headers of a peer's frames and finds what the library
// does not: a close frame of one byte (RFC 6455, section 5.5.1) and a length
// with its highest bit set (section 5.2). It hands the library the close code
// 1014 as 1013, which it knows.
type framing struct {
	skip   uint64 // how much comes before the next header; while more > 0, the length so far
	more   uint8  // how many bytes of the length are still to come
	opened bool   // the header's first byte was seen
	closes bool   // it is that of a close frame
	masked bool
	watch  uint8   // how much is still to come of mask and code of a close frame
	head   [6]byte // these
	// gateway says that the close code was 1014.
	gateway bool
}

// check looks at what comes next. The first n bytes are sound; err says what is
// wrong behind them.
func (f *framing) check(p []byte) (n int, err error) {
	for n < len(p) {
		b := p[n]
		switch {
		case f.more > 0:
			if f.more == 8 && b >= 0x80 {
				return n, errLength
			}
			f.skip = f.skip<<8 | uint64(b)
			if f.more--; f.more == 0 {
				f.pass()
			}
		case f.watch > 0:
			p[n] = f.code(b)
		case f.skip > 0:
			sound := min(f.skip, uint64(len(p)-n))
			f.skip -= sound
			n += int(sound)
			continue
		case !f.opened:
			f.opened, f.closes = true, b&0x0f == frameClose&0x0f
		default:
			f.opened, f.masked = false, b >= 0x80
			switch length := b & 0x7f; {
			case length == 1 && f.closes:
				return n, errHalfCode
			case length == 126:
				f.more = 2
			case length == 127:
				f.more = 8
			default:
				f.skip = uint64(length)
				f.pass()
				if f.closes && f.masked && length >= 2 {
					f.watch = uint8(len(f.head))
				}
			}
		}
		n++
	}
	return n, nil
}

// code takes a byte of a close frame's mask and code and returns what the library
// is to see of it.
func (f *framing) code(b byte) byte {
	f.head[len(f.head)-int(f.watch)] = b
	f.watch--
	f.skip--
	code := binary.BigEndian.Uint16(f.head[4:]) ^ binary.BigEndian.Uint16(f.head[:2])
	if f.watch > 0 || code != closeBadGateway {
		return b
	}
	f.gateway = true
	return b ^ closeBadGateway&0xff ^ websocket.CloseTryAgainLater&0xff
}

// pass ends a header: the mask comes before the payload.
func (f *framing) pass() {
	if f.masked {
		f.skip += 4
	}
}
