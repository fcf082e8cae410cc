package bench

import "encoding/binary"

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
