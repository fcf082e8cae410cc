package core

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
)

// A Rewound tells what a rewinding did, or would do.
type Rewound struct {
	// From is where the queue stood, To where it stands now.
	From, To Offset
	// Again is how many messages come again that were settled, Skipped how
	// many are not delivered that were pending. Messages that are held, or
	// that retention has removed, count as neither.
	Again, Skipped int64
}

// Rewind moves a queue's or group's position to a place in the log: what was
// settled from there on is delivered again, as far as the log still has it;
// what is pending before it is not delivered any more. What consumers hold
// stays with them. The last n are the last that the queue's bindings match, and
// a binding that began later begins there. With dry set it only counts. It
// blocks until that is durable. An offset outside of the log is an
// *OffsetRemovedError.
func (c *Client) Rewind(ctx context.Context, queue string, to From, dry bool) (Rewound, error) {
	q, err := c.managed(queue)
	if err != nil {
		return Rewound{}, err
	}
	b := c.broker
	done, err := b.keepLog(ctx)
	if err != nil {
		return Rewound{}, err
	}
	moved := sync.OnceFunc(done)
	defer moved()
	at, err := b.resolve(ctx, to, q.list())
	if err != nil {
		return Rewound{}, err
	}
	var r Rewound
	err = q.borrow(ctx, func(p *pump) error {
		q.mu.Lock()
		r = Rewound{From: q.next, To: at}
		q.mu.Unlock()
		if err := p.countRewind(q, &r); err != nil || dry {
			return err
		}
		q.rewind(at)
		moved()
		if q.settings.metered() {
			if err := p.recount(q); err != nil {
				return err
			}
		}
		return q.save(ctx)
	})
	return r, err
}

// managed returns a queue that the client may manage.
func (c *Client) managed(queue string) (*queue, error) {
	if err := c.authorize(Manage, QueueTopic(queue)); err != nil {
		return nil, err
	}
	q := c.broker.queue(queue)
	if q == nil {
		return nil, fmt.Errorf("%w: there is no queue %q", ErrNotFound, queue)
	}
	return q, c.mayUse(q)
}

// rewind moves the position. Whoever runs the cursor calls it.
func (q *queue) rewind(at Offset) {
	d := q.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.left {
		if at < q.next {
			q.left[i].cut(at, math.MaxUint64)
		}
		q.left[i].cut(0, at)
		q.passed[i] = max(at, 1) - 1
	}
	q.runs = -1
	q.maybe = nil
	q.forgetSettled()
	q.rewound = max(q.rewound, q.next)
	q.reach, q.wanted = 0, 0
	q.journalWhole()
	var gone []Offset
	for i := range q.out.live() {
		e := &q.out.live()[i]
		if e.offset < at && (e.state == entryWaiting || e.state == entryParked) {
			gone = append(gone, e.offset)
		}
	}
	for _, at := range gone {
		e := q.out.find(at)
		if e.state == entryWaiting {
			q.waiting--
		}
		q.settled(e)
	}
	q.next = at
	q.meter.counted.begin(0)
	for _, k := range q.classes {
		clear(k.looked)
	}
	q.swept(at)
	bs := slices.Clone(q.bound())
	for i, bd := range bs {
		if bd.until == 0 && bd.from > at {
			earlier := *bd
			earlier.from = at
			earlier.register(true)
			bd.register(false)
			if q.attached {
				d.index.remove(bd)
				d.index.add(&q.cursor, &earlier)
			}
			bs[i] = &earlier
		}
	}
	q.setBindings(bs)
	q.changed()
}

// forgetSettled ends what is noted of messages that were settled when the queue
// had been rewound behind them. cursor.mu is held.
func (q *queue) forgetSettled() {
	for q.rewound != 0 {
		i := slices.IndexFunc(q.out.live(), func(e outEntry) bool { return e.state == entrySettled })
		if i < 0 {
			return
		}
		q.out.settle(&q.out.live()[i])
	}
}

// aroundSettled is how a position says where a queue stands of which some
// messages behind its next offset have been settled: what is before the last of
// them was passed over. cursor.mu is held.
func (q *queue) aroundSettled() (next Offset, left []runs) {
	next, left = q.next, q.left
	for _, e := range slices.Backward(q.out.live()) {
		if e.state == entrySettled && e.offset >= next {
			next = e.offset + 1
			break
		}
	}
	if next == q.next {
		return next, left
	}
	left = copyRuns(left)
	for i := range left {
		left[i] = append(left[i], run{q.next, next})
		for _, e := range q.out.live() {
			if e.state != entryDone && e.offset >= q.next {
				left[i].cut(e.offset, e.offset+1)
			}
		}
	}
	return next, left
}

// countRewind counts what a rewinding to r.To would change.
func (p *pump) countRewind(q *queue, r *Rewound) error {
	q.mu.Lock()
	from, filters := min(q.floor(), r.To), q.filterSet()
	next := q.next
	end := max(r.To, next, q.rewound)
	q.mu.Unlock()
	// A binding counts from the new place on, whenever it began.
	bs := slices.Clone(q.bound())
	for i, bd := range bs {
		if bd.until == 0 && bd.from > r.To {
			earlier := *bd
			earlier.from = r.To
			bs[i] = &earlier
		}
	}
	var e Envelope
	for from < end {
		p.limit(4096, 4<<20)
		after, err := p.b.engine.Read(p.ctx, from, end, filters, &p.buf)
		if err != nil {
			return err
		}
		q.mu.Lock()
		for i := range p.buf.Records {
			rec := &p.buf.Records[i]
			if !matchesRecord(bs, rec, &e, len(q.left) > 1) {
				continue
			}
			o := q.out.find(rec.Offset)
			pending := rec.Offset >= next || q.left[q.lane(&e)].has(rec.Offset)
			settled := o == nil && !pending || o != nil && o.state == entrySettled
			switch {
			case rec.Offset >= r.To:
				if settled {
					r.Again++
				}
			case o != nil && (o.state == entryWaiting || o.state == entryParked) || o == nil && pending:
				r.Skipped++
			}
		}
		q.mu.Unlock()
		if after <= from {
			break
		}
		from = after
	}
	return nil
}
