package core

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// Delayed messages wait in the log under DelayedPrefix and their topic. The
// state lists them by the time at which they are due; then each is appended
// again under its topic, and leaves the list, in one commit. Until then nothing
// of it is in memory.
type delayed struct {
	b    *Broker
	boot int64  // tells the keys of this run from those of others
	seq  uint64 // likewise within a run; guarded by the journal's mutex

	wake    chan time.Time // a message that is due then was added
	stop    chan struct{}
	stopped sync.WaitGroup
}

func newDelayed(b *Broker) *delayed {
	return &delayed{b: b, boot: time.Now().UnixNano(), wake: make(chan time.Time, 64), stop: make(chan struct{})}
}

// put adds a delayed message to a commit. The journal is entered.
func (d *delayed) put(p *commit, e *Envelope) int {
	topic := e.Topic
	e.Topic = DelayedPrefix + topic
	record := p.add(e)
	e.Topic = topic
	d.seq++
	// Never before it is due, so a part of a millisecond is a whole one.
	due := e.DeliverAt.Add(time.Millisecond - time.Nanosecond).Truncate(time.Millisecond)
	key := make([]byte, 0, len(keyDelayed)+24)
	key = append(key, keyDelayed...)
	key = binary.BigEndian.AppendUint64(key, uint64(due.UnixMilli()))
	key = binary.BigEndian.AppendUint64(key, uint64(d.boot))
	key = binary.BigEndian.AppendUint64(key, d.seq)
	p.Changes = append(p.Changes, Change{Key: string(key), Value: []byte{}, OffsetOf: record + 1})
	p.after = append(p.after, func(_ Offset, err error) {
		if err == nil {
			select {
			case d.wake <- due:
			default: // it looks at the state anyway
			}
		}
	})
	return record
}

// delayedPoll bounds how long the clock is trusted: a wall clock that jumps
// ahead is noticed so late at the most.
const delayedPoll = 30 * time.Second

func (d *delayed) start() {
	d.stopped.Go(func() {
		p := &pump{b: d.b, ctx: d.b.pumps.ctx}
		t := time.NewTimer(0)
		defer t.Stop()
		next := time.Now()
		for {
			select {
			case <-d.stop:
				return
			case due := <-d.wake:
				if !due.Before(next) {
					continue
				}
			case <-t.C:
			}
			next = d.fire(p)
			t.Reset(time.Until(next))
		}
	})
}

func (d *delayed) close() {
	close(d.stop)
	d.stopped.Wait()
}

// delayedRound is how many messages one commit makes due.
const delayedRound = 1024

// fire publishes what is due and returns when to look again.
func (d *delayed) fire(p *pump) time.Time {
	type item struct {
		key string
		at  Offset
	}
	for {
		var due []item
		next := time.Now().Add(delayedPoll)
		now := time.Now().UnixMilli()
		for s, err := range d.b.engine.State(keyDelayed, "") {
			if err != nil {
				d.b.log.Error("delayed messages not readable", "err", err)
				break
			}
			key := s.Key
			at, ok := retainedOffset(s.Value)
			if len(key) != len(keyDelayed)+24 || !ok {
				continue
			}
			ms := int64(binary.BigEndian.Uint64([]byte(key[len(keyDelayed):])))
			if ms > now {
				if t := time.UnixMilli(ms); t.Before(next) {
					next = t
				}
				break
			}
			if due = append(due, item{key, at}); len(due) == delayedRound {
				break
			}
		}
		if len(due) == 0 {
			return next
		}
		var e Envelope
		for _, it := range due {
			ok, err := d.read(p, it.at, &e)
			if err != nil {
				d.b.log.Error("delayed message not readable", "offset", it.at, "err", err)
				if p.ctx.Err() != nil {
					return next
				}
				d.b.stats.Unreadable.Add(1)
			}
			c, err := d.b.journal.enterUnbounded()
			if err != nil {
				return next
			}
			if ok {
				c.add(&e)
				d.b.count(c, &e, e.Topic)
			}
			c.Changes = append(c.Changes, Change{Key: it.key})
			d.b.journal.leave()
		}
		// The state must show that they are gone before it is asked again.
		if err := d.b.journal.change(p.ctx); err != nil {
			return time.Now().Add(delayedPoll)
		}
	}
}

func (d *delayed) read(p *pump, at Offset, e *Envelope) (bool, error) {
	r, err := p.readOne(at)
	if err != nil || r == nil {
		return false, err
	}
	if err := r.Envelope(e); err != nil {
		return false, err
	}
	if len(e.Topic) <= len(DelayedPrefix) {
		return false, fmt.Errorf("%w: offset %d is not a delayed message", ErrCorrupt, at)
	}
	e.Topic = e.Topic[len(DelayedPrefix):]
	e.DeliverAt = time.Time{}
	return true, nil
}
