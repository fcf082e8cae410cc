package ws

import (
	"fmt"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// publish hands a message in. One with a request's number is answered once it
// is durable; of one without, only a refusal is told.
func (c *conn) publish(cmd *command, e *core.Envelope) error {
	topic, err := addressOf(cmd)
	if err != nil {
		return err
	}
	if err := c.fill(e, cmd, topic); err != nil {
		return err
	}
	e.ReplyTo = cmd.reply
	e.Retain = cmd.retain
	return c.hand(e, cmd.req, nil)
}

// hand hands an envelope in, with a receipt where a request or a call waits for
// it. It blocks while too many publishes are pending, or the log is full.
func (c *conn) hand(e *core.Envelope, req []byte, call *call) error {
	c.srv.count.Received.Inc()
	var receipt core.Receipt
	if req != nil {
		if receipt = c.receipt(req, call, nil); receipt == 0 {
			return core.ErrClosed
		}
	}
	err := c.client.Publish(c.srv.hard, e, receipt)
	if err != nil && receipt != 0 {
		c.mu.Lock()
		c.release(receipt)
		c.mu.Unlock()
	}
	return err
}

// addressOf is the topic that a command publishes to.
func addressOf(cmd *command) (string, error) {
	switch cmd.has & (fieldTopic | fieldQueue | fieldExchange) {
	case fieldTopic:
		return cmd.topic, nil
	case fieldQueue:
		return core.QueueTopic(cmd.queue), nil
	case fieldExchange:
		if err := core.CheckExchangeName(cmd.exchange); err != nil {
			return "", err
		}
		return core.ExchangeTopic(cmd.exchange, cmd.key), nil
	}
	return "", fmt.Errorf(`%w: want one of "topic", "queue" and "exchange"`, core.ErrInvalid)
}

// fill fills an envelope from a command, whose text it aliases.
func (c *conn) fill(e *core.Envelope, cmd *command, topic string) error {
	limits := &c.srv.Limits
	*e = core.Envelope{
		Topic: topic, ID: cmd.id, Headers: cmd.headers, ContentType: cmd.contentType, CorrelationID: cmd.corr,
		Payload: cmd.payload, Text: cmd.hasAny(fieldData), Mandatory: cmd.mandatory,
	}
	if !cmd.hasAny(fieldExchange) {
		e.Key = cmd.key
	}
	if cmd.structured && !cmd.hasAny(fieldType) {
		e.ContentType = adapters.JSONType
	}
	if n := len(e.Key) + len(e.ID) + len(e.ContentType) + len(e.CorrelationID); n > limits.HeaderBytes {
		return fmt.Errorf("%w: key, id, type and corr have %d bytes, at most %d are allowed", core.ErrTooLarge, n, limits.HeaderBytes)
	}
	if cmd.reply != "" {
		if err := core.CheckTopic(cmd.reply); err != nil {
			return err
		}
	}
	if cmd.hasAny(fieldTTL) {
		if cmd.ttl == 0 {
			return fmt.Errorf(`%w: "ttl" is 0`, core.ErrInvalid)
		}
		e.Expires = in(cmd.ttl)
	}
	if cmd.delay > 0 {
		e.DeliverAt = in(cmd.delay)
	}
	if cmd.hasAny(fieldPriority) {
		e.Priority = core.PriorityOf(int(cmd.priority))
	}
	if cmd.durable {
		e.Guarantee = core.AtLeastOnce
	}
	return nil
}

func in(n uint64) time.Time { return time.Now().Add(millis(n)) }
