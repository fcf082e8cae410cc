package stomp

import (
	"fmt"
	"strings"

	"github.com/sluicemq/sluice/core"
)

// send obeys SEND: the message is handed in, or put into its transaction. The
// receipt leaves once it is durable; of a transaction's SEND, at once.
func (c *conn) send(f *clientFrame) error {
	s := &c.scratch
	if err := s.read(f, c.replyTo); err != nil {
		return err
	}
	if s.transaction != "" {
		if _, err := c.transactionOf(s.transaction); err != nil {
			return err
		}
	}
	if list := parts(s.destination); list != nil {
		return c.sendAll(s, list)
	}
	if err := c.address(&c.last, s.destination); err != nil {
		return err
	}
	if err := c.declareFor(s, &c.last.destination); err != nil {
		return err
	}
	e := &s.envelope
	e.Topic = c.last.topic
	c.server.metrics.Received.Inc()
	if s.transaction != "" {
		if err := c.enlist(s.transaction, e); err != nil {
			return err
		}
		return c.atOnce(s)
	}
	number, err := c.receiptOf(s)
	if err != nil {
		return err
	}
	if err := c.client.Publish(c.ctx, e, number); err != nil {
		c.receipts.drop(number)
		return err
	}
	return nil
}

// sendAll sends to each part of a composite destination, to all or to none.
func (c *conn) sendAll(s *sending, list []string) error {
	// Each part is a message with all of the body.
	if most := c.server.limits.StompTransactionsBytes; len(list)*len(s.envelope.Payload) > most {
		return refuse("message_too_large", "message too large",
			fmt.Sprintf("A message to %d destinations is that often in the log; together they may have %d bytes. Name fewer in one SEND.", len(list), most))
	}
	to := make([]addressed, len(list))
	for i, written := range list {
		if err := c.address(&to[i], written); err != nil {
			return err
		}
	}
	messages := make([]*core.Envelope, len(list))
	for i := range to {
		if err := c.declareFor(s, &to[i].destination); err != nil {
			return err
		}
		e := s.envelope
		e.Topic = to[i].topic
		messages[i] = &e
	}
	c.server.metrics.Received.Inc()
	if s.transaction != "" {
		for _, e := range messages {
			if err := c.enlist(s.transaction, e); err != nil {
				return err
			}
		}
		return c.atOnce(s)
	}
	number, err := c.receiptOf(s)
	if err != nil {
		return err
	}
	if err := c.client.Commit(c.ctx, core.Transaction{Publish: messages}, number); err != nil {
		c.receipts.drop(number)
		return err
	}
	return nil
}

func (c *conn) receiptOf(s *sending) (core.Receipt, error) {
	if !s.given {
		return 0, nil
	}
	return c.awaited(s.receipt)
}

// atOnce gives the receipt of a SEND that is done.
func (c *conn) atOnce(s *sending) error {
	number, err := c.receiptOf(s)
	if err == nil && number != 0 {
		c.finished(number)
	}
	return err
}

// address understands a destination, unless it is the same as last time.
func (c *conn) address(a *addressed, written string) error {
	if a.written == written && written != "" {
		return nil
	}
	own := strings.Clone(written)
	d, err := c.naming().target(own)
	if err != nil {
		return err
	}
	if d.declared {
		queue, _ := core.QueueOf(d.topic)
		// Who may send to a queue need not be allowed to look at it.
		if !c.client.HasQueue(queue) {
			return fmt.Errorf("%w: there is no queue %q", core.ErrNotFound, queue)
		}
	}
	*a = addressed{own, d}
	return nil
}

// replyTo is the core's address of a reply-to. One that names a temporary
// queue of the connection's subscribes to it, if the client has not (as
// RabbitMQ's do not).
func (c *conn) replyTo(written string) (string, error) {
	if err := c.address(&c.lastReply, written); err != nil {
		return "", err
	}
	if id := c.lastReply.temporary; id != "" && !c.listens(c.lastReply.topic) {
		w := &subscribing{id: id, hasID: true, written: id, sources: []destination{c.lastReply.destination}}
		s, err := c.add(w)
		if err != nil {
			return "", err
		}
		s.consumer.Grant(c.credit(w))
	}
	return c.lastReply.topic, nil
}

// A declaration is the last queue that a SEND's arguments declared.
type declaration struct {
	topic    string
	settings core.QueueSettings
}

// declareFor makes the queue that a SEND with arguments goes to, as they say, or
// checks that it is so. Arguments of a SEND to anything else mean nothing.
func (c *conn) declareFor(s *sending, d *destination) error {
	if s.queue.first == "" || d.kind != toQueue {
		return nil
	}
	queue, _ := core.QueueOf(d.topic)
	settings := s.queue.of(queue)
	if c.declared.topic == d.topic && sameSettings(&c.declared.settings, &settings) {
		return nil
	}
	if err := c.client.DeclareQueue(c.ctx, core.QueueDefinition{Name: queue, Settings: settings}); err != nil {
		return err
	}
	c.declared = declaration{d.topic, settings}
	return nil
}

// sameSettings compares what arguments can set.
func sameSettings(a, b *core.QueueSettings) bool {
	return a.TTL == b.TTL && a.Expires == b.Expires &&
		a.MaxLength == b.MaxLength && a.MaxBytes == b.MaxBytes && a.Overflow == b.Overflow &&
		a.DeadLetter == b.DeadLetter && a.DeadLetterExpired == b.DeadLetterExpired &&
		a.MaxAttempts == b.MaxAttempts && a.Lease == b.Lease && a.Backoff == b.Backoff && a.BackoffMax == b.BackoffMax &&
		a.Priority == b.Priority && a.SingleActive == b.SingleActive && a.Ordered == b.Ordered &&
		a.AutoDelete == b.AutoDelete && a.Exclusive == b.Exclusive && a.DedupWindow == b.DedupWindow
}
