package core

import "time"

// An Offset is an envelope's place in the log and its identity in every
// protocol: unique, increasing, never reused, stable for ever. Gaps are
// allowed. The first offset of a log is 1; 0 is none.
type Offset uint64

// An Envelope is one message in no protocol's dialect. What its publisher did
// not say stays unsaid: every zero value below means "unset".
type Envelope struct {
	// Topic is where the message goes: a topic, or the address of a queue or
	// an exchange ([QueueTopic], [ExchangeTopic]).
	Topic string
	// Key orders and hashes messages.
	Key string
	// ID is the publisher's own name for the message. Where it is set, a
	// second publish of the same ID to the same topic within the
	// deduplication window is confirmed with the first one's offset and not
	// appended.
	ID string
	// Headers are in the sender's order, repeats kept.
	Headers     []Header
	ContentType string
	// Text says that the publisher declared the payload to be UTF-8 text
	// (MQTT's payload format indicator).
	Text bool
	// Bytes says that it declared the payload to be bytes of no certain format,
	// which is to be passed on, though saying nothing means the same.
	Bytes bool
	// EmptyType and EmptyReplyTo say that it named an empty content type or an
	// empty reply-to, which is passed on likewise. Neither means anything where
	// there is one.
	EmptyType, EmptyReplyTo bool
	Payload                 []byte
	// ReplyTo is a topic, or the address of a queue or exchange.
	ReplyTo       string
	CorrelationID []byte
	// Expires is when the message is not to be delivered any more, to the
	// millisecond.
	Expires time.Time
	// DeliverAt is when the message is to be delivered, to the millisecond.
	DeliverAt time.Time
	// Schedule, where it is set, has the message published more than once.
	Schedule  *Schedule
	Priority  Priority
	Guarantee Guarantee
	// Retain makes the message its topic's retained value; an empty payload
	// removes that value.
	Retain bool
	// Once, where it is set, names this publish for ever (a session and a
	// packet id): a second publish with the same Once is confirmed with the
	// first one's offset and not appended, until [Client.Forget]. It is not
	// part of the message.
	Once string

	// Mandatory refuses the message with ErrNoResponders where nobody is there
	// to take it: no queue and no reader that its topic, or its exchange,
	// leads to. It is not part of the message.
	Mandatory bool

	// What follows is the core's to say; a publisher's own values are
	// replaced.

	Publisher Publisher
	// Time is when the broker took the message, to the millisecond.
	Time time.Time
}

// A Header is one of an envelope's headers: any UTF-8 name and value.
type Header struct{ Name, Value string }

// A Publisher says who published an envelope.
type Publisher struct {
	// Principal is the authenticated user, empty for an anonymous one.
	Principal string
	// Client is the client id, or the adapter's name for the connection.
	Client string
	// Protocol is the adapter that took the message, such as "mqtt".
	Protocol string
}

// A Guarantee is what a publisher asked of the broker for a message.
type Guarantee uint8

const (
	// AtMostOnce: nobody waits for the message to be durable.
	AtMostOnce Guarantee = iota
	// AtLeastOnce: it is confirmed once it is durable.
	AtLeastOnce
	// ExactlyOnce: likewise, and it was published under a handshake that
	// excludes a second copy.
	ExactlyOnce
)

// A Priority is an optional priority from 0 to 9. Its zero value is unset.
type Priority uint8

// PriorityOf makes a Priority of a level from 0 to 9; what is outside is
// brought to the nearer bound.
func PriorityOf(level int) Priority { return Priority(min(max(level, 0), 9) + 1) }

// Level returns the priority's level, and false where it is unset.
func (p Priority) Level() (level int, ok bool) {
	if p == 0 {
		return 0, false
	}
	return int(p) - 1, true
}

// Expired reports whether the envelope is not to be delivered any more.
func (e *Envelope) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}

// A Delivery is an envelope on its way to one consumer. Its envelope, with
// every string and slice in it, is only lent for the duration of the call that
// hands it over: whoever keeps any of it clones it.
type Delivery struct {
	*Envelope
	// Offset names the delivery in Settle.
	Offset Offset
	// Attempt counts from 1; more than 1 is a redelivery.
	Attempt uint16
	// Retained says that this is a retained value sent because the consumer
	// began, not a message that was just published.
	Retained bool
	// Settled says that nobody waits for this delivery to be settled: it was
	// accepted as it was handed over.
	Settled bool
	// Tags are those of the bindings that matched, in the order of the
	// consumer's bindings.
	Tags []uint64
}

// Size is what a delivery of the envelope costs of a consumer's Credit.Bytes.
func (e *Envelope) Size() int {
	n := len(e.Topic) + len(e.Payload) + len(e.Key) + len(e.ContentType) + len(e.ReplyTo) + len(e.CorrelationID) + 32
	for i := range e.Headers {
		n += len(e.Headers[i].Name) + len(e.Headers[i].Value) + 4
	}
	return n
}
