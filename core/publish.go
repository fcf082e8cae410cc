package core

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

// Publish hands a message in. It copies what it keeps: the envelope, with all
// that it points to, is the caller's again on return; the core sets its
// Publisher. It blocks only while the log is full (Limits.PendingBytes), so
// that the caller's socket pushes back, or until ctx ends.
//
// With a receipt, every outcome, a refusal included, comes through the client's
// Confirmer, in the order of the publishes, and Publish returns nil. Without
// one, a refusal is returned. Either way an error of ctx or ErrClosed is
// returned and means that nothing was handed in.
func (c *Client) Publish(ctx context.Context, e *Envelope, r Receipt) error {
	return c.publish(ctx, e, r, false)
}

// PublishAlone is Publish for a caller that hands in nothing else before the
// message is confirmed. While nobody else is publishing, the message is made
// durable on the caller's goroutine, which spares the wake-up of others: the
// Confirmer may be called on it, and PublishAlone waits for the disk then.
func (c *Client) PublishAlone(ctx context.Context, e *Envelope, r Receipt) error {
	return c.publish(ctx, e, r, true)
}

func (c *Client) publish(ctx context.Context, e *Envelope, r Receipt, alone bool) error {
	err := c.yield(ctx)
	to := e.Topic
	if err == nil {
		to, err = c.check(e)
	}
	pause.At("checked")
	j := c.broker.journal
	if err != nil {
		c.broker.stats.Refused.Add(1)
		if r == 0 {
			return err
		}
		return c.refuse(ctx, err, r)
	}
	p, err := j.enter(ctx)
	if err != nil {
		return err
	}
	record, repeats, err := c.broker.put(p, e, to)
	if r != 0 {
		p.entries = append(p.entries, entry{client: c, receipt: r, record: record, repeats: repeats, err: err})
		p.Sync = p.Sync || e.Guarantee > AtMostOnce
		err = nil
	}
	j.handedIn(c, r)
	j.leaveFor(alone)
	return err
}

// refuse confirms a refusal, in its order.
func (c *Client) refuse(ctx context.Context, why error, r Receipt) error {
	p, err := c.broker.journal.enter(ctx)
	if err != nil {
		return err
	}
	p.entries = append(p.entries, entry{client: c, receipt: r, record: -1, err: why})
	c.broker.journal.leave()
	return nil
}

// CatchUp blocks until all that was handed in before, by any client, is where
// who subscribes now looks: behind its beginning, and in the retained values.
// Subscribing does so by itself; who browses asks for it.
func (c *Client) CatchUp(ctx context.Context) error { return c.broker.journal.catchUp(ctx) }

// CatchUpOwn is CatchUp for what this client has handed in, and for what others
// have without a receipt. What others were not yet confirmed may be taken for
// published behind the subscription.
func (c *Client) CatchUpOwn(ctx context.Context) error {
	return c.broker.journal.catchUpWith(ctx, c)
}

// check says why an envelope may not be published, makes the queue that it
// addresses if need be, and sets what is the core's to set. It returns the topic
// that it goes to, which is another one only if it goes to an alternate exchange.
func (c *Client) check(e *Envelope) (to string, err error) {
	b := c.broker
	if err := CheckTopic(e.Topic); err != nil {
		return "", err
	}
	if len(e.Payload) > b.limits.MessageBytes {
		return "", fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(e.Payload), b.limits.MessageBytes)
	}
	if len(e.Headers) > 0 {
		if err := b.checkHeaders(e.Headers); err != nil {
			return "", err
		}
	}
	if err := checkFields(e); err != nil {
		return "", err
	}
	if err := c.authorize(Publish, e.Topic); err != nil {
		return "", err
	}
	if own(e.Topic) && !c.mayReport(e.Topic) {
		if err := b.checkAddress(e.Topic); err != nil {
			return "", err
		}
	}
	if e.Schedule != nil {
		if e.DeliverAt, err = e.Schedule.begin(e.DeliverAt, time.Now()); err != nil {
			return "", err
		}
	}
	e.Publisher = c.publisher
	return b.route(e)
}

func (b *Broker) checkHeaders(headers []Header) error {
	if len(headers) > b.limits.HeaderCount {
		return fmt.Errorf("%w: %d headers, at most %d are allowed", ErrTooLarge, len(headers), b.limits.HeaderCount)
	}
	n := 0
	for i := range headers {
		h := &headers[i]
		n += len(h.Name) + len(h.Value)
		if !utf8.ValidString(h.Name) || !utf8.ValidString(h.Value) {
			return fmt.Errorf("%w: header %q is not UTF-8", ErrInvalid, h.Name)
		}
	}
	if n > b.limits.HeaderBytes {
		return fmt.Errorf("%w: %d bytes of headers, at most %d are allowed", ErrTooLarge, n, b.limits.HeaderBytes)
	}
	return nil
}

// MaxFieldBytes bounds an envelope's key, content type, reply-to and correlation
// id, each: it is what every protocol can carry. MaxIDBytes bounds its ID, which
// is remembered.
const (
	MaxFieldBytes = 65535
	MaxIDBytes    = 1024
)

func checkFields(e *Envelope) error {
	if max(len(e.Key), len(e.ContentType), len(e.ReplyTo), len(e.CorrelationID)) <= MaxFieldBytes && len(e.ID) <= MaxIDBytes {
		return nil
	}
	if len(e.ID) > MaxIDBytes {
		return fmt.Errorf("%w: the message id has %d bytes, at most %d are allowed", ErrTooLarge, len(e.ID), MaxIDBytes)
	}
	return fmt.Errorf("%w: key, content type, reply-to and correlation id may have %d bytes each", ErrTooLarge, MaxFieldBytes)
}

// checkAddress looks at a topic that is the broker's own: the queue is
// made at first use, an exchange must exist, an inbox is anybody's who knows
// its name, and the rest is the broker's own.
func (b *Broker) checkAddress(topic string) error {
	if queue, ok := QueueOf(topic); ok {
		if b.queue(queue) != nil {
			return nil
		}
		if err := CheckQueueName(queue); err != nil {
			return err
		}
		_, err := b.ensureQueue(queue, QueueSettings{})
		return err
	}
	if name, _, ok := ExchangeOf(topic); ok {
		b.mu.RLock()
		defer b.mu.RUnlock()
		if b.exchanges[name] == nil {
			return fmt.Errorf("%w: there is no exchange %q", ErrNotFound, name)
		}
		return nil
	}
	if len(topic) > len(InboxPrefix) && topic[:len(InboxPrefix)] == InboxPrefix {
		return nil
	}
	return fmt.Errorf("%w: the topic %q is the broker's own", ErrNotAuthorized, topic)
}

// route finds the alternate of what no binding of an exchange matches, and
// refuses what is mandatory and would get to nobody.
func (b *Broker) route(e *Envelope) (to string, err error) {
	name, key, ok := ExchangeOf(e.Topic)
	if !ok {
		if e.Mandatory && !b.heard(e) {
			return "", fmt.Errorf("%w: no queue and no subscriber for %q", ErrNoResponders, e.Topic)
		}
		return e.Topic, nil
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	x := b.exchanges[name]
	if x == nil || x.Alternate == "" && !e.Mandatory {
		return e.Topic, nil
	}
	for range maxAlternates {
		if x.routes(key, e, nil) {
			if x.Name != name {
				return ExchangeTopic(x.Name, key), nil
			}
			return e.Topic, nil
		}
		if x.Alternate == "" {
			break
		}
		if x = b.exchanges[x.Alternate]; x == nil {
			break
		}
	}
	if e.Mandatory {
		return "", fmt.Errorf("%w: nothing is bound to the exchange %q for the key %q", ErrNoResponders, name, key)
	}
	return e.Topic, nil
}

// maxAlternates bounds how many alternates are tried, one after the other.
const maxAlternates = 16

// heard reports whether a topic leads to a reader or a queue.
func (b *Broker) heard(e *Envelope) bool {
	if queue, ok := QueueOf(e.Topic); ok && b.queue(queue) != nil {
		return true
	}
	end := b.dispatcher.end()
	b.dispatcher.mu.Lock()
	ms := b.dispatcher.index.match(e.Topic)
	b.dispatcher.mu.Unlock()
	for i := range ms {
		if _, _, ok := ms[i].of(e, end); ok {
			return true
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, q := range b.queues {
		for _, bd := range q.bound() {
			if bd.until == 0 && bd.exchange == nil && bd.Filter.Match(e.Topic) && bd.where.match(e, end) {
				return true
			}
		}
	}
	return false
}

// put adds an envelope, which goes to a topic, to what is pending. The journal
// is entered.
func (b *Broker) put(p *commit, e *Envelope, to string) (record int, repeats *remembered, err error) {
	if e.ID != "" || e.Once != "" {
		if repeats = b.journal.memory.repeats(e); repeats != nil {
			b.stats.Duplicates.Add(1)
			return -1, repeats, nil
		}
	}
	topic := e.Topic
	e.Topic = to
	delayed := b.waits(e)
	if !delayed && b.meters.n.Load() > 0 {
		for _, q := range b.meters.find(to, e) {
			if err := q.room(1, int64(e.Size())); err != nil {
				b.stats.Refused.Add(1)
				e.Topic = topic
				return -1, nil, err
			}
		}
		b.count(p, e, to)
	}
	if delayed {
		record = b.delayed.put(p, e)
	} else {
		record = b.append(p, e)
	}
	e.Topic = topic
	if e.ID != "" || e.Once != "" {
		b.journal.memory.remember(p, e, record)
	}
	return record, nil, nil
}

// waits reports whether a message is published later.
func (b *Broker) waits(e *Envelope) bool {
	return !e.DeliverAt.IsZero() && b.delayed.clock.left(e.DeliverAt) > 0
}

// append adds an envelope's record to a commit, and its topic's retained value.
// The journal is entered.
func (b *Broker) append(p *commit, e *Envelope) (record int) {
	record = p.add(e)
	if e.Retain && (!own(e.Topic) || strings.HasPrefix(e.Topic, SysPrefix)) {
		change := Change{Key: keyRetained + e.Topic}
		if seeded.On(seeded.RetainedLate) {
			b.retainLate(p, change, record)
			return record
		}
		if len(e.Payload) > 0 {
			change.Value, change.OffsetOf = []byte{}, record+1
		}
		p.Changes = append(p.Changes, change)
	}
	return record
}

// retainLate is a seeded bug: the retained value is journaled once its record is
// on disk. It stands by itself so that append has no variable on the heap.
func (b *Broker) retainLate(p *commit, change Change, record int) {
	p.after = append(p.after, func(first Offset, err error) {
		if err != nil {
			return
		}
		if late, err := b.journal.enterUnbounded(); err == nil {
			change.Value = binary.BigEndian.AppendUint64(nil, uint64(first)+uint64(record))
			late.Changes = append(late.Changes, change)
			b.journal.leave()
		}
	})
}

// Commit publishes and settles, all or nothing, and confirms once. A refusal of
// any part refuses the whole.
func (c *Client) Commit(ctx context.Context, t Transaction, r Receipt) error {
	refuse := func(err error) error {
		c.broker.stats.Refused.Add(1)
		if r == 0 {
			return err
		}
		return c.refuse(ctx, err, r)
	}
	if len(t.Publish) > 0 {
		if err := c.yield(ctx); err != nil {
			return refuse(err)
		}
	}
	to := make([]string, len(t.Publish))
	for i, e := range t.Publish {
		var err error
		if to[i], err = c.check(e); err != nil {
			return refuse(err)
		}
	}
	queues := make(map[*queue]bool)
	for _, s := range t.Settle {
		q := s.Consumer.queue
		if q == nil {
			continue
		}
		if err := q.mayCommit(s.Consumer, s.Offset); err != nil {
			return refuse(err)
		}
		queues[q] = true
	}
	j := c.broker.journal
	p, err := j.enterSure(ctx, t.Publish)
	if err != nil {
		return err
	}
	if err := c.broker.rooms(t.Publish, to); err != nil {
		c.broker.stats.Refused.Add(1)
		if r != 0 {
			p.entries = append(p.entries, entry{client: c, receipt: r, record: -1, err: err})
			err = nil
		}
		j.leave()
		return err
	}
	// Settled first: a lease may have ended since it was looked at.
	var undos []*undo
	for _, s := range t.Settle {
		if s.Consumer.queue == nil {
			continue
		}
		u := &undo{q: s.Consumer.queue, k: s.Consumer, granted: s.Options.Credit}
		if err := u.settle(s.Offset, s.Outcome, s.Options); err != nil {
			for _, u := range undos {
				u.granted = Credit{} // not yet
				u.takeBack()
			}
			j.leave()
			for _, u := range undos {
				u.forsake()
				u.q.kick() // its consumer may have left meanwhile
			}
			return refuse(err)
		}
		undos = append(undos, u)
	}
	first := -1
	for i, e := range t.Publish {
		record, _, err := c.broker.put(p, e, to[i])
		if err == nil && first < 0 {
			first = record
		}
		if seeded.On(seeded.SplitTransaction) && i == 0 {
			p.Sync = true
			j.leave()
			for half := p; half == p; runtime.Gosched() {
				if p, err = j.enter(ctx); err != nil {
					return err
				}
				if p == half {
					j.leave()
				}
			}
			first = -1
		}
	}
	p.undos = append(p.undos, undos...)
	for q := range queues {
		q.putPosition(p)
	}
	p.Sync = true
	if r != 0 {
		p.entries = append(p.entries, entry{client: c, receipt: r, record: first})
	}
	j.handedIn(c, r)
	j.leave()
	for _, s := range t.Settle {
		s.Consumer.Grant(s.Options.Credit)
	}
	return nil
}

// Forget ends the memory of Envelope.Once and confirms when that is durable. A
// key that is not remembered is confirmed likewise.
func (c *Client) Forget(ctx context.Context, once string, r Receipt) error {
	p, err := c.broker.journal.enter(ctx)
	if err != nil {
		return err
	}
	c.broker.journal.memory.forget(p, once)
	p.Sync = true
	if r != 0 {
		p.entries = append(p.entries, entry{client: c, receipt: r, record: -1})
	}
	c.broker.journal.leave()
	return nil
}
