package core

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

// A Will is what a client leaves behind: a message that the broker keeps while
// the client is connected and publishes once it is lost, also where the broker
// itself was lost in between. It is a session's, as [SessionQueue] has it, and
// waits for its delay no longer than that session lasts.
//
// It stands in the log like a delayed message. The state names it twice: by its
// session and, once it has a time, among the delayed ones.
type Will struct {
	Envelope *Envelope
	// Delay is how long after the client's end it is published, unless the
	// session ends before, or there is none: then it is as soon as that.
	Delay time.Duration
	// Later is how much later than it is published it is delivered, as with
	// [Envelope.DeliverAt].
	Later time.Duration
	// Expires says that it expires: Life after it is published, where 0 is at
	// once, as with any other message.
	Expires bool
	Life    time.Duration
}

// willTerms are what the state has of a will besides its delay and its record:
// two big-endian words. The first is its life in milliseconds and the marks, the
// second is how much later it is delivered, likewise.
//
// Older versions had one word without marks: the life, 0 where it does not
// expire. What was to be delivered later had a longer delay.
type willTerms struct {
	expires     bool
	life, later time.Duration
	// old says that an older version left the will: its name is the client's id
	// as it is, and it may wait without a session.
	old bool
}

const (
	willMark    = 1 << 63 // on what is not an older version's
	willExpires = 1 << 62
)

func (w *Will) terms() willTerms {
	return willTerms{expires: w.Expires, life: w.Life, later: w.Later}
}

// append appends the terms as the state has them.
func (t willTerms) append(dst []byte) []byte {
	life := uint64(t.life.Milliseconds()) | willMark
	if t.expires {
		life |= willExpires
	}
	dst = binary.BigEndian.AppendUint64(dst, life)
	return binary.BigEndian.AppendUint64(dst, uint64(t.later.Milliseconds()))
}

// parseTerms reads terms, and returns what is behind them; false where there are
// none.
func parseTerms(s string) (t willTerms, rest string, ok bool) {
	if len(s) < 8 {
		return t, "", false
	}
	life := binary.BigEndian.Uint64([]byte(s))
	if life&willMark == 0 {
		return willTerms{expires: life > 0, life: time.Duration(life) * time.Millisecond, old: true}, s[8:], true
	}
	if len(s) < 16 {
		return t, "", false
	}
	t.expires, t.life = life&willExpires != 0, time.Duration(life&^(willMark|willExpires))*time.Millisecond
	t.later = time.Duration(binary.BigEndian.Uint64([]byte(s[8:]))) * time.Millisecond
	return t, s[16:], true
}

// schedule sets when a will that is published now is delivered and when it
// expires.
func (t willTerms) schedule(e *Envelope, now time.Time) {
	e.DeliverAt, e.Expires = time.Time{}, time.Time{}
	if t.later > 0 {
		e.DeliverAt = now.Add(t.later)
	}
	if t.expires {
		e.Expires = now.Add(t.life)
	}
}

// A will's value in the state while its client is connected is its delay in
// milliseconds, its terms and its record's offset. Later it is the key of the
// delayed message, without keyDelayed, which is longer.
const (
	willValue    = 32
	willValueOld = 24
)

// A keptWill is a will's value while its client is connected.
type keptWill struct {
	delay  time.Duration
	terms  willTerms
	offset string // as the state has it
}

// parseKept reads a will's value; false where its client is not connected any
// more, or it was lost with the broker.
func parseKept(value []byte) (w keptWill, ok bool) {
	if len(value) != willValue && len(value) != willValueOld {
		return w, false
	}
	w.delay = time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
	w.terms, w.offset, ok = parseTerms(string(value[8:]))
	return w, ok && len(w.offset) == 8
}

// leftKey is what stands in the key of a delayed message behind its time and its
// number where it is a will.
func (t willTerms) leftKey(session string) string {
	return string(append(t.append(make([]byte, 0, 16+len(session))), session...))
}

// leftOf is what a delayed message's key says of a will; false for a message that
// is none.
func leftOf(key string) (t willTerms, session string, ok bool) {
	if at := len(keyDelayed) + delayedKey; len(key) > at {
		t, session, ok = parseTerms(key[at:])
	}
	return t, session, ok && session != ""
}

// CheckWill says why KeepWill would refuse a will, but for what the log can say.
// An adapter asks before it touches what the client's session was so far.
func (c *Client) CheckWill(w Will) error {
	_, err := c.check(w.Envelope)
	return err
}

// KeepWill keeps the will of a session and replaces the one that it had: what the
// session has left before is withdrawn, or, where it is due, published first. It
// blocks until that is durable. The right to publish it is asked for now, and
// again when the client is lost.
func (c *Client) KeepWill(ctx context.Context, session string, w Will) error {
	if _, err := c.check(w.Envelope); err != nil {
		return err
	}
	if err := c.broker.takeWill(ctx, session, true); err != nil {
		return err
	}
	return c.broker.journal.commitWith(ctx, func(p *commit) error {
		e := *w.Envelope
		e.Topic = DelayedPrefix + e.Topic
		value := make([]byte, 0, willValue)
		value = binary.BigEndian.AppendUint64(value, uint64(w.Delay.Milliseconds()))
		value = w.terms().append(value)
		p.Changes = append(p.Changes, Change{Key: keyWill + session, Value: value, OffsetOf: p.add(&e) + 1})
		return nil
	})
}

// DropWill ends the will of a client that took its leave. It does not wait: where
// the log has no room for it, it is tried again.
func (c *Client) DropWill(session string) error {
	if seeded.On(seeded.WillKept) {
		return nil
	}
	p, err := c.broker.journal.enterUnbounded()
	if err != nil {
		return err
	}
	p.Changes = append(p.Changes, Change{Key: keyWill + session})
	d := c.broker.delayed
	d.setLeft(session, leftWill{kept: true, withdrawn: true})
	p.after = append(p.after, func(_ Offset, err error) {
		if err == nil {
			d.forgetLeft(session)
		} else if noRoom(err) {
			d.owe(session)
		}
	})
	c.broker.journal.leave()
	return nil
}

// LeaveWill publishes the will of a client that is lost, now or after its
// delay, and blocks until that is durable. Where the log has no room for it the
// error is ErrStorageFull, and what [Client.KeepWill] has kept is left once there
// is: its delay begins now nevertheless.
func (c *Client) LeaveWill(ctx context.Context, session string, w Will) error {
	b := c.broker
	to, err := c.check(w.Envelope)
	if err != nil {
		c.DropWill(session)
		return err
	}
	waits := w.Delay > 0 && b.lives(session)
	e := *w.Envelope
	var refused error
	var due time.Time
	err = b.journal.commitWith(ctx, func(p *commit) error {
		now := time.Now()
		due = now
		if waits {
			due = now.Add(w.Delay)
			at := b.delayed.key(due, w.terms().leftKey(session))
			b.delayed.add(p, &e, due, at)
			b.delayed.setLeft(session, leftWill{})
			p.Changes = append(p.Changes, Change{Key: keyWill + session, Value: []byte(at[len(keyDelayed):])})
			return nil
		}
		w.terms().schedule(&e, now)
		_, _, refused = b.put(p, &e, to)
		p.Changes = append(p.Changes, Change{Key: keyWill + session})
		return nil
	})
	pause.At("will left")
	switch {
	case noRoom(err):
		b.delayed.refuse(session, leftWill{due: due, withdrawn: refused != nil})
	case err == nil && waits && !b.lives(session):
		err = c.TakeWill(ctx, session, false) // the session has ended in between
	}
	return errors.Join(err, refused)
}

// TakeWill ends the delay of the will that a session has: it is published at
// once, or, with withdraw and unless it is due, never. It blocks until that is
// durable; where there is no such will, it does not wait. Where the log has no
// room for it the error is ErrStorageFull, and it is done once there is.
func (c *Client) TakeWill(ctx context.Context, session string, withdraw bool) error {
	return c.broker.takeWill(ctx, session, withdraw)
}

func (b *Broker) takeWill(ctx context.Context, session string, withdraw bool) error {
	d := b.delayed
	if _, left := d.leftBy(session); !left {
		return nil
	}
	if err := ctx.Err(); err != nil { // who has it may come to wait for the disk
		return err
	}
	d.firing.Lock()
	defer d.firing.Unlock()
	pause.At("taking a will")
	w, left := d.leftBy(session)
	if !left {
		return nil // it was published in between
	}
	value, err := b.engine.Get(keyWill + session)
	if err != nil {
		return err
	}
	kept, connected := parseKept(value)
	var at Entry
	var due bool
	switch {
	case connected && w.kept:
		at = Entry{keyDelayed + strings.Repeat("\x00", delayedKey) + kept.terms.leftKey(session), []byte(kept.offset)}
		due = !time.Now().Before(w.due)
	case value == nil && w.kept:
		d.forgetLeft(session)
		return nil
	case connected, len(value) <= willValue:
		return nil // it is just being left
	default:
		at.Key = keyDelayed + string(value)
		if at.Value, err = b.engine.Get(at.Key); err != nil {
			return err
		}
		due = dueOf(at.Key) <= d.clock.now()
	}
	withdraw = w.withdrawn || withdraw && !w.over && !due
	var e Envelope
	publish := false
	if !withdraw {
		e, publish, err = d.due(&pump{b: b, ctx: ctx}, at)
		if errors.Is(err, ErrCorrupt) {
			b.log.Error("will not readable", "session", session, "err", err)
			b.stats.Unreadable.Add(1)
		} else if err != nil {
			return err
		}
	}
	err = b.journal.commitWith(ctx, func(p *commit) error {
		if publish {
			d.publish(p, &e)
		}
		p.Changes = append(p.Changes, Change{Key: keyWill + session})
		if !connected {
			p.Changes = append(p.Changes, Change{Key: at.Key})
		}
		return nil
	})
	if err == nil {
		d.forgetLeft(session)
	} else if noRoom(err) {
		d.decide(session, withdraw)
	}
	return err
}

// An heir is a will that the last run has left, and what is to change about it.
type heir struct {
	keptWill
	name    string // as the state has it
	session string
	left    string // its key among the delayed messages; empty where it has none yet
}

// inheritWills gives a time to the wills of clients that were connected when
// the broker was lost: their delay begins now. Those whose session has ended are
// published at once.
func (b *Broker) inheritWills(ctx context.Context) error {
	d := b.delayed
	d.firing.Lock()
	defer d.firing.Unlock()
	var heirs []heir
	var sessions []string
	for s, err := range b.engine.State(keyWill, "") {
		if err != nil {
			return err
		}
		h := heir{name: strings.Clone(s.Key[len(keyWill):])}
		var connected bool
		if h.keptWill, connected = parseKept(s.Value); !connected {
			h.left = keyDelayed + string(s.Value)
			h.terms, _, _ = leftOf(h.left)
		}
		if h.session = h.name; h.terms.old {
			h.session = SessionName(h.name)
		}
		lives := b.lives(h.session)
		switch {
		case connected && !lives:
			if h.terms.old {
				h.terms.later = h.delay
			}
			h.delay = 0
		case connected, lives && h.terms.old:
		case h.terms.old:
			d.setLeft(h.name, leftWill{})
			continue // it comes at its time
		default:
			d.setLeft(h.session, leftWill{})
			sessions = append(sessions, h.session)
			continue
		}
		heirs = append(heirs, h)
		if lives {
			sessions = append(sessions, h.session)
		}
	}
	for i := range heirs {
		if h := &heirs[i]; h.left != "" {
			at, err := b.engine.Get(h.left)
			if err != nil {
				return err
			}
			h.offset = string(at)
		}
	}
	if len(heirs) > 0 {
		err := b.inherit(ctx, heirs)
		if err != nil && !noRoom(err) {
			return err
		}
	}
	for _, session := range sessions {
		if !b.lives(session) && !seeded.On(seeded.WillOrphaned) {
			d.decide(session, false)
		}
	}
	return nil
}

// inherit has wills wait among the delayed messages. firing is held.
func (b *Broker) inherit(ctx context.Context, heirs []heir) error {
	d := b.delayed
	now := time.Now()
	soonest := now.Add(time.Hour)
	err := b.journal.commitWith(ctx, func(p *commit) error {
		for i := range heirs {
			h := &heirs[i]
			key := ""
			if h.left != "" {
				key = h.left[:len(keyDelayed)+delayedKey] + h.terms.leftKey(h.session)
				p.Changes = append(p.Changes, Change{Key: h.left})
			} else {
				due := now.Add(h.delay)
				key = d.key(due, h.terms.leftKey(h.session))
				if due.Before(soonest) {
					soonest = due
				}
			}
			if h.name != h.session {
				p.Changes = append(p.Changes, Change{Key: keyWill + h.name})
			}
			p.Changes = append(p.Changes, Change{Key: keyWill + h.session, Value: []byte(key[len(keyDelayed):])}, Change{Key: key, Value: []byte(h.offset)})
		}
		return nil
	})
	for i := range heirs {
		switch h := &heirs[i]; {
		case err == nil:
			d.setLeft(h.session, leftWill{})
		case noRoom(err) && h.left == "" && !h.terms.old: // an older version's stay until the next start
			d.refuse(h.session, leftWill{due: now.Add(h.delay)})
		}
	}
	if err == nil {
		d.look(soonest)
	}
	return err
}
