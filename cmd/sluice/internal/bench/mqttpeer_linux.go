package bench

import "fmt"

// An mqttSender is a publisher that speaks MQTT.
type mqttSender struct {
	sender
	topic mqttTopic
}

// message appends a PUBLISH.
func (p *mqttSender) message(b []byte, at int64) []byte {
	return p.payload(p.topic.append(b, packetID(p.sent)), at)
}

// textMessage appends a PUBLISH whose payload is text.
func (p *mqttSender) textMessage(b []byte, at int64) []byte {
	return p.text(p.topic.append(b, packetID(p.sent)), at)
}

// packetID is the packet id of a publisher's message.
func packetID(seq uint64) uint16 { return uint16(seq%65535) + 1 }

// received takes acknowledgements.
func (p *mqttSender) received(_ *peer, b []byte) (taken int, err error) {
	for {
		first, body, n, err := nextMQTT(b[taken:])
		if n == 0 || err != nil {
			return taken, err
		}
		taken += n
		id, err := mqttAckID(first, body)
		if err != nil {
			return taken, err
		}
		switch first & 0xf0 {
		case mqttPubrec:
			p.out = appendMQTTAck(p.out, mqttPubrel, id)
		case mqttPuback, mqttPubcomp:
			p.confirm(id == packetID(p.confirmed))
		default:
			return taken, fmt.Errorf("a publisher was sent a packet of type %#x: % x", first, body)
		}
	}
}

// An mqttReceiver is a subscriber that speaks MQTT.
type mqttReceiver struct {
	load  *traffic
	level byte
	ledger
}

// received takes messages, checks them and acknowledges them.
func (s *mqttReceiver) received(p *peer, b []byte) (taken int, err error) {
	untimed := true
	for {
		first, body, n, err := nextMQTT(b[taken:])
		if n == 0 || err != nil {
			return taken, err
		}
		taken += n
		switch first & 0xf0 {
		case mqttPublish:
		case mqttPubrel:
			id, err := mqttAckID(first, body)
			if err != nil {
				return taken, err
			}
			p.out = appendMQTTAck(p.out, mqttPubcomp, id)
			continue
		case mqttSuback:
			if body[len(body)-1] >= 0x80 {
				return taken, fmt.Errorf("the server refused a subscription: % x", body)
			}
			continue
		default:
			return taken, fmt.Errorf("a subscriber was sent a packet of type %#x: % x", first, body)
		}
		id, payload, err := mqttPayload(s.level, first, body)
		if err != nil {
			return taken, err
		}
		switch first >> 1 & 3 {
		case 1:
			p.out = appendMQTTAck(p.out, mqttPuback, id)
		case 2:
			p.out = appendMQTTAck(p.out, mqttPubrec, id)
		}
		publisher, seq, at, ok := header(payload)
		if !ok || !s.note(publisher, seq) {
			return taken, errStrange
		}
		s.load.note(at, &untimed)
	}
}
