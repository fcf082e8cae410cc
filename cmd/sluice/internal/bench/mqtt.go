package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The MQTT that the generator speaks, by hand: 3.1.1 (level 4) and 5.0 (level
// 5), only what a load needs.

// Types of packets, as they stand in the upper half of the first byte.
const (
	mqttConnect    = 0x10
	mqttConnack    = 0x20
	mqttPublish    = 0x30
	mqttPuback     = 0x40
	mqttPubrec     = 0x50
	mqttPubrel     = 0x60
	mqttPubcomp    = 0x70
	mqttSubscribe  = 0x80
	mqttSuback     = 0x90
	mqttDisconnect = 0xe0
)

// A mqttHello is what a CONNECT says.
type mqttHello struct {
	level byte // 4 or 5
	id    string
	// keep asks for a session that outlives the connection.
	keep bool
	// receive is the Receive Maximum that level 5 announces; 0 announces none.
	receive uint16
}

func (h mqttHello) append(b []byte) []byte {
	var props []byte
	if h.level == 5 {
		if h.keep {
			props = append(props, 0x11, 0, 1, 0x51, 0x80) // Session Expiry: a day
		}
		if h.receive > 0 {
			props = append(props, 0x21, byte(h.receive>>8), byte(h.receive))
		}
	}
	n := 10 + 2 + len(h.id)
	if h.level == 5 {
		n += 1 + len(props)
	}
	b = append(b, mqttConnect)
	b = appendVarint(b, n)
	b = append(b, 0, 4, 'M', 'Q', 'T', 'T', h.level)
	switch {
	case h.keep && h.level == 5, h.keep:
		b = append(b, 0)
	default:
		b = append(b, 2) // Clean Session, Clean Start
	}
	b = append(b, 0, 0) // no keep-alive
	if h.level == 5 {
		b = append(b, byte(len(props)))
		b = append(b, props...)
	}
	return appendText(b, h.id)
}

func appendMQTTSubscribe(b []byte, level byte, id uint16, filter string, qos byte) []byte {
	n := 2 + 2 + len(filter) + 1
	if level == 5 {
		n++
	}
	b = append(b, mqttSubscribe|2)
	b = appendVarint(b, n)
	b = append(b, byte(id>>8), byte(id))
	if level == 5 {
		b = append(b, 0)
	}
	b = appendText(b, filter)
	return append(b, qos)
}

// appendMQTTAck appends PUBACK, PUBREC, PUBREL or PUBCOMP: success.
func appendMQTTAck(b []byte, kind byte, id uint16) []byte {
	if kind == mqttPubrel {
		kind |= 2
	}
	return append(b, kind, 2, byte(id>>8), byte(id))
}

// A mqttTopic is the part of a PUBLISH that is the same for every message of a
// publisher: all that comes before the packet id.
type mqttTopic struct {
	head  []byte
	level byte
	qos   byte
	size  int // of the payload
}

func newMQTTTopic(level, qos byte, topic string, size int) mqttTopic {
	n := 2 + len(topic) + size
	if qos > 0 {
		n += 2
	}
	if level == 5 {
		n++
	}
	b := append([]byte(nil), mqttPublish|qos<<1)
	b = appendVarint(b, n)
	return mqttTopic{head: appendText(b, topic), level: level, qos: qos, size: size}
}

// append appends a PUBLISH up to its payload.
func (t *mqttTopic) append(b []byte, id uint16) []byte {
	b = append(b, t.head...)
	if t.qos > 0 {
		b = append(b, byte(id>>8), byte(id))
	}
	if t.level == 5 {
		b = append(b, 0)
	}
	return b
}

// nextMQTT splits the first packet off: its first byte, what follows the
// Remaining Length, and how long it is together; 0 if it is not all there.
func nextMQTT(b []byte) (first byte, body []byte, size int, err error) {
	n, shift := 0, 0
	for i := 1; i < len(b); i++ {
		n |= int(b[i]&0x7f) << shift
		if b[i] < 0x80 {
			i++
			if len(b)-i < n {
				return 0, nil, 0, nil
			}
			return b[0], b[i : i+n], i + n, nil
		}
		if shift += 7; shift > 21 {
			return 0, nil, 0, errors.New("the server sent a malformed length")
		}
	}
	return 0, nil, 0, nil
}

// mqttPayload finds the packet id and the payload in a PUBLISH.
func mqttPayload(level, first byte, body []byte) (id uint16, payload []byte, err error) {
	if len(body) < 2 {
		return 0, nil, errTruncated
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if first&6 != 0 {
		if len(body) < at+2 {
			return 0, nil, errTruncated
		}
		id = binary.BigEndian.Uint16(body[at:])
		at += 2
	}
	if level == 5 {
		n, shift := 0, 0
		for {
			if at >= len(body) || shift > 21 {
				return 0, nil, errTruncated
			}
			c := body[at]
			at++
			n |= int(c&0x7f) << shift
			if c < 0x80 {
				break
			}
			shift += 7
		}
		at += n
	}
	if at > len(body) {
		return 0, nil, errTruncated
	}
	return id, body[at:], nil
}

var errTruncated = errors.New("the server sent a packet that ends too early")

// mqttAckID is the packet id of an acknowledgement that says success.
func mqttAckID(first byte, body []byte) (uint16, error) {
	if len(body) < 2 {
		return 0, errTruncated
	}
	if len(body) > 2 && body[2] >= 0x80 {
		return 0, fmt.Errorf("the server refused a message: packet type %#x, reason %#x", first&0xf0, body[2])
	}
	return binary.BigEndian.Uint16(body), nil
}

func appendVarint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func appendText(b []byte, s string) []byte {
	b = append(b, byte(len(s)>>8), byte(len(s)))
	return append(b, s...)
}
