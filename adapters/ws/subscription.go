package ws

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A subscription is one consumer of the connection's, and its core.Receiver.
type subscription struct {
	conn     *conn
	consumer *core.Consumer
	// name is what the client calls it, opening how a message to it begins, in
	// members of opened.
	name    string
	opening []byte
	opened  int
	// queued says that it takes from a queue or a group.
	queued bool
	// replays says that the client is told when the past has been sent.
	replays bool
	// held says that the client acknowledges.
	held bool
	// credit is how many messages the client may still be sent.
	credit atomic.Int64
	ended  atomic.Bool

	mu    sync.Mutex    // guards what follows
	told  bool          // the client knows of the subscription
	early []core.Notice // that came before
}

// subscribe begins a subscription.
func (c *conn) subscribe(cmd *command) error {
	most := c.srv.Limits.MaxInFlight
	switch {
	case !cmd.hasAny(fieldCredit):
		return fmt.Errorf(`%w: "credit" says how many messages may come, at most %d; {"op":"credit","sub":…,"n":…} adds to it`, errNoCredit, most)
	case cmd.credit > uint64(most):
		return fmt.Errorf("%w: at most %d messages of credit", core.ErrInvalid, most)
	}
	name, err := c.nameFor(cmd)
	if err != nil {
		return err
	}
	from := core.Latest
	if cmd.hasAny(fieldFrom) {
		if from, err = core.ParseFrom(cmd.from, time.Now()); err != nil {
			return err
		}
	}
	if cmd.hasAny(fieldOrdered) && !cmd.hasAny(fieldGroup) {
		return fmt.Errorf(`%w: "ordered" is for groups; a queue is declared so`, core.ErrInvalid)
	}
	queued := cmd.hasAny(fieldQueue | fieldGroup)
	s := &subscription{conn: c, queued: queued, held: queued, replays: cmd.hasAny(fieldFrom) || cmd.retained}
	if cmd.hasAny(fieldAck) {
		s.held = cmd.ack
	}
	s.name = name
	o := c.coding.begin(nil, "msg")
	o.str("sub", name)
	s.opening, s.opened = o.buf, o.count

	var gap core.Notice
	if queued {
		s.consumer, err = c.consume(cmd, from, s)
	} else {
		s.consumer, gap, err = c.follow(cmd, from, s)
	}
	if err != nil {
		return err
	}
	c.subs.add(s)

	if cmd.req != nil {
		// It has no credit yet, so this is where it begins.
		begin := s.consumer.Position()
		c.answer("ok", func(o *object) {
			o.req(cmd.req)
			o.str("sub", name)
			if !queued {
				o.int("o", int64(begin))
			}
		})
	}
	if gap.Kind != 0 {
		s.tell(gap)
	}
	s.begin()
	s.credit.Store(int64(cmd.credit))
	s.consumer.Grant(core.Credit{Messages: int(cmd.credit), Bytes: c.window()})
	return nil
}

// window is how many bytes of a subscription may be on their way to the socket.
// It becomes smaller with the number of subscriptions, so that what a
// connection buffers stays bounded.
func (c *conn) window() int {
	if c.subs.len() <= 8 {
		return max(c.srv.Limits.OutputBytes/16, 1)
	}
	return max(c.srv.Limits.OutputBytes/256, 1)
}

// nameFor is the name of a new subscription: the client's, or the next number.
func (c *conn) nameFor(cmd *command) (string, error) {
	if c.subs.len() >= c.srv.Limits.Subscriptions {
		for _, s := range c.subs.list() {
			if s.ended.Load() {
				c.drop(s.name, s)
			}
		}
		if c.subs.len() >= c.srv.Limits.Subscriptions {
			return "", fmt.Errorf("%w: at most %d subscriptions", core.ErrLimit, c.srv.Limits.Subscriptions)
		}
	}
	if cmd.hasAny(fieldSub) {
		if s := c.subs.named(cmd.sub); s != nil {
			if !s.ended.Load() {
				return "", fmt.Errorf("%w: there is a subscription %q", core.ErrInUse, cmd.sub)
			}
			c.drop(cmd.sub, s)
		}
		return strings.Clone(cmd.sub), nil
	}
	for {
		c.named++
		if name := strconv.Itoa(c.named); c.subs.named(name) == nil {
			return name, nil
		}
	}
}

func (c *conn) drop(name string, s *subscription) {
	s.consumer.Close()
	c.subs.remove(name)
}

// follow begins a reader of topics, or of an exchange. Where the client wants a
// gap instead of an error, it begins at the earliest offset left and gap says
// what is missing.
func (c *conn) follow(cmd *command, from core.From, s *subscription) (k *core.Consumer, gap core.Notice, err error) {
	if cmd.hasAny(fieldCreate | fieldExclusive) {
		return nil, gap, fmt.Errorf(`%w: "create" and "exclusive" are for queues`, core.ErrInvalid)
	}
	b := core.Binding{Where: strings.Clone(cmd.where), Settlement: core.SettleAlways}
	switch cmd.has & (fieldTopic | fieldExchange | fieldKey) {
	case fieldTopic:
		if b.Filter, err = core.ParseFilter(strings.Clone(cmd.topic)); err != nil {
			return nil, gap, err
		}
	case fieldExchange, fieldExchange | fieldKey:
		b.Exchange, b.Key = strings.Clone(cmd.exchange), strings.Clone(cmd.key)
	default:
		return nil, gap, fmt.Errorf(`%w: want "topic", "exchange" (and "key"), "queue", or "topic" and "group"`, core.ErrInvalid)
	}
	sub := core.Subscription{Bindings: []core.Binding{b}, From: from, Retained: cmd.retained}
	k, err = c.client.Subscribe(c.srv.hard, sub, s)
	var removed *core.OffsetRemovedError
	if cmd.gap && errors.As(err, &removed) && removed.Offset < removed.Earliest {
		gap = core.Notice{Kind: core.NoticeGap, From: removed.Offset, To: removed.Earliest}
		sub.From = core.FromOffset(removed.Earliest)
		k, err = c.client.Subscribe(c.srv.hard, sub, s)
	}
	return k, gap, err
}

// consume attaches to a queue, or to a group's.
func (c *conn) consume(cmd *command, from core.From, s *subscription) (*core.Consumer, error) {
	if cmd.hasAny(fieldRetained | fieldGap) {
		return nil, fmt.Errorf(`%w: "retained" and "gap" are for topics alone`, core.ErrInvalid)
	}
	q := core.Consumption{Where: strings.Clone(cmd.where), Create: cmd.create, Exclusive: cmd.exclusive, From: from, Settlement: core.SettleAlways}
	switch cmd.has & (fieldTopic | fieldQueue | fieldGroup | fieldExchange | fieldKey) {
	case fieldQueue:
		q.Queue = strings.Clone(cmd.queue)
		if err := core.CheckQueueName(q.Queue); err != nil {
			return nil, err
		}
	case fieldGroup | fieldTopic:
		if cmd.group == "" || strings.ContainsAny(cmd.group, "/+#") {
			return nil, fmt.Errorf("%w: the group's name %q is empty or contains a slash or a wildcard", core.ErrInvalidTopic, cmd.group)
		}
		filter, err := core.ParseFilter(strings.Clone(cmd.topic))
		if err != nil {
			return nil, err
		}
		settings := core.DefaultGroupSettings()
		settings.Ordered = cmd.ordered
		q.Queue, q.Settings = core.GroupQueue(cmd.group, filter), &settings
		q.Bindings = []core.Binding{{Filter: filter}}
	default:
		return nil, fmt.Errorf(`%w: "queue" stands alone, "group" with "topic"`, core.ErrInvalid)
	}
	return c.client.Consume(c.srv.hard, q, s)
}

func (c *conn) unsubscribe(cmd *command) error {
	s, err := c.subscriptionOf(cmd)
	if err != nil {
		return err
	}
	c.drop(cmd.sub, s)
	c.ok(cmd.req)
	return nil
}

// Deliver encodes deliveries into the outbox. Bytes of credit come back once
// they are written, messages when the client says so.
func (s *subscription) Deliver(batch []core.Delivery) {
	var size core.Credit
	unsettled := 0
	for i := range batch {
		size.Bytes += batch[i].Size()
		if !batch[i].Settled {
			unsettled++
		}
	}
	s.credit.Add(int64(-unsettled))
	s.conn.sendFor(s.consumer, size, func(buf []byte) []byte {
		if s.held {
			return s.encode(buf, batch)
		}
		return s.conn.srv.bursts.Append(buf, batch, s.opening, func(buf []byte) []byte { return s.encode(buf, batch) })
	})
	s.conn.srv.count.Sent.Add(float64(len(batch)))
	if !s.held && unsettled > 0 && s.consumer.Queue() != "" {
		for i := range batch {
			if !batch[i].Settled {
				s.consumer.Settle(batch[i].Offset, core.Accepted, core.SettleOptions{})
			}
		}
	}
}

// encode appends a frame for each delivery. Unless the client acknowledges, the
// frames are the same for every subscription with the same opening.
func (s *subscription) encode(buf []byte, batch []core.Delivery) []byte {
	now := time.Now()
	k := s.conn.coding
	bodies := &s.conn.srv.bodies[k]
	for i := range batch {
		start := len(buf)
		o := object{coding: k, buf: openFrame(buf), count: s.opened}
		o.start = len(o.buf)
		o.buf = append(o.buf, s.opening...)
		if s.held && batch[i].Settled {
			o.yes("settled")
		}
		written, count := bodies.Append(o.buf, &batch[i], now)
		o.buf, o.count = written, o.count+count
		buf = closeFrame(o.end(), start, k.frame())
	}
	return buf
}

// Notice tells the client of something other than a message, but not before it
// knows of the subscription.
func (s *subscription) Notice(n core.Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told {
		s.early = append(s.early, n)
		return
	}
	s.tell(n)
}

// begin lets notices through.
func (s *subscription) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = true
	for _, n := range s.early {
		s.tell(n)
	}
	s.early = nil
}

func (s *subscription) tell(n core.Notice) {
	if n.Kind == core.NoticeStalled || n.Kind == core.NoticeCaughtUp && !s.replays {
		return
	}
	if n.Kind >= core.NoticeRevoked {
		s.ended.Store(true)
	}
	op := "ended"
	switch n.Kind {
	case core.NoticeGap:
		op = "gap"
	case core.NoticeCaughtUp:
		op = "caught_up"
	}
	s.conn.answer(op, func(o *object) {
		o.str("sub", s.name)
		switch n.Kind {
		case core.NoticeGap:
			o.int("from", int64(n.From))
			o.int("to", int64(n.To))
		case core.NoticeCaughtUp:
			if !s.queued {
				o.int("o", int64(n.To))
			}
		default:
			code, text := endOf(n)
			o.str("code", code)
			o.str("text", text)
		}
	})
}

// endOf says why a subscription ended.
func endOf(n core.Notice) (code, text string) {
	switch n.Kind {
	case core.NoticeRevoked:
		code, text = "revoked", "another consumer took over"
	case core.NoticeDeleted:
		code, text = "deleted", "the queue was deleted"
	default:
		code, text = codeStorage, "the log could not be read"
	}
	if n.Err != nil {
		if c, _ := codeOf(n.Err); c != codeInternal {
			text = n.Err.Error()
		}
	}
	return code, text
}
