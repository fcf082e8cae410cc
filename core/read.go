package core

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// resolve turns a start into an offset; the last n are those that one of the
// bindings matches. It may block for the disk. An offset outside of the log is
// an *OffsetRemovedError.
func (b *Broker) resolve(ctx context.Context, f From, bindings []Binding) (Offset, error) {
	first, end := b.engine.Bounds()
	switch f.kind {
	case fromEarliest:
		return first, nil
	case fromOffset:
		if f.offset > end || f.offset < first && first > 1 {
			return 0, &OffsetRemovedError{Offset: f.offset, Earliest: first, End: end}
		}
		return max(f.offset, first), nil
	case fromTime:
		return b.engine.OffsetAt(f.at)
	case fromLast:
		bs := make([]*bound, len(bindings))
		var filters []Filter
		for i, bd := range bindings {
			var err error
			if bs[i], err = b.newBound(bd, 0); err != nil {
				return 0, err
			}
			filters = append(filters, bs[i].filters()...)
		}
		var e Envelope
		at, _, err := b.newest(ctx, newestBuffer(), NewFilterSet(filters...), int64(f.last), 0, first, b.dispatcher.end(), func(r *Record) bool { return matchesRecord(bs, r, &e, false) })
		return at, err
	}
	return b.dispatcher.end(), nil
}

// Read is one finite pull. It may block for the disk, and for q.Wait. An offset
// outside of the log is an *OffsetRemovedError.
func (c *Client) Read(ctx context.Context, q ReadRequest) (Page, error) {
	bindings := make([]Binding, len(q.Filters))
	for i, f := range q.Filters {
		bindings[i] = Binding{Filter: f, Where: q.Where}
		if err := c.mayBind(Subscribe, bindings[i]); err != nil {
			return Page{}, err
		}
	}
	w, err := parseWhere(q.Where)
	if err != nil {
		return Page{}, err
	}
	keep := func(e *Envelope, at Offset) bool { return w.match(e, at) }
	b := c.broker
	from, err := b.resolve(ctx, q.From, bindings)
	if err != nil {
		return Page{}, err
	}
	if q.Limit <= 0 {
		q.Limit = 100
	}
	if q.MaxBytes <= 0 {
		q.MaxBytes = 1 << 20
	}
	page, err := c.readPage(ctx, q, from, c.mayReceive, keep)
	if err != nil || len(page.Messages) > 0 || q.Wait <= 0 || q.Until != 0 {
		return page, err
	}

	r := newCollector(Credit{Messages: 1, Bytes: q.MaxBytes})
	k, err := c.Subscribe(ctx, Subscription{Bindings: bindings, From: FromOffset(page.Next)}, r)
	if err != nil {
		return page, err
	}
	// Settled deliveries leave Messages alone: Bytes bounds what comes.
	k.Grant(r.credit)
	err = r.wait(ctx, q.Wait)
	k.Close()
	if len(r.got) == 0 {
		return page, err
	}
	if len(r.got) > q.Limit {
		r.got, page.More = r.got[:q.Limit], true
	}
	page.Messages = r.got
	page.Next = r.got[len(r.got)-1].Offset + 1
	page.Gaps = append(page.Gaps, r.gaps...)
	return page, nil
}

// mayReceive reports whether the client may be given messages of a topic that
// it could subscribe to.
func (c *Client) mayReceive(topic string) bool {
	return own(topic) || c.authorize(Deliver, topic) == nil
}

// readPage reads forward what of the topics that the client may receive keep
// lets pass.
func (c *Client) readPage(ctx context.Context, q ReadRequest, from Offset, may func(topic string) bool, keep func(*Envelope, Offset) bool) (Page, error) {
	b := c.broker
	end := b.dispatcher.end()
	if q.Until != 0 && q.Until < end {
		end = q.Until
	}
	page := Page{Next: from}
	filters := NewFilterSet(q.Filters...)
	buf := &ReadBuffer{}
	size := 0
	now := time.Now()
	rights := make(map[string]bool)
	for page.Next < end {
		buf.Reset()
		buf.MaxRecords, buf.MaxBytes = min(q.Limit-len(page.Messages), pumpRecords), q.MaxBytes
		next, err := b.engine.Read(ctx, page.Next, end, filters, buf)
		if err != nil {
			return page, err
		}
		page.Gaps = append(page.Gaps, b.untold(buf.Gaps)...)
		for i := range buf.Records {
			r := &buf.Records[i]
			allowed, known := rights[r.Topic]
			if !known {
				allowed = may(r.Topic)
				rights[string([]byte(r.Topic))] = allowed
			}
			if !allowed {
				continue
			}
			e := new(Envelope)
			if err := r.Envelope(e); err != nil {
				b.stats.Unreadable.Add(1)
				b.log.Error("record not readable", "offset", r.Offset, "err", err)
				continue
			}
			if e.Expired(now) || !keep(e, r.Offset) {
				continue
			}
			if size += e.Size(); size > q.MaxBytes && len(page.Messages) > 0 {
				page.Next, page.More = r.Offset, true
				return page, nil
			}
			page.Messages = append(page.Messages, Delivery{Envelope: e, Offset: r.Offset, Attempt: 1, Settled: true}.Clone())
		}
		if next <= page.Next {
			break
		}
		page.Next = next
		if len(page.Messages) >= q.Limit {
			page.More = next < end
			return page, nil
		}
	}
	return page, nil
}

// untold returns the gaps that a reader has to be told of: what was lost, and
// what retention had removed before the reader came to it. Where only records
// in between were let go, the reader misses nothing that it was promised.
func (b *Broker) untold(gaps []Gap) []Gap {
	if len(gaps) == 0 {
		return nil
	}
	first, _ := b.engine.Bounds()
	return slices.DeleteFunc(gaps, func(g Gap) bool { return !g.Lost && g.To > first })
}

// Browse is Read over what a queue has not settled and would still deliver, of
// the topics that q.Filters match; none of them is all. It changes nothing.
func (c *Client) Browse(ctx context.Context, queue string, q ReadRequest) (Page, error) {
	b := c.broker
	qu := b.queue(queue)
	if qu == nil {
		return Page{}, fmt.Errorf("%w: there is no queue %q", ErrNotFound, queue)
	}
	w, err := parseWhere(q.Where)
	if err != nil {
		return Page{}, err
	}
	if err := c.maySee(qu); err != nil {
		return Page{}, err
	}
	if q.Limit <= 0 {
		q.Limit = 100
	}
	if q.MaxBytes <= 0 {
		q.MaxBytes = 1 << 20
	}
	stands := qu.stands()
	from := stands.floor()
	if q.From.kind == fromOffset {
		from = max(from, q.From.offset)
	}
	out := make(map[Offset]*outEntry, len(stands.out))
	for i := range stands.out {
		out[stands.out[i].offset] = &stands.out[i]
	}
	bs := stands.bindings
	asked := q.Filters
	q.Filters = nil
	for _, bd := range bs {
		q.Filters = append(q.Filters, bd.filters()...)
	}
	qu.mu.Lock()
	settings := qu.settings
	qu.mu.Unlock()
	now := time.Now()
	may := c.mayReceive
	if kindOf(queue) == KindQueue {
		may = func(string) bool { return true }
	}
	page, err := c.readPage(ctx, q, from, may, func(e *Envelope, at Offset) bool {
		o := out[at]
		if o != nil && (o.state == entryRejected || o.state == entrySettled) {
			return false // the former is as good as a dead letter
		}
		if settings.over(e, now) {
			return false
		}
		return (o != nil || at >= stands.next || stands.left[qu.lane(e)].has(at)) && w.match(e, at) && (len(asked) == 0 || slices.ContainsFunc(asked, func(f Filter) bool { return f.Match(e.Topic) })) &&
			slices.ContainsFunc(bs, func(bd *bound) bool { return bd.matches(e.Topic, at) && bd.holds(e, at) })
	})
	for i := range page.Messages {
		d := &page.Messages[i]
		d.Attempt = 0
		if o := out[d.Offset]; o != nil {
			d.Attempt = o.attempts
		}
	}
	return page, err
}

// A standing is where a queue stands at one moment: its next offset, and copies of
// what is outstanding before it and of what was passed over, by lane. A message
// that goes from one to the other is in one of them.
type standing struct {
	next     Offset
	out      []outEntry
	left     []runs
	bindings []*bound
	filters  *FilterSet
	lost     runs     // what was found to be lost of what has been read
	gone     []Offset // what was outstanding there, and was not found
}

func (q *queue) stands() (p standing) {
	q.atOneMoment(func(next Offset) { p = q.standsNow(next) })
	return p
}

// standsNow is where the queue stands with its next offset. cursor.mu is held.
func (q *queue) standsNow(next Offset) standing {
	p := standing{next: next, left: copyRuns(q.left), bindings: q.bound(), filters: q.filterSet()}
	for _, e := range q.out.live() {
		if e.state != entryDone {
			p.out = append(p.out, e)
		}
	}
	return p
}

// atOneMoment calls see with the queue's next offset while nothing of the queue
// changes. No lock is held.
func (q *queue) atOneMoment(see func(next Offset)) {
	d := q.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	next := q.next
	if q.live && !q.feeding.Load() {
		next = d.end()
	}
	see(next)
}

func copyRuns(left []runs) []runs {
	c := make([]runs, len(left))
	for i, l := range left {
		c[i] = slices.Clone(l)
	}
	return c
}

func (p *standing) floor() Offset { return floorOf(p.next, p.left, p.out) }

// floorOf is the lowest offset that may be pending of a queue that stands there.
func floorOf(next Offset, left []runs, out []outEntry) Offset {
	for _, l := range left {
		if len(l) > 0 {
			next = min(next, l[0].from)
		}
	}
	for i := range out {
		if e := &out[i]; e.state != entryDone {
			return min(next, e.offset)
		}
	}
	return next
}
