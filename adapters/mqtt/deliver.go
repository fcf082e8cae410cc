package mqtt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// subscriptionOptions are the options of one subscription (section 3.8.3.1) in
// 32 bits: QoS (2; 3 is no subscription), no local, retain as published,
// subscription identifier (28).
//
// The tag of a binding holds the options of the plain subscription to its
// filter in the lower half and of the $meta subscription in the upper.
type subscriptionOptions uint32

const (
	optionQoS     subscriptionOptions = 3
	optionNone    subscriptionOptions = 3
	optionNoLocal subscriptionOptions = 1 << 2
	optionRAP     subscriptionOptions = 1 << 3
	optionID                          = 4 // how far the identifier is shifted
)

func (o subscriptionOptions) qos() byte     { return byte(o & optionQoS) }
func (o subscriptionOptions) exists() bool  { return o&optionQoS != optionNone }
func (o subscriptionOptions) noLocal() bool { return o&optionNoLocal != 0 }
func (o subscriptionOptions) id() uint32    { return uint32(o >> optionID) }

// settlement is that of a consumer with these options.
func (o subscriptionOptions) settlement() core.Settlement {
	if o.exists() && o.qos() > 0 {
		return core.SettleGuaranteed
	}
	return core.SettleNever
}

func tagOf(plain, meta subscriptionOptions) uint64 { return uint64(meta)<<32 | uint64(plain) }
func optionsOf(tag uint64) (plain, meta subscriptionOptions) {
	return subscriptionOptions(tag), subscriptionOptions(tag >> 32)
}

// An attachment is one consumer of a connection's: that of its session's
// subscriptions, or that of one $share, $queue or $replay subscription. It is a
// core.Receiver.
type attachment struct {
	c *conn
	k *core.Consumer
	// filter and options are those of the one subscription; the session's own
	// consumer has none, its bindings' tags say it all.
	filter  string
	options subscriptionOptions
	kind    targetKind
	// meta says that deliveries carry what the broker knows of them: offset,
	// time and attempt. It is guarded by the outbox.
	meta bool
	// ordered says that the group was to keep the order of each key.
	ordered bool

	// What follows is Deliver's scratch.

	ids     []uint32
	settle  []core.Offset // what is not sent, or not to be acknowledged
	unsaved bool          // something waits for its packet id to be kept
	noIDs   bool          // something found no packet id free
	json    []byte
	// variant is what the packets of a batch depend on besides it, see alike.
	variant [5]byte
}

// keeps reports whether a message that waits for an acknowledgement comes to the
// session again when the client returns.
func (a *attachment) keeps(s flightState) bool {
	return a.c.session == sessionQueue && (a.filter == "" || a.kind == targetGroup && s == flightPubrec)
}

// Deliver encodes deliveries into the outbox. It is core.Receiver.
func (a *attachment) Deliver(batch []core.Delivery) {
	var credit core.Credit
	expires := false
	for i := range batch {
		credit.Bytes += batch[i].Size()
		expires = expires || !batch[i].Expires.IsZero()
	}
	var now time.Time
	if expires {
		now = time.Now()
	}
	sent := 0
	a.c.out.AppendFor(a.k, credit, func(b []byte) []byte {
		b, sent = a.encodeAll(b, batch, now)
		return b
	})
	if sent > 0 {
		a.c.s.metrics.Sent.Add(float64(sent))
	}
	for _, at := range a.settle {
		a.k.Settle(at, core.Accepted, core.SettleOptions{Credit: core.Credit{Messages: 1}})
	}
	a.settle = a.settle[:0]
	if a.unsaved {
		a.unsaved = false
		a.c.saveIDs()
	}
	if a.noIDs {
		a.c.stop(errPacketIDs)
	}
}

// encodeAll appends a batch and says how many of its deliveries are sent.
func (a *attachment) encodeAll(b []byte, batch []core.Delivery, now time.Time) (_ []byte, sent int) {
	if o, ok := a.alike(batch); ok && a.c.flights.addAll(a, batch, o.qos()) {
		return a.c.s.bursts.Append(b, batch, a.variant[:], func(b []byte) []byte {
			return a.encodeAlike(b, batch, o, now)
		}), len(batch)
	}
	return a.encodeEach(b, batch, now)
}

func (a *attachment) encodeEach(b []byte, batch []core.Delivery, now time.Time) (_ []byte, sent int) {
	for i := range batch {
		start := len(b)
		if b = a.encode(b, &batch[i], now); len(b) > start {
			sent++
		}
	}
	return b, sent
}

// alike reports whether the packets of a batch are those that every subscriber
// of the same variant gets, which it sets, with the options of the one
// subscription that they are for: each delivery is one packet that is sent for
// the first time, and nothing in it is the connection's own. That a packet id
// follows from the offset, addAll is asked for. It is called under the outbox's
// lock.
func (a *attachment) alike(batch []core.Delivery) (_ subscriptionOptions, ok bool) {
	c := a.c
	if c.aliasMax > 0 || c.maxOut > 0 || c.has != nil {
		return 0, false
	}
	tag := tagOf(a.options, optionNone)
	if a.filter == "" {
		if len(batch[0].Tags) != 1 {
			return 0, false
		}
		tag = batch[0].Tags[0]
	}
	plain, meta := optionsOf(tag)
	if !plain.exists() || meta.exists() || plain.noLocal() {
		return 0, false
	}
	plain = c.known(plain)
	for i := range batch {
		d := &batch[i]
		switch {
		case a.filter == "" && (len(d.Tags) != 1 || d.Tags[0] != tag),
			c.v != v5 && !isPlain(d.Envelope),
			!d.Settled && (d.Attempt > 1 || plain.qos() == 0 || d.Guarantee == core.AtMostOnce):
			return 0, false
		}
	}
	a.variant[0] = byte(c.v)
	if a.meta {
		a.variant[0] |= 0x80
	}
	binary.BigEndian.PutUint32(a.variant[1:], uint32(plain))
	return plain, true
}

// encodeAlike appends the packets of a batch that is alike.
func (a *attachment) encodeAlike(b []byte, batch []core.Delivery, o subscriptionOptions, now time.Time) []byte {
	a.ids = a.ids[:0]
	if id := o.id(); id != 0 {
		a.ids = append(a.ids, id)
	}
	for i := range batch {
		d := &batch[i]
		m := match{is: true, retain: o&optionRAP != 0}
		if !d.Settled {
			m.qos = min(o.qos(), byte(d.Guarantee))
		}
		plain := a.c.v != v5 || isPlain(d.Envelope) // alike has seen to it that 3.1.1's are
		p := a.packet(d, m, a.ids, nil, plain)
		if m.qos > 0 {
			p.id = naturalID(d.Offset)
		}
		if a.c.v != v5 {
			b = appendPublish3(b, &p, d.Envelope)
		} else {
			b = appendPublish5(b, &p, d, now)
		}
	}
	return b
}

// packet is the PUBLISH of a delivery, but for its packet id.
func (a *attachment) packet(d *core.Delivery, m match, ids []uint32, payload []byte, plain bool) outPublish {
	p := outPublish{first: typePublish<<4 | m.qos<<1, ids: ids, payload: payload, plain: plain, meta: a.meta}
	if d.Retained || m.retain && d.Retain {
		p.first |= 1 // [MQTT-3.3.1-8], [MQTT-3.3.1-12], [MQTT-3.3.1-13]
	}
	return p
}

// A match is what the subscriptions that match a delivery come to together
// ([MQTT-3.3.4-2] to [MQTT-3.3.4-5]).
type match struct {
	qos    byte
	is     bool // one matches
	retain bool // one wants RETAIN as it was published
}

func (m *match) add(o subscriptionOptions) {
	m.is = true
	m.qos = max(m.qos, o.qos())
	m.retain = m.retain || o&optionRAP != 0
}

// encode appends a delivery: nothing, one PUBLISH, or two where the filter is
// also subscribed as $meta.
func (a *attachment) encode(b []byte, d *core.Delivery, now time.Time) []byte {
	c := a.c
	var plain, meta match
	a.ids = a.ids[:0]
	if a.filter != "" {
		c.matchOne(a.options, d, &plain, &a.ids)
	} else {
		for _, tag := range d.Tags {
			p, _ := optionsOf(tag)
			c.matchOne(p, d, &plain, &a.ids)
		}
	}
	ids := len(a.ids)
	if a.filter == "" {
		for _, tag := range d.Tags {
			if _, m := optionsOf(tag); m.exists() {
				c.matchOne(m, d, &meta, &a.ids)
			}
		}
	}
	if d.Settled {
		plain.qos, meta.qos = 0, 0
	}
	guarantee := byte(d.Guarantee)
	plain.qos, meta.qos = min(plain.qos, guarantee), min(meta.qos, guarantee)
	if c.has != nil {
		plain.is = plain.is && !c.has[sending{a.filter, d.Offset, false}]
		meta.is = meta.is && !c.has[sending{a.filter, d.Offset, true}]
	}
	wait := false
	twin := plain.is && meta.is && plain.qos > 0 && meta.qos > 0
	if plain.is {
		b = a.publish(b, d, plain, a.ids[:ids], nil, twin, now, &wait)
	}
	if meta.is {
		a.json = appendMeta(a.json[:0], d, now)
		b = a.publish(b, d, meta, a.ids[ids:], a.json, twin, now, &wait)
	}
	if !d.Settled && !wait {
		a.settle = append(a.settle, d.Offset)
	}
	return b
}

// matchOne adds one subscription to what matches, unless the client does not
// want its own messages back ([MQTT-3.8.3-3]).
func (c *conn) matchOne(o subscriptionOptions, d *core.Delivery, m *match, ids *[]uint32) {
	if !o.exists() || o.noLocal() && d.Publisher.Client == c.id && d.Publisher.Protocol == protocol {
		return
	}
	m.add(c.known(o))
	if id := o.id(); id != 0 {
		*ids = append(*ids, id)
	}
}

// known is what the connection's version knows of a subscription's options. A
// session may have been MQTT 5's before, and to MQTT 3.1.1 RETAIN says that a
// message is retained and nothing else (3.1.1 [MQTT-3.3.1-9]), but where a
// bridge asks for it as it was published.
func (c *conn) known(o subscriptionOptions) subscriptionOptions {
	if c.v != v5 && !c.bridge {
		return o &^ optionRAP
	}
	return o
}

// publish appends one PUBLISH. wait is set where it waits for an
// acknowledgement.
func (a *attachment) publish(b []byte, d *core.Delivery, m match, ids []uint32, payload []byte, twin bool, now time.Time, wait *bool) []byte {
	c := a.c
	p := a.packet(d, m, ids, payload, payload != nil || isPlain(d.Envelope))
	f := &c.flights
	x := flight{to: a, offset: d.Offset, state: awaits(m.qos), twin: twin, json: payload != nil}
	held, unsaved := false, false
	if m.qos > 0 {
		if d.Attempt > 1 {
			p.first |= 8 // [MQTT-3.3.1-1]
		}
		var ok bool
		f.mu.Lock()
		x.id, unsaved, ok = f.add(x)
		unsaved = unsaved || d.Retained && f.named(x.sending())
		held = ok && (unsaved || !f.permit())
		f.mu.Unlock()
		if !ok {
			a.noIDs, *wait = true, true // it is released with the connection
			return b
		}
		p.id = x.id
	}
	start := len(b)
	newAlias := false
	if c.v != v5 {
		if !p.plain {
			fallbacks(c.s.metrics.Fallback, d.Envelope)
		}
		b = appendPublish3(b, &p, d.Envelope)
	} else {
		if c.aliasMax > 0 && !held {
			newAlias = c.alias(d.Topic, &p)
		}
		b = appendPublish5(b, &p, d, now)
	}
	if c.maxOut > 0 && len(b)-start > c.maxOut {
		// [MQTT-3.1.2-24], [MQTT-3.1.2-25]: as if it had been sent.
		if newAlias {
			delete(c.sentAliases, d.Topic)
		}
		c.s.metrics.Refused("client_packet_size")
		if m.qos > 0 {
			f.mu.Lock()
			f.byID.remove(p.id)
			f.forget(&x)
			if !held {
				f.permits++
			}
			f.mu.Unlock()
		}
		return b[:start]
	}
	if m.qos > 0 {
		*wait = true
	}
	if held {
		f.mu.Lock()
		h := heldPacket{bytes: bytes.Clone(b[start:]), unsaved: unsaved, of: x, expires: d.Expires, again: d.Attempt > 1}
		if p.interval > 0 {
			h.interval = p.interval - start
		}
		f.held = append(f.held, h)
		f.mu.Unlock()
		a.unsaved = a.unsaved || unsaved
		return b[:start]
	}
	return b
}

// appendMeta appends a delivery as the JSON object that a WebSocket client gets,
// for a $meta subscription.
func appendMeta(b []byte, d *core.Delivery, now time.Time) []byte {
	start := len(b)
	b = append(adapters.AppendJSONDelivery(b, d, now), '}')
	b[start] = '{' // where there is a comma
	return b
}

// sendHeld sends a packet that has waited.
func (c *conn) sendHeld(p heldPacket) {
	c.out.Append(func(b []byte) []byte { return append(b, p.bytes...) })
}

// alias gives a topic an alias as long as there are some left, and reports
// whether it is a new one. It is called under the outbox's lock, which so
// guards the aliases.
func (c *conn) alias(topic string, p *outPublish) (isNew bool) {
	if n, ok := c.sentAliases[topic]; ok {
		p.alias, p.aliased = n, true
		return false
	}
	if len(c.sentAliases) >= int(c.aliasMax) || len(topic) < 4 {
		return false
	}
	if c.sentAliases == nil {
		c.sentAliases = make(map[string]uint16)
	}
	p.alias = uint16(len(c.sentAliases) + 1)
	c.sentAliases[string(append([]byte(nil), topic...))] = p.alias
	return true
}

// Notice ends what the core ends. It is core.Receiver.
func (a *attachment) Notice(n core.Notice) {
	switch n.Kind {
	case core.NoticeGap:
		a.c.s.metrics.Refused("gap")
		a.c.s.log.Warn("messages are gone", "queue", a.k.Queue(), "offset", uint64(n.From), "to", uint64(n.To))
	case core.NoticeRevoked:
		if errors.Is(n.Err, core.ErrNotAuthorized) {
			a.ended(errWithdrawn)
			return
		}
		a.ended(errRevoked)
	case core.NoticeDeleted:
		a.ended(errDeleted)
	case core.NoticeFailed:
		a.ended(errFailed)
	}
}

// ended ends the connection with its consumer: MQTT has no word for a
// subscription that ends by itself.
func (a *attachment) ended(why *fault) {
	if a == a.c.main && why == errRevoked {
		why = errTakenOver
	}
	a.c.stop(why)
}
