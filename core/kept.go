package core

import (
	"slices"
	"sync"
)

// Exactly once in a group: a message that was published so, and that a session's
// consumer has been given ([Consumption.Session]), comes to nobody else any more.
// It is kept for the session: held while its consumer is there, then waiting
// until the session's next one comes. When the session ends it becomes a dead
// letter, because nobody knows whether the client has it.
//
// Who has such a message is made durable before it is delivered, so that this
// holds across crashes. Therefore a new one is not delivered where it is found:
// it waits among the outstanding ones until [pump.redeliver] has written it down.

// reasonSession is that of a dead letter whose session has ended.
const reasonSession = "session ended"

// keeps reports whether a delivery, once k has been given it, is kept for k's
// session.
func (k *Consumer) keeps(d *Delivery) bool {
	return k.once && k.session != "" && !d.Settled && d.Guarantee == ExactlyOnce
}

// keep notes that an outstanding message is kept for k's session: no lease ends
// that. cursor.mu is held.
func (o *outstanding) keep(e *outEntry, session string) {
	if o.kept == nil {
		o.kept = make(map[Offset]string)
	}
	o.kept[e.offset] = session
	e.due = 0
}

// putOff has a new message that is to be kept for a session wait until that can be
// made durable. cursor.mu is held.
func (q *queue) putOff(d *Delivery) {
	q.waiting++
	q.add(outEntry{offset: d.Offset, attempts: d.Attempt - 1, state: entryWaiting, size: q.sizeOf(d), ends: q.endOf(d.Envelope)})
	q.putOffs++
	q.follow(d.Envelope, d.Offset)
}

// keepLeft says what becomes of an entry that is kept for a session whose
// consumer leaves. cursor.mu is held.
func (q *queue) keepLeft(e *outEntry, lives bool) {
	if !lives {
		q.reject(e, reasonSession)
		return
	}
	e.state, e.holder, e.due = entryKept, nil, 0
	q.changed()
}

// welcome has what is kept for a session wait for its new consumer. cursor.mu is
// held.
func (q *queue) welcome(session string) {
	if session == "" || len(q.out.kept) == 0 {
		return
	}
	for i := range q.out.live() {
		if e := &q.out.live()[i]; e.state == entryKept && q.out.kept[e.offset] == session {
			e.state = entryWaiting
			q.waiting++
			q.enroll(e)
		}
	}
}

// forsake sends what is kept for a session that has ended, and that no consumer
// of it holds, to the dead letters. No lock is held.
func (q *queue) forsake(session string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.out.live() {
		e := &q.out.live()[i]
		if q.out.kept[e.offset] != session {
			continue
		}
		switch e.state {
		case entryWaiting:
			q.waiting--
		case entryKept:
		default:
			continue
		}
		q.reject(e, reasonSession)
		q.changed()
	}
}

// isFor reports whether the queue has to do with a session. cursor.mu is held.
func (q *queue) isFor(session string) bool {
	if q.attends(session) {
		return true
	}
	for _, s := range q.out.kept {
		if s == session {
			return true
		}
	}
	return false
}

// attends reports whether a consumer of a session is there. cursor.mu is held.
func (q *queue) attends(session string) bool {
	return slices.ContainsFunc(q.consumers, func(k *Consumer) bool { return k.session == session })
}

// keepers are the queues that keep messages for a session, or have a consumer of
// its, by session: so that its end finds them.
type keepers struct {
	mu sync.Mutex // guards of; a leaf
	of map[string][]*queue
}

func (k *keepers) add(session string, q *queue) {
	if session == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		k.of = make(map[string][]*queue)
	}
	if !slices.Contains(k.of[session], q) {
		k.of[session] = append(k.of[session], q)
	}
}

func (k *keepers) remove(session string, q *queue) {
	if session == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.of[session]
	if i := slices.Index(l, q); i >= 0 {
		l = slices.Delete(l, i, i+1)
	}
	if k.of[session] = l; len(l) == 0 {
		delete(k.of, session)
	}
}

// list are the queues of a session.
func (k *keepers) list(session string) []*queue {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.of[session])
}

// lives reports whether there is a session of that name. No lock is held.
func (b *Broker) lives(session string) bool {
	return session != "" && b.queue(SessionQueue(session)) != nil
}

// forsake adds to a commit that ends a session what becomes of the messages that
// are kept for it, and returns the queues that have to be looked at behind it.
// The journal is entered.
func (b *Broker) forsake(session string, p *commit) []*queue {
	qs := b.keepers.list(session)
	for _, q := range qs {
		q.forsake(session)
		q.putPosition(p)
	}
	return qs
}

// findKept notes what the queues that were loaded keep, and lets go what is kept
// for sessions that are gone. The broker is being opened.
func (b *Broker) findKept() {
	for _, q := range b.queues {
		for _, session := range q.out.kept {
			if b.queues[SessionQueue(session)] != nil {
				b.keepers.add(session, q)
				continue
			}
			q.forsake(session)
		}
	}
}
