package bench

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A pubsub is MQTT publishers and subscribers in groups: every subscriber of a
// group gets every message of the group's publishers.
type pubsub struct {
	loop    *loop
	groups  []pubsubGroup
	noise   noise
	deliver *hdrhistogram.Histogram // from publish to delivery, µs
	confirm *hdrhistogram.Histogram // from publish to confirmation, µs
	exact   bool                    // time every message, not one of each read
}

type pubsubGroup struct {
	publishers  []*mqttPublisher
	subscribers []*mqttSubscriber
}

// A mqttPublisher is one publishing connection.
type mqttPublisher struct {
	*peer
	load   *pubsub
	index  uint32
	topic  mqttTopic
	window uint64 // messages that may be under way to the subscribers
	flight uint64 // messages that may be unconfirmed
	quota  uint64 // messages to send at all, 0: no end
	every  int64  // ns between messages, 0: as fast as the windows let it

	sent      uint64
	sentAt    []int64 // of the unconfirmed, by sequence modulo its length
	confirmed uint64
	arrived   uint64 // at every subscriber of the group
	disorder  uint64 // confirmations that came out of order
	due       int64  // when the next message is to be sent, with every
}

// A mqttSubscriber is one subscribing connection.
type mqttSubscriber struct {
	*peer
	load  *pubsub
	level byte
	ledger
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

// received takes acknowledgements.
func (p *mqttPublisher) received(_ *peer, b []byte) (taken int, err error) {
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
			if id != packetID(p.confirmed) {
				p.disorder++
			}
			if p.load.exact {
				p.load.confirm.RecordValue((now() - p.sentAt[p.confirmed%uint64(len(p.sentAt))]) / 1000)
			}
			p.confirmed++
			p.load.loop.handled++
		default:
			return taken, fmt.Errorf("a publisher was sent a packet of type %#x", first)
		}
	}
}

// packetID is the packet id of a publisher's message.
func packetID(seq uint64) uint16 { return uint16(seq%65535) + 1 }

// received takes messages, checks them and acknowledges them.
func (s *mqttSubscriber) received(p *peer, b []byte) (taken int, err error) {
	timed := false
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
			return taken, fmt.Errorf("a subscriber was sent a packet of type %#x", first)
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
			return taken, fmt.Errorf("a message that is not of this load: %d bytes", len(payload))
		}
		s.load.loop.handled++
		if !timed {
			t := s.load.loop.now
			if timed = !s.load.exact; !timed {
				t = now()
			}
			s.load.deliver.RecordValue(max(1, (t-at)/1000))
		}
	}
}

func (ps *pubsub) produce(now int64) error {
	for g := range ps.groups {
		group := &ps.groups[g]
		for _, p := range group.publishers {
			group.advance(p)
			if err := p.produce(now); err != nil {
				return err
			}
		}
	}
	return nil
}

// advance notes how far the slowest subscriber has got with a publisher.
func (g *pubsubGroup) advance(p *mqttPublisher) {
	arrived := p.sent
	for _, s := range g.subscribers {
		arrived = min(arrived, s.next[p.index])
	}
	p.arrived = arrived
}

// produce sends what the windows have room for, in one write. An unconfirmed
// window is refilled when a quarter of it is free, so that writes are not of
// single messages; a confirmed one at once, so that it is always full.
func (p *mqttPublisher) produce(now int64) error {
	if !p.idle() {
		return nil
	}
	room := sub(p.window, p.sent-p.arrived)
	if p.topic.qos == 0 {
		if room*4 < p.window && p.every == 0 {
			return nil
		}
	} else {
		room = min(room, sub(p.flight, p.sent-p.confirmed))
	}
	if p.quota > 0 {
		room = min(room, p.quota-p.sent)
	}
	if p.every > 0 {
		if p.due == 0 {
			p.due = now
		}
		for ; room > 0 && p.due <= now; room-- {
			p.append(p.due)
			p.due += p.every
		}
	} else {
		for ; room > 0; room-- {
			p.append(now)
		}
	}
	if p.idle() {
		return nil
	}
	return p.flush()
}

func (p *mqttPublisher) append(at int64) {
	if p.load.exact {
		p.sentAt[p.sent%uint64(len(p.sentAt))] = at
	}
	p.out = p.topic.append(p.out, packetID(p.sent))
	p.out = p.load.noise.appendPayload(p.out, p.topic.size, p.index, p.sent, at)
	p.sent++
}

// sub is a-b, or 0.
func sub(a, b uint64) uint64 { return a - min(a, b) }

func (ps *pubsub) counts() (delivered, confirmed uint64) {
	for g := range ps.groups {
		for _, s := range ps.groups[g].subscribers {
			delivered += s.got
		}
		for _, p := range ps.groups[g].publishers {
			confirmed += p.confirmed
		}
	}
	return delivered, confirmed
}

func (ps *pubsub) settled() bool {
	for g := range ps.groups {
		group := &ps.groups[g]
		for _, p := range group.publishers {
			group.advance(p)
			if !p.idle() || p.arrived < p.sent || p.topic.qos > 0 && p.confirmed < p.sent {
				return false
			}
		}
	}
	return true
}

func (ps *pubsub) writeOff() (some bool) {
	for g := range ps.groups {
		for _, p := range ps.groups[g].publishers {
			for _, s := range ps.groups[g].subscribers {
				if p.idle() && p.topic.qos == 0 && s.next[p.index] < p.sent {
					some = true
					s.writeOff(p.index, p.sent)
				}
			}
		}
	}
	return some
}

func (ps *pubsub) begin() {
	ps.deliver.Reset()
	ps.confirm.Reset()
}

// A verdict says how a load's messages fared over its whole run.
type verdict struct {
	sent, expected, got  uint64
	lost, late, disorder uint64
}

func (ps *pubsub) verdict() (v verdict) {
	for _, g := range ps.groups {
		for _, p := range g.publishers {
			v.sent += p.sent
			v.disorder += p.disorder
			v.expected += p.sent * uint64(len(g.subscribers))
		}
		for _, s := range g.subscribers {
			v.got += s.got
			v.lost += s.lost
			v.late += s.late
		}
	}
	return v
}

// faults are what was wrong with a run, empty if nothing was.
func (v verdict) faults(m measured) (f []string) {
	if v.lost > 0 || v.got < v.expected {
		f = append(f, fmt.Sprintf("lost %d of %d messages", max(v.lost, sub(v.expected, v.got)), v.expected))
	}
	if v.late > 0 {
		f = append(f, fmt.Sprintf("%d messages repeated or out of order", v.late))
	}
	if v.disorder > 0 {
		f = append(f, fmt.Sprintf("%d confirmations out of order", v.disorder))
	}
	if m.stalls > 0 {
		f = append(f, fmt.Sprintf("stood still %d times for %v", m.stalls, stallAfter))
	}
	return f
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// latency adds percentiles of a histogram in microseconds.
func (r *result) latency(what string, h *hdrhistogram.Histogram) {
	for _, q := range []float64{50, 99} {
		r.addLower(fmt.Sprintf("%s p%.0f", what, q), "ms", float64(h.ValueAtQuantile(q))/1000)
	}
}
