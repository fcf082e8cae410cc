package mqtt

import "github.com/sluicemq/sluice/adapters"

// An ackPacket is a PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7).
type ackPacket struct {
	id   uint16
	code byte
}

func (a *ackPacket) decode(kind byte, body []byte, v version, l *adapters.Limits) *fault {
	s := scanner{rest: body}
	*a = ackPacket{id: s.uint16()}
	if s.bad {
		return errMalformed
	}
	if a.id == 0 {
		return errPacketID
	}
	if len(s.rest) == 0 {
		return nil
	}
	if v != v5 {
		return errTrailing
	}
	a.code = s.byte()
	if len(s.rest) > 0 {
		var ps propertyScanner
		if err := ps.enter(&s, kind); err != nil {
			return err
		}
		if err := ps.skip(l); err != nil {
			return err
		}
		if len(s.rest) > 0 {
			return errTrailing
		}
	}
	if !validAck(kind, a.code) {
		return errMalformed
	}
	return nil
}

// validAck reports whether a packet of the kind may carry the reason code.
func validAck(kind, code byte) bool {
	switch kind {
	case typePuback, typePubrec:
		switch code {
		case codeSuccess, 0x10, codeUnspecified, codeImplementation, codeNotAuthorized, codeTopic, codeIDInUse, codeQuota, codePayloadFormat:
			return true
		}
		return false
	}
	return code == codeSuccess || code == codeIDNotFound
}

// appendAck appends one, with the reason code where it is not success.
func appendAck(b []byte, kind byte, id uint16, v version, code byte) []byte {
	first := kind << 4
	if kind == typePubrel {
		first |= 2
	}
	if code == codeSuccess || v != v5 {
		return append(b, first, 2, byte(id>>8), byte(id))
	}
	return append(b, first, 3, byte(id>>8), byte(id), code)
}

// appendAckReason appends one with a reason string (MQTT 5), if the packet then
// stays within limit (0 is none).
func appendAckReason(b []byte, kind byte, id uint16, code byte, text string, limit int) []byte {
	text = text[:min(len(text), 512)]
	props := 3 + len(text)
	n := 2 + 1 + varintSize(props) + props
	if text == "" || !fits(text) || limit > 0 && 1+varintSize(n)+n > limit {
		return appendAck(b, kind, id, v5, code)
	}
	b = append(b, kind<<4)
	b = appendVarint(b, n)
	b = append(b, byte(id>>8), byte(id), code)
	b = appendVarint(b, props)
	return appendString(append(b, propReasonString), text)
}
