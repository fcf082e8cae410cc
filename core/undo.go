package core

import (
	"math"
	"slices"
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
	entries []undone
	// awaited says that somebody waits for the commit to settle the entries.
	awaited bool
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

// An undone is one entry as it was.
type undone struct {
	outEntry
	key string // in an ordered queue
	led *bound // of one that was given as a retained value
	// session is the one that it was kept for, "" if it was for none.
	session string
	// stays says that it waits since, or is on its way to the dead letters. It may
	// have gone further before the commit is done: to another consumer, or out of
	// the queue, by a later commit that is not refused.
	stays bool
}

// undoRetry is how long to wait before a dead letter that there was no room for
// is written again.
const undoRetry = time.Second

// never is when a rejected message goes that waits for its commit.
const never = math.MaxInt64

// keep takes note of an entry as it is. cursor.mu is held.
func (u *undo) keep(e *outEntry) {
	u.entries = append(u.entries, undone{outEntry: *e, key: u.q.keyOf[e.offset], led: u.q.out.retained[e.offset], session: u.q.out.kept[e.offset]})
}

// keepNew takes note of a message that nobody has been given yet. Taken back, it
// waits among the outstanding ones. cursor.mu is held.
func (u *undo) keepNew(d *Delivery) {
	e := outEntry{offset: d.Offset, state: entryWaiting, size: u.q.sizeOf(d), ends: u.q.endOf(d.Envelope)}
	if len(u.q.maybe) > 0 && u.q.maybe.has(d.Offset) {
		e.attempts = 1 // it may have been given to somebody before a crash
	}
	key := ""
	if u.q.settings.Ordered {
		key = strings.Clone(d.Envelope.Key)
	}
	u.entries = append(u.entries, undone{outEntry: e, key: key})
}

// settle settles what the consumer holds at an offset, or through it, as part of
// a commit, which the undo goes with. What is rejected waits until that is done,
// and so does the next message of its key. The journal is entered.
func (u *undo) settle(at Offset, o Outcome, opts SettleOptions) error {
	u.q.mu.Lock()
	defer u.q.mu.Unlock()
	if _, err := u.q.heldBy(u.k, at); err != nil {
		return err
	}
	from := at
	if opts.Through {
		from = 0
	}
	for e := range u.q.holds(u.k, from, at) {
		u.settleOne(e, o, opts)
	}
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
	p.undos = append(p.undos, u)
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
	u.leased++
	q.leasing++
	u.settleOne(e, o, opts)
	return nil
}

// settleOne settles an entry, but for what waits for the commit. cursor.mu is held.
func (u *undo) settleOne(e *outEntry, o Outcome, opts SettleOptions) {
	u.awaited = true
	u.keep(e)
	was := &u.entries[len(u.entries)-1]
	was.stays = o != Accepted
	if was.stays || was.key == "" {
		u.q.settleOne(e, o, opts)
	} else {
		// It stays the first of its key, however many are behind it.
		u.waited = append(u.waited, was.offset)
		delete(u.q.keyOf, was.offset)
		u.q.settleOne(e, o, opts)
		u.q.keyOf[was.offset] = was.key
	}
	if e := u.q.out.find(was.offset); e != nil && e.state == entryRejected {
		e.due = never
	}
}

// settled is called once it is known what became of the commit. If it was
// refused, what it settled last is taken back first: it may have settled what it
// had released before.
func (c *commit) settled() {
	if noRoom(c.err) {
		slices.Reverse(c.undos)
	}
	for _, u := range c.undos {
		u.done(c.err)
	}
}

// done is called with what became of the commit.
func (u *undo) done(err error) {
	switch {
	case noRoom(err):
		u.q.b.undone.Add(1)
		u.takeBack()
		u.forsake()
	case !u.awaited:
		return
	default:
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
	for _, at := range u.waited {
		q.unfollow(at)
	}
	attached, again := u.k != nil && (u.k.retired || slices.Contains(q.consumers, u.k)), false
	for i := range u.entries {
		was := &u.entries[i]
		e := was.outEntry
		now := q.out.find(e.offset)
		if was.wentOn(now) {
			if e.state == entryLeased {
				q.unleased(1)
			}
			continue
		}
		if now != nil && now.state != entrySettled {
			e.attempts = min(e.attempts, now.attempts) // it never came with the last one
			switch now.state {
			case entryRejected:
				q.rejected--
			case entryWaiting:
				q.waiting--
			}
			q.settled(now)
		}
		if now := q.out.find(e.offset); now != nil {
			q.out.settle(now) // it was noted as settled
		}
		if was.key != "" {
			q.follow(&Envelope{Key: was.key}, e.offset)
			q.park(was.key)
		}
		switch {
		case e.state == entryRejected:
			q.rejected++
			e.due = q.now() + int64(undoRetry)
		case e.state == entryLeased:
			// It ends when it would have.
		case attached && e.state == entryHeld:
			again, e.due = true, 0
			if lease := q.settings.lease(); lease > 0 {
				e.due = q.now() + int64(lease)
			}
		case was.session != "" && !q.attends(was.session):
			e.state, e.holder = entryKept, nil
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
		if was.session != "" {
			q.out.keep(&e, was.session)
			q.b.keepers.add(was.session, q)
		}
		q.add(e)
		if was.led != nil {
			q.out.give(e.offset, was.led)
		}
		q.recount(&e)
	}
	if again {
		u.k.credit.Messages -= u.granted.Messages
		u.k.credit.Bytes -= u.granted.Bytes
	}
	q.changed()
}

// forsake lets go what is kept again for sessions that have ended. No lock is
// held.
func (u *undo) forsake() {
	for i := range u.entries {
		if session := u.entries[i].session; session != "" && !u.q.b.lives(session) {
			u.q.forsake(session)
		}
	}
}

// wentOn reports whether an entry, as it is now, has gone further than what the
// commit made of it: somebody has been assigned it since, or a later commit has
// settled it.
func (u *undone) wentOn(now *outEntry) bool {
	if now == nil || now.state == entrySettled {
		return u.stays
	}
	switch now.state {
	case entryWaiting, entryParked, entryRejected:
		return u.stays && now.attempts > u.attempts // fewer: it was being assigned before
	}
	return true
}
