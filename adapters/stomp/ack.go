package stomp

import (
	"errors"
	"fmt"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// oneMessage is the credit that an acknowledged message gives back.
var oneMessage = core.Credit{Messages: 1}

// negative obeys NACK: the message comes again, after the queue's backoff, or
// goes to the dead letters if the frame says requeue:false. A reader of topics
// has neither: the message has been seen, as with ACK, and that is counted.
func (c *conn) negative(f *clientFrame) error {
	if c.version == v10 {
		return refuse("malformed", "unknown command", "STOMP 1.0 has no NACK. Connect with accept-version:1.2.")
	}
	outcome := core.Released
	for i := range f.Headers {
		h := &f.Headers[i]
		if h.Name != headerRequeue {
			continue
		}
		if again, err := parseBool(h); err != nil {
			return err
		} else if !again {
			outcome = core.Rejected
		}
		break
	}
	return c.acknowledge(f, outcome)
}

// acknowledge obeys ACK and NACK (STOMP 1.2 "ACK", "NACK").
func (c *conn) acknowledge(f *clientFrame, outcome core.Outcome) error {
	s, at, err := c.acknowledged(f)
	if err != nil {
		return err
	}
	if s.consumer == nil {
		return c.done(f) // nobody waits for what was only looked at
	}
	var t *transaction
	to := settled
	if id, ok := f.header(frame.Transaction); ok {
		if t, err = c.transactionOf(id); err != nil {
			return err
		}
		to = pending
	}
	s.mu.Lock()
	offsets, found := s.sent.take(c.offsets[:0], at, s.ack == ackClient, to)
	s.mu.Unlock()
	c.offsets = offsets
	if !found {
		return refuse("not_held", "not waiting for an acknowledgement",
			fmt.Sprintf("The message %d-%d was acknowledged before, or was not sent on this connection. Acknowledge each message once.", s.number, at))
	}
	if outcome != core.Accepted && s.consumer.Queue() == "" {
		c.server.metrics.Fallback("nack")
	}
	if t != nil {
		if err := c.enlarge(t, len(offsets), enlistedBytes*len(offsets)); err != nil {
			return err
		}
		for _, o := range offsets {
			t.settle = append(t.settle, enlisted{s, o, outcome})
		}
		return c.done(f)
	}
	number, err := c.receipt(f)
	if err != nil {
		return err
	}
	return c.settle(s, offsets, outcome, number)
}

// settle settles messages in the order in which they were sent. The receipt, if
// there is one, stands for all of them: refused, none was settled.
func (c *conn) settle(s *subscription, offsets []core.Offset, outcome core.Outcome, number core.Receipt) error {
	last := len(offsets) - 1
	var all core.Transaction
	for i, at := range offsets {
		o := core.SettleOptions{Credit: oneMessage}
		if number != 0 && last > 0 && (i == last || s.consumer.Holds(at)) {
			all.Settle = append(all.Settle, core.Settling{Consumer: s.consumer, Offset: at, Outcome: outcome, Options: o})
			continue
		}
		if i == last {
			o.Receipt = number
		}
		err := s.consumer.Settle(at, outcome, o)
		switch {
		case err == nil:
		case errors.Is(err, core.ErrNotHeld) && o.Receipt == 0:
			// It was sent here and its lease has ended: it is delivered again,
			// which is all that the client would be told.
			c.server.metrics.Refused("late_ack")
			s.consumer.Grant(oneMessage)
		default:
			c.receipts.drop(number)
			return err
		}
	}
	if all.Settle == nil {
		return nil
	}
	if err := c.client.Commit(c.ctx, all, number); err != nil {
		c.receipts.drop(number)
		return err
	}
	return nil
}

// acknowledged finds what an ACK or NACK names: by id in 1.2, by message-id and
// subscription in 1.1, by message-id in 1.0.
func (c *conn) acknowledged(f *clientFrame) (*subscription, core.Offset, error) {
	name := frame.MessageId
	if c.version == v12 {
		name = frame.Id
	}
	token, ok := f.header(name)
	if !ok {
		return nil, 0, missing(f.Command, name)
	}
	id, hasID := f.header(frame.Subscription)
	if !hasID && c.version == v11 {
		return nil, 0, missing(f.Command, frame.Subscription)
	}
	number, at, ok := parseToken(token)
	if !ok {
		want := "the message-id of a MESSAGE"
		if c.version == v12 {
			want = "the ack header of a MESSAGE"
		}
		return nil, 0, invalid(name, token, want)
	}
	s := c.numbered[number]
	switch {
	case s == nil:
		return nil, 0, refuse("unknown_subscription", "unknown subscription",
			fmt.Sprintf("The subscription that the message %q came from has ended, or is another connection's.", clip(token)))
	case hasID && c.version == v11 && s.id != id:
		return nil, 0, invalid(frame.Subscription, id, fmt.Sprintf("%q, which the message came from", s.id))
	case s.ack == ackAuto:
		return nil, 0, refuse("not_held", "not waiting for an acknowledgement",
			fmt.Sprintf("The subscription %q has ack:auto: its messages are acknowledged as they are sent. Subscribe with ack:client-individual or ack:client.", s.id))
	}
	return s, at, nil
}
