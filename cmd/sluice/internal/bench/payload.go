package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// readBytes is how much the generator takes from a socket at once, and the
// longest packet, frame or chunk that it reads.
const readBytes = 256 << 10

// headerBytes is how much of each payload is the generator's header: who sent
// the message, which one of the publisher's it is, and when.
const headerBytes = 4 + 8 + 8

// A noise is a source of bytes that no compressor gains from: xorshift64.
type noise uint64

// appendPayload appends a payload of size bytes, at least the header's.
func (x *noise) appendPayload(b []byte, size int, publisher uint32, seq uint64, at int64) []byte {
	b = binary.LittleEndian.AppendUint32(b, publisher)
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	n := *x
	left := size - headerBytes
	for ; left >= 8; left -= 8 {
		n ^= n << 13
		n ^= n >> 7
		n ^= n << 17
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	for ; left > 0; left-- {
		n ^= n << 13
		n ^= n >> 7
		n ^= n << 17
		b = append(b, byte(n))
	}
	*x = n
	return b
}

// header reads what appendPayload wrote.
func header(payload []byte) (publisher uint32, seq uint64, at int64, ok bool) {
	if len(payload) < headerBytes {
		return 0, 0, 0, false
	}
	return binary.LittleEndian.Uint32(payload),
		binary.LittleEndian.Uint64(payload[4:]),
		int64(binary.LittleEndian.Uint64(payload[12:])), true
}

// The header of a payload of text: a mark that nothing else of an event or a
// frame holds, and the same fields in hexadecimal.
const (
	textMark        = "bn~"
	textHeaderBytes = len(textMark) + 8 + 16 + 16
)

const (
	hexDigits = "0123456789abcdef"
	alphabet  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// appendText is appendPayload in plain ASCII without quotes or backslashes, for
// protocols that carry text; size is at least textHeaderBytes.
func (x *noise) appendText(b []byte, size int, publisher uint32, seq uint64, at int64) []byte {
	b = append(b, textMark...)
	b = appendHex(b, uint64(publisher), 8)
	b = appendHex(b, seq, 16)
	b = appendHex(b, uint64(at), 16)
	n := *x
	for left := size - textHeaderBytes; left > 0; {
		n ^= n << 13
		n ^= n >> 7
		n ^= n << 17
		for bits := uint64(n); left > 0 && bits > 0xffff; bits >>= 6 {
			b = append(b, alphabet[bits&63])
			left--
		}
	}
	*x = n
	return b
}

func appendHex(b []byte, v uint64, digits int) []byte {
	for i := digits - 1; i >= 0; i-- {
		b = append(b, hexDigits[v>>(4*i)&15])
	}
	return b
}

// textHeader finds and reads what appendText wrote. behind is how far from the
// end of b it is likely to begin, as far as it began in the last message of the
// same kind; it is brought up to date.
func textHeader(b []byte, behind *int) (publisher uint32, seq uint64, at int64, ok bool) {
	i := len(b) - *behind
	if i < 0 || !bytes.HasPrefix(b[i:], []byte(textMark)) {
		i = bytes.Index(b, []byte(textMark))
	}
	if i < 0 || len(b)-i < textHeaderBytes {
		return 0, 0, 0, false
	}
	*behind = len(b) - i
	b = b[i+len(textMark):]
	return hexNumber(b), uint64(hexNumber(b[8:]))<<32 | uint64(hexNumber(b[16:])),
		int64(hexNumber(b[24:]))<<32 | int64(hexNumber(b[32:])), true
}

// hexNumber reads the eight digits that b begins with, all at once: each byte
// becomes the digit's value, then pairs of them are put together.
func hexNumber(b []byte) uint32 {
	v := binary.BigEndian.Uint64(b)
	v = v&0x0f0f0f0f0f0f0f0f + v>>6&0x0101010101010101*9
	v = (v | v>>4) & 0x00ff00ff00ff00ff
	v = (v | v>>8) & 0x0000ffff0000ffff
	return uint32(v | v>>16)
}

var errStrange = errors.New("the server sent a message that is not of this load")

// A ledger checks what one receiver gets: of each publisher every message,
// once, in order.
type ledger struct {
	next []uint64 // by publisher, the sequence expected next
	got  uint64
	lost uint64 // left out
	late uint64 // came again, or behind a later one
}

func newLedger(publishers int) ledger { return ledger{next: make([]uint64, publishers)} }

// note takes a message down. It reports false for one of an unknown publisher.
func (l *ledger) note(publisher uint32, seq uint64) bool {
	if int(publisher) >= len(l.next) {
		return false
	}
	l.got++
	next := l.next[publisher]
	switch {
	case seq == next:
		l.next[publisher] = seq + 1
	case seq > next:
		l.lost += seq - next
		l.next[publisher] = seq + 1
	default:
		l.late++
	}
	return true
}

// writeOff gives up what has not come of a publisher's messages before seq.
func (l *ledger) writeOff(publisher uint32, seq uint64) {
	if next := l.next[publisher]; next < seq {
		l.lost += seq - next
		l.next[publisher] = seq
	}
}

// A shares checks what several receivers get together, of whom each message
// goes to one: every message, once, in any order.
type shares struct {
	seen  [][]uint64 // by publisher, a bit for each sequence
	got   []uint64   // by publisher
	all   uint64
	again uint64 // came more than once
}

func newShares(publishers int) *shares {
	return &shares{seen: make([][]uint64, publishers), got: make([]uint64, publishers)}
}

// note takes a message down. It reports false for one of an unknown publisher.
func (s *shares) note(publisher uint32, seq uint64) bool {
	if int(publisher) >= len(s.seen) || seq > 1<<32 {
		return false
	}
	for uint64(len(s.seen[publisher])) <= seq/64 {
		s.seen[publisher] = append(s.seen[publisher], 0)
	}
	word, bit := &s.seen[publisher][seq/64], uint64(1)<<(seq%64)
	if *word&bit != 0 {
		s.again++
		return true
	}
	*word |= bit
	s.got[publisher]++
	s.all++
	return true
}
