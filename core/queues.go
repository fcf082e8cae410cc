package core

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

// queue returns a queue by name, nil if there is none.
func (b *Broker) queue(name string) *queue {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.queues[name]
}

// ensureQueue returns the queue of a name, made with settings if there is none.
// It does not block: the definition stands in the journal before anything that
// is published to the queue.
func (b *Broker) ensureQueue(name string, s QueueSettings) (*queue, error) {
	q, _, err := b.makeQueue(QueueDefinition{Name: name, Settings: s}, b.dispatcher.end(), nil)
	return q, err
}

// makeQueue returns the queue of a name, made from its definition if there is
// none; then made is set and done is called once that is durable.
func (b *Broker) makeQueue(d QueueDefinition, from Offset, done func(error)) (q *queue, made bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.queues[d.Name]; q != nil {
		return q, false, nil
	}
	if len(b.queues) >= b.limits.Queues {
		return nil, false, fmt.Errorf("%w: there are %d queues", ErrLimit, len(b.queues))
	}
	d.Name = strings.Clone(d.Name) // a publisher's is only lent
	q = newQueue(b, d.Name, d.Settings)
	q.next = from
	var bs []*bound
	if kindOf(d.Name) == KindQueue {
		bs = append(bs, &bound{Binding: Binding{Filter: Filter(QueueTopic(d.Name))}, from: min(from, b.dispatcher.end())})
	}
	for _, bd := range d.Bindings {
		nb, err := newBound(bd, from, b.exchanges)
		if err != nil {
			return nil, false, err
		}
		bs = append(bs, nb)
	}
	for _, nb := range bs {
		nb.register(true)
	}
	q.setBindings(bs)
	change, err := q.definition()
	if err != nil {
		return nil, false, err
	}
	p, err := b.journal.enterUnbounded()
	if err != nil {
		return nil, false, err
	}
	p.Changes = append(p.Changes, change)
	q.mu.Lock()
	q.savedBy(p)
	q.mu.Unlock()
	if done != nil {
		p.Sync = true
		p.after = append(p.after, func(_ Offset, err error) { done(err) })
	}
	q.putPosition(p)
	if w := d.Settings.DedupWindow; w > 0 {
		b.journal.memory.setWindow(QueueTopic(d.Name), w)
	}
	b.journal.leave()
	b.queues[d.Name] = q
	q.mu.Lock()
	q.awaitExpiry()
	q.sweepLater()
	q.wake() // to be counted
	q.mu.Unlock()
	return q, true, nil
}

// Consume attaches a consumer to a queue. It has no credit yet. It blocks until
// the queue is durable, whoever is making it.
func (c *Client) Consume(ctx context.Context, cn Consumption, recv Receiver) (*Consumer, error) {
	b := c.broker
	w, err := parseWhere(cn.Where)
	if err != nil {
		return nil, err
	}
	kind := KindQueue
	if cn.Settings != nil {
		kind = cn.Settings.Kind
	}
	if kind != kindOf(cn.Queue) {
		return nil, fmt.Errorf("%w: %q is not the name of a queue of kind %q", ErrInvalidTopic, cn.Queue, kind)
	}
	q := b.queue(cn.Queue)
	bindings := cn.Bindings
	if q != nil {
		bindings = q.list()
	}
	if err := c.mayConsume(cn.Queue, bindings); err != nil {
		return nil, err
	}
	if q != nil {
		if err := c.mayOwn(q); err != nil {
			return nil, err
		}
		if err := q.durable(ctx, false); err != nil {
			return nil, err
		}
	}
	if q == nil {
		if !cn.Create {
			return nil, fmt.Errorf("%w: there is no queue %q", ErrNotFound, cn.Queue)
		}
		d := QueueDefinition{Name: cn.Queue, Bindings: cn.Bindings, From: cn.From}
		if len(cn.Bindings) > 0 {
			if err := c.CatchUp(ctx); err != nil {
				return nil, err
			}
		}
		if cn.Settings != nil {
			d.Settings = *cn.Settings
		}
		if kind == KindSession {
			d.Settings.Owner = c.Principal().Name
		}
		if q, _, err = c.declare(ctx, d); err != nil {
			return nil, err
		}
	}
	if err := c.mayUse(q); err != nil {
		return nil, err
	}
	if kind == KindGroup && cn.Settings != nil && cn.Settings.Ordered {
		if err := q.keepsOrder(); err != nil {
			return nil, err
		}
	}
	if err := b.trimQueue(ctx, q, newestBuffer()); err != nil {
		return nil, err
	}
	k := &Consumer{
		client: c, receiver: recv, queue: q, whole: kind == KindQueue, cursor: &q.cursor, settlement: cn.Settlement, where: w, alone: cn.Alone,
		session: cn.Session, once: cn.Once,
	}
	for occupied := true; occupied; {
		if cn.Exclusive {
			q.revokeAll()
		}
		// Another one may have come in between.
		if occupied, err = q.enter(k, cn.Exclusive); err != nil {
			if cn.Create && errors.Is(err, ErrNotFound) {
				return c.Consume(ctx, cn, recv) // it has just ended; another one begins
			}
			return nil, err
		}
	}
	if err := c.remember(k); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// keepsOrder is an error where the queue of a group does not keep the order of keys.
func (q *queue) keepsOrder() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.settings.Ordered {
		return fmt.Errorf("%w: the group was made without the order of keys", ErrConflict)
	}
	return nil
}

// revokeAll ends all consumers of a queue.
func (q *queue) revokeAll() {
	q.mu.Lock()
	ks := slices.Clone(q.consumers)
	q.mu.Unlock()
	for _, k := range ks {
		q.leave(k)
		k.notice(Notice{Kind: NoticeRevoked})
		k.end()
		k.client.forgetConsumer(k)
	}
}

// declare makes a queue and returns once it is durable.
func (c *Client) declare(ctx context.Context, d QueueDefinition) (q *queue, made bool, err error) {
	b := c.broker
	if kindOf(d.Name) == KindQueue {
		if err := CheckQueueName(d.Name); err != nil {
			return nil, false, err
		}
	}
	if err := d.Settings.check(); err != nil {
		return nil, false, err
	}
	a := Subscribe
	if kindOf(d.Name) == KindQueue {
		a = Bind
	}
	for _, bd := range d.Bindings {
		if err := c.mayBind(a, bd); err != nil {
			return nil, false, err
		}
	}
	if err := c.mayBury(d); err != nil {
		return nil, false, err
	}
	done := make(chan error, 1)
	err = b.begin(ctx, d.From, d.Bindings, func(at Offset) (err error) {
		q, made, err = b.makeQueue(d, at, func(err error) { done <- err })
		return err
	})
	if err == nil && !made {
		err = q.durable(ctx, false)
	}
	if err != nil || !made {
		return q, made, err
	}
	if d.Settings.Exclusive { // also where it is refused: it is there
		if err := c.own(q); err != nil {
			return q, true, errors.Join(err, b.deleteQueue(context.WithoutCancel(ctx), q))
		}
	}
	if err := <-done; err != nil {
		return q, true, err
	}
	if d.Settings.metered() && d.From.kind != fromLatest { // its bounds hold at once
		if err := q.borrow(ctx, func(p *pump) error { return p.recount(q) }); err != nil {
			return q, true, err
		}
	}
	return q, true, nil
}

// mayBury says why a queue's dead letters may not go where its settings say. A
// queue of dead letters by the name that all have needs no right.
func (c *Client) mayBury(d QueueDefinition) error {
	to, own := d.Settings.deadLetter(d.Name), (&QueueSettings{}).deadLetter(d.Name)
	if to == "" || to == own {
		return nil
	}
	if _, _, ok := ExchangeOf(to); !ok {
		to = QueueTopic(to)
	}
	return c.authorize(Publish, to)
}

// own makes the client the owner of an exclusive queue.
func (c *Client) own(q *queue) error {
	q.mu.Lock()
	q.owner = c
	q.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return ErrClosed
	}
	c.owned = append(c.owned, q)
	return nil
}

// mayUse says why an exclusive queue is not the client's.
func (c *Client) mayUse(q *queue) error {
	if !q.settings.Exclusive {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.owner != c {
		return fmt.Errorf("%w: the queue %q is exclusive to another connection", ErrInUse, q.name)
	}
	return nil
}

// DeclareQueue makes a queue durable; the same settings again are fine, others
// are ErrConflict. Bindings are added to those it has.
func (c *Client) DeclareQueue(ctx context.Context, d QueueDefinition) error {
	if err := CheckQueueName(d.Name); err != nil {
		return err
	}
	if err := c.authorize(Manage, QueueTopic(d.Name)); err != nil {
		return err
	}
	if err := d.Settings.check(); err != nil {
		return err
	}
	q, made, err := c.declare(ctx, d)
	if err != nil || made {
		return err
	}
	if err := c.mayUse(q); err != nil {
		return err
	}
	q.mu.Lock()
	has := q.settings
	q.mu.Unlock()
	has.Meta = d.Settings.Meta
	l := &c.broker.limits
	if a, w := has.effective(d.Name, l), d.Settings.effective(d.Name, l); !reflect.DeepEqual(a, w) {
		return fmt.Errorf("%w: the queue %q has %s, not %s", ErrConflict, d.Name, a, w)
	}
	for _, bd := range d.Bindings {
		if slices.ContainsFunc(q.list(), func(o Binding) bool { return o.same(&bd) }) {
			continue
		}
		if err := c.BindQueue(ctx, d.Name, bd, d.From); err != nil {
			return err
		}
	}
	return q.durable(ctx, true)
}

// UpdateSession replaces the settings of a session's queue and returns once
// they are durable, together with its bindings and its position. A consumer that
// has been closed may still do it: then the queue's time without one ends when
// the new settings say, counted from when it was closed.
func (k *Consumer) UpdateSession(ctx context.Context, s QueueSettings) error {
	if k.queue == nil || kindOf(k.queue.name) != KindSession {
		return fmt.Errorf("%w: only a session's settings change", ErrInvalid)
	}
	if err := s.check(); err != nil {
		return err
	}
	k.queue.mu.Lock()
	s.Owner = k.queue.settings.Owner
	k.queue.settings, k.queue.slack = s, slack{}
	k.queue.changes++
	if !k.queue.idle.IsZero() { // the consumer has left: it ends in another time
		k.queue.awaitExpiry()
	}
	k.queue.mu.Unlock()
	if seeded.On(seeded.LostSettings) {
		return nil
	}
	return k.queue.save(ctx)
}

// mayOwn says why a session is not the client's: whoever knows a client id does
// not yet have its messages.
func (c *Client) mayOwn(q *queue) error {
	if c.broker.open || kindOf(q.name) != KindSession {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.settings.Owner != c.Principal().Name {
		return fmt.Errorf("%w: the session belongs to another user", ErrNotAuthorized)
	}
	return nil
}

// EndSession deletes the queue of a session, as SessionQueue names it. One that
// is not there is fine; another principal's is ErrNotAuthorized.
func (c *Client) EndSession(ctx context.Context, session string) error {
	q := c.broker.queue(SessionQueue(session))
	if q == nil {
		return nil
	}
	if err := c.mayOwn(q); err != nil {
		return err
	}
	return c.broker.deleteQueue(ctx, q)
}

// Session returns the settings of a session's queue, and whether there is one.
func (c *Client) Session(session string) (QueueSettings, bool) {
	q := c.broker.queue(SessionQueue(session))
	if q == nil {
		return QueueSettings{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.settings, true
}

// DeleteQueue deletes a queue with what it has not settled, and ends its
// consumers. It blocks until that is durable.
func (c *Client) DeleteQueue(ctx context.Context, name string) error {
	if err := c.authorize(Manage, QueueTopic(name)); err != nil {
		return err
	}
	q := c.broker.queue(name)
	if q == nil {
		return fmt.Errorf("%w: there is no queue %q", ErrNotFound, name)
	}
	return c.broker.deleteQueue(ctx, q)
}

func (b *Broker) deleteQueue(ctx context.Context, q *queue) error {
	return b.deleteQueueIf(ctx, q, func() bool { return true })
}

// deleteQueueIf deletes a queue if over, which is called with cursor.mu held,
// reports that it is.
func (b *Broker) deleteQueueIf(ctx context.Context, q *queue, over func() bool) error {
	b.mu.Lock()
	if b.queues[q.name] != q {
		b.mu.Unlock()
		return nil
	}
	q.mu.Lock()
	if !over() {
		q.mu.Unlock()
		b.mu.Unlock()
		return nil
	}
	delete(b.queues, q.name)
	q.deleted = true
	if q.loans != nil {
		close(q.loans.ended)
	}
	b.meters.set(q, nil)
	q.stopTimers()
	ks := slices.Clone(q.consumers)
	for _, session := range q.out.kept {
		b.keepers.remove(session, q)
	}
	q.out.kept = nil
	once := string(q.settings.Once)
	q.mu.Unlock()
	p, err := b.journal.enterUnbounded()
	if err != nil {
		b.mu.Unlock()
		return err
	}
	done := make(chan error, 1)
	p.Changes = append(p.Changes, Change{Key: keyQueue + q.name}, Change{Key: keyPosition + q.name})
	if q.settings.metered() {
		p.Changes = append(p.Changes, Change{Key: keyCounted + q.name})
	}
	q.mu.Lock()
	q.forgetSnapshots(p)
	q.forgetSteps(p)
	q.mu.Unlock()
	if once != "" {
		b.journal.memory.forgetAll(p, once)
	}
	b.journal.memory.setWindow(QueueTopic(q.name), 0)
	var forsaken []*queue
	if session, is := strings.CutPrefix(q.name, sessionPrefix); is {
		forsaken = b.forsake(session, p)
		p.after = append(p.after, func(_ Offset, err error) {
			if err == nil || noRoom(err) { // then its end goes into a later commit
				b.delayed.decide(session, false)
			}
		})
	}
	p.Sync = true
	p.after = append(p.after, func(_ Offset, err error) { done <- err })
	b.journal.leave()
	b.mu.Unlock()
	for _, g := range forsaken {
		g.kick() // to write the dead letters
	}
	for _, k := range ks {
		k.notice(Notice{Kind: NoticeDeleted})
		q.leave(k)
		k.end()
		k.client.forgetConsumer(k)
	}
	q.end()
	if seeded.On(seeded.QueueComesBack) {
		return nil
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// expire deletes a queue whose time without a consumer is over.
func (b *Broker) expire(q *queue) {
	over := false
	err := b.deleteQueueIf(context.Background(), q, func() bool {
		over = !q.idle.IsZero() && (q.settings.AutoDelete && len(q.consumers) == 0 && q.leasing == 0 || q.settings.Expires > 0 && time.Since(q.idle) >= q.settings.Expires)
		return over
	})
	if over && kindOf(q.name) == KindSession {
		b.stats.SessionsExpired.Add(1)
	}
	if err != nil {
		b.log.Error("queue not expired", "queue", q.name, "err", err)
	}
}

// BindQueue adds a binding to a queue, from an offset on, and blocks until that
// is durable. From only says where the binding begins; what the queue has
// already passed is not read again.
func (c *Client) BindQueue(ctx context.Context, queue string, bd Binding, from From) error {
	if err := c.authorize(Manage, QueueTopic(queue)); err != nil {
		return err
	}
	if err := c.mayBind(Bind, bd); err != nil {
		return err
	}
	q := c.broker.queue(queue)
	if q == nil {
		return fmt.Errorf("%w: there is no queue %q", ErrNotFound, queue)
	}
	err := c.broker.begin(ctx, from, []Binding{bd}, func(at Offset) error { return q.bind(bd, at, false) })
	if err != nil {
		return err
	}
	return q.save(ctx)
}

// begin calls set with the offset at which bindings begin, while the log keeps
// what is there from it on.
func (b *Broker) begin(ctx context.Context, from From, bindings []Binding, set func(at Offset) error) error {
	if from.kind != fromLatest {
		done, err := b.keepLog(ctx)
		if err != nil {
			return err
		}
		defer done()
	}
	at, err := b.resolve(ctx, from, bindings)
	if err != nil {
		return err
	}
	return set(at)
}

// UnbindQueue removes a binding, and blocks until that is durable. What it has
// already led to the queue stays there.
func (c *Client) UnbindQueue(ctx context.Context, queue string, bd Binding) error {
	if err := c.authorize(Manage, QueueTopic(queue)); err != nil {
		return err
	}
	q := c.broker.queue(queue)
	if q == nil {
		return fmt.Errorf("%w: there is no queue %q", ErrNotFound, queue)
	}
	if err := q.unbind(bd); err != nil {
		return err
	}
	return q.save(ctx)
}

// HasQueue reports whether there is a queue of that name. It is cheap.
func (c *Client) HasQueue(name string) bool { return c.broker.queue(name) != nil }

// Queue describes one queue. Who may consume it may see it.
func (c *Client) Queue(name string) (QueueInfo, error) {
	q := c.broker.queue(name)
	if q == nil {
		return QueueInfo{}, fmt.Errorf("%w: there is no queue %q", ErrNotFound, name)
	}
	if err := c.maySee(q); err != nil {
		return QueueInfo{}, err
	}
	info := q.info()
	info.Lag, info.Oldest = c.broker.lag(q)
	return info, nil
}

// Queues yields the queues whose name begins with prefix and that the principal
// may consume, by name. A group on an inbox, whose name is its reader's secret, is
// among them only for who may manage it. Their lag is not counted.
func (c *Client) Queues(prefix string) iter.Seq[QueueInfo] {
	b := c.broker
	b.mu.RLock()
	var qs []*queue
	for name, q := range b.queues {
		if strings.HasPrefix(name, prefix) {
			qs = append(qs, q)
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(qs, func(a, b *queue) int { return strings.Compare(a.name, b.name) })
	return func(yield func(QueueInfo) bool) {
		for _, q := range qs {
			if c.maySee(q) != nil || q.tellsInbox() && c.authorize(Manage, QueueTopic(q.name)) != nil {
				continue
			}
			if !yield(q.info()) {
				return
			}
		}
	}
}

// tellsInbox reports whether the queue is a group on an inbox.
func (q *queue) tellsInbox() bool {
	return kindOf(q.name) == KindGroup && slices.ContainsFunc(q.list(), func(bd Binding) bool { return strings.HasPrefix(string(bd.Filter), InboxPrefix) })
}

func (q *queue) info() QueueInfo {
	stands := q.stands()
	info := QueueInfo{Name: q.name, Bindings: q.list(), Position: stands.next, Lag: -1}
	for _, e := range stands.out {
		switch e.state {
		case entryWaiting, entryParked:
			info.Waiting++
		case entrySettled:
		default:
			info.Held++
		}
	}
	q.mu.Lock()
	info.Settings, info.Consumers = q.settings, len(q.consumers)
	q.mu.Unlock()
	return info
}

// lagRecords bounds how many records are read to count a lag.
const lagRecords = 1_000_000

// lag counts what waits behind a queue's position and what it has passed over;
// -1 is more than it counts. It also returns when the oldest of it was
// published.
func (b *Broker) lag(q *queue) (n int, oldest time.Time) {
	buf := &ReadBuffer{MaxRecords: 4096, MaxBytes: 4 << 20}
	end := b.dispatcher.end()
	stands := q.stands()
	out := make(map[Offset]bool, len(stands.out))
	for _, e := range stands.out {
		out[e.offset] = true
	}
	from := stands.next
	for _, l := range stands.left {
		if len(l) > 0 {
			from = min(from, l[0].from)
		}
	}
	var e Envelope
	for from < end {
		buf.Reset()
		after, err := b.engine.Read(context.Background(), from, end, stands.filters, buf)
		if err != nil || n > lagRecords {
			return -1, oldest
		}
		for i := range buf.Records {
			r := &buf.Records[i]
			if q.matchesRecord(stands.bindings, r, &e) && !out[r.Offset] && (r.Offset >= stands.next || stands.left[q.lane(&e)].has(r.Offset)) {
				if n++; n == 1 {
					oldest = time.UnixMilli(r.Time)
				}
			}
		}
		if after <= from {
			break
		}
		from = after
	}
	return n, oldest
}

func (q *queue) matchesRecord(bs []*bound, r *Record, e *Envelope) bool {
	return matchesRecord(bs, r, e, len(q.left) > 1)
}

// matchesRecord reports whether a binding matches a record. It decodes the
// record into e if that is asked for, or if a binding has a condition.
func matchesRecord(bs []*bound, r *Record, e *Envelope, decode bool) bool {
	decoded := false
	for _, bd := range bs {
		if !bd.matches(r.Topic, r.Offset) {
			continue
		}
		if !decoded && (decode || bd.conditional()) {
			if r.Envelope(e) != nil {
				return false
			}
			decoded = true
		}
		if bd.holds(e, r.Offset) {
			return true
		}
	}
	return false
}

// QueueMetas yields what SetQueueMeta has put with queues that the principal may
// consume, by the queues' names, in no order. It is only to be read.
func (c *Client) QueueMetas() iter.Seq2[string, []byte] {
	b := c.broker
	return func(yield func(string, []byte) bool) {
		b.mu.RLock()
		var qs []*queue
		for name, q := range b.queues {
			if kindOf(name) == KindQueue {
				qs = append(qs, q)
			}
		}
		b.mu.RUnlock()
		for _, q := range qs {
			q.mu.Lock()
			meta := q.settings.Meta
			q.mu.Unlock()
			if len(meta) > 0 && c.maySee(q) == nil && !yield(q.name, meta) {
				return
			}
		}
	}
}

// SetQueueMeta replaces what an adapter keeps with a queue (QueueSettings.Meta),
// which DeclareQueue does not look at, and blocks until that is durable. Who may
// manage the queue and consume it may set it.
func (c *Client) SetQueueMeta(ctx context.Context, name string, meta []byte) error {
	for _, a := range []Action{Manage, Consume} {
		if err := c.authorize(a, QueueTopic(name)); err != nil {
			return err
		}
	}
	q := c.broker.queue(name)
	if q == nil || kindOf(name) != KindQueue {
		return fmt.Errorf("%w: there is no queue %q", ErrNotFound, name)
	}
	q.mu.Lock()
	q.settings.Meta = slices.Clone(meta)
	q.changes++
	q.mu.Unlock()
	return q.save(ctx)
}
