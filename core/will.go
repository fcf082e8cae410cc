package core

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/pause"
)

// A Will is what a client leaves behind: a message that the broker keeps while
// the client is connected and publishes once it is lost, also where the broker
// itself was lost in between.
//
// It stands in the log like a delayed message. The state names it twice: by the
// name of whose will it is, and, once it has a time, among the delayed ones.
type Will struct {
	Envelope *Envelope
	// Delay is how long after the client's end it is published.
	Delay time.Duration
	// Expires says that it expires: Life after it is published, where 0 is at
	// once, as with any other message.
	Expires bool
	Life    time.Duration
}

// A willLife is a will's life as the state has it: in milliseconds and one more,
// 0 where it does not expire.
type willLife uint64

func (w *Will) life() willLife {
	if !w.Expires {
		return 0
	}
	return willLife(w.Life.Milliseconds() + 1)
}

// end is when a will that is published now expires; zero is never.
func (l willLife) end(now time.Time) time.Time {
	if l == 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(l-1) * time.Millisecond)
}

// A will's value in the state while its client is connected: its delay, its
// life and its record's offset. Later it is the key of the delayed message,
// without keyDelayed, which is longer.
const (
	willValue = 24
	// willSuffix is how many bytes stand between a delayed message's key and
	// the name of whose will it is: its life.
	willSuffix = 8
)

// KeepWill keeps the will of a name, such as a client id, and replaces the one
// that it had. It blocks until that is durable. The right to publish it is
// asked for now, and again when the client is lost.
func (c *Client) KeepWill(ctx context.Context, name string, w Will) error {
	if _, err := c.check(w.Envelope); err != nil {
		return err
	}
	return c.broker.journal.commitWith(ctx, func(p *commit) error {
		e := *w.Envelope
		e.Topic = DelayedPrefix + e.Topic
		value := make([]byte, 0, willValue)
		value = binary.BigEndian.AppendUint64(value, uint64(w.Delay.Milliseconds()))
		value = binary.BigEndian.AppendUint64(value, uint64(w.life()))
		p.Changes = append(p.Changes, Change{Key: keyWill + name, Value: value, OffsetOf: p.add(&e) + 1})
		return nil
	})
}

// DropWill ends the will of a client that took its leave. It does not wait.
func (c *Client) DropWill(name string) error {
	p, err := c.broker.journal.enterUnbounded()
	if err != nil {
		return err
	}
	p.Changes = append(p.Changes, Change{Key: keyWill + name})
	c.broker.journal.leave()
	return nil
}

// LeaveWill publishes the will of a client that is lost, now or after its
// delay, and blocks until that is durable.
func (c *Client) LeaveWill(ctx context.Context, name string, w Will) error {
	b := c.broker
	to, err := c.check(w.Envelope)
	if err != nil {
		c.DropWill(name)
		return err
	}
	e := *w.Envelope
	var refused error
	err = b.journal.commitWith(ctx, func(p *commit) error {
		if w.Delay > 0 {
			due := time.Now().Add(w.Delay)
			at := b.delayed.key(due, w.life(), name)
			b.delayed.add(p, &e, due, at)
			b.delayed.setLeft(name, true)
			p.Changes = append(p.Changes, Change{Key: keyWill + name, Value: []byte(at[len(keyDelayed):])})
			return nil
		}
		e.Expires = w.life().end(time.Now())
		_, _, refused = b.put(p, &e, to)
		p.Changes = append(p.Changes, Change{Key: keyWill + name})
		return nil
	})
	return errors.Join(err, refused)
}

// TakeWill ends the delay of the will that a name has left: it is published at
// once, or, with withdraw, never. It blocks until that is durable; where there
// is no such will, it does not wait.
func (c *Client) TakeWill(ctx context.Context, name string, withdraw bool) error {
	b := c.broker
	d := b.delayed
	if !d.hasLeft(name) {
		return nil
	}
	d.firing.Lock()
	defer d.firing.Unlock()
	pause.At("taking a will")
	value, err := b.engine.Get(keyWill + name)
	if err != nil || len(value) <= willValue {
		return err // it was published in between
	}
	key := keyDelayed + string(value)
	var e Envelope
	publish := false
	if !withdraw {
		at, err := b.engine.Get(key)
		if err != nil {
			return err
		}
		if e, publish, err = d.due(&pump{b: b, ctx: ctx}, Entry{key, at}); err != nil {
			return err
		}
	}
	err = b.journal.commitWith(ctx, func(p *commit) error {
		if publish {
			b.append(p, &e)
			b.count(p, &e, e.Topic)
		}
		p.Changes = append(p.Changes, Change{Key: keyWill + name}, Change{Key: key})
		return nil
	})
	if err == nil {
		d.setLeft(name, false)
	}
	return err
}

// hasLeft reports whether a name has a will that waits for its time. Most have
// none, and the state need not be asked.
func (d *delayed) hasLeft(name string) bool {
	d.leftMu.Lock()
	defer d.leftMu.Unlock()
	return d.left[name]
}

func (d *delayed) setLeft(name string, left bool) {
	d.leftMu.Lock()
	defer d.leftMu.Unlock()
	if !left {
		delete(d.left, name)
		return
	}
	if d.left == nil {
		d.left = make(map[string]bool)
	}
	d.left[strings.Clone(name)] = true
}

// inheritWills gives a time to the wills of clients that were connected when
// the broker was lost: their delay begins now.
func (b *Broker) inheritWills(ctx context.Context) error {
	type heir struct{ key, value string }
	var heirs []heir
	for s, err := range b.engine.State(keyWill, "") {
		if err != nil {
			return err
		}
		b.delayed.setLeft(s.Key[len(keyWill):], true)
		if len(s.Value) == willValue {
			heirs = append(heirs, heir{strings.Clone(s.Key), string(s.Value)})
		}
	}
	if len(heirs) == 0 {
		return nil
	}
	now := time.Now()
	due := now.Add(time.Hour)
	err := b.journal.commitWith(ctx, func(p *commit) error {
		for _, h := range heirs {
			value := []byte(h.value)
			at := now.Add(time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond)
			life := willLife(binary.BigEndian.Uint64(value[8:]))
			key := b.delayed.key(at, life, h.key[len(keyWill):])
			p.Changes = append(p.Changes, Change{Key: h.key, Value: []byte(key[len(keyDelayed):])}, Change{Key: key, Value: value[16:]})
			if at.Before(due) {
				due = at
			}
		}
		return nil
	})
	if err == nil {
		b.delayed.look(due)
	}
	return err
}

// lifeOf is the life and the name of a will that stands among the delayed
// messages; false for a message that is none.
func lifeOf(key string) (life willLife, name string, ok bool) {
	rest := key[len(keyDelayed)+delayedKey:]
	if len(rest) <= willSuffix {
		return 0, "", false
	}
	return willLife(binary.BigEndian.Uint64([]byte(rest))), rest[willSuffix:], true
}
