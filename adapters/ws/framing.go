package ws

import "errors"

// What the library lets pass, and answers as if it were something else.
var (
	errHalfCode = errors.New("a close frame with half a code")
	errLength   = errors.New("a length with its highest bit set")
)

// A framing follows the headers of a peer's frames and finds what the library
// does not: a close frame of one byte (RFC 6455, section 5.5.1) and a length
// with its highest bit set (section 5.2).
type framing struct {
	skip   uint64 // how much comes before the next header; while more > 0, the length so far
	more   uint8  // how many bytes of the length are still to come
	opened bool   // the header's first byte was seen
	closes bool   // it is that of a close frame
	masked bool
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
			}
		}
		n++
	}
	return n, nil
}

// pass ends a header: the mask comes before the payload.
func (f *framing) pass() {
	if f.masked {
		f.skip += 4
	}
}
