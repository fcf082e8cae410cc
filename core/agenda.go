package core

import (
	"cmp"
	"slices"

	"github.com/sluicemq/sluice/core/pause"
)

// An agenda finds which of many outstanding messages comes first: a heap of
// their offsets by a number. What has changed since it was put there stays until
// it comes up, and is passed over then, or until there is too much of it.
type agenda []appointment

type appointment struct {
	at     int64
	offset Offset
}

// put puts an offset on the agenda.
func (a *agenda) put(at int64, offset Offset) {
	l := append(*a, appointment{at, offset})
	*a = l
	for i := len(l) - 1; i > 0; {
		up := (i - 1) / 2
		if l[up].at <= l[i].at {
			break
		}
		l[up], l[i] = l[i], l[up]
		i = up
	}
}

// take takes the first one off. There is one.
func (a *agenda) take() appointment {
	l := *a
	first, n := l[0], len(l)-1
	l[0] = l[n]
	if l = l[:n]; n == 0 && cap(l) > 64 {
		l = nil
	}
	*a = l
	l.down(0)
	return first
}

func (a agenda) down(i int) {
	for {
		least := i
		for down := 2*i + 1; down <= 2*i+2 && down < len(a); down++ {
			if a[down].at < a[least].at {
				least = down
			}
		}
		if least == i {
			return
		}
		a[i], a[least] = a[least], a[i]
		i = least
	}
}

// weed takes off what is not to be kept, and what is there twice.
func (a *agenda) weed(keep func(appointment) bool) {
	l := slices.DeleteFunc(*a, func(p appointment) bool { return !keep(p) })
	slices.SortFunc(l, func(a, b appointment) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.offset, b.offset))
	})
	*a = slices.Compact(l) // in order, it is a heap
}

// sort makes a heap of what is in any order.
func (a agenda) sort() {
	for i := len(a)/2 - 1; i >= 0; i-- {
		a.down(i)
	}
}

// agendaSlack is how much an agenda may have that nobody waits for, besides as
// much again as somebody does.
const agendaSlack = 16

// enroll notes what an outstanding message, as it has become, waits for.
// cursor.mu is held.
func (q *queue) enroll(e *outEntry) {
	q.touch(e.offset)
	switch {
	case e.state == entryParked, e.state == entryKept, e.due == never:
	case e.due != 0:
		if len(q.dues) > 2*q.out.len()+agendaSlack {
			q.schedule()
		}
		q.dues.put(e.due, e.offset)
		q.arm(e.due)
	case e.state == entryWaiting:
		if len(q.waits) > 2*int(q.waiting)+agendaSlack {
			q.waits.weed(func(a appointment) bool { return q.may(a, entryWaiting) != nil })
		}
		q.waits.put(int64(e.offset), e.offset)
	case e.state == entryRejected:
		if len(q.graves) > 2*int(q.rejected)+agendaSlack {
			q.graves.weed(func(a appointment) bool { return q.may(a, entryRejected) != nil })
		}
		q.graves.put(int64(e.offset), e.offset)
	}
}

// schedule makes dues anew, of what is outstanding. cursor.mu is held.
func (q *queue) schedule() {
	q.dues = q.dues[:0]
	for i := range q.out.live() {
		if e := &q.out.live()[i]; e.due != 0 && e.due != never && e.state != entryParked && e.state != entryDone {
			q.dues = append(q.dues, appointment{e.due, e.offset})
		}
	}
	q.dues.sort()
}

// on is what an appointment of dues is about, nil if it has changed since.
// cursor.mu is held.
func (q *queue) on(a appointment) *outEntry {
	e := q.out.find(a.offset)
	if e == nil || e.due != a.at || e.state == entryParked {
		return nil
	}
	return e
}

// may is what an appointment of waits or of graves is about, nil if it is not in
// that state any more, or not to go yet. cursor.mu is held.
func (q *queue) may(a appointment, state entryState) *outEntry {
	e := q.out.find(a.offset)
	if e == nil || e.state != state || e.due != 0 {
		return nil
	}
	return e
}

// first is the first message in a state that may go now, of its agenda; nil if
// there is none. cursor.mu is held.
func (q *queue) first(a *agenda, state entryState) *outEntry {
	for len(*a) > 0 {
		if e := q.may((*a)[0], state); e != nil {
			return e
		}
		a.take()
	}
	return nil
}

// add takes in a message that was not outstanding. cursor.mu is held.
func (q *queue) add(e outEntry) {
	q.out.add(e)
	q.enroll(&e)
}

// plain reports whether any consumer with credit takes what waits. cursor.mu is
// held.
func (q *queue) plain() bool { return q.selective == 0 && len(q.out.kept) == 0 }

// due appends to dst, up to its capacity, what waits and may go now, in order.
// cursor.mu is held.
func (q *queue) due(dst []Offset) []Offset {
	if !q.plain() {
		for i := range q.out.live() {
			if e := &q.out.live()[i]; q.goes(e) {
				if dst = append(dst, e.offset); len(dst) == cap(dst) {
					break
				}
			}
		}
		return dst
	}
	for len(dst) < cap(dst) && q.first(&q.waits, entryWaiting) != nil {
		if at := q.waits.take().offset; len(dst) == 0 || dst[len(dst)-1] != at {
			dst = append(dst, at)
		}
	}
	// Whether they go is not known yet.
	for _, at := range dst {
		q.waits.put(int64(at), at)
	}
	return dst
}

// tickRound is how many deadlines are looked at before others get the queue.
const tickRound = 4096

// tick releases what was held too long and sees to what may go again.
func (q *queue) tick() {
	q.mu.Lock()
	now := q.now()
	for n := 0; n < tickRound && len(q.dues) > 0 && q.dues[0].at <= now; n++ {
		e := q.on(q.dues.take())
		switch {
		case e == nil:
		case e.state == entryWaiting, e.state == entryRejected:
			e.due = 0
			q.enroll(e)
		default:
			q.b.stats.LeasesExpired.Add(1)
			holder := e.holder
			q.release(e, 0)
			q.passOn(holder)
		}
	}
	for len(q.dues) > 0 && q.on(q.dues[0]) == nil {
		q.dues.take()
	}
	q.alarm = 0
	if len(q.dues) > 0 && !q.deleted {
		q.arm(q.dues[0].at)
	}
	q.mu.Unlock()
	pause.At("leases ended")
	q.kick()
}
