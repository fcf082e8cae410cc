package selector

import (
	"strings"
	"unsafe"

	"github.com/sluicemq/sluice/core"
)

// A header is a name that the envelope's headers give its value.
type header struct{ name string }

func (h header) eval(e *core.Envelope, _ core.Offset) value {
	for i := range e.Headers {
		if e.Headers[i].Name == h.name {
			return value{kind: kindText, s: e.Headers[i].Value}
		}
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

// An own is one of the broker's own names.
type own uint8

const (
	ownTopic own = iota
	ownKey
	ownID
	ownContentType
	ownReplyTo
	ownCorrelationID
	ownDeliveryMode
	ownPriority
	ownTime
	ownOffset
)

// ownTexts are how they are written, of two ways the first.
var ownTexts = [...]string{
	"topic", "key", "id", "content_type", "JMSReplyTo", "JMSCorrelationID", "JMSDeliveryMode", "priority", "time", "offset",
}

// typeHeader is the header that is JMSType.
const typeHeader = "type"

var ownNames = map[string]own{
	"topic":        ownTopic,
	"key":          ownKey,
	"JMSXGroupID":  ownKey,
	"id":           ownID,
	"JMSMessageID": ownID,
	"content_type": ownContentType,
	"priority":     ownPriority,
	"JMSPriority":  ownPriority,
	"time":         ownTime,
	"JMSTimestamp": ownTime,
	"offset":       ownOffset,

	"JMSReplyTo":       ownReplyTo,
	"JMSCorrelationID": ownCorrelationID,
	"JMSDeliveryMode":  ownDeliveryMode,
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

func (o own) eval(e *core.Envelope, at core.Offset) value {
	switch o {
	case ownTopic:
		return unsetIfEmpty(e.Topic)
	case ownKey:
		return unsetIfEmpty(e.Key)
	case ownID:
		return unsetIfEmpty(e.ID)
	case ownContentType:
		return unsetIfEmpty(e.ContentType)
	case ownReplyTo:
		return unsetIfEmpty(e.ReplyTo)
	case ownCorrelationID:
		// The value does not outlive the call, and nobody writes meanwhile.
		return unsetIfEmpty(unsafe.String(unsafe.SliceData(e.CorrelationID), len(e.CorrelationID)))
	case ownDeliveryMode:
		if e.Guarantee == core.AtMostOnce {
			return value{kind: kindString, s: "NON_PERSISTENT"}
		}
		return value{kind: kindString, s: "PERSISTENT"}
	case ownPriority:
		if level, ok := e.Priority.Level(); ok {
			return exact(int64(level))
		}
	case ownTime:
		if !e.Time.IsZero() {
			return exact(e.Time.UnixMilli())
		}
	case ownOffset:
		if at != 0 {
			return exact(int64(at))
		}
	}
	return null
}

func (o own) yields() yield {
	switch o {
	case ownPriority, ownTime, ownOffset:
		return aNumber
	case ownDeliveryMode:
		return aString
	}
	return anything
}

func (o own) level() level { return levelPrimary }

func (o own) appendTo(dst []byte) []byte { return append(dst, ownTexts[o]...) }

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
