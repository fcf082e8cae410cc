package core

import "time"

// A queue whose expired messages go to the dead letters is swept: what was
// published to it is looked at once for when it ends, and again when the first
// of them does, whether there are consumers or not. What is found in front of
// its time is passed over.
type sweep struct {
	timer *time.Timer
	due   bool // a pump is to sweep
	// to is the offset before which everything was looked at, first when the
	// first of what is pending expires; zero is never.
	to    Offset
	first time.Time
}

// sweepEvery is how often a queue is looked at for new messages that expire.
const sweepEvery = time.Second

// sweepLater starts the clock. cursor.mu is held.
func (q *queue) sweepLater() {
	if !q.settings.DeadLetterExpired || q.deleted {
		return
	}
	if q.sweep == nil {
		q.sweep = &sweep{timer: time.AfterFunc(sweepEvery, q.sweepNow)}
		return
	}
	q.sweep.timer.Reset(sweepEvery)
}

func (q *queue) sweepNow() {
	q.mu.Lock()
	s := q.sweep
	now := time.Now()
	s.due = s.to < q.b.dispatcher.end() || !s.first.IsZero() && !now.Before(s.first) || q.overdue(now) != nil
	due := s.due
	if !due {
		q.sweepLater()
	}
	q.mu.Unlock()
	if due {
		q.kick()
	}
}

// ends is when a message of the queue expires; zero is never.
func (q *queue) ends(e *Envelope) time.Time {
	at := e.Expires
	if q.settings.TTL > 0 {
		if own := e.Time.Add(q.settings.TTL); at.IsZero() || own.Before(at) {
			at = own
		}
	}
	return at
}

// endOf is ends for the queue's outstanding messages.
func (q *queue) endOf(e *Envelope) int64 {
	if !q.settings.DeadLetterExpired {
		return 0
	}
	if at := q.ends(e); !at.IsZero() {
		return at.UnixMilli()
	}
	return 0
}

// overdue is the first of what waits to be delivered again and has expired; nil
// is none. cursor.mu is held.
func (q *queue) overdue(now time.Time) *outEntry {
	for i := range q.out.live() {
		if e := &q.out.live()[i]; e.ends != 0 && e.ends <= now.UnixMilli() && (e.state == entryWaiting || e.state == entryParked) {
			return e
		}
	}
	return nil
}

// swept notes that the queue was moved to an offset. cursor.mu is held.
func (q *queue) swept(at Offset) {
	if q.sweep != nil {
		q.sweep.to = min(q.sweep.to, at)
	}
}

// sweeps reports whether a pump is to sweep. cursor.mu is held.
func (q *queue) sweeps() bool { return q.sweep != nil && q.sweep.due }

// sweep passes over what is new, and rejects what has expired.
func (p *pump) sweep(q *queue) {
	q.mu.Lock()
	s := q.sweep
	s.due = false
	now := time.Now()
	at := max(s.to, q.floor())
	if !s.first.IsZero() && !now.Before(s.first) {
		at, s.first = q.floor(), time.Time{}
	}
	filters := q.filterSet()
	for e := q.overdue(now); e != nil; e = q.overdue(now) {
		if e.state == entryWaiting {
			q.waiting--
		}
		q.reject(e, "expired")
		q.changed()
	}
	q.mu.Unlock()
	end := p.b.dispatcher.end()
	for at < end {
		p.limit(pumpRecords, pumpBytes)
		after, err := p.b.engine.Read(p.ctx, at, end, filters, &p.buf)
		if err != nil {
			if p.ctx.Err() == nil {
				p.b.log.Error("log not readable", "queue", q.name, "offset", at, "err", err)
			}
			break
		}
		ds := p.decode(q.bound(), true)
		q.mu.Lock()
		full := false
		for i := range ds {
			d := &ds[i]
			lane := q.lane(d.Envelope)
			fresh := d.Offset >= q.next
			o := q.out.find(d.Offset)
			if o != nil && o.ends == 0 && o.state != entrySettled {
				o.ends = q.endOf(d.Envelope)
			}
			if fresh && o != nil {
				q.taken(d.Offset, lane) // it is not among what is passed over around it
			}
			if o != nil || !fresh && !q.left[lane].has(d.Offset) {
				continue
			}
			if full = q.full(); full {
				after = d.Offset
				break
			}
			if !q.expired(d.Envelope, now) {
				if fresh {
					q.passOver(d.Offset, lane)
				}
				if ends := q.ends(d.Envelope); !ends.IsZero() && (s.first.IsZero() || ends.Before(s.first)) {
					s.first = ends
				}
				continue
			}
			q.assign(d, false, now)
			q.taken(d.Offset, lane)
		}
		q.next = max(q.next, after)
		s.to = after
		q.changed()
		q.mu.Unlock()
		clear(p.deliveries)
		if full || after <= at {
			break
		}
		at = after
		p.bury(q)
	}
	q.mu.Lock()
	q.sweepLater()
	q.mu.Unlock()
}
