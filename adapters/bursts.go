package adapters

import (
	"bytes"
	"sync"

	"github.com/sluicemq/sluice/core"
)

// Bursts are batches on their way to many subscribers, encoded whole: what the
// core hands to one subscriber after the other is mostly the same messages, and
// the second one has them encoded for all that follow. What is only sent once is
// not kept. Where just the messages are the same and not what stands around
// them, [Bodies] still helps.
type Bursts struct {
	mu   sync.Mutex // guards what follows; held while one batch is appended
	slot [burstSlots]burst
	next int // the slot to be used again
}

// burstSlots is how many kinds of subscribers may take turns.
const burstSlots = 4

// maxBurst bounds what a slot keeps, in bytes.
const maxBurst = 512 << 10

// A burst is one batch for one kind of subscriber.
type burst struct {
	variant []byte
	of      []placed
	bytes   []byte
	encoded bool
}

// A placed is a message of a burst. An envelope's place and its offset together
// say which: both are used again, but not together.
type placed struct {
	of      *core.Envelope
	at      core.Offset
	settled bool
}

// Append appends what encode does, which must be the same for each batch of the
// same messages under the same variant, but for messages that expire, were
// retained, or come again: of these nothing is shared. It allocates only to keep
// more than was ever kept.
func (b *Bursts) Append(dst []byte, batch []core.Delivery, variant []byte, encode func(dst []byte) []byte) []byte {
	// Whoever finds it taken does not wait.
	if !b.mu.TryLock() {
		return encode(dst)
	}
	defer b.mu.Unlock()
	for i := range b.slot {
		s := &b.slot[i]
		if !s.is(batch, variant) {
			continue
		}
		if !s.encoded {
			start := len(dst)
			dst = encode(dst)
			if len(dst)-start <= maxBurst {
				s.bytes, s.encoded = append(s.bytes[:0], dst[start:]...), true
			}
			return dst
		}
		return append(dst, s.bytes...)
	}
	if s := &b.slot[b.next]; s.begin(batch, variant) {
		b.next = (b.next + 1) % burstSlots
	}
	return encode(dst)
}

func (s *burst) is(batch []core.Delivery, variant []byte) bool {
	if len(s.of) != len(batch) || len(batch) == 0 || !bytes.Equal(s.variant, variant) {
		return false
	}
	for i := range batch {
		d, p := &batch[i], &s.of[i]
		if p.at != d.Offset || p.of != d.Envelope || p.settled != d.Settled || d.Attempt > 1 || d.Retained {
			return false
		}
	}
	return true
}

// begin remembers a batch, unless it is not to be shared, which it reports.
func (s *burst) begin(batch []core.Delivery, variant []byte) bool {
	s.of, s.encoded = s.of[:0], false
	for i := range batch {
		d := &batch[i]
		if d.Attempt > 1 || d.Retained || !d.Expires.IsZero() {
			s.of = s.of[:0]
			return false
		}
		s.of = append(s.of, placed{d.Envelope, d.Offset, d.Settled})
	}
	s.variant = append(s.variant[:0], variant...)
	return true
}
