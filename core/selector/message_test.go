package selector

import (
	"time"
	"unsafe"
)

// An envelope is a message as the core has it.
type envelope struct {
	Topic, Key, ID, ContentType, ReplyTo string
	CorrelationID                        []byte
	Priority                             int // one more than the level; 0 is unset
	Durable                              bool
	Time                                 time.Time
	Headers                              []pair
}

type pair struct{ Name, Value string }

func (e *envelope) Header(name string) (string, bool) {
	for _, h := range e.Headers {
		if h.Name == name {
			return h.Value, true
		}
	}
	return "", false
}

func (e *envelope) Field(f Field) Value {
	switch f {
	case Topic:
		return Text(e.Topic)
	case Key:
		return Text(e.Key)
	case ID:
		return Text(e.ID)
	case ContentType:
		return Text(e.ContentType)
	case ReplyTo:
		return Text(e.ReplyTo)
	case CorrelationID:
		return Text(unsafe.String(unsafe.SliceData(e.CorrelationID), len(e.CorrelationID)))
	case DeliveryMode:
		if e.Durable {
			return String("PERSISTENT")
		}
		return String("NON_PERSISTENT")
	case Priority:
		if e.Priority > 0 {
			return Whole(int64(e.Priority - 1))
		}
	case Time:
		if !e.Time.IsZero() {
			return Whole(e.Time.UnixMilli())
		}
	}
	return Value{}
}
