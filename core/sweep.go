package core

import (
	"cmp"
	"slices"
	"time"
)

// A queue whose expired messages go to the dead letters is swept: what was
// published to it is looked at once for when it ends, and again when the first of
// its span does, whether there are consumers or not. What is found in front of
// its time is passed over.
type sweep struct {
	timer *time.Timer
	due   bool // a pump is to sweep
	// to is the offset before which everything was looked at; spans are where
	// something of that is pending and expires, in order; grain is up to how long
	// those that stand side by side become one.
	to    Offset
	spans []span
	grain Offset
	// rest is how long to wait before the next look.
	rest time.Duration
}

// A span is a range of the log, to exclusive, and when the first of what is
// pending in it expires, in milliseconds since 1970.
type span struct {
	from, to Offset
	first    int64
}

// maxSpans bounds the spans of a queue.
const maxSpans = 256

// note takes in a span.
func (s *sweep) note(n span) {
	i, _ := slices.BinarySearchFunc(s.spans, n.from, func(o span, at Offset) int { return cmp.Compare(o.from, at) })
	s.spans = slices.Insert(s.spans, i, n)
	if len(s.spans) <= maxSpans {
		return
	}
	for s.join(); len(s.spans) > maxSpans/2; s.join() {
		s.grain = 2*s.grain + 1
	}
}

// join makes one of spans that are together no longer than the grain.
func (s *sweep) join() {
	l := s.spans[:0]
	for _, n := range s.spans {
		if i := len(l) - 1; i >= 0 && max(l[i].to, n.to)-l[i].from <= s.grain {
			l[i].to, l[i].first = max(l[i].to, n.to), min(l[i].first, n.first)
		} else {
			l = append(l, n)
		}
	}
	s.spans = l
}

// over takes out the spans of which something has expired.
func (s *sweep) over(now time.Time) (due []span) {
	s.spans = slices.DeleteFunc(s.spans, func(n span) bool {
		is := n.first <= now.UnixMilli()
		if is {
			due = append(due, n)
		}
		return is
	})
	return due
}

const (
	// sweepEvery is how often a queue is looked at for messages that expire.
	sweepEvery = time.Second
	// sweepShare bounds the time that goes into it, to one part in so many, as
	// long as that does not leave a queue alone for more than sweepRest.
	sweepShare = 4
	sweepRest  = 10 * time.Second
)

// sweepLater starts the clock. cursor.mu is held.
func (q *queue) sweepLater() {
	if !q.settings.DeadLetterExpired || q.deleted {
		return
	}
	if q.sweep == nil {
		q.sweep = &sweep{timer: time.AfterFunc(sweepEvery, q.sweepNow)}
		return
	}
	q.sweep.timer.Reset(max(sweepEvery, q.sweep.rest))
	q.sweep.rest = 0
}

func (q *queue) sweepNow() {
	q.mu.Lock()
	s := q.sweep
	now := time.Now()
	s.due = s.to < q.b.dispatcher.end() || q.overdue(now) ||
		slices.ContainsFunc(s.spans, func(n span) bool { return n.first <= now.UnixMilli() })
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

// late reports whether an outstanding message waits to be delivered again and
// has expired. cursor.mu is held.
func (q *queue) late(e *outEntry, now time.Time) bool {
	return e.ends != 0 && e.ends <= now.UnixMilli() && (e.state == entryWaiting || e.state == entryParked) && !q.isBegun(e)
}

// overdue reports whether any is late. cursor.mu is held.
func (q *queue) overdue(now time.Time) bool {
	live := q.out.live()
	for i := range live {
		if q.late(&live[i], now) {
			return true
		}
	}
	return false
}

// swept notes that the queue was moved to an offset. cursor.mu is held.
func (q *queue) swept(at Offset) {
	s := q.sweep
	if s == nil || at >= s.to {
		return
	}
	s.to = at
	s.spans = slices.DeleteFunc(s.spans, func(n span) bool { return n.from >= at })
	for i := range s.spans {
		s.spans[i].to = min(s.spans[i].to, at)
	}
}

// sweeps reports whether a pump is to sweep. cursor.mu is held.
func (q *queue) sweeps() bool { return q.sweep != nil && q.sweep.due }

// sweep passes over what is new, and rejects what has expired.
func (p *pump) sweep(q *queue) {
	now := time.Now()
	q.mu.Lock()
	s := q.sweep
	s.due = false
	for i := range q.out.live() {
		if e := &q.out.live()[i]; q.late(e, now) {
			if e.state == entryWaiting {
				q.waiting--
			}
			q.reject(e, "expired")
			q.changed()
		}
	}
	due, floor := s.over(now), q.floor()
	from := max(s.to, floor)
	q.mu.Unlock()
	through := true
	for _, n := range due {
		at := max(n.from, floor)
		if through {
			at = p.sweepOver(q, at, n.to, now)
		}
		if through = at >= n.to; !through {
			q.mu.Lock()
			s.note(span{at, n.to, n.first})
			q.mu.Unlock()
		}
	}
	if through {
		p.sweepOver(q, from, p.b.dispatcher.end(), now)
	}
	q.mu.Lock()
	s.rest = min(sweepShare*time.Since(now), sweepRest)
	q.sweepLater()
	q.mu.Unlock()
}

// sweepOver is sweep from an offset to another. It returns how far it came.
func (p *pump) sweepOver(q *queue, at, end Offset, now time.Time) Offset {
	q.mu.Lock()
	s, filters := q.sweep, q.filterSet()
	q.mu.Unlock()
	for at < end {
		p.limit(pumpRecords, pumpBytes)
		after, err := p.b.engine.Read(p.ctx, at, end, filters, &p.buf)
		if err != nil {
			if p.ctx.Err() == nil {
				p.b.log.Error("log not readable", "queue", q.name, "offset", at, "err", err)
			}
			break
		}
		after = min(after, end)
		ds := p.decode(q.bound(), true)
		q.mu.Lock()
		full, first := false, int64(0)
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
				if ends := q.endOf(d.Envelope); ends != 0 && (first == 0 || ends < first) {
					first = ends
				}
				continue
			}
			q.assign(d, false, now)
			q.taken(d.Offset, lane)
		}
		if first != 0 {
			s.note(span{at, after, first})
		}
		q.next = max(q.next, after)
		s.to = max(s.to, after)
		q.changed()
		q.mu.Unlock()
		clear(p.deliveries)
		if after <= at {
			break
		}
		at = after
		if full {
			break
		}
		p.bury(q)
	}
	return at
}
