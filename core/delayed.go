package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

// Delayed messages wait in the log under DelayedPrefix and their topic. The
// state lists them by the time at which they are due; then each is appended
// again under its topic, and leaves the list, in one commit. Until then nothing
// of it is in memory.
type delayed struct {
	b     *Broker
	clock *clock
	boot  int64  // tells the keys of this run from those of others
	seq   uint64 // likewise within a run; guarded by the journal's mutex

	// firing is held while messages that are due are published, until the
	// state shows that they are gone; nothing else takes them out then.
	firing sync.Mutex

	leftMu sync.Mutex          // guards what follows
	left   map[string]leftWill // by session
	owed   map[string]bool     // the sessions of those that something is to become of at once

	soonestMu sync.Mutex // guards soonest
	soonest   time.Time  // when the first of what was added is due, or zero

	wake    chan struct{} // soonest is set, or something is owed
	stop    chan struct{}
	stopped sync.WaitGroup
}

func newDelayed(b *Broker) *delayed {
	return &delayed{b: b, clock: newClock(), boot: time.Now().UnixNano(), wake: make(chan struct{}, 1), stop: make(chan struct{})}
}

// delayedKey is how many bytes name a delayed message: its time, the run and the
// number within it. A will's key goes on behind them ([leftOf]).
const delayedKey = 24

// key is a new key for a message that is due then; will is empty for one that is
// none, see [willTerms.leftKey]. The journal is entered.
func (d *delayed) key(due time.Time, will string) string {
	// Never before it is due, so a part of a millisecond is a whole one.
	due = d.clock.when(due).Add(time.Millisecond - time.Nanosecond)
	d.seq++
	key := make([]byte, 0, len(keyDelayed)+delayedKey+len(will))
	key = append(key, keyDelayed...)
	key = binary.BigEndian.AppendUint64(key, uint64(due.UnixMilli()))
	key = binary.BigEndian.AppendUint64(key, uint64(d.boot))
	key = binary.BigEndian.AppendUint64(key, d.seq)
	return string(append(key, will...))
}

// dueOf is when the message of a key is due, in milliseconds since 1970 by the
// delayed messages' own clock.
func dueOf(key string) int64 {
	return int64(binary.BigEndian.Uint64([]byte(key[len(keyDelayed):])))
}

// put adds a delayed message to a commit. The journal is entered.
func (d *delayed) put(p *commit, e *Envelope) int {
	return d.add(p, e, e.DeliverAt, d.key(e.DeliverAt, ""))
}

// add adds a message that is due then under its key. The journal is entered.
func (d *delayed) add(p *commit, e *Envelope, due time.Time, key string) int {
	topic := e.Topic
	e.Topic = DelayedPrefix + topic
	record := p.add(e)
	e.Topic = topic
	p.Changes = append(p.Changes, Change{Key: key, Value: []byte{}, OffsetOf: record + 1})
	d.clock.put(p)
	p.after = append(p.after, func(_ Offset, err error) {
		if err == nil {
			d.look(due)
		}
	})
	return record
}

// look says that a message is due then, which the state shows already.
func (d *delayed) look(due time.Time) {
	at := time.Now().Add(d.clock.left(due))
	d.soonestMu.Lock()
	if d.soonest.IsZero() || at.Before(d.soonest) {
		d.soonest = at
	}
	d.soonestMu.Unlock()
	d.rouse()
}

func (d *delayed) rouse() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// added takes what look was told.
func (d *delayed) added() (soonest time.Time) {
	d.soonestMu.Lock()
	defer d.soonestMu.Unlock()
	soonest, d.soonest = d.soonest, time.Time{}
	return soonest
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
		var retry time.Time // no will that is owed is tried before
		for {
			fires := true
			select {
			case <-d.stop:
				return
			case <-d.wake:
				due := d.added()
				fires = !due.IsZero() && due.Before(next)
			case <-t.C:
			}
			if now := time.Now(); !now.Before(retry) && !d.leaveOwed(p.ctx) {
				retry = time.Now().Add(delayedRetry)
			}
			if fires {
				next = d.fire(p)
			}
			if retry.After(time.Now()) && retry.Before(next) {
				next = retry
			}
			t.Reset(time.Until(next))
		}
	})
}

func (d *delayed) close() {
	close(d.stop)
	d.stopped.Wait()
}

// delayedRetry is how long to wait after what is due could not be published.
const delayedRetry = time.Second

// delayedRound is how many messages one commit makes due.
const delayedRound = 1024

// fire publishes what is due and returns when to look again. To go over the places
// of what was published and is gone from the list takes its time, too, so a round
// begins behind the one before; the last one looks at all of the list again.
func (d *delayed) fire(p *pump) time.Time {
	after := ""
	for {
		next, last, ok := d.fireRound(p, after)
		if !ok || last == "" && after == "" {
			return next
		}
		after = last
	}
}

// fireRound publishes up to delayedRound messages that are due, those whose keys
// come at or behind one, and returns the last one's key, "" if there was none. If
// it could not, ok is false, and next says when to try again.
func (d *delayed) fireRound(p *pump, after string) (next time.Time, last string, ok bool) {
	d.firing.Lock()
	defer d.firing.Unlock()
	var due []Entry
	next = time.Now().Add(delayedPoll)
	now := d.clock.now()
	for s, err := range d.b.engine.State(keyDelayed, after) {
		if err != nil {
			d.b.log.Error("delayed messages not readable", "err", err)
			next = time.Now().Add(delayedRetry)
			break
		}
		key := s.Key
		if _, ok := retainedOffset(s.Value); len(key) < len(keyDelayed)+delayedKey || !ok {
			continue
		}
		ms := dueOf(key)
		if ms > now {
			if t := time.Now().Add(d.clock.until(ms)); t.Before(next) {
				next = t
			}
			break
		}
		if due = append(due, Entry{strings.Clone(key), slices.Clone(s.Value)}); len(due) == delayedRound {
			break
		}
	}
	pause.At("delayed due")
	if len(due) == 0 {
		return next, "", true
	}
	ok = true
	for _, s := range due {
		key := s.Key
		e, there, err := d.due(p, s)
		if err != nil {
			d.b.log.Error("delayed message not readable", "err", err)
			if !errors.Is(err, ErrCorrupt) {
				ok = false
				break
			}
			d.b.stats.Unreadable.Add(1)
		}
		c, err := d.b.journal.enterUnbounded()
		if err != nil {
			return time.Now().Add(delayedRetry), "", false
		}
		_, session, isWill := leftOf(key)
		if w, _ := d.leftBy(session); there && !w.withdrawn {
			s := e.Schedule
			e.Schedule = nil
			d.publish(c, &e)
			d.again(c, &e, s, key)
		}
		if seeded.On(seeded.DelayedTwice) {
			d.b.journal.leave()
			if err := d.b.journal.change(p.ctx); err != nil {
				return next, "", false
			}
			if c, err = d.b.journal.enterUnbounded(); err != nil {
				return next, "", false
			}
		}
		c.Changes = append(c.Changes, Change{Key: key})
		if isWill {
			c.Changes = append(c.Changes, Change{Key: keyWill + session})
			c.after = append(c.after, func(_ Offset, err error) {
				if err == nil {
					d.forgetLeft(session)
				}
			})
		}
		d.b.journal.leave()
	}
	// The state must show that they are gone before it is asked again.
	if err := d.b.journal.change(p.ctx); err != nil || !ok {
		return time.Now().Add(delayedRetry), "", false
	}
	return next, due[len(due)-1].Key, true
}

// publish adds a message that is due to a commit: under its topic, or, where it
// is a will that is delivered later, among the delayed ones. The journal is
// entered.
func (d *delayed) publish(p *commit, e *Envelope) {
	if d.b.waits(e) {
		d.put(p, e)
		return
	}
	d.b.count(p, e, e.Topic)
	d.b.append(p, e)
}

// again adds a message that has just been published to the same commit once
// more, for the next time that its schedule names.
func (d *delayed) again(p *commit, e *Envelope, s *Schedule, key string) {
	if s == nil {
		return
	}
	now := time.Now()
	due := now.Add(d.clock.until(dueOf(key)))
	at, rest, ok := s.next(due, now)
	if !ok {
		return
	}
	e.Schedule, e.DeliverAt = rest, at
	d.put(p, e)
}

// due reads the message of an entry of the state as it is published now; ok is
// false where it is not there any more. firing is held since the entry was read.
func (d *delayed) due(p *pump, s Entry) (e Envelope, ok bool, err error) {
	if _, there := retainedOffset(s.Value); !there {
		return e, false, nil
	}
	pause.At("delayed found")
	if ok, err = d.read(p, s, &e); !ok || err != nil {
		return e, false, err
	}
	e.DeliverAt = time.Time{}
	if t, _, ok := leftOf(s.Key); ok {
		t.schedule(&e, time.Now())
	}
	return e, true, nil
}

// read reads the message of an entry of the state as it will be published.
func (d *delayed) read(p *pump, s Entry, e *Envelope) (there bool, err error) {
	at, _ := retainedOffset(s.Value)
	r, err := p.readOne(at)
	if err != nil || r == nil {
		return false, err
	}
	if err := r.Envelope(e); err != nil {
		return false, err
	}
	topic, ok := strings.CutPrefix(e.Topic, DelayedPrefix)
	if !ok {
		return false, fmt.Errorf("%w: offset %d is not a delayed message", ErrCorrupt, at)
	}
	e.Topic, e.DeliverAt = topic, d.clock.moment(dueOf(s.Key))
	return true, nil
}
