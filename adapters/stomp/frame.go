package stomp

import (
	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// A version of the protocol, in the order of their age.
type version uint8

const (
	v10 version = iota
	v11
	v12
)

// supported are the versions as accept-version and version name them.
var supported = [...]string{v10: "1.0", v11: "1.1", v12: "1.2"}

func (v version) String() string { return supported[v] }

// A clientFrame is one frame of a client. Everything in it belongs to the
// reader and is valid until the reader's next call.
type clientFrame struct {
	// Command is one of the constants of package frame.
	Command string
	// Headers are in the sender's order, repeats kept.
	Headers []core.Header
	Body    []byte
}

// header returns the value of the first header of that name (STOMP 1.2
// "Repeated Header Entries").
func (f *clientFrame) header(name string) (value string, ok bool) {
	for i := range f.Headers {
		if f.Headers[i].Name == name {
			return f.Headers[i].Value, true
		}
	}
	return "", false
}

// value is header where an absent one means the same as an empty one.
func (f *clientFrame) value(name string) string {
	value, _ := f.header(name)
	return value
}

// clientCommand returns the constant of a client's command.
func clientCommand(b []byte) (command string, ok bool) {
	switch string(b) {
	case frame.SEND:
		return frame.SEND, true
	case frame.ACK:
		return frame.ACK, true
	case frame.NACK:
		return frame.NACK, true
	case frame.SUBSCRIBE:
		return frame.SUBSCRIBE, true
	case frame.UNSUBSCRIBE:
		return frame.UNSUBSCRIBE, true
	case frame.BEGIN:
		return frame.BEGIN, true
	case frame.COMMIT:
		return frame.COMMIT, true
	case frame.ABORT:
		return frame.ABORT, true
	case frame.CONNECT:
		return frame.CONNECT, true
	case frame.STOMP:
		return frame.STOMP, true
	case frame.DISCONNECT:
		return frame.DISCONNECT, true
	}
	return "", false
}

// longestCommand is the length of UNSUBSCRIBE.
const longestCommand = len(frame.UNSUBSCRIBE)

// Header names that package frame has no constant for.
const (
	headerAttempt       = "attempt"
	headerClientID      = "client-id"
	headerCorrelation   = "correlation-id"
	headerCorrelation64 = "correlation-id-base64"
	headerDelay         = "delay"
	headerExpiration    = "expiration"
	headerExpires       = "expires"
	headerFrom          = "from"
	headerGap           = "gap"
	headerGroup         = "group"
	headerJMSGroup      = "JMSXGroupID"
	headerKey           = "key"
	headerMandatory     = "mandatory"
	headerOffset        = "offset"
	headerOriginalID    = "original-message-id"
	headerPersistent    = "persistent"
	headerPriority      = "priority"
	headerPublisher     = "publisher"
	headerRedelivered   = "redelivered"
	headerReplyTo       = "reply-to"
	headerRequeue       = "requeue"
	headerRetain        = "retain"
	headerScheduled     = "AMQ_SCHEDULED_DELAY"
	headerTime          = "time"
)
