package stomp

import (
	"fmt"
	"sync"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// An ackMode is a subscription's ack header.
type ackMode uint8

const (
	ackAuto ackMode = iota
	// ackClient is cumulative.
	ackClient
	ackIndividual
)

func parseAck(s string) (ackMode, bool) {
	switch s {
	case "", frame.AckAuto:
		return ackAuto, true
	case frame.AckClient:
		return ackClient, true
	case frame.AckClientIndividual:
		return ackIndividual, true
	}
	return 0, false
}

// A subscription is one SUBSCRIBE's: the receiver of one consumer. It
// implements core.Receiver.
type subscription struct {
	conn *conn
	id   string
	// written is the destination as it was subscribed.
	written  string
	number   uint64
	sources  int // how many destinations written names
	ack      ackMode
	encoder  *messageEncoder
	consumer *core.Consumer // nil where a queue is only looked at
	// durable is the session that outlives the connection, empty where there
	// is none.
	durable string
	// noLocal leaves out what this client sent.
	noLocal bool
	// inbox is the one topic of a temporary destination.
	inbox string

	mu   sync.Mutex // guards what follows
	sent sentMessages
	gap  core.Gap // in front of the next message; To is 0 where there is none
}

// close ends the consumer: what it holds is released, and no MESSAGE follows.
func (s *subscription) close() {
	if s.consumer != nil {
		s.consumer.Close()
	}
}

// Deliver encodes deliveries into the outbox. Their bytes' credit comes back
// once they are written, that of messages with their acknowledgement.
func (s *subscription) Deliver(batch []core.Delivery) {
	if s.noLocal {
		if batch = s.others(batch); len(batch) == 0 {
			return
		}
	}
	s.mu.Lock()
	gap := s.gap
	s.gap = core.Gap{}
	bytes := 0
	for i := range batch {
		bytes += batch[i].Size()
		if s.ack != ackAuto && !batch[i].Settled {
			s.sent.push(batch[i].Offset)
		}
	}
	s.mu.Unlock()
	c := s.conn
	c.out.AppendFor(s.consumer, core.Credit{Bytes: bytes}, func(buf []byte) []byte {
		if c.ended {
			return buf
		}
		for i := range batch {
			buf = s.encoder.append(buf, &batch[i], gap)
			gap = core.Gap{}
		}
		return buf
	})
	c.server.metrics.Sent.Add(float64(len(batch)))
}

// others leaves this client's own messages out of a batch, as settled and
// without having cost anything.
func (s *subscription) others(batch []core.Delivery) []core.Delivery {
	kept := batch[:0]
	for i := range batch {
		d := &batch[i]
		if d.Publisher != s.conn.client.Publisher() {
			kept = append(kept, *d)
			continue
		}
		credit := core.Credit{Bytes: d.Size()}
		if d.Settled {
			s.consumer.Grant(credit)
			continue
		}
		credit.Messages = 1
		if err := s.consumer.Settle(d.Offset, core.Accepted, core.SettleOptions{Credit: credit}); err != nil {
			// It is not held any more and comes again.
			s.consumer.Grant(credit)
		}
	}
	return kept
}

// Notice tells the client of what is not a message: of a gap with the next
// MESSAGE, of the subscription's end with an ERROR.
func (s *subscription) Notice(n core.Notice) {
	var r *refusal
	switch n.Kind {
	case core.NoticeGap:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.gap.To == 0 {
			s.gap.From = n.From
		}
		s.gap.To = n.To
		return
	case core.NoticeRevoked:
		r = &refusal{"revoked", "subscription ended", "Another consumer took over.", n.Err}
		if n.Err != nil {
			r.detail = "The right to receive was withdrawn."
		}
	case core.NoticeDeleted:
		r = &refusal{"deleted", "subscription ended", "The queue was deleted.", n.Err}
	case core.NoticeFailed:
		r = &refusal{"storage", "subscription ended", "The log could not be read.", n.Err}
	default:
		return
	}
	r.detail = fmt.Sprintf("The subscription %q to %q has ended. %s", clip(s.id), clip(s.written), r.detail)
	s.conn.refuse(r, nil, false)
	s.conn.receipts.end()
	s.conn.interrupt()
}
