package core

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

// A Selection picks messages of a queue. Without anything it picks all that are
// pending; what consumers hold is never picked.
type Selection struct {
	// Offsets, where there are any, are the messages themselves.
	Offsets []Offset
	// Filters, where there are any, of topics, and Where, a selector.
	Filters []Filter
	Where   string
	// Limit is how many at the most, the oldest; 0 is all.
	Limit int64
}

// picker returns what tells whether a selection has a message, its Limit aside.
func (s *Selection) picker() (picks func(*Envelope, Offset) bool, err error) {
	w, err := parseWhere(s.Where)
	if err != nil {
		return nil, err
	}
	return func(e *Envelope, at Offset) bool {
		return (len(s.Offsets) == 0 || slices.Contains(s.Offsets, at)) &&
			(len(s.Filters) == 0 || slices.ContainsFunc(s.Filters, func(f Filter) bool { return f.Match(e.Topic) })) &&
			w.match(e, at)
	}, nil
}

// A Transfer says what to do with a selection.
type Transfer struct {
	Selection
	// To is the topic, or the address of a queue or an exchange, that the
	// messages go to. Empty, for Requeue alone, is where they came from.
	To string
	// Rate is how many messages a second at the most; 0 is as fast as it goes.
	Rate float64
	// Dry only counts.
	Dry bool
}

// Sifted tells what became of a selection, or would.
type Sifted struct {
	// Messages that were picked, and their bytes as Envelope.Size counts them.
	Messages, Bytes int64
}

// Purge settles a selection: nobody gets it any more. It blocks until that is
// durable; with dry set it only counts.
func (c *Client) Purge(ctx context.Context, queue string, s Selection, dry bool) (Sifted, error) {
	q, err := c.managed(queue)
	if err != nil {
		return Sifted{}, err
	}
	return c.sift(ctx, q, Transfer{Selection: s, Dry: dry}, sifting{remove: true})
}

// Move publishes a selection to another place and takes it from the queue, each
// message in one commit: it is in one place or the other, whatever happens in
// between. It blocks until all is durable. An error tells why it ended early;
// what it had moved by then is returned with it.
func (c *Client) Move(ctx context.Context, queue string, t Transfer) (Sifted, error) {
	q, err := c.managed(queue)
	if err != nil {
		return Sifted{}, err
	}
	if err := c.mayTake(q, t.To); err != nil {
		return Sifted{}, err
	}
	return c.sift(ctx, q, t, sifting{remove: true, to: func(*Envelope) string { return t.To }})
}

// Copy publishes a selection to another place; the queue stays as it is.
func (c *Client) Copy(ctx context.Context, queue string, t Transfer) (Sifted, error) {
	q := c.broker.queue(queue)
	if q == nil {
		return Sifted{}, fmt.Errorf("%w: there is no queue %q", ErrNotFound, queue)
	}
	if err := c.mayTake(q, t.To); err != nil {
		return Sifted{}, err
	}
	return c.sift(ctx, q, t, sifting{to: func(*Envelope) string { return t.To }})
}

// Requeue moves dead letters back to the queue that they came from, without the
// headers that made them dead letters; those of a group or a session go to
// their topic again. What is no dead letter stays. Each goes in one commit, as
// with Move.
func (c *Client) Requeue(ctx context.Context, queue string, t Transfer) (Sifted, error) {
	q, err := c.managed(queue)
	if err != nil {
		return Sifted{}, err
	}
	if t.To != "" {
		if err := c.mayTake(q, t.To); err != nil {
			return Sifted{}, err
		}
	}
	return c.sift(ctx, q, t, sifting{remove: true, revive: true, to: func(e *Envelope) string {
		from, ok := e.Header(HeaderDeadQueue)
		switch {
		case !ok || from == queue:
			return ""
		case t.To != "":
			return t.To
		case kindOf(from) == KindQueue:
			from = QueueTopic(from)
		default:
			from, _ = e.Header(HeaderDeadTopic)
		}
		if CheckTopic(from) != nil {
			return "" // the broker has not written that
		}
		return from
	}})
}

// mayTake says why the client may not take what a queue holds to another place:
// whoever may read it there could have it who may not here.
func (c *Client) mayTake(q *queue, to string) error {
	if err := c.maySee(q); err != nil {
		return err
	}
	if err := CheckTopic(to); err != nil {
		return err
	}
	if to == QueueTopic(q.name) {
		return fmt.Errorf("%w: the messages of the queue %q are there already", ErrInvalid, q.name)
	}
	return c.authorize(Publish, to)
}

// A sifting is what happens to what is picked.
type sifting struct {
	remove bool                   // it leaves the queue
	revive bool                   // its headers of a dead letter go
	to     func(*Envelope) string // where it is published, "" is to be left alone; nil is nowhere
}

// siftRound is how many records are looked at for one commit.
const siftRound = pumpRecords

// sift goes once through what is pending.
func (c *Client) sift(ctx context.Context, q *queue, t Transfer, s sifting) (Sifted, error) {
	picks, err := t.picker()
	if err != nil {
		return Sifted{}, err
	}
	var total Sifted
	b := c.broker
	end, at, start := b.dispatcher.end(), Offset(0), time.Now()
	for at < end {
		round := int64(siftRound)
		if t.Limit > 0 {
			round = min(round, t.Limit-total.Messages)
		}
		if t.Rate > 0 && !t.Dry {
			// What a second lets pass goes in ten parts.
			round = min(round, max(1, int64(t.Rate/10)))
			wait := time.NewTimer(time.Until(start.Add(time.Duration(float64(total.Messages) / t.Rate * float64(time.Second)))))
			select {
			case <-wait.C:
			case <-ctx.Done():
				wait.Stop()
				return total, ctx.Err()
			}
		}
		if round == 0 {
			break
		}
		err := q.borrow(ctx, func(p *pump) error {
			var got Sifted
			var err error
			at, got, err = p.siftOnce(c, q, at, end, round, picks, t.Dry, s)
			total.Messages += got.Messages
			total.Bytes += got.Bytes
			return err
		})
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// siftOnce looks at one read's worth of records and makes what it did durable.
func (p *pump) siftOnce(c *Client, q *queue, at, end Offset, round int64, picks func(*Envelope, Offset) bool, dry bool, s sifting) (next Offset, got Sifted, err error) {
	q.mu.Lock()
	at = max(at, q.floor())
	if s.remove && !dry {
		at = min(at, q.next) // it may have been rewound since the last round
	}
	filters := q.filterSet()
	q.mu.Unlock()
	if at >= end {
		return end, got, nil
	}
	p.limit(siftRound, 4*pumpBytes)
	after, err := p.b.engine.Read(p.ctx, at, end, filters, &p.buf)
	if err != nil {
		return at, got, err
	}
	after = max(after, at+1)
	ds := p.decode(q.bound(), true)
	defer clear(p.deliveries)
	now := time.Now()
	// Where each goes, before the journal is entered: a queue may have to be
	// made.
	tos := make([]string, len(ds))
	for i := range ds {
		d := &ds[i]
		if s.to == nil || q.expired(d.Envelope, now) || !picks(d.Envelope, d.Offset) {
			continue
		}
		if kindOf(q.name) != KindQueue && !c.mayReceive(d.Envelope.Topic) {
			continue // of a group or session, what the client may receive of it
		}
		if tos[i] = s.to(d.Envelope); own(tos[i]) && !dry {
			if err := p.b.checkAddress(tos[i]); err != nil {
				return at, got, err
			}
		}
	}

	j := p.b.journal
	commit, err := j.enter(p.ctx)
	if err != nil {
		return at, got, err
	}
	entered := true
	leave := func() {
		if entered {
			entered = false
			j.leave()
		}
	}
	defer leave()
	q.mu.Lock()
	changed := false
	u := &undo{q: q}
	for i := range ds {
		d := &ds[i]
		lane, fresh := q.lane(d.Envelope), d.Offset >= q.next
		o := q.out.find(d.Offset)
		switch {
		case o != nil && o.state != entryWaiting && o.state != entryParked:
			if fresh && s.remove && !dry {
				q.taken(d.Offset, lane) // it is not among what is passed over around it
			}
			continue
		case o == nil && !fresh && !q.left[lane].has(d.Offset):
			continue
		}
		to, picked := "", !q.expired(d.Envelope, now) && picks(d.Envelope, d.Offset)
		if picked && s.to != nil {
			to = tos[i]
			picked = to != ""
		}
		if picked && got.Messages == round {
			after = d.Offset
			break
		}
		size := int64(d.Size())
		if picked && to != "" && !dry {
			if err = p.b.transfer(c, commit, d.Envelope, to, s.revive); err != nil {
				after = d.Offset
				break
			}
			changed = true
		}
		if picked {
			got.Messages++
			got.Bytes += size
		}
		if dry || !s.remove {
			continue
		}
		if fresh && o != nil {
			q.taken(d.Offset, lane)
		}
		switch {
		case !picked && fresh && o == nil:
			if q.full() {
				err = fmt.Errorf("%w: the queue's position would have more than %d parts", ErrLimit, p.b.limits.Outstanding)
			} else {
				q.passOver(d.Offset, lane)
			}
		case picked && o != nil:
			u.keep(o)
			if o.state == entryWaiting {
				q.waiting--
			}
			q.settled(o)
		case picked:
			u.keepNew(d)
			q.taken(d.Offset, lane)
			q.uncount(size)
		}
		if err != nil {
			after = d.Offset
			break
		}
		changed = changed || picked
	}
	if s.remove && !dry {
		q.next = max(q.next, after)
	}
	q.mu.Unlock()
	if !changed {
		return after, got, err
	}
	done := make(chan error, 1)
	switch {
	case s.remove && seeded.On(seeded.MovedApart):
		q.journalAgain(false)
	case s.remove:
		q.putPosition(commit)
	}
	commit.Sync = true
	commit.undos = append(commit.undos, u)
	commit.after = append(commit.after, func(_ Offset, err error) { done <- err })
	leave()
	if failed := <-done; failed != nil {
		return after, Sifted{}, failed
	}
	return after, got, err
}

// transfer adds a copy of a message to a commit, under another topic.
func (b *Broker) transfer(c *Client, p *commit, e *Envelope, to string, revive bool) error {
	copied := *e
	copied.Topic, copied.DeliverAt, copied.Retain = to, time.Time{}, false
	if revive {
		copied.Headers = slices.DeleteFunc(slices.Clone(e.Headers), isDeadHeader)
	}
	if err := c.authorize(Publish, to); err != nil {
		return err
	}
	for _, q := range b.meters.find(to, &copied) {
		if err := q.room(1, int64(copied.Size())); err != nil {
			return err
		}
	}
	b.count(p, &copied, to)
	p.add(&copied)
	return nil
}
