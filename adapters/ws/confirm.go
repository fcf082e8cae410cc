package ws

import (
	"time"

	"github.com/sluicemq/sluice/core"
)

// A pending is something that the core has yet to confirm. Its places are used
// again and again, so that a publish allocates nothing for it.
type pending struct {
	req  []byte        // the request's number or name
	call *call         // a request waits for a reply
	of   *subscription // what is settled is of this one; nil is a publish
	next int           // of a free place: the next one's receipt
}

// receipt takes a place for a request; it waits while as many publishes and
// settlements are pending as a connection may have. It is 0 if the connection
// is leaving.
func (c *conn) receipt(req []byte, call *call, of *subscription) core.Receipt {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting >= c.srv.Limits.PublishInFlight && !c.leaving.Load() {
		c.idle.Wait()
	}
	if c.leaving.Load() {
		return 0
	}
	if c.free == 0 {
		c.pending = append(c.pending, pending{})
		c.free = len(c.pending)
	}
	r := c.free
	p := &c.pending[r-1]
	c.free = p.next
	p.req = append(p.req[:0], req...)
	p.call, p.of = call, of
	c.waiting++
	return core.Receipt(r)
}

// release frees a place; c.mu is held.
func (c *conn) release(r core.Receipt) {
	p := &c.pending[r-1]
	p.call, p.of = nil, nil
	p.next = c.free
	c.free = int(r)
	c.waiting--
	c.idle.Broadcast()
	if c.waiting == 0 && len(c.pending) > keepPending {
		c.pending, c.free = nil, 0
	}
}

// keepPending is how many places an idle connection keeps.
const keepPending = 16

// Confirm answers the requests of publishes and settlements.
func (c *conn) Confirm(all []core.Confirmation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(func(buf []byte) []byte {
		for i := range all {
			p := &c.pending[all[i].Receipt-1]
			if p.call != nil && all[i].Err == nil {
				continue // the reply is the answer
			}
			if p.call != nil && !p.call.end() {
				continue // it has been answered
			}
			start := len(buf)
			buf = closeFrame(c.coding.appendConfirmation(openFrame(buf), p, &all[i]), start, c.coding.frame())
		}
		return buf
	})
	for i := range all {
		if err := all[i].Err; err != nil {
			code, _ := codeOf(err)
			c.srv.count.Refused(code)
			if s := c.pending[all[i].Receipt-1].of; s != nil {
				s.credit.Add(-1) // it holds the message as before
			}
		}
		c.release(all[i].Receipt)
	}
}

func (k coding) appendConfirmation(dst []byte, p *pending, a *core.Confirmation) []byte {
	if a.Err != nil {
		return k.appendError(dst, p.req, a.Err)
	}
	o := k.begin(dst, "ok")
	o.req(p.req)
	if p.of == nil {
		o.int("o", int64(a.Offset))
	}
	if a.Duplicate {
		o.yes("dup")
	}
	return o.end()
}

// drain waits until nothing is pending, but not longer than d.
func (c *conn) drain(d time.Duration) {
	over := false
	timer := time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		over = true
		c.idle.Broadcast()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting > 0 && !over {
		c.idle.Wait()
	}
}
