package bench

// A sender is one publishing connection, whatever it speaks.
type sender struct {
	*peer
	load  *traffic
	index uint32
	size  int // of a payload
	// window is how many messages may be under way to the receivers, flight
	// how many may be unconfirmed; 0 where nothing is confirmed.
	window, flight uint64
	// chunk is how many messages go together, where that is fixed.
	chunk uint64
	quota uint64 // messages to send at all, 0: no end
	every int64  // ns between messages, 0: as fast as the windows let it
	// encode appends the next message, which was sent at a time.
	encode func(b []byte, at int64) []byte
	// open and end stand around a chunk.
	open, end func(b []byte) []byte

	sent      uint64
	sentAt    []int64 // of the unconfirmed, by sequence modulo its length
	confirmed uint64
	arrived   uint64 // at every receiver of the group
	disorder  uint64 // confirmations that came out of order
	due       int64  // when the next message is to be sent, with every
}

// produce sends what the windows have room for, in one write. An unconfirmed
// window is refilled when a quarter of it is free, so that writes are not of
// single messages; a confirmed one at once, so that it is always full.
func (s *sender) produce(now int64) error {
	if !s.idle() {
		return nil
	}
	room := sub(s.window, s.sent-s.arrived)
	switch {
	case s.flight > 0:
		room = min(room, sub(s.flight, s.sent-s.confirmed))
	case room*4 < s.window && s.every == 0:
		return nil
	}
	if s.quota > 0 {
		room = min(room, s.quota-s.sent)
	}
	switch {
	case s.chunk > 0:
		if room < s.chunk {
			return nil
		}
		s.out = s.open(s.out)
		for range s.chunk {
			s.append(now)
		}
		s.out = s.end(s.out)
	case s.every > 0:
		if s.due == 0 {
			s.due = now
		}
		for ; room > 0 && s.due <= now; room-- {
			s.append(s.due)
			s.due += s.every
		}
	default:
		for ; room > 0; room-- {
			s.append(now)
		}
	}
	if s.idle() {
		return nil
	}
	return s.flush()
}

func (s *sender) append(at int64) {
	if s.load.exact {
		s.sentAt[s.sent%uint64(len(s.sentAt))] = at
	}
	s.out = s.encode(s.out, at)
	s.sent++
}

// payload appends the payload of the next message.
func (s *sender) payload(b []byte, at int64) []byte {
	return s.load.noise.appendPayload(b, s.size, s.index, s.sent, at)
}

// text appends it as text.
func (s *sender) text(b []byte, at int64) []byte {
	return s.load.noise.appendText(b, s.size, s.index, s.sent, at)
}

// confirm notes that the oldest message is confirmed; ordered says whether the
// confirmation was that one's.
func (s *sender) confirm(ordered bool) {
	if !ordered {
		s.disorder++
	}
	if s.load.exact {
		s.load.confirm.RecordValue(max(1, (now()-s.sentAt[s.confirmed%uint64(len(s.sentAt))])/1000))
	}
	s.confirmed++
	s.load.loop.handled++
}

// sub is a-b, or 0.
func sub(a, b uint64) uint64 { return a - min(a, b) }
