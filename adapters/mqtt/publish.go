package mqtt

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
)

// A receipt of this adapter's is a packet id, what it is for, and for a publish
// that the adapter itself refuses, the reason code.
const (
	receiptPuback  = 1 << 16
	receiptPubrec  = 2 << 16
	receiptPubcomp = 3 << 16 // Client.Forget after PUBREL
	receiptKinds   = 0xFF << 16
	receiptCode    = 24 // how far the reason code is shifted
)

// incoming is the state of a QoS 2 publish of the client's.
type incoming uint8

const (
	incomingNew      incoming = iota // handed to the core
	incomingPubrec                   // PUBREC is sent, PUBREL is awaited
	incomingReleased                 // PUBREL came, PUBCOMP waits for the core
	incomingKept                     // of a former connection: PUBREL, or PUBLISH again, is awaited
)

// A publishing is a PUBLISH on its way from the socket to the core. Most
// connections never send one, so it is made when one comes.
type publishing struct {
	packet   publishPacket
	envelope core.Envelope
}

// handlePublish decodes a PUBLISH and hands it to the core (sections 3.3, 4.3).
func (c *conn) handlePublish(flags byte, body []byte) error {
	if c.publish == nil {
		c.publish = new(publishing)
	}
	p, e := &c.publish.packet, &c.publish.envelope
	if err := p.decode(flags, body, c.v, e); err != nil {
		return err
	}
	if err := c.resolveTopic(); err != nil {
		return err
	}
	c.received++
	var refusal byte
	now := time.Time{}
	if p.expires || p.delay > 0 || len(e.Topic) > 0 && e.Topic[0] == '$' {
		now = time.Now()
		refusal = c.resolveTimes(now)
	}
	switch {
	case refusal != 0:
	case p.users > 0 && checkUsers(p.users, p.userBytes, &c.s.limits) != nil:
		refusal = codeQuota
		c.s.metrics.Refused("user_properties")
	case e.Text && !validText(e.Payload):
		refusal = codePayloadFormat // [MQTT-3.3.2-4]: the receiver may check
		c.s.metrics.Refused("payload_format")
	}
	if p.qos == 0 {
		if refusal == 0 {
			if err := c.client.Publish(c.ctx, e, 0); err != nil {
				return c.dropped(err)
			}
		}
		return nil
	}
	switch verdict, err := c.account(p); {
	case err != nil || verdict == verdictIgnore:
		return err
	case verdict == verdictAgain:
		c.out.Append(func(b []byte) []byte { return appendAck(b, typePubrec, p.id, c.v, codeSuccess) })
		return nil
	}
	receipt := core.Receipt(receiptPuback | int(p.id))
	if p.qos == 2 {
		receipt = core.Receipt(receiptPubrec | int(p.id))
		if c.session == sessionQueue {
			e.Once = c.onceKey(p.id)
		}
	}
	if refusal != 0 {
		// Even what the adapter refuses takes its place in line, as
		// acknowledgements leave in the order of the publishes
		// ([MQTT-4.6.0-2]): the core refuses the empty topic in its turn.
		receipt |= core.Receipt(refusal) << receiptCode
		*e = core.Envelope{Headers: e.Headers[:0]}
	}
	return c.client.Publish(c.ctx, e, receipt)
}

// resolveTopic puts an alias's topic in its place, or remembers the topic for
// the alias ([MQTT-3.3.2-7] to [MQTT-3.3.2-12]).
func (c *conn) resolveTopic() error {
	e, n := &c.publish.envelope, int(c.publish.packet.alias)
	if n > c.s.limits.MQTTTopicAliases {
		return errAlias
	}
	if e.Topic == "" {
		if n == 0 {
			return errNoTopic
		}
		if n >= len(c.aliases) || c.aliases[n] == "" {
			return errAliasUnknown
		}
		e.Topic = c.aliases[n]
		return nil
	}
	if err := checkTopic(e.Topic); err != nil {
		return err
	}
	if n > 0 {
		for len(c.aliases) <= n {
			c.aliases = append(c.aliases, "")
		}
		if kept := e.Topic[:min(len(e.Topic), core.MaxTopicBytes+1)]; c.aliases[n] != kept {
			c.aliases[n] = strings.Clone(kept) // one that is too long stays so
		}
	}
	return nil
}

// resolveTimes sets when the message is due and when it expires.
func (c *conn) resolveTimes(now time.Time) (refusal byte) {
	p, e := &c.publish.packet, &c.publish.envelope
	if e.Topic[0] == '$' {
		topic, at, err := publishTopic(e.Topic, now)
		if err != nil {
			c.s.metrics.Refused("topic")
			return codeTopic
		}
		e.Topic, e.DeliverAt = topic, at
	}
	if p.delay > 0 {
		e.DeliverAt = now.Add(p.delay)
	}
	if p.expires {
		e.Expires = now.Add(time.Duration(p.expiry) * time.Second)
	}
	return 0
}

// A verdict says what is to be done with a QoS 1 or 2 publish.
type verdict uint8

const (
	verdictPublish verdict = iota
	verdictIgnore          // its acknowledgement is on its way
	verdictAgain           // PUBREC is sent again
)

// account counts a QoS 1 or 2 publish among those that are not acknowledged,
// and waits for room or refuses it where there are too many.
func (c *conn) account(p *publishPacket) (verdict, error) {
	limit := c.s.limits.PublishInFlight
	c.mu.Lock()
	defer c.mu.Unlock()
	state, known := c.incoming[p.id]
	known = known && p.qos == 2
	switch {
	case known && state == incomingNew:
		return verdictIgnore, nil
	case known && (c.session == sessionReader || state == incomingReleased):
		return verdictAgain, nil // [MQTT-4.3.3-10]
	case known && state == incomingPubrec:
		c.incoming[p.id] = incomingNew // the core knows it by Once
		c.waiting++
		return verdictPublish, nil
	case c.v == v5 && c.unconfirmed >= limit:
		return 0, errReceiveMax // [MQTT-3.3.4-9]
	}
	// Before 5.0 a client is not told how many it may send. The core's confirms are
	// waited for; not PUBREL, which would not be read, and of which there can be as
	// many as packet ids.
	for c.v != v5 && c.waiting >= limit && c.cause == nil && c.ctx.Err() == nil {
		c.room.Wait()
	}
	if c.cause != nil || c.ctx.Err() != nil {
		return 0, context.Canceled
	}
	c.unconfirmed++
	c.waiting++
	if p.qos == 2 {
		if c.incoming == nil {
			c.incoming = make(map[uint16]incoming)
		}
		c.incoming[p.id] = incomingNew
	}
	return verdictPublish, nil
}

// onceKey names a publish of the session's for ever. It is valid until the next
// call.
func (c *conn) onceKey(id uint16) string {
	c.once = appendUint16(c.once[:onceBytes], id)
	return alias(c.once)
}

// dropped says what becomes of a QoS 0 publish that was refused: it is counted,
// and the connection goes on, unless the core is closed.
func (c *conn) dropped(err error) error {
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	_, reason := reasonOf(err, typePuback)
	c.s.metrics.Refused(reason)
	if reason == "closed" {
		return errShutdown
	}
	return nil
}

// Confirm sends what the core has made durable, in order. It is core.Confirmer.
func (c *conn) Confirm(batch []core.Confirmation) {
	var failed error
	told := len(batch)
	c.mu.Lock()
	for i := range batch {
		if err := c.confirmed(&batch[i]); err != nil && failed == nil {
			failed, told = err, i // what comes behind it is not acknowledged either
		}
	}
	c.room.Broadcast()
	c.mu.Unlock()
	c.out.Append(func(b []byte) []byte {
		for i := range batch[:told] {
			b = c.appendConfirmation(b, &batch[i])
		}
		return b
	})
	if failed != nil {
		c.stop(failed)
	}
}

// confirmed does the accounts of one confirmation and says why the connection
// cannot go on, if so. c.mu is held.
func (c *conn) confirmed(x *core.Confirmation) error {
	id := uint16(x.Receipt)
	switch x.Receipt & receiptKinds {
	case receiptPuback:
		c.waiting--
		c.unconfirmed--
	case receiptPubrec:
		c.waiting--
		if x.Err != nil {
			c.unconfirmed--
			delete(c.incoming, id) // [MQTT-4.3.3-9]
		} else if _, ok := c.incoming[id]; ok { // or the session has been left
			c.incoming[id] = incomingPubrec
		}
	case receiptPubcomp:
		c.waiting--
		if x.Err == nil {
			delete(c.incoming, id)
		}
	}
	if x.Err == nil {
		return nil
	}
	code, reason := c.refusal(x)
	switch kind := x.Receipt & receiptKinds; {
	case kind == receiptPubcomp:
		return &fault{codeUnspecified, reason, x.Err.Error()}
	case x.Receipt>>receiptCode == 0:
		c.s.metrics.Refused(reason)
	}
	if c.v != v5 {
		return &fault{code, "publish_refused", x.Err.Error()} // [MQTT-3.3.5-2]
	}
	return nil
}

// refusal is the reason code of a confirmation that failed.
func (c *conn) refusal(x *core.Confirmation) (code byte, reason string) {
	if code := byte(x.Receipt >> receiptCode); code != 0 {
		return code, "publish_refused"
	}
	if x.Receipt&receiptKinds == receiptPubrec {
		return reasonOf(x.Err, typePubrec)
	}
	return reasonOf(x.Err, typePuback)
}

func (c *conn) appendConfirmation(b []byte, x *core.Confirmation) []byte {
	id := uint16(x.Receipt)
	kind := byte(typePuback)
	switch x.Receipt & receiptKinds {
	case receiptPubrec:
		kind = typePubrec
	case receiptPubcomp:
		kind = typePubcomp
	}
	if x.Err == nil {
		return appendAck(b, kind, id, c.v, codeSuccess)
	}
	if kind == typePubcomp || c.v != v5 {
		return b
	}
	code, _ := c.refusal(x)
	if !c.problems || x.Receipt>>receiptCode != 0 {
		return appendAck(b, kind, id, c.v, code)
	}
	return appendAckReason(b, kind, id, code, x.Err.Error(), c.maxOut)
}

func validText(b []byte) bool { return utf8.Valid(b) }

// publishTopic reads a topic that begins with a dollar sign and may ask for a
// delay: $delayed/<seconds>/<topic>.
func publishTopic(topic string, now time.Time) (string, time.Time, error) {
	rest, ok := strings.CutPrefix(topic, core.DelayedPrefix)
	if !ok {
		return topic, time.Time{}, nil
	}
	wait, topic, ok := strings.Cut(rest, "/")
	d, valid := parseDelay(wait)
	if !ok || !valid {
		return "", time.Time{}, fmt.Errorf("%w: want $delayed/<seconds>/<topic>", core.ErrInvalidTopic)
	}
	return topic, now.Add(d), nil
}
