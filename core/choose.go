package core

import (
	"slices"
	"time"

	"github.com/sluicemq/sluice/core/pause"
)

// A class is the consumers of a queue that have the same selector.
type class struct {
	where     *where
	consumers int
	// looked is, by lane, the offset before which the class has looked at all
	// that was passed over.
	looked []Offset
	// again says that it skipped a message that one of its consumers may not
	// have and that another had no credit for: it looks once more when there
	// is new credit.
	again bool
}

// join finds or makes a consumer's class. cursor.mu is held.
func (q *queue) join(k *Consumer) {
	for _, c := range q.classes {
		if c.where == k.where || c.where != nil && k.where != nil && c.where.text == k.where.text {
			k.class = c
		}
	}
	if k.class == nil {
		k.class = &class{where: k.where, looked: make([]Offset, len(q.left))}
		q.classes = append(q.classes, k.class)
	}
	k.class.consumers++
	if k.where != nil {
		q.selective++
	}
	q.wave++
}

// quit takes a consumer out of its class. cursor.mu is held.
func (q *queue) quit(k *Consumer) {
	if k.class.consumers--; k.class.consumers == 0 {
		for i, c := range q.classes {
			if c == k.class {
				q.classes = append(q.classes[:i:i], q.classes[i+1:]...)
				break
			}
		}
	}
	if k.where != nil || k.denied {
		q.selective--
	}
	q.wave++
}

// behind reports whether there is something passed over that the class has not
// looked at. cursor.mu is held.
func (q *queue) behind(c *class) bool {
	for i, l := range q.left {
		if n := len(l); n > 0 && l[n-1].to > c.looked[i] {
			return true
		}
	}
	return false
}

// works reports whether a consumer may be given anything at all. cursor.mu is
// held.
func (q *queue) works(k *Consumer) bool { return k.credit.positive() && q.mayWork(k) }

// mayWork reports whether it is a consumer's turn, where one works at a time:
// who has leased something still works. cursor.mu is held.
func (q *queue) mayWork(k *Consumer) bool {
	return (q.active == nil || k == q.active) && !(q.settings.SingleActive && q.leasing > 0)
}

// appoint finds out who works, after consumers came or left. cursor.mu is held.
func (q *queue) appoint() {
	q.active = nil
	for _, k := range q.consumers {
		if k.alone || q.settings.SingleActive {
			q.active = k
			return
		}
	}
}

// passOn has another consumer take over from the one that works, which has held a
// message for too long. What it still holds goes along, so that all comes in
// order. cursor.mu is held.
func (q *queue) passOn(k *Consumer) {
	heirs := func(o *Consumer) bool { return o != k && (o.alone || q.settings.SingleActive) }
	if k == nil || k != q.active || !slices.ContainsFunc(q.consumers, heirs) {
		return
	}
	others := slices.DeleteFunc(slices.Clone(q.consumers), func(o *Consumer) bool { return o == k })
	q.consumers, q.turn = append(others, k), 0
	q.appoint()
	for e := range q.holds(k, 0, k.high) {
		if q.out.kept[e.offset] == "" {
			q.release(e, 0)
		}
	}
}

// picking reports whether somebody who has credit has not looked at all that
// was passed over. cursor.mu is held.
func (q *queue) picking() bool {
	if q.leftRuns() == 0 || q.out.len() >= q.b.limits.Outstanding {
		return false
	}
	full := q.full()
	for _, k := range q.consumers {
		if q.works(k) && (k.where == nil || !full) && q.behind(k.class) {
			return true
		}
	}
	return false
}

// full reports whether the queue's position has become too large for it to read
// on. cursor.mu is held.
func (q *queue) full() bool {
	return q.out.len()+q.leftRuns() >= q.b.limits.Outstanding
}

// A verdict says what becomes of a message.
type verdict uint8

const (
	// given to a consumer, or dealt with otherwise.
	given verdict = iota
	// refused: there are consumers, and none of them may have it.
	refused
	// unwanted: no consumer's selector lets it pass.
	unwanted
	// noCredit: who wants it has none.
	noCredit
)

// choose returns the consumer whose turn it is, that wants the message and has
// credit. Where fresh is set, those are left out that have first to look at
// what was passed over. cursor.mu is held.
func (q *queue) choose(d *Delivery, fresh bool) (*Consumer, verdict) {
	n := len(q.consumers)
	v := refused
	session := q.out.kept[d.Offset]
	if q.settings.SingleActive && q.leasing > 0 {
		return nil, noCredit
	}
	for i := range n {
		k := q.consumers[(int(q.turn)+i)%n]
		switch {
		case session != "" && k.session != session:
			continue
		case session == "" && q.active != nil && k != q.active:
			continue
		case k.where != nil && !k.where.match(d.Envelope, d.Offset):
			v = max(v, unwanted)
			continue
		case !k.mayReceive(d.Topic):
			if n > 1 && !k.denied { // others may have it, and are not to be held up by it
				if k.denied = true; k.where == nil {
					q.selective++
				}
			}
			continue
		}
		if k.credit.positive() && !(fresh && len(q.left[0])+q.leftRuns() > 0 && q.behind(k.class)) {
			q.turn = int32((int(q.turn) + i + 1) % n)
			return k, given
		}
		v = noCredit
	}
	if n == 0 {
		v = noCredit
	}
	return nil, v
}

// give hands a delivery to a consumer's batch. cursor.mu is held.
func (q *queue) give(k *Consumer, d Delivery) {
	k.charge(&d)
	if len(k.batch) == 0 {
		q.touched = append(q.touched, k)
	}
	k.batch = append(k.batch, d)
}

// held makes the entry of a delivery that waits to be settled.
func (q *queue) held(k *Consumer, d *Delivery) outEntry {
	e := outEntry{offset: d.Offset, attempts: d.Attempt, state: entryHeld, holder: k}
	if k.keeps(d) || q.out.kept[d.Offset] != "" {
		q.out.keep(&e, k.session)
	} else if lease := q.settings.lease(); lease > 0 {
		e.due = q.now() + int64(lease)
	}
	if k.low == 0 || d.Offset < k.low {
		k.low = d.Offset
	}
	k.high = max(k.high, d.Offset)
	return e
}

// assign decides about a message that nobody has been given yet: fresh from the
// log, or passed over before. It returns given if the message is dealt with;
// otherwise nothing has changed. cursor.mu is held.
func (q *queue) assign(d *Delivery, fresh bool, now time.Time) verdict {
	if q.out.find(d.Offset) != nil {
		return given // it went out as a retained value, or was put back
	}
	if len(q.maybe) > 0 && q.maybe.has(d.Offset) {
		d.Attempt = 2 // it may have been given to somebody before a crash
	}
	if q.expired(d.Envelope, now) {
		if !q.settings.DeadLetterExpired {
			q.b.stats.Expired.Add(1)
			q.uncount(int64(d.Size()))
			return given
		}
		if q.out.len() >= q.b.limits.Outstanding {
			return noCredit
		}
		q.add(outEntry{offset: d.Offset, attempts: d.Attempt - 1, size: q.sizeOf(d)})
		q.reject(q.out.find(d.Offset), "expired")
		q.changed()
		return given
	}
	if fresh && q.settings.Priority {
		return unwanted // first all are read, then the highest are taken
	}
	if q.blocked(d.Envelope, d.Offset) {
		if q.out.len() >= q.b.limits.Outstanding {
			return noCredit
		}
		q.add(outEntry{offset: d.Offset, attempts: d.Attempt - 1, state: entryParked, size: q.sizeOf(d), ends: q.endOf(d.Envelope)})
		q.follow(d.Envelope, d.Offset)
		return given
	}
	if fresh && q.exact() && d.Offset >= q.reach {
		return noCredit
	}
	turn := q.turn
	k, v := q.choose(d, fresh)
	switch v {
	case refused:
		q.uncount(int64(d.Size()))
		return given
	case given:
	default:
		return v
	}
	if q.out.len() >= q.b.limits.Outstanding {
		return noCredit
	}
	if d.Settled = d.Settled && settled(k.settlement, d.Envelope); fresh && (q.putOffs > 0 || k.keeps(d)) || d.Retained && !d.Settled {
		q.turn = turn
		q.putOff(d) // and what follows is not to overtake it
		return given
	}
	if !d.Settled {
		if q.doubt > 0 && d.Offset < q.doubtEnd {
			q.doubt--
			d.Attempt++
		}
		e := q.held(k, d)
		e.size, e.ends = q.sizeOf(d), q.endOf(d.Envelope)
		q.add(e)
		q.follow(d.Envelope, d.Offset)
	} else {
		q.uncount(int64(d.Size()))
	}
	q.give(k, *d)
	return given
}

// sizeOf is what a delivery counts for in a metered queue.
func (q *queue) sizeOf(d *Delivery) uint32 {
	if !q.settings.metered() {
		return 0
	}
	return uint32(d.Size())
}

// expired reports whether a message's time, or the queue's for it, is over.
func (q *queue) expired(e *Envelope, now time.Time) bool {
	return e.Expired(now) || q.settings.over(e, now)
}

func (q *queue) take(ds []Delivery, end Offset) (all bool) {
	now := time.Now()
	q.mu.Lock()
	n := 0
	q.putOffs = 0
loop:
	for ; n < len(ds); n++ {
		d := &ds[n]
		lane := q.lane(d.Envelope)
		switch v := q.assign(d, true, now); {
		case v == given:
			q.taken(d.Offset, lane)
			if q.putOffs == redeliverRound {
				n++
				break loop
			}
		case q.mayPass(v) && q.keep(d, v):
			q.taken(d.Offset, lane)
		case q.mayPass(v):
			q.passOver(d.Offset, lane)
		default:
			break loop
		}
	}
	all = n == len(ds)
	if q.next = end; !all {
		q.next = ds[n].Offset
	}
	if q.rewound != 0 && q.next >= q.rewound {
		q.forgetSettled()
		q.rewound = 0
	}
	if n > 0 || q.reach != 0 { // which is taken back of a queue that is behind
		q.changed()
	}
	all = all && q.toBury() == nil && !q.picking() && q.putOffs == 0
	q.mu.Unlock()
	q.deliver()
	return all
}

// mayPass reports whether a message that nobody takes now may be passed over,
// for the sake of consumers that want others. cursor.mu is held.
func (q *queue) mayPass(v verdict) bool {
	if q.full() {
		return false
	}
	if q.settings.Priority || v == unwanted {
		return true
	}
	if q.selective == 0 {
		return false
	}
	for _, k := range q.consumers {
		if q.works(k) {
			return true
		}
	}
	return false
}

// credit is how many messages the consumers may be given. cursor.mu is held.
func (q *queue) credit() (n int) {
	for _, k := range q.consumers {
		if q.works(k) {
			n += k.credit.Messages
		}
	}
	return n
}

// offer puts off what is to be settled, as a message that is kept for a session is
// (see kept.go): were it forgotten in a crash that it was given, nothing would
// have it come again once its binding has ended, or another value has replaced it.
func (q *queue) offer(d Delivery, s *snapshot) bool {
	q.mu.Lock()
	if !q.goesOn(s) || q.crowded() {
		q.mu.Unlock()
		return false
	}
	had := q.out.find(d.Offset) != nil
	v := q.assign(&d, false, time.Now())
	if v == given || v == unwanted {
		s.went(d.Topic)
		q.changed()
	}
	if !had && q.out.find(d.Offset) != nil {
		q.out.give(d.Offset, s.led)
		q.unsure = true
	}
	q.mu.Unlock()
	q.deliver()
	return v == given || v == unwanted
}

// pick gives away what was passed over, the highest priority first, as far as
// there is credit. It returns false if there may be more.
func (p *pump) pick(q *queue) (done bool) {
	q.mu.Lock()
	c, lane, r := q.pickable()
	filters := q.filterSet()
	q.mu.Unlock()
	if c == nil {
		return true
	}
	p.limit(pumpRecords, pumpBytes)
	after, err := p.b.engine.Read(p.ctx, r.from, r.to, filters, &p.buf)
	if err != nil {
		if p.failed(&q.cursor, r.from, err); p.ctx.Err() == nil {
			q.notice(Notice{Kind: NoticeFailed, Err: err})
		}
		return true
	}
	after = min(max(after, r.from+1), r.to)
	p.tellGaps(q)
	pause.At("picked")
	ds := p.decode(q.bound(), true)
	now := time.Now()
	q.mu.Lock()
	cut := c.where == nil
	for i := range ds {
		d := &ds[i]
		if q.lane(d.Envelope) != lane || !q.left[lane].has(d.Offset) {
			continue
		}
		v := q.assign(d, false, now)
		if v == given || q.keep(d, v) {
			q.taken(d.Offset, lane)
			continue
		}
		if full := q.out.len() >= q.b.limits.Outstanding; full && (v == noCredit || q.settings.Ordered && d.Key != "") {
			after = d.Offset // what comes behind it has to know of it
			break
		}
		if v == noCredit {
			credit := false
			for _, k := range q.consumers {
				credit = credit || k.class == c && q.works(k)
			}
			if !credit {
				after = d.Offset
				break
			}
			c.again = true
		}
		cut = false
	}
	c.looked[lane] = max(c.looked[lane], after)
	if cut {
		q.cutLeft(lane, r.from, after)
	}
	q.changed()
	q.mu.Unlock()
	p.hand(q)
	clear(p.deliveries)
	return false
}

// pickable returns what a class with credit has not looked at yet: the first
// range of the highest lane. cursor.mu is held.
func (q *queue) pickable() (*class, int, run) {
	if !q.picking() || q.settings.Priority && q.next < q.b.dispatcher.end() {
		return nil, 0, run{}
	}
	full := q.full()
	n := len(q.consumers)
	for lane := len(q.left) - 1; lane >= 0; lane-- {
		for i := range n {
			k := q.consumers[(int(q.turn)+i)%n]
			if !q.works(k) || full && k.where != nil {
				continue
			}
			if r, ok := q.left[lane].after(k.class.looked[lane]); ok {
				return k.class, lane, r
			}
		}
	}
	return nil, 0, run{}
}
