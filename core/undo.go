package core

import (
	"math"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

// An undo is what a commit settles of a queue. A commit that the log has no room
// for did not happen, neither its records nor its settlements, so these are
// taken back.
type undo struct {
	q       *queue
	k       *Consumer
	entries []outEntry
	keys    []string // of an ordered queue's entries
	led     []*bound // of those that were given as retained values
	// waited are the accepted ones of an ordered queue, which hold up their keys
	// until the commit is done.
	waited []Offset
	// leased is how many of the entries were; the queue counts them as such until
	// the commit is done.
	leased int
	// granted is the credit that the consumer got with it, which goes when what
	// it held is held again.
	granted Credit
}

// undoRetry is how long to wait before a dead letter that there was no room for
// is written again.
const undoRetry = time.Second

// never is when a rejected message goes that waits for its commit.
const never = math.MaxInt64

// keep takes note of an entry as it is. cursor.mu is held.
func (u *undo) keep(e *outEntry) {
	u.entries = append(u.entries, *e)
	u.keys = append(u.keys, u.q.keyOf[e.offset])
	u.led = append(u.led, u.q.out.retained[e.offset])
}

// keepNew takes note of a message that nobody has been given yet. Taken back, it
// waits among the outstanding ones. cursor.mu is held.
func (u *undo) keepNew(d *Delivery) {
	e := outEntry{offset: d.Offset, state: entryWaiting, size: u.q.sizeOf(d), ends: u.q.endOf(d.Envelope)}
	if len(u.q.maybe) > 0 && u.q.maybe.has(d.Offset) {
		e.attempts = 1 // it may have been given to somebody before a crash
	}
	u.entries = append(u.entries, e)
	key := ""
	if u.q.settings.Ordered {
		key = strings.Clone(d.Envelope.Key)
	}
	u.keys = append(u.keys, key)
	u.led = append(u.led, nil)
}

// settle settles what the consumer holds at an offset, or through it, as part of
// a commit: [undo.done] must be called once that is durable, or has failed. What
// is rejected waits until then, and so does the next message of its key. The
// journal is entered.
func (u *undo) settle(at Offset, o Outcome, opts SettleOptions) error {
	u.q.mu.Lock()
	from := at
	if opts.Through {
		from = 0
	}
	for e := range u.q.holds(u.k, from, at) {
		u.keep(e)
	}
	u.q.mu.Unlock()
	if err := u.q.settleEntry(u.k, at, o, opts); err != nil {
		return err
	}
	u.q.mu.Lock()
	defer u.q.mu.Unlock()
	u.await(0, o)
	return nil
}

// settleConfirmed settles what k holds at an offset, or through it, and confirms
// opts.Receipt, in one commit: if that is refused nothing was settled.
func (q *queue) settleConfirmed(k *Consumer, at Offset, o Outcome, opts SettleOptions) error {
	p, err := q.b.journal.enterUnbounded()
	if err != nil {
		return err
	}
	u := &undo{q: q, k: k, granted: opts.Credit}
	if err := u.settle(at, o, opts); err != nil {
		q.b.journal.leave()
		return err
	}
	p.after = append(p.after, func(_ Offset, err error) { u.done(err) })
	if !seeded.On(seeded.LostAckState) {
		q.putPosition(p)
		p.Sync = true
	}
	p.entries = append(p.entries, entry{client: k.client, receipt: opts.Receipt, record: -1})
	q.b.journal.leave()
	pause.At("settled")
	k.Grant(opts.Credit)
	return nil
}

// settleLease is settle for a lease.
func (u *undo) settleLease(at Offset, token uint64, o Outcome, opts SettleOptions) error {
	q := u.q
	q.mu.Lock()
	defer q.mu.Unlock()
	e, err := q.leaseOf(at, token)
	if err != nil {
		return err
	}
	n := len(u.entries)
	u.keep(e)
	u.leased++
	q.leasing++
	q.settleOne(e, o, opts)
	u.await(n, o)
	return nil
}

// await has the entries from one on, which were settled, wait for the commit.
// cursor.mu is held.
func (u *undo) await(from int, o Outcome) {
	for i := from; i < len(u.entries); i++ {
		if e := u.q.out.find(u.entries[i].offset); e != nil && e.state == entryRejected {
			e.due = never
		}
		if key := u.keys[i]; key != "" && o == Accepted {
			u.waited = append(u.waited, u.entries[i].offset)
			u.q.follow(&Envelope{Key: key}, u.entries[i].offset)
		}
	}
}

// done is called with what became of the commit.
func (u *undo) done(err error) {
	if noRoom(err) {
		u.q.b.undone.Add(1)
		u.takeBack()
	} else {
		u.q.mu.Lock()
		for i := range u.entries {
			if e := u.q.out.find(u.entries[i].offset); e != nil && e.state == entryRejected && e.due == never {
				e.due = 0
				u.q.enroll(e)
			}
		}
		for _, at := range u.waited {
			u.q.unfollow(at)
		}
		u.q.unleased(u.leased)
		u.q.mu.Unlock()
	}
	u.q.kick()
}

// takeBack makes the entries what they were: held, if the consumer is still
// there, or waiting; or rejected, to be written to the dead letters a little
// later.
func (u *undo) takeBack() {
	q := u.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return
	}
	if u.k != nil {
		u.k.credit.Messages -= u.granted.Messages
		u.k.credit.Bytes -= u.granted.Bytes
	}
	for _, at := range u.waited {
		q.unfollow(at)
	}
	for i, e := range u.entries {
		if now := q.out.find(e.offset); now != nil && now.state != entrySettled {
			switch now.state {
			case entryRejected:
				q.rejected--
			case entryWaiting:
				q.waiting--
			case entryParked:
			default:
				// Released, and with the next one already.
				if e.state == entryLeased {
					q.unleased(1)
				}
				continue
			}
			q.settled(now)
		}
		if now := q.out.find(e.offset); now != nil {
			q.out.settle(now) // it was noted as settled
		}
		if u.keys[i] != "" {
			q.follow(&Envelope{Key: u.keys[i]}, e.offset)
			q.park(u.keys[i])
		}
		attached := false
		for _, k := range q.consumers {
			attached = attached || k == u.k
		}
		switch {
		case e.state == entryRejected:
			q.rejected++
			e.due = q.now() + int64(undoRetry)
		case e.state == entryLeased:
			// It ends when it would have.
		case attached && e.state == entryHeld:
			e.due = 0
			if lease := q.settings.lease(); lease > 0 {
				e.due = q.now() + int64(lease)
			}
		default:
			if e.state == entryHeld {
				e.due = 0
			}
			e.state, e.holder = entryWaiting, nil
			if q.behindKey(e.offset) {
				e.state = entryParked
			} else {
				q.waiting++
			}
		}
		q.add(e)
		if u.led[i] != nil {
			q.out.give(e.offset, u.led[i])
		}
		q.recount(&e)
	}
	q.changed()
}
