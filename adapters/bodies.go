package adapters

import (
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
)

// Bodies are the messages that are on their way to many subscribers, encoded:
// the core hands a record to one subscriber after the other, and the second one
// has it encoded for all that follow. What is only sent once is not
// kept.
type Bodies struct {
	// Encode appends a message. What it returns besides is kept with it; in
	// CBOR it is how many members there are.
	Encode func(dst []byte, d *core.Delivery, now time.Time) ([]byte, int)

	mu   sync.Mutex // guards what follows; held while one message is appended
	slot [bodySlots]body
	size int // of all that is kept
}

// bodySlots is as many messages as the core gives to each subscriber before it
// comes to the next one.
const bodySlots = 128

// maxBodies bounds what is kept, in bytes.
const maxBodies = 4 << 20

// A body is one message. An envelope's place and its offset
// together say which: both are used again, but not together.
type body struct {
	of      *core.Envelope
	at      core.Offset
	millis  int64 // for which its ttl was computed
	bytes   []byte
	count   int
	encoded bool
}

// Append appends what Encode does of a delivery, with its ttl as of now, and
// does not allocate.
func (b *Bodies) Append(dst []byte, d *core.Delivery, now time.Time) ([]byte, int) {
	// Whoever finds it taken does not wait.
	if d.Attempt > 1 || d.Retained || !b.mu.TryLock() {
		return b.Encode(dst, d, now)
	}
	defer b.mu.Unlock()
	s := &b.slot[d.Offset%bodySlots]
	millis := int64(0)
	if !d.Expires.IsZero() {
		millis = now.UnixMilli()
	}
	if s.of != d.Envelope || s.at != d.Offset || s.millis != millis {
		s.of, s.at, s.millis, s.encoded = d.Envelope, d.Offset, millis, false
		return b.Encode(dst, d, now)
	}
	if !s.encoded {
		b.size -= cap(s.bytes)
		s.bytes, s.count = b.Encode(s.bytes[:0], d, now)
		s.encoded = true
		if b.size += cap(s.bytes); b.size > maxBodies {
			defer b.drop()
		}
	}
	return append(dst, s.bytes...), s.count
}

// drop forgets everything.
func (b *Bodies) drop() {
	b.slot = [bodySlots]body{}
	b.size = 0
}
