package selector

import "strings"

// A header is a name that the envelope's headers give its value.
type header struct{ name string }

func (h header) eval(m Message, _ uint64) value {
	if text, ok := m.Header(h.name); ok {
		return value{kind: kindText, s: text}
	}
	return null
}

func (h header) yields() yield { return anything }
func (h header) level() level  { return levelPrimary }

func (h header) appendTo(dst []byte) []byte {
	if _, word := keyword(h.name); !word && nameEnd(h.name, 0) == len(h.name) {
		if _, own := ownNames[h.name]; !own && !reserved(h.name) {
			return append(dst, h.name...)
		}
	}
	return appendQuoted(dst, '"', h.name)
}

// A Field is one of the broker's own names.
type Field uint8

// The fields of a message.
const (
	Topic Field = iota
	Key
	ID
	ContentType
	ReplyTo
	CorrelationID
	DeliveryMode
	Priority
	Time
	offset
)

// ownTexts are how they are written, of two ways the first.
var ownTexts = [...]string{
	"topic", "key", "id", "content_type", "JMSReplyTo", "JMSCorrelationID", "JMSDeliveryMode", "priority", "time", "offset",
}

// typeHeader is the header that is JMSType.
const typeHeader = "type"

var ownNames = map[string]Field{
	"topic":        Topic,
	"key":          Key,
	"JMSXGroupID":  Key,
	"id":           ID,
	"JMSMessageID": ID,
	"content_type": ContentType,
	"priority":     Priority,
	"JMSPriority":  Priority,
	"time":         Time,
	"JMSTimestamp": Time,
	"offset":       offset,

	"JMSReplyTo":       ReplyTo,
	"JMSCorrelationID": CorrelationID,
	"JMSDeliveryMode":  DeliveryMode,
}

// reserved reports whether JMS keeps the name to itself (JMS 2.0, 3.5.1): its
// fields, but neither its properties (JMSX) nor a vendor's (JMS_).
func reserved(name string) bool {
	return strings.HasPrefix(name, "JMS") && !strings.HasPrefix(name, "JMSX") && !strings.HasPrefix(name, "JMS_")
}

// resolve is what an unquoted name means; false, if nothing.
func resolve(name string) (x expr, ok bool) {
	if o, ok := ownNames[name]; ok {
		return o, true
	}
	if name == "JMSType" {
		return header{typeHeader}, true
	}
	return header{name}, !reserved(name)
}

func (o Field) eval(m Message, at uint64) value {
	if o != offset {
		return m.Field(o)
	}
	if at == 0 {
		return null
	}
	return exact(int64(at))
}

func (o Field) yields() yield {
	switch o {
	case Priority, Time, offset:
		return aNumber
	case DeliveryMode:
		return aString
	}
	return anything
}

func (o Field) level() level { return levelPrimary }

func (o Field) appendTo(dst []byte) []byte { return append(dst, ownTexts[o]...) }

// appendQuoted writes s between quotes, with those in it doubled.
func appendQuoted(dst []byte, quote byte, s string) []byte {
	dst = append(dst, quote)
	for i := 0; i < len(s); i++ {
		if s[i] == quote {
			dst = append(dst, quote)
		}
		dst = append(dst, s[i])
	}
	return append(dst, quote)
}
