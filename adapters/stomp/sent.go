package stomp

import "github.com/sluicemq/sluice/core"

// sentMessages are the messages of one subscription that its client has to
// acknowledge, in the order in which they were sent: that order, not the
// log's, is what a cumulative ACK counts by. It is as long as the credit.
type sentMessages struct {
	list []sentMessage
	// gone are how many of the list are acknowledged.
	gone int
}

type sentMessage struct {
	at    core.Offset
	state sentState
}

type sentState uint8

const (
	// waiting for its acknowledgement.
	waiting sentState = iota
	// pending in a transaction that acknowledges it.
	pending
	// settled, and no longer there but for its place.
	settled
)

// push adds a message that is about to be sent.
func (s *sentMessages) push(at core.Offset) {
	s.list = append(s.list, sentMessage{at, waiting})
}

// take turns the message at an offset, and with through all that were sent
// before it and wait as well, to a state, and appends their offsets to dst in
// the order in which they were sent. It reports false where that message does
// not wait: it was never sent, or was acknowledged before.
func (s *sentMessages) take(dst []core.Offset, at core.Offset, through bool, to sentState) ([]core.Offset, bool) {
	index := -1
	for i := range s.list {
		if s.list[i].at == at && s.list[i].state == waiting {
			index = i
			break
		}
	}
	if index < 0 {
		return dst, false
	}
	first := index
	if through {
		first = 0
	}
	for i := first; i <= index; i++ {
		m := &s.list[i]
		if m.state != waiting {
			continue
		}
		m.state = to
		dst = append(dst, m.at)
		if to == settled {
			s.gone++
		}
	}
	s.compact()
	return dst, true
}

// resolve ends what a transaction did to a message: it is settled, or waits
// again.
func (s *sentMessages) resolve(at core.Offset, to sentState) {
	for i := range s.list {
		if m := &s.list[i]; m.at == at && m.state == pending {
			m.state = to
			if to == settled {
				s.gone++
			}
			break
		}
	}
	s.compact()
}

// compact drops what is settled, once it is half of the list.
func (s *sentMessages) compact() {
	if 2*s.gone < len(s.list) {
		return
	}
	kept := s.list[:0]
	for _, m := range s.list {
		if m.state != settled {
			kept = append(kept, m)
		}
	}
	s.list, s.gone = kept, 0
}
