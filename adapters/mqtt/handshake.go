package mqtt

import "github.com/sluicemq/sluice/core"

// handleAck takes the client's part in the handshakes of QoS 1 and 2 (section
// 4.3): PUBREL for what it sends, the others for what it is sent.
func (c *conn) handleAck(kind byte, a ackPacket) error {
	switch kind {
	case typePubrel:
		return c.handlePubrel(a)
	case typePuback:
		return c.handlePuback(a)
	case typePubrec:
		return c.handlePubrec(a)
	}
	return c.handlePubcomp(a)
}

// handlePubrel ends the handshake of a publish of the client's.
func (c *conn) handlePubrel(a ackPacket) error {
	c.mu.Lock()
	state, known := c.incoming[a.id]
	switch {
	case known && state == incomingNew:
		c.mu.Unlock()
		return errAckState // PUBREL before PUBREC
	case c.session == sessionReader || !known && !c.resumed:
		if known {
			delete(c.incoming, a.id)
			c.unconfirmed--
		}
		c.mu.Unlock()
		code := byte(codeSuccess)
		if !known {
			code = codeIDNotFound
		}
		c.out.Append(func(b []byte) []byte { return appendAck(b, typePubcomp, a.id, c.v, code) })
		return nil
	case known && state == incomingReleased:
		c.mu.Unlock()
		return nil // PUBCOMP will follow
	case known && state == incomingPubrec:
		c.unconfirmed--
	}
	if c.incoming == nil {
		c.incoming = make(map[uint16]incoming)
	}
	c.incoming[a.id] = incomingReleased
	c.waiting++
	c.mu.Unlock()
	// Of a session that goes on the core alone knows whether there was such a
	// publish. Where it was completed before, the client did not hear of it: that
	// is no error while both recover (section 3.7.2.1).
	return c.client.Forget(c.ctx, c.onceKey(a.id), core.Receipt(receiptPubcomp|int(a.id)))
}

// handlePuback settles a QoS 1 message.
func (c *conn) handlePuback(a ackPacket) error {
	f, ok, err := c.land(a.id, flightPuback)
	if err != nil || !ok {
		return err
	}
	c.settle(f, a.code)
	c.letGo(f.to)
	return nil
}

// land takes a flight out, if it is in the state that the acknowledgement
// needs. An id that is not known is no error: the acknowledgement may be one
// that was given twice.
func (c *conn) land(id uint16, want flightState) (flight, bool, error) {
	f := &c.flights
	f.mu.Lock()
	found := f.byID.find(id)
	switch {
	case found == nil:
		f.mu.Unlock()
		return flight{}, false, nil
	case found.state != want:
		f.mu.Unlock()
		return flight{}, false, errAckState
	}
	x := *found
	f.byID.remove(id)
	if f.forget(&x) {
		c.saveAtEnd = true
	} else if want == flightPubcomp && c.session == sessionQueue {
		f.spend(id, x.sending()) // meta.Released names it
	}
	if f.hasTwin(x) {
		x.to = nil // the other one settles
	}
	next, waits := f.release()
	f.mu.Unlock()
	if waits {
		c.sendHeld(next)
	}
	for _, gone := range c.settleExpired() {
		c.letGo(gone.to)
	}
	return x, true, nil
}

// settleExpired settles what was held for too long, and returns it.
func (c *conn) settleExpired() []flight {
	expired := c.flights.takeExpired()
	for _, x := range expired {
		c.s.broker.Stats().Expired.Add(1)
		_ = x.to.k.Settle(x.offset, core.Accepted, core.SettleOptions{Credit: core.Credit{Messages: 1}})
	}
	return expired
}

// settle tells the core what the client said of a message.
func (c *conn) settle(f flight, code byte) {
	if f.to == nil {
		return
	}
	outcome, how := core.Accepted, core.SettleOptions{}
	if code >= 0x80 {
		outcome = core.Rejected
		how.Reason = "the client answered with a reason code of refusal"
	}
	// An error says that it was taken away: deleted, purged, or settled by an
	// operator.
	_ = f.to.k.Settle(f.offset, outcome, how)
	c.giveBack(f.to)
}

// giveBack notes that a message of a consumer's is acknowledged. What has
// gathered is granted once all that one read brought is handled, so that a
// consumer that had no credit left goes on with many messages and not with one.
func (c *conn) giveBack(a *attachment) {
	if a != c.creditor {
		c.grant()
		c.creditor = a
	}
	c.acknowledged++
}

// grant grants what giveBack has gathered.
func (c *conn) grant() {
	if c.acknowledged > 0 {
		c.creditor.k.Grant(core.Credit{Messages: c.acknowledged})
	}
	c.creditor, c.acknowledged = nil, 0
}

// handlePubrec takes the first acknowledgement of a QoS 2 message. From here on
// the client has the message: that is made durable before PUBREL tells the
// client to forget the packet id.
func (c *conn) handlePubrec(a ackPacket) error {
	f := &c.flights
	f.mu.Lock()
	x := f.byID.find(a.id)
	switch {
	case x == nil:
		f.mu.Unlock()
		if a.code >= 0x80 {
			return nil // nothing is left to be released
		}
		code := byte(codeIDNotFound)
		c.out.Append(func(b []byte) []byte { return appendAck(b, typePubrel, a.id, c.v, code) })
		return nil
	case x.state == flightSettled:
		f.mu.Unlock()
		return nil // PUBREL will follow
	case x.state == flightPubcomp:
		f.mu.Unlock()
		c.out.Append(func(b []byte) []byte { return appendAck(b, typePubrel, a.id, c.v, codeSuccess) })
		return nil
	case x.state != flightPubrec:
		f.mu.Unlock()
		return errAckState
	case a.code >= 0x80: // the handshake ends here
		f.mu.Unlock()
		x, _, _ := c.land(a.id, flightPubrec)
		c.settle(x, a.code)
		c.letGo(x.to)
		return nil
	}
	x.state = flightSettled
	r := release{ID: a.id, By: x.to.filter, Offset: x.offset, JSON: x.json}
	f.mu.Unlock()
	if c.session == sessionReader {
		c.released([]release{r})
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meta.Released = append(c.meta.Released, r)
	c.releasing = append(c.releasing, r)
	c.beginRelease()
	return nil
}

// saveIDs has the packet ids kept that messages wait for.
func (c *conn) saveIDs() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hasUnsaved = true
	c.beginRelease()
}

// beginRelease begins release, unless it goes on. c.mu is held.
func (c *conn) beginRelease() {
	if !c.isReleasing {
		c.isReleasing = true
		c.savers.Go(c.release)
	}
}

// release makes durable that the client has messages, all that have gathered in
// one go, and then sends their PUBRELs in the order of the PUBRECs
// ([MQTT-4.6.0-4]); and the packet ids that messages wait for. It runs while
// there are some.
func (c *conn) release() {
	for {
		c.mu.Lock()
		rs := c.releasing
		c.releasing = nil
		if len(rs) == 0 && !c.hasUnsaved || c.cause != nil {
			c.isReleasing = false
			c.mu.Unlock()
			return
		}
		c.hasUnsaved = false
		c.mu.Unlock()
		if err := c.save(c.ctx); err != nil {
			if c.ctx.Err() == nil {
				c.stop(&fault{codeUnspecified, "storage", err.Error()})
			}
			return
		}
		if len(rs) > 0 {
			c.released(rs)
		}
	}
}

// released settles messages that the client has and sends PUBREL for them.
func (c *conn) released(rs []release) {
	f := &c.flights
	for _, r := range rs {
		f.mu.Lock()
		found := f.byID.find(r.ID)
		found.state = flightPubcomp
		x, twin := *found, f.hasTwin(*found)
		delete(f.moved, x.sending()) // meta.Released has the id
		f.mu.Unlock()
		if !twin {
			// What the settlement gives back waits for PUBCOMP.
			x.to.k.Settle(x.offset, core.Accepted, core.SettleOptions{})
		}
	}
	c.out.Append(func(b []byte) []byte {
		for _, r := range rs {
			b = appendAck(b, typePubrel, r.ID, c.v, codeSuccess)
		}
		return b
	})
}

// handlePubcomp ends the handshake of a QoS 2 message.
func (c *conn) handlePubcomp(a ackPacket) error {
	x, ok, err := c.land(a.id, flightPubcomp)
	if err != nil || !ok {
		return err
	}
	if x.to != nil {
		c.giveBack(x.to)
		c.letGo(x.to)
	}
	if c.session != sessionQueue {
		return nil
	}
	// Its twin may not be acknowledged, or the queue be yet to come to it again,
	// where it forgot that it was settled: then it is remembered that the client has
	// it. Otherwise it may be sent it anew, as what is retained.
	pending := x.to == nil || x.to.k.Pending(x.offset)
	if c.resumed && !pending {
		c.out.Append(func(b []byte) []byte {
			delete(c.has, x.sending())
			return b
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.meta.Released {
		if r.ID == a.id && !r.Done {
			if c.meta.Released[i].Done = pending; !pending {
				c.meta.Released = append(c.meta.Released[:i], c.meta.Released[i+1:]...)
			}
			c.saveAtEnd = true
			break
		}
	}
	return nil
}
