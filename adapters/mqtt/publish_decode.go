package mqtt

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
)

// The user properties that stand for fields of an envelope.
const (
	userKey      = "key"
	userPriority = "priority"
	userID       = "message-id"
	userDelay    = "delay"
	userMust     = "mandatory"
	userOffset   = "offset"
	userTime     = "time"
	userAttempt  = "attempt"
	userFrom     = "from"
	userMeta     = "meta"
	userOrdered  = "ordered"
)

// A publishPacket is what a PUBLISH says besides the envelope.
type publishPacket struct {
	id      uint16
	qos     byte
	dup     bool
	alias   uint16 // topic alias; 0 is none
	expiry  uint32 // message expiry interval, where expires is set
	expires bool
	// users and userBytes count the user properties.
	users, userBytes int
	// willDelay is the will delay interval, in seconds.
	willDelay uint32
	// delay is set where a user property asked for one.
	delay time.Duration
	// taken counts the user properties that stand for fields, takenLast the
	// rank of the last of them.
	taken     int
	takenLast uint8
	shuffled  bool // they do not stand behind the others in their ranks' order
}

// decode reads the body of a PUBLISH (section 3.3) into the envelope, all of
// which is overwritten but for the array behind its headers. What it sets
// aliases the body.
func (p *publishPacket) decode(flags byte, body []byte, v version, e *core.Envelope) *fault {
	*p = publishPacket{qos: flags >> 1 & 3, dup: flags&8 != 0}
	headers := e.Headers[:0]
	*e = core.Envelope{}
	e.Headers = headers
	if p.qos == 3 {
		return errQoS // [MQTT-3.3.1-4]
	}
	if p.dup && p.qos == 0 && v != v31 {
		return errDup // [MQTT-3.3.1-2]
	}
	e.Guarantee = core.Guarantee(p.qos)
	e.Retain = flags&1 != 0

	s := scanner{rest: body}
	e.Topic = alias(s.bytes())
	if p.qos > 0 {
		p.id = s.uint16()
		if p.id == 0 && !s.bad {
			return errPacketID // [MQTT-2.2.1-2]
		}
	}
	if s.bad {
		return errMalformed
	}
	if v == v5 {
		if err := p.properties(&s, typePublish, e); err != nil {
			return err
		}
	}
	e.Payload = s.rest
	return nil
}

// properties reads those of a PUBLISH or of a will.
func (p *publishPacket) properties(s *scanner, packet byte, e *core.Envelope) *fault {
	if len(s.rest) > 0 && s.rest[0] == 0 {
		s.rest = s.rest[1:]
		return nil
	}
	var ps propertyScanner
	if err := ps.enter(s, packet); err != nil {
		return err
	}
	var x property
	for {
		more, err := ps.next(&x)
		if err != nil {
			return err
		}
		if !more {
			p.users, p.userBytes = ps.users, ps.userBytes
			p.settleUsers(e)
			return nil
		}
		switch x.id {
		case propPayloadFormat:
			e.Text, e.Bytes = x.number == 1, x.number == 0
		case propMessageExpiry:
			p.expires, p.expiry = true, x.number
		case propContentType:
			e.ContentType, e.EmptyType = x.text, x.text == ""
		case propResponseTopic:
			if strings.ContainsAny(x.text, "+#") {
				return errResponseTopic // [MQTT-3.3.2-14]
			}
			e.ReplyTo, e.EmptyReplyTo = x.text, x.text == "" // [MQTT-3.3.2-15]
		case propCorrelation:
			e.CorrelationID = x.value
		case propSubscriptionID:
			return errSubID // [MQTT-3.3.4-6]
		case propAlias:
			if x.number == 0 {
				return errAlias // [MQTT-3.3.2-8]
			}
			p.alias = uint16(x.number)
		case propWillDelay:
			p.willDelay = x.number
		case propUser:
			p.user(&x, e)
		}
	}
}

// user puts a user property where it belongs: into the field that it stands
// for, and among the headers. [publishPacket.settleUsers] follows the last one.
func (p *publishPacket) user(x *property, e *core.Envelope) {
	rank := uint8(0)
	switch x.name {
	case userKey:
		if e.Key == "" && x.text != "" {
			e.Key, rank = x.text, 1
		}
	case userPriority:
		if e.Priority == 0 && len(x.text) == 1 && x.text[0] >= '0' && x.text[0] <= '9' {
			e.Priority, rank = core.PriorityOf(int(x.text[0]-'0')), 2
		}
	case userID:
		if e.ID == "" && x.text != "" {
			e.ID, rank = x.text, 3
		}
	case userMust:
		e.Mandatory = x.text == "true"
	case userDelay:
		if d, ok := parseDelay(x.text); ok {
			p.delay = d
		}
	}
	p.shuffled = p.shuffled || rank < p.takenLast
	if rank > 0 {
		p.taken++
		p.takenLast = rank
	}
	e.Headers = append(e.Headers, core.Header{Name: x.name, Value: x.text})
}

// settleUsers takes those user properties that stand for fields out of the
// headers again, if [appendEnvelope] puts them back where they were. Elsewhere
// they stay there, too, so that the order is kept ([MQTT-3.3.2-18]).
func (p *publishPacket) settleUsers(e *core.Envelope) {
	if !p.shuffled {
		e.Headers = e.Headers[:len(e.Headers)-p.taken]
	}
}

// maxDelay bounds how far ahead a message may be delivered.
const maxDelay = 366 * 24 * time.Hour

// parseDelay reads a delay: a number of seconds, or a duration such as "90s".
func parseDelay(s string) (time.Duration, bool) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		d := time.Duration(n) * time.Second
		return d, d <= maxDelay
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0 && d <= maxDelay
}

// checkTopic refuses a topic name that makes the packet malformed. What else a
// topic must not be is the core's to say.
func checkTopic(topic string) *fault {
	for i := 0; i < len(topic); i++ {
		switch c := topic[i]; {
		case c == '+' || c == '#':
			return errWildcard // [MQTT-3.3.2-2]
		case c == 0 || c >= 0x80:
			if !utf8.ValidString(topic) || strings.IndexByte(topic, 0) >= 0 {
				return errString // [MQTT-3.3.2-1]
			}
			if strings.ContainsAny(topic[i:], "+#") {
				return errWildcard
			}
			return nil
		}
	}
	return nil
}
