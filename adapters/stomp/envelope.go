package stomp

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// A sending is a SEND frame's envelope, and what is for the adapter itself.
// What it points to belongs to the frame.
type sending struct {
	destination, receipt, transaction string
	envelope                          core.Envelope
	queue                             queueArguments
	// given says that the receipt was asked for: its id may be empty.
	given bool
	// schedule is the envelope's, where it has one.
	schedule core.Schedule
	delay    time.Duration
}

// read understands a SEND frame, all but its destination's address. It is used
// again and again: everything is overwritten but for the arrays.
func (s *sending) read(f *clientFrame, replyTo func(string) (string, error)) error {
	*s = sending{envelope: core.Envelope{
		Headers: s.envelope.Headers[:0], CorrelationID: s.envelope.CorrelationID[:0],
		Payload: f.Body, Guarantee: core.AtLeastOnce,
	}}
	e := &s.envelope
	var seen fields
	addressed, correlated, transient := false, false, false
	for i := range f.Headers {
		h := &f.Headers[i]
		field, known := sendFields[h.Name]
		if !known || field == fieldDeclaration && !toAQueue(f) {
			e.Headers = append(e.Headers, *h)
			continue
		}
		if field == fieldArgument || field == fieldDeclaration {
			if err := s.queue.read(h); err != nil {
				return err
			}
			continue
		}
		if field.repeats(&seen) {
			// Of a header that the broker understands the first counts.
			continue
		}
		var err error
		switch field {
		case fieldDestination:
			s.destination, addressed = h.Value, true
		case fieldReceipt:
			s.receipt, s.given = h.Value, true
		case fieldTransaction:
			if s.transaction = h.Value; s.transaction == "" {
				err = invalid(h.Name, h.Value, "the id of a transaction")
			}
		case fieldContentType:
			e.ContentType = h.Value
		case fieldReplyTo:
			if h.Value != "" {
				e.ReplyTo, err = replyTo(h.Value)
			}
		case fieldCorrelation:
			if !correlated {
				e.CorrelationID, correlated = append(e.CorrelationID, h.Value...), true
			}
		case fieldCorrelation64:
			var id []byte
			if id, err = base64.StdEncoding.DecodeString(h.Value); err != nil {
				err = invalid(h.Name, h.Value, "base64")
			} else if !correlated {
				e.CorrelationID, correlated = append(e.CorrelationID, id...), true
			}
		case fieldKey:
			e.Key = h.Value
		case fieldJMSGroup:
			// Kept as a header too: a JMS consumer looks for this name.
			e.Headers = append(e.Headers, *h)
			if e.Key == "" {
				e.Key = h.Value
			}
		case fieldMessageID:
			e.ID = h.Value
		case fieldPersistent:
			var persistent bool
			persistent, err = parseBool(h)
			transient = !persistent
		case fieldRetain:
			e.Retain, err = parseBool(h)
		case fieldMandatory:
			e.Mandatory, err = parseBool(h)
		case fieldPriority:
			err = parsePriority(e, h)
		case fieldExpires, fieldExpiration:
			err = parseTime(e, h, field)
		case fieldDelay, fieldScheduled:
			var ms int64
			if ms, err = milliseconds(h); s.delay == 0 {
				s.delay = time.Duration(ms) * time.Millisecond
			}
		case fieldCron:
			s.schedule.Cron = h.Value
		case fieldPeriod:
			var ms int64
			ms, err = milliseconds(h)
			s.schedule.Period = time.Duration(ms) * time.Millisecond
		case fieldRepeat:
			s.schedule.Repeat, err = parseRepeat(h)
		}
		if err != nil {
			return err
		}
	}
	if !addressed {
		return missing(frame.SEND, frame.Destination)
	}
	switch {
	case !correlated:
		e.CorrelationID = nil
	case e.CorrelationID == nil:
		e.CorrelationID = []byte{} // it is there, and empty
	}
	if transient && !s.given {
		e.Guarantee = core.AtMostOnce
	}
	s.putOff()
	return nil
}

// putOff sets when, and how often, the message is delivered. With a time table
// the delay is one of each of its moments; a period or a number alone is no
// schedule.
func (s *sending) putOff() {
	e := &s.envelope
	switch {
	case s.schedule.Cron != "":
		s.schedule.Delay = s.delay
		e.Schedule = &s.schedule
		return
	case s.schedule.Period > 0 && s.schedule.Repeat != 0:
		e.Schedule = &s.schedule
	}
	if s.delay > 0 {
		e.DeliverAt = time.Now().Add(s.delay)
	}
}

// toAQueue reports whether a SEND goes to a queue.
func toAQueue(f *clientFrame) bool {
	to := f.value(frame.Destination)
	return strings.HasPrefix(to, queuePrefix) || to != "" && to[0] != '/'
}

// A field is what a header of SEND is to the broker.
type field uint8

const (
	fieldDestination field = iota
	fieldReceipt
	fieldTransaction
	fieldContentType
	fieldReplyTo
	fieldCorrelation
	fieldCorrelation64
	fieldKey
	fieldJMSGroup
	fieldMessageID
	fieldPersistent
	fieldRetain
	fieldMandatory
	fieldPriority
	fieldExpires
	fieldExpiration
	fieldDelay
	fieldScheduled
	fieldCron
	fieldPeriod
	fieldRepeat
	// fieldArgument is one of arguments, fieldDeclaration of declarations.
	fieldArgument
	fieldDeclaration
	// fieldBroker is the broker's own to say.
	fieldBroker
)

// fields are those that a frame had.
type fields uint32

// repeats reports whether the field was there before.
func (f field) repeats(seen *fields) bool {
	again := *seen&(1<<f) != 0
	*seen |= 1 << f
	return again
}

// sendFields are the headers of SEND that do not pass into the envelope's
// headers.
var sendFields = withArguments(map[string]field{
	frame.Destination:   fieldDestination,
	frame.Receipt:       fieldReceipt,
	frame.Transaction:   fieldTransaction,
	frame.ContentType:   fieldContentType,
	frame.MessageId:     fieldMessageID,
	headerReplyTo:       fieldReplyTo,
	headerCorrelation:   fieldCorrelation,
	headerCorrelation64: fieldCorrelation64,
	headerKey:           fieldKey,
	headerJMSGroup:      fieldJMSGroup,
	headerPersistent:    fieldPersistent,
	headerRetain:        fieldRetain,
	headerMandatory:     fieldMandatory,
	headerPriority:      fieldPriority,
	headerExpires:       fieldExpires,
	headerExpiration:    fieldExpiration,
	headerDelay:         fieldDelay,
	headerScheduled:     fieldScheduled,

	"AMQ_SCHEDULED_CRON":   fieldCron,
	"AMQ_SCHEDULED_PERIOD": fieldPeriod,
	"AMQ_SCHEDULED_REPEAT": fieldRepeat,

	frame.ContentLength: fieldBroker,
	frame.Subscription:  fieldBroker,
	frame.Ack:           fieldBroker,
	headerAttempt:       fieldBroker,
	headerGap:           fieldBroker,
	headerOffset:        fieldBroker,
	headerOriginalID:    fieldBroker,
	headerPublisher:     fieldBroker,
	headerRedelivered:   fieldBroker,
	headerTime:          fieldBroker,
})

func withArguments(fields map[string]field) map[string]field {
	for name := range arguments {
		fields[name] = fieldArgument
	}
	for name := range declarations {
		fields[name] = fieldDeclaration
	}
	return fields
}

// reserved reports whether MESSAGE says something else with a header of that
// name, so that an envelope's own header cannot have it.
func reserved(name string) bool {
	switch name {
	case "":
		return true
	case frame.Receipt, frame.Transaction, headerRequeue:
		return true
	}
	f, known := sendFields[name]
	return known && f != fieldJMSGroup && f != fieldArgument && f != fieldDeclaration && f != fieldCron && f != fieldPeriod && f != fieldRepeat
}

func parseBool(h *core.Header) (bool, error) {
	switch {
	case strings.EqualFold(h.Value, "true"):
		return true, nil
	case strings.EqualFold(h.Value, "false"):
		return false, nil
	}
	return false, invalid(h.Name, h.Value, "true or false")
}

func parsePriority(e *core.Envelope, h *core.Header) error {
	n, err := strconv.Atoi(h.Value)
	if err != nil {
		return invalid(h.Name, h.Value, "a number from 0 to 9")
	}
	e.Priority = core.PriorityOf(n)
	return nil
}

// farthest bounds what a client names in milliseconds: it is 278 years.
const farthest = 1 << 43

// milliseconds reads a header that is a number of them.
func milliseconds(h *core.Header) (int64, error) {
	n, err := strconv.ParseInt(h.Value, 10, 64)
	if err != nil || n < 0 || n > farthest {
		return 0, invalid(h.Name, h.Value, "a number of milliseconds")
	}
	return n, nil
}

// parseRepeat reads how often a message comes again; -1 is for ever.
func parseRepeat(h *core.Header) (int, error) {
	n, err := strconv.Atoi(h.Value)
	if err != nil || n < -1 {
		return 0, invalid(h.Name, h.Value, "how often the message comes again, or -1 for ever")
	}
	if n == -1 {
		return core.Unlimited, nil
	}
	return n, nil
}

// parseTime reads the headers that say when a message ends.
func parseTime(e *core.Envelope, h *core.Header, f field) error {
	n, err := milliseconds(h)
	switch {
	case err != nil:
		return err
	case f == fieldExpiration && e.Expires.IsZero():
		e.Expires = time.Now().Add(time.Duration(n) * time.Millisecond)
	case f == fieldExpires && n > 0: // 0 is never, as JMS has it
		e.Expires = time.UnixMilli(n)
	}
	return nil
}

// keep copies what the envelope points to out of the frame, for a transaction.
func keep(e *core.Envelope) (own *core.Envelope, bytes int) {
	own = new(core.Envelope)
	*own = *e
	if e.Schedule != nil {
		schedule := *e.Schedule
		schedule.Cron = strings.Clone(schedule.Cron)
		own.Schedule = &schedule
	}
	n := len(e.Key) + len(e.ID) + len(e.ContentType) + len(e.ReplyTo) + len(e.Topic) + len(e.Payload) + len(e.CorrelationID)
	for i := range e.Headers {
		n += len(e.Headers[i].Name) + len(e.Headers[i].Value)
	}
	// One array holds it all.
	all := make([]byte, 0, n)
	text := func(s string) string {
		start := len(all)
		all = append(all, s...)
		return alias(all[start:len(all):len(all)])
	}
	own.Topic, own.Key, own.ID = text(e.Topic), text(e.Key), text(e.ID)
	own.ContentType, own.ReplyTo = text(e.ContentType), text(e.ReplyTo)
	own.Headers = make([]core.Header, len(e.Headers))
	for i, h := range e.Headers {
		own.Headers[i] = core.Header{Name: text(h.Name), Value: text(h.Value)}
	}
	if e.CorrelationID != nil {
		all = append(all, e.CorrelationID...)
		own.CorrelationID = all[len(all)-len(e.CorrelationID) : len(all) : len(all)]
	}
	all = append(all, e.Payload...)
	own.Payload = all[len(all)-len(e.Payload) : len(all) : len(all)]
	return own, n + int(unsafe.Sizeof(*own)) + len(e.Headers)*int(unsafe.Sizeof(core.Header{}))
}
