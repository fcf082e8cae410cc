package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A sessionKind says what a session is in the core.
type sessionKind uint8

const (
	// sessionReader: a reader of topics, gone with the connection.
	sessionReader sessionKind = iota
	// sessionQueue: a queue.
	sessionQueue
)

// sessionName is the name of the client id's session in the core.
func (c *conn) sessionName() string { return core.SessionName(c.id) }

// A sessionMeta is what the session's queue keeps for this adapter.
type sessionMeta struct {
	// Once begins the names under which the session's QoS 2 publishes are
	// remembered: another one for each session, so that a client id's new
	// session knows nothing of the old one's packet ids.
	Once []byte `json:"once"`
	// Extras are the subscriptions that are no bindings of the queue.
	Extras []metaExtra `json:"extras,omitempty"`
	// Released are messages that the client has (PUBREC) and whose handshake
	// is not over (PUBCOMP).
	Released []release `json:"released,omitempty"`
	// Moved are packet ids that do not follow from offsets.
	Moved []movedID `json:"moved,omitempty"`
	// Meta says that the subscriptions want offset, time and attempt.
	Meta bool `json:"meta,omitempty"`
}

type metaExtra struct {
	Filter  string              `json:"filter"`
	Options subscriptionOptions `json:"options"`
	Meta    bool                `json:"meta,omitempty"`
	Ordered bool                `json:"ordered,omitempty"`
}

type release struct {
	ID uint16 `json:"id"`
	// By is the filter of the consumer that sent it; empty is the session's own.
	By     string      `json:"by,omitempty"`
	Offset core.Offset `json:"offset"`
	JSON   bool        `json:"json,omitempty"`
	// Done says that the handshake is over, too, but the queue, which forgot
	// in a crash that the message was settled, is yet to come to it again.
	Done bool `json:"done,omitempty"`
}

// A movedID is the packet id of a message that would have another by its offset.
type movedID struct {
	ID     uint16      `json:"id"`
	By     string      `json:"by,omitempty"` // as with a release
	Offset core.Offset `json:"offset"`
	JSON   bool        `json:"json,omitempty"`
}

const onceBytes = 16

// endsWithConnection is the expiry of a session that is gone on with, and does
// not outlive the connection: it ends, too, where the broker is lost before it
// could end it. No client can ask for so short a time.
const endsWithConnection = time.Second - time.Millisecond

// openSession finds or makes the session (section 3.1.2.4). Nothing is
// delivered before resume.
func (c *conn) openSession(ctx context.Context, clean bool) (present bool, err error) {
	name := c.sessionName()
	settings, found := c.client.Session(name)
	exists := found
	if exists && (settings.Expires == endsWithConnection || json.Unmarshal(settings.Meta, &c.meta) != nil) {
		// It ended with the broker, or is not a session of ours: it begins anew.
		exists, clean = false, true
	}
	if exists && clean || !exists {
		// [MQTT-3.1.2-4]
		c.forgetIncoming(ctx)
		c.meta = sessionMeta{}
		if found {
			adapters.Waits(c.nc)
		}
		if err := c.client.EndSession(ctx, name); err != nil {
			return false, err
		}
		exists = false
		if c.expiry == 0 {
			return false, nil
		}
		c.meta.Once = make([]byte, onceBytes)
		rand.Read(c.meta.Once)
	}
	adapters.Waits(c.nc) // what is kept has to be durable
	if !exists {
		settings = core.QueueSettings{
			Kind: core.KindSession, MaxAttempts: core.Unlimited, Lease: core.Unlimited, DeadLetter: core.NoDeadLetter,
		}
	}
	expiry := c.expiry
	if expiry == 0 {
		expiry = endsWithConnection
	}
	same := exists && settings.Expires == expiry
	settings.Expires = expiry
	settings.MaxLength, settings.MaxBytes = int64(c.s.limits.SessionMessages), int64(c.s.limits.SessionBytes)
	settings.Overflow, settings.Once = core.OverflowDropOldest, c.meta.Once
	kept := settings
	c.settings = &kept
	if settings.Meta, err = json.Marshal(&c.meta); err != nil {
		return false, err
	}
	a := &attachment{c: c, meta: c.meta.Meta}
	a.k, err = c.client.Consume(ctx, core.Consumption{Queue: core.SessionQueue(name), Create: true, Settings: &settings, Exclusive: true}, a)
	if err != nil {
		return false, err
	}
	c.session, c.main, c.resumed = sessionQueue, a, exists
	c.flights.resume(c.meta.unsent())
	c.once = append(c.once[:0], c.meta.Once...)
	if exists && !same {
		return true, c.save(ctx)
	}
	return exists, nil
}

// save makes the session's meta and settings durable.
func (c *conn) save(ctx context.Context) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	settings := *c.settings
	c.meta.Moved = c.flights.save()
	meta, err := json.Marshal(&c.meta)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	settings.Meta = meta
	if err := c.main.k.UpdateSession(ctx, settings); err != nil {
		return err
	}
	if c.flights.saved() {
		c.out.Append(c.flights.sendable)
		c.settleExpired()
	}
	return nil
}

// unsent are the packet ids of messages that the client is not known to have.
func (m *sessionMeta) unsent() []movedID {
	return slices.DeleteFunc(slices.Clone(m.Moved), func(id movedID) bool {
		return slices.ContainsFunc(m.Released, func(r release) bool {
			return r.By == id.By && r.Offset == id.Offset && r.JSON == id.JSON
		})
	})
}

// resume sends again what the session has on its way ([MQTT-4.4.0-1]) and lets
// deliveries begin.
func (c *conn) resume(present bool) {
	if c.main == nil {
		return
	}
	grants := []*attachment{c.main}
	unfinished := make(map[*attachment]int)
	if present {
		grants = append(grants, c.reattach()...)
		if kept := c.s.takeKept(c.id); kept != nil {
			c.mu.Lock()
			for id := range kept.incoming {
				kept.incoming[id] = incomingKept
			}
			c.incoming = kept.incoming
			c.mu.Unlock()
		}
		c.pruneReleased()
		if c.flights.prune(c.comes) {
			c.saveAtEnd = true
		}
		for _, r := range c.meta.Released {
			if c.has == nil {
				c.has = make(map[sending]bool)
			}
			c.has[sending{r.By, r.Offset, r.JSON}] = true
			if !r.Done {
				to := c.main
				if a := c.sender(r.By); a != nil {
					to = a
				}
				c.flights.complete(r, to)
				unfinished[to]++
			}
		}
		c.out.Append(func(b []byte) []byte {
			for _, r := range c.meta.Released {
				if !r.Done {
					b = appendAck(b, typePubrel, r.ID, c.v, codeSuccess)
				}
			}
			return b
		})
	}
	for _, a := range grants {
		a.k.Grant(core.Credit{Messages: max(c.credit-unfinished[a], 0), Bytes: c.creditBytes(a)})
	}
}

// comes reports whether the session is still to be sent something.
func (c *conn) comes(what sending) bool {
	a := c.sender(what.by)
	return a != nil && a.k.Pending(what.at)
}

// sender is the attachment that sends what a filter's consumer does; empty is the
// session's own. It is nil where the filter is not subscribed any more.
func (c *conn) sender(by string) *attachment {
	if by == "" {
		return c.main
	}
	for _, a := range c.extras {
		if a.filter == by {
			return a
		}
	}
	return nil
}

// endSession publishes the will and leaves of the session what is to outlive
// the connection.
func (c *conn) endSession() {
	ctx := context.Background()
	if c.session == sessionQueue {
		if c.expiry == 0 {
			c.forgetIncoming(ctx)
			if err := c.client.EndSession(ctx, c.sessionName()); err != nil {
				c.s.log.Warn("session not ended", "client", c.id, "err", err)
			}
		} else {
			c.keepSession(ctx)
		}
	}
	c.leaveWill(ctx)
	c.s.leave(c)
}

// pruneReleased forgets the handshakes that are over and whose messages the
// queue is done with.
func (c *conn) pruneReleased() {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.meta.Released)
	c.meta.Released = slices.DeleteFunc(c.meta.Released, func(r release) bool {
		return r.Done && !c.comes(sending{r.By, r.Offset, r.JSON})
	})
	c.saveAtEnd = c.saveAtEnd || len(c.meta.Released) < n
}

func (c *conn) keepSession(ctx context.Context) {
	c.pruneReleased()
	if c.saveAtEnd || c.settings.Expires != c.expiry {
		c.settings.Expires = c.expiry
		if err := c.save(ctx); err != nil {
			c.s.log.Warn("session not saved", "client", c.id, "err", err)
		}
	}
	kept := &keptIDs{until: time.Now().Add(c.expiry)}
	c.mu.Lock()
	kept.incoming, c.incoming = c.incoming, nil
	c.mu.Unlock()
	// More than these are not worth their room: the core knows them, too, and tells
	// when they are asked for ([conn.handlePubrel], [publishing]).
	if n := len(kept.incoming); n > 0 && n <= c.s.limits.PublishInFlight {
		c.s.keep(c.id, kept)
	}
}

// checkWill refuses a CONNECT whose will the client may not leave, before the
// client's other connection or its session is touched ([MQTT-3.1.4-2],
// [MQTT-3.1.4-3]).
func (c *conn) checkWill() error {
	if c.will.Envelope == nil {
		return nil
	}
	if err := c.client.CheckWill(c.will); err != nil {
		return refusedWill(err)
	}
	return nil
}

func refusedWill(err error) *fault {
	code, reason := reasonOf(err, typeConnack)
	return &fault{code, reason, "the will was refused: " + err.Error()}
}

// keepWill settles the will that the client id left behind, if it waits for its
// delay: going on with the session withdraws it, and a session that begins anew
// ends the old one, which is when it is due at the latest ([MQTT-3.1.3-9]). Then
// it keeps the new one.
func (c *conn) keepWill(ctx context.Context, resumed bool) error {
	if err := c.client.TakeWill(ctx, c.sessionName(), resumed); err != nil && ctx.Err() == nil {
		c.s.log.Warn("will not taken", "client", c.id, "err", err)
	}
	if c.will.Envelope == nil {
		return nil
	}
	adapters.Waits(c.nc)
	return c.client.KeepWill(ctx, c.sessionName(), c.willNow())
}

// willNow is the will as it stands: its delay does not outlast the session.
func (c *conn) willNow() core.Will {
	w := c.will
	w.Delay = min(w.Delay, c.expiry)
	return w
}

// leaveWill publishes the will, or leaves it to its delay, or drops it where
// the client took its leave, and closes the client.
func (c *conn) leaveWill(ctx context.Context) {
	defer c.client.Close()
	if c.will.Envelope == nil {
		return
	}
	if c.noWill {
		c.client.DropWill(c.sessionName())
		return
	}
	err := c.client.LeaveWill(ctx, c.sessionName(), c.willNow())
	if errors.Is(err, core.ErrStorageFull) {
		c.s.log.Info("will waits for room", "client", c.id, "err", err)
	} else if err != nil {
		_, reason := reasonOf(err, typePuback)
		c.s.metrics.Refused(reason)
		c.s.log.Info("will refused", "err", err)
	}
}

// closeConsumers ends all deliveries; what was on its way is released.
func (c *conn) closeConsumers() {
	for _, a := range slices.Concat(c.extras, c.retired) {
		a.k.Close()
	}
	if c.main != nil {
		c.main.k.Close()
	}
}

// forgetIncoming ends the core's memory of QoS 2 publishes of a session that
// ends before their PUBREL.
func (c *conn) forgetIncoming(ctx context.Context) {
	c.mu.Lock()
	ids := c.incoming
	c.incoming = nil
	c.mu.Unlock()
	if kept := c.s.takeKept(c.id); kept != nil {
		ids = kept.incoming
	}
	for id := range ids {
		key := appendUint16(append([]byte(nil), c.meta.Once...), id)
		if err := c.client.Forget(ctx, string(key), 0); err != nil {
			return
		}
	}
}
