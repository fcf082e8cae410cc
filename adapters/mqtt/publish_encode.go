package mqtt

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// An outPublish is what a PUBLISH to a client says besides the envelope.
type outPublish struct {
	first   byte // the first byte: type, DUP, QoS, RETAIN
	id      uint16
	alias   uint16 // topic alias; 0 is none
	aliased bool   // the alias is known: the topic is left out
	ids     []uint32
	payload []byte // in place of the envelope's where it is not nil
	// plain leaves out everything but the topic and the payload.
	plain bool
	// meta adds what the broker knows of the message.
	meta bool

	// interval is set to where the message expiry interval was appended.
	interval int
}

// appendPublish3 appends a PUBLISH of MQTT 3.1 or 3.1.1.
func appendPublish3(b []byte, p *outPublish, e *core.Envelope) []byte {
	payload := e.Payload
	if p.payload != nil {
		payload = p.payload
	}
	n := 2 + len(e.Topic) + len(payload)
	if p.id != 0 {
		n += 2
	}
	b = append(b, p.first)
	b = appendVarint(b, n)
	b = appendString(b, e.Topic)
	if p.id != 0 {
		b = appendUint16(b, p.id)
	}
	return append(b, payload...)
}

// The user properties of who asked for them by "meta", up to the upper half of their
// values' lengths.
const (
	offsetPrefix  = "\x26\x00\x06" + userOffset + "\x00"
	timePrefix    = "\x26\x00\x04" + userTime + "\x00"
	attemptPrefix = "\x26\x00\x07" + userAttempt + "\x00"
)

// appendPublish5 appends a PUBLISH of MQTT 5 (section 3.3). now is only looked
// at where the message expires.
func appendPublish5(b []byte, p *outPublish, d *core.Delivery, now time.Time) []byte {
	e := d.Envelope
	payload := e.Payload
	if p.payload != nil {
		payload = p.payload
	}
	var digits [3][20]byte
	var offset, taken, attempt []byte
	props := 0
	if p.meta {
		offset = strconv.AppendUint(digits[0][:0], uint64(d.Offset), 10)
		taken = strconv.AppendInt(digits[1][:0], e.Time.UnixMilli(), 10)
		attempt = strconv.AppendUint(digits[2][:0], uint64(d.Attempt), 10)
		props = len(offsetPrefix) + 1 + len(offset) + len(timePrefix) + 1 + len(taken) + len(attemptPrefix) + 1 + len(attempt)
	}

	// The lengths first, so that everything is written in its place.
	if !p.plain {
		props += envelopeProperties(e, p.meta)
	}
	if !e.Expires.IsZero() {
		props += 5
	}
	for _, id := range p.ids {
		props += 1 + varintSize(int(id))
	}
	if p.alias != 0 {
		props += 3
	}
	n := 2 + varintSize(props) + props + len(payload)
	if !p.aliased {
		n += len(e.Topic)
	}
	if p.id != 0 {
		n += 2
	}

	b = append(b, p.first)
	b = appendVarint(b, n)
	if p.aliased {
		b = append(b, 0, 0)
	} else {
		b = appendString(b, e.Topic)
	}
	if p.id != 0 {
		b = appendUint16(b, p.id)
	}
	b = appendVarint(b, props)
	if !e.Expires.IsZero() {
		p.interval = len(b) + 1
		b = binary.BigEndian.AppendUint32(append(b, propMessageExpiry), expiryInterval(e.Expires.Sub(now)))
	}
	if p.alias != 0 {
		b = append(b, propAlias, byte(p.alias>>8), byte(p.alias))
	}
	for _, id := range p.ids {
		b = append(b, propSubscriptionID)
		b = appendVarint(b, int(id))
	}
	if !p.plain {
		b = appendEnvelope(b, e, p.meta)
	}
	if p.meta {
		b = append(append(append(b, offsetPrefix...), byte(len(offset))), offset...)
		b = append(append(append(b, timePrefix...), byte(len(taken))), taken...)
		b = append(append(append(b, attemptPrefix...), byte(len(attempt))), attempt...)
	}
	return append(b, payload...)
}

// expiryInterval is what remains of a message's time, in seconds, rounded up
// ([MQTT-3.3.2-6]).
func expiryInterval(left time.Duration) uint32 {
	return uint32(max((left+time.Second-1)/time.Second, 0))
}

func appendUser(b []byte, name, value string) []byte {
	b = append(b, propUser)
	b = appendString(b, name)
	return appendString(b, value)
}

// envelopeProperties is how many bytes appendEnvelope appends.
func envelopeProperties(e *core.Envelope, meta bool) int {
	n := 0
	if e.Text || e.Bytes {
		n += 2
	}
	if hasType(e) {
		n += 3 + len(e.ContentType)
	}
	if hasResponseTopic(e) {
		n += 3 + len(e.ReplyTo)
	}
	if e.CorrelationID != nil && len(e.CorrelationID) <= maxString {
		n += 3 + len(e.CorrelationID)
	}
	for i := range e.Headers {
		if h := &e.Headers[i]; isUser(h, meta) {
			n += 5 + len(h.Name) + len(h.Value)
		}
	}
	if e.Key != "" && fits(e.Key) && !stands(e, userKey) {
		n += 5 + len(userKey) + len(e.Key)
	}
	if e.Priority != 0 && !stands(e, userPriority) {
		n += 5 + len(userPriority) + 1
	}
	if e.ID != "" && fits(e.ID) && !stands(e, userID) {
		n += 5 + len(userID) + len(e.ID)
	}
	return n
}

// appendEnvelope appends the properties that carry an envelope's fields, but
// for the expiry ([MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-18],
// [MQTT-3.3.2-20]).
func appendEnvelope(b []byte, e *core.Envelope, meta bool) []byte {
	switch {
	case e.Text:
		b = append(b, propPayloadFormat, 1)
	case e.Bytes:
		b = append(b, propPayloadFormat, 0)
	}
	if hasType(e) {
		b = appendString(append(b, propContentType), e.ContentType)
	}
	if hasResponseTopic(e) {
		b = appendString(append(b, propResponseTopic), e.ReplyTo)
	}
	if e.CorrelationID != nil && len(e.CorrelationID) <= maxString {
		b = appendString(append(b, propCorrelation), alias(e.CorrelationID))
	}
	for i := range e.Headers {
		if h := &e.Headers[i]; isUser(h, meta) {
			b = appendUser(b, h.Name, h.Value)
		}
	}
	if e.Key != "" && fits(e.Key) && !stands(e, userKey) {
		b = appendUser(b, userKey, e.Key)
	}
	if level, ok := e.Priority.Level(); ok && !stands(e, userPriority) {
		b = appendUser(b, userPriority, "0123456789"[level:level+1])
	}
	if e.ID != "" && fits(e.ID) && !stands(e, userID) {
		b = appendUser(b, userID, e.ID)
	}
	return b
}

// fits reports whether MQTT can carry a string.
func fits(s string) bool { return len(s) <= maxString && strings.IndexByte(s, 0) < 0 }

func hasType(e *core.Envelope) bool {
	return (e.ContentType != "" || e.EmptyType) && fits(e.ContentType)
}

func hasResponseTopic(e *core.Envelope) bool {
	return (e.ReplyTo != "" || e.EmptyReplyTo) && fits(e.ReplyTo) && !strings.ContainsAny(e.ReplyTo, "+#")
}

// isUser reports whether a header is sent as a user property: with meta, not
// those that the broker says itself.
func isUser(h *core.Header, meta bool) bool {
	if meta {
		switch h.Name {
		case userOffset, userTime, userAttempt:
			return false
		}
	}
	return fits(h.Name) && fits(h.Value)
}

// stands reports whether a field's user property stands among the headers, in
// the place that its publisher gave it.
func stands(e *core.Envelope, name string) bool {
	for i := range e.Headers {
		if e.Headers[i].Name == name {
			return true
		}
	}
	return false
}

// isPlain reports whether an envelope has nothing that appendEnvelope or MQTT
// 3.1.1's lack of it would care for.
func isPlain(e *core.Envelope) bool {
	return len(e.Headers) == 0 && e.ContentType == "" && e.ReplyTo == "" && e.CorrelationID == nil &&
		e.Key == "" && e.ID == "" && e.Priority == 0 && !e.Text && !e.Bytes && !e.EmptyType && !e.EmptyReplyTo
}

// fallbacks counts what MQTT 3.1.1 leaves out of an envelope that is not plain.
func fallbacks(count func(field string), e *core.Envelope) {
	if len(e.Headers) > 0 {
		count("headers")
	}
	if e.ContentType != "" {
		count("content_type")
	}
	if e.ReplyTo != "" {
		count("reply_to")
	}
	if e.CorrelationID != nil {
		count("correlation_id")
	}
	if e.Key != "" {
		count("key")
	}
	if e.ID != "" {
		count("message_id")
	}
	if e.Priority != 0 {
		count("priority")
	}
}
