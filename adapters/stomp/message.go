package stomp

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A messageEncoder writes the MESSAGE frames of one subscription. It changes
// nothing of its own, so that deliveries need no lock.
type messageEncoder struct {
	version version
	style   style
	// head is the frame's beginning, the same for every message.
	head []byte
	// topic, where there is only one, has its destination header ready.
	topic       string
	destination []byte
	// number is the subscription's, in message-id and ack.
	number uint64
	// acks says that the client acknowledges.
	acks bool
	// rests encodes what is the same for all subscriptions of the version and
	// style.
	rests *adapters.Bodies
}

// newMessageEncoder makes one. The subscription has no id where a 1.0 client
// gave none. exact is the one topic that comes as the destination was written,
// empty where there is none.
func newMessageEncoder(v version, rests *messageRests, number uint64, id string, hasID bool, d destination, exact, written string, acks bool) *messageEncoder {
	e := &messageEncoder{version: v, style: d.style, rests: &rests[v][d.style], number: number, acks: acks, topic: exact}
	e.head = append(e.head, frame.MESSAGE+"\n"...)
	if hasID {
		e.head = appendHeader(e.head, frame.Subscription, id, v)
	}
	if exact != "" {
		e.destination = appendHeader(nil, frame.Destination, written, v)
	}
	return e
}

// append appends a delivery's frame. gap, where there is one, is a range of
// offsets in front of it that are lost.
func (e *messageEncoder) append(dst []byte, d *core.Delivery, gap core.Gap) []byte {
	dst = append(dst, e.head...)
	if e.topic != "" && d.Topic == e.topic {
		dst = append(dst, e.destination...)
	} else {
		dst = appendAddress(dst, frame.Destination, d.Topic, e.version, e.style)
	}
	dst = append(dst, frame.MessageId+":"...)
	dst = appendToken(dst, e.number, d.Offset)
	if e.acks && e.version == v12 {
		dst = append(dst, frame.Ack+":"...)
		dst = appendToken(dst, e.number, d.Offset)
	}
	if gap.To != 0 {
		dst = append(dst, headerGap+":"...)
		dst = strconv.AppendUint(dst, uint64(gap.From), 10)
		dst = append(dst, '-')
		dst = strconv.AppendUint(dst, uint64(gap.To-1), 10)
		dst = append(dst, '\n')
	}
	dst, _ = e.rests.Append(dst, d, time.Time{})
	return dst
}

// messageRests encode the rest of MESSAGE frames, behind what names their
// subscription: a message for many is encoded once for each version and style.
type messageRests [len(supported)][styles]adapters.Bodies

func newMessageRests(m *adapters.ProtocolMetrics) *messageRests {
	all := new(messageRests)
	for v := range all {
		for st := range all[v] {
			e := restEncoder{m, version(v), style(st)}
			all[v][st].Encode = func(dst []byte, d *core.Delivery, _ time.Time) ([]byte, int) { return e.append(dst, d), 0 }
		}
	}
	return all
}

// A restEncoder writes what stands behind a MESSAGE's first headers. What it
// cannot express it counts, once for all that are sent its bytes.
type restEncoder struct {
	metrics *adapters.ProtocolMetrics
	version version
	style   style
}

func (e *restEncoder) append(dst []byte, d *core.Delivery) []byte {
	dst = append(dst, frame.ContentLength+":"...)
	dst = strconv.AppendInt(dst, int64(len(d.Payload)), 10)
	dst = append(dst, '\n')
	if d.ContentType != "" {
		dst = e.appendOwn(dst, frame.ContentType, d.ContentType)
	}
	if d.Text {
		e.metrics.Fallback("text")
	}
	if d.ReplyTo != "" {
		dst = appendAddress(dst, headerReplyTo, d.ReplyTo, e.version, e.style)
	}
	if d.CorrelationID != nil {
		dst = e.appendCorrelation(dst, d.CorrelationID)
	}
	if d.Key != "" {
		dst = e.appendOwn(dst, headerKey, d.Key)
	}
	if level, ok := d.Priority.Level(); ok {
		dst = append(dst, headerPriority+":"...)
		dst = append(dst, byte('0'+level), '\n')
	}
	if !d.Expires.IsZero() {
		dst = append(dst, headerExpires+":"...)
		dst = strconv.AppendInt(dst, d.Expires.UnixMilli(), 10)
		dst = append(dst, '\n')
	}
	if d.Guarantee >= core.AtLeastOnce {
		dst = append(dst, headerPersistent+":true\n"...)
	}
	if d.Retained {
		dst = append(dst, headerRetain+":true\n"...)
	}
	if d.ID != "" {
		dst = e.appendOwn(dst, headerOriginalID, d.ID)
	}
	dst = append(dst, headerOffset+":"...)
	dst = strconv.AppendUint(dst, uint64(d.Offset), 10)
	dst = append(dst, "\n"+headerTime+":"...)
	dst = strconv.AppendInt(dst, d.Time.UnixMilli(), 10)
	dst = append(dst, "\n"+headerAttempt+":"...)
	dst = strconv.AppendUint(dst, uint64(d.Attempt), 10)
	if d.Attempt > 1 {
		dst = append(dst, "\n"+headerRedelivered+":true\n"...)
	} else {
		dst = append(dst, "\n"+headerRedelivered+":false\n"...)
	}
	if p := publisherName(&d.Publisher); p != "" {
		dst = e.appendOwn(dst, headerPublisher, p)
	}
	for i := range d.Headers {
		dst = e.appendForeign(dst, d.Headers[i].Name, d.Headers[i].Value)
	}
	dst = append(dst, '\n')
	dst = append(dst, d.Payload...)
	return append(dst, 0)
}

// publisherName is who published: the user, or the client where nobody logged
// in.
func publisherName(p *core.Publisher) string {
	if p.Principal != "" {
		return p.Principal
	}
	return p.Client
}

// appendAddress appends a header whose value is the destination of an address.
func appendAddress(dst []byte, name, address string, v version, st style) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':')
	start := len(dst)
	dst = appendDestination(dst, address, st)
	if written := alias(dst[start:]); !plain(written) {
		// Rare: what stands there is escaped into its own place.
		dst = appendValue(dst[:start], string(dst[start:]), v)
	}
	return append(dst, '\n')
}

// appendCorrelation appends the correlation id, whose bytes are in base64 and
// under another name where they are no text.
func (e *restEncoder) appendCorrelation(dst []byte, id []byte) []byte {
	if utf8.Valid(id) && expressible(alias(id), e.version, false) {
		return appendHeader(dst, headerCorrelation, alias(id), e.version)
	}
	e.metrics.Fallback("correlation_id")
	dst = append(dst, headerCorrelation64+":"...)
	dst = base64.StdEncoding.AppendEncode(dst, id)
	return append(dst, '\n')
}

// appendOwn appends a header of the broker's with a publisher's value.
func (e *restEncoder) appendOwn(dst []byte, name, value string) []byte {
	if !plain(value) && !expressible(value, e.version, false) {
		e.metrics.Fallback("header")
	}
	return appendHeader(dst, name, value, e.version)
}

// appendForeign appends a header of the publisher's. One whose name means
// something else in a MESSAGE is named header-… instead.
func (e *restEncoder) appendForeign(dst []byte, name, value string) []byte {
	if reserved(name) {
		e.metrics.Fallback("header_name")
		dst = append(dst, "header-"...)
	} else if !expressible(name, e.version, true) || !expressible(value, e.version, false) {
		e.metrics.Fallback("header")
	}
	return appendHeader(dst, name, value, e.version)
}

func appendHeader(dst []byte, name, value string, v version) []byte {
	dst = appendName(dst, name, v)
	dst = append(dst, ':')
	dst = appendValue(dst, value, v)
	return append(dst, '\n')
}

// appendToken appends what names a delivery in an acknowledgement: the
// subscription's number and the offset.
func appendToken(dst []byte, subscription uint64, at core.Offset) []byte {
	dst = strconv.AppendUint(dst, subscription, 10)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, uint64(at), 10)
	return append(dst, '\n')
}

// parseToken is appendToken's way back, without the line's end.
func parseToken(s string) (subscription uint64, at core.Offset, ok bool) {
	for i := 0; i < len(s); i++ {
		if s[i] != '-' {
			continue
		}
		n, err := strconv.ParseUint(s[:i], 10, 64)
		if err != nil {
			return 0, 0, false
		}
		o, err := strconv.ParseUint(s[i+1:], 10, 64)
		return n, core.Offset(o), err == nil
	}
	return 0, 0, false
}

// appendReceipt appends a RECEIPT frame.
func appendReceipt(dst []byte, id []byte, v version) []byte {
	dst = append(dst, frame.RECEIPT+"\n"...)
	dst = appendHeader(dst, frame.ReceiptId, alias(id), v)
	return append(dst, '\n', 0, '\n')
}

// appendConnected appends the CONNECTED frame, whose headers no version
// escapes.
func appendConnected(dst []byte, v version, session, heartBeat string) []byte {
	dst = append(dst, frame.CONNECTED+"\n"...)
	dst = append(dst, frame.Server+":Sluice\n"...)
	dst = append(dst, frame.Session+":"+session+"\n"...)
	dst = append(dst, frame.Version+":"+v.String()+"\n"...)
	dst = append(dst, frame.HeartBeat+":"+heartBeat+"\n\n"...)
	return append(dst, 0, '\n')
}

// appendError appends an ERROR frame. receipt is the one of the frame that is
// refused, where hasReceipt says that it asked for one.
func appendError(dst []byte, v version, r *refusal, receipt []byte, hasReceipt bool) []byte {
	dst = append(dst, frame.ERROR+"\n"...)
	dst = appendHeader(dst, frame.Message, r.message, v)
	if hasReceipt {
		dst = appendHeader(dst, frame.ReceiptId, alias(receipt), v)
	}
	if r == errVersion {
		dst = append(dst, frame.Version+":1.0,1.1,1.2\n"...)
	}
	dst = append(dst, frame.ContentType+":text/plain\n"...)
	dst = append(dst, frame.ContentLength+":"...)
	dst = strconv.AppendInt(dst, int64(len(r.detail)+1), 10)
	dst = append(dst, "\n\n"...)
	dst = append(dst, r.detail...)
	return append(dst, '\n', 0, '\n')
}
