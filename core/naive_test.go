package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A queue does what the naive one does, a list that is searched from the front:
// plain, by priority, ordered by key, or with a single active consumer; with
// selectors, leases that run out or are lengthened, messages that are leased
// without a consumer, attempts that are used up, delays, expiry of messages and
// by the queue's TTL, and a bound; with dead letters in a queue, by way of an
// exchange, or nowhere, and back; through settlements, transactions, consumers
// that come and go, bindings that come, are replaced and end, rewinding, kills
// and restarts, purges and moves. What it counts is what it holds all the time.
func TestQueueAsTheNaiveOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(rapid.IntRange(0, 1<<20), 5, 60).Draw(rt, "script")
		n := &naiveQueue{
			kind:     naiveKind(rapid.IntRange(0, 3).Draw(rt, "kind")),
			attempts: rapid.SampledFrom([]int{core.Unlimited, core.Unlimited, 1, 3}).Draw(rt, "attempts"),
			lease:    rapid.SampledFrom([]time.Duration{core.Unlimited, core.Unlimited, 5 * time.Second}).Draw(rt, "lease"),
			bound:    rapid.SampledFrom([]naiveBound{boundless, boundless, rejects, drops}).Draw(rt, "bound"),
			expires:  rapid.Bool().Draw(rt, "expires"),
			rewinds:  rapid.Bool().Draw(rt, "rewinds"),
			ttl:      rapid.SampledFrom([]time.Duration{0, 0, 0, 12 * time.Second}).Draw(rt, "ttl"),
			bury:     rapid.Bool().Draw(rt, "bury"),
			small:    rapid.Bool().Draw(rt, "small"),
			grave:    rapid.SampledFrom([]string{"", "", core.ExchangeTopic("dlx", "k"), core.NoDeadLetter}).Draw(rt, "grave"),
		}
		n.expires = n.expires && n.bound == boundless && !n.rewinds
		n.rewinds = n.rewinds && n.bound != drops
		if n.bound != boundless || n.rewinds {
			n.ttl = 0
		}
		var fault error
		synctest.Test(t, func(t *testing.T) { fault = n.run(t, script) })
		if fault != nil {
			rt.Fatalf("%+v: %v", n.settings(), fault)
		}
	})
}

type naiveKind int

const (
	plain naiveKind = iota
	byPriority
	byKey
	singleActive
)

type naiveBound int

const (
	boundless naiveBound = iota
	rejects
	drops
)

// naiveLength is the most that a bounded queue holds.
const naiveLength = 6

// A naive queue is a list of messages.
type naiveQueue struct {
	kind     naiveKind
	attempts int
	lease    time.Duration
	bound    naiveBound
	expires  bool // some messages do
	rewinds  bool
	ttl      time.Duration
	bury     bool   // what has expired is a dead letter
	grave    string // where dead letters go
	small    bool   // what is done for large queues is done for this one

	w         *world
	pub       *peer
	h         *coretest.History
	messages  []*naiveMessage
	delayed   []*naiveMessage // in the order in which they come
	consumers []*naiveConsumer
	lessees   []*naiveConsumer // who holds leases
	number    int
	bindings  bool // the one for the topic t is there
	ending    bool // the broker ends
	moved     []*naiveMessage
	fault     error
}

type naiveMessage struct {
	name, key, color string
	level            int
	offset           core.Offset // 0 is not known yet
	due              time.Time   // when it may go again, or is published
	own, expires     time.Time   // own is the message's, before the queue's; zero is never
	holder           *naiveConsumer
	until            time.Time // of the lease; zero is for ever
	attempts         int
	gone, dead       bool
}

type naiveConsumer struct {
	*peer
	k      *core.Consumer
	name   string
	color  string // "" is every color
	credit int
	held   map[core.Offset]*naiveMessage
	tokens map[core.Offset]string // a lessee's
}

func (q *naiveQueue) settings() core.QueueSettings {
	s := core.QueueSettings{
		Priority: q.kind == byPriority, Ordered: q.kind == byKey, SingleActive: q.kind == singleActive,
		MaxAttempts: q.attempts, Lease: q.lease, DeadLetterExpired: q.bury, TTL: q.ttl, DeadLetter: q.grave,
	}
	if q.bound != boundless {
		s.MaxLength = naiveLength
	}
	if q.bound == drops {
		s.Overflow = core.OverflowDropOldest
	}
	return s
}

func (q *naiveQueue) fail(format string, args ...any) {
	if q.fault == nil {
		q.fault = fmt.Errorf(format, args...)
	}
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (m *naiveMessage) expired() bool { return past(m.expires) }

// next reports whether the queue would deliver a message now.
func (q *naiveQueue) next(m *naiveMessage) bool {
	if m.gone || m.holder != nil || m.expired() || time.Now().Before(m.due) {
		return false
	}
	for _, o := range q.messages {
		if q.kind != byKey || o.key != m.key || o == m || o.gone {
			continue
		}
		if o.holder != nil || o.offset < m.offset && !o.expired() {
			return false
		}
	}
	return true
}

// wants reports whether a consumer would take a message, and may.
func (q *naiveQueue) wants(c *naiveConsumer, m *naiveMessage) bool {
	if q.kind == singleActive {
		active := c.tokens != nil && len(q.consumers) == 0
		for _, l := range q.lessees {
			active = active && (l == c || len(l.held) == 0)
			if c.tokens == nil && len(l.held) > 0 {
				return false
			}
		}
		if !active && (c.tokens != nil || c != q.consumers[0]) {
			return false
		}
	}
	return c.credit > 0 && (c.color == "" || c.color == m.color)
}

// settle ends a message.
func (q *naiveQueue) settle(m *naiveMessage, dead bool) {
	q.h.Settling(m.name, true)
	m.holder, m.gone, m.dead = nil, true, dead
}

// release gives a held message back.
func (q *naiveQueue) release(m *naiveMessage, delay time.Duration) {
	delete(m.holder.held, m.offset)
	if q.attempts > 0 && m.attempts >= q.attempts && !q.ending {
		q.settle(m, true)
		return
	}
	q.h.Settling(m.name, false)
	m.holder, m.due = nil, time.Now().Add(delay)
}

// pass lets a second pass, or none, and does what time brings.
func (q *naiveQueue) pass(seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		synctest.Wait()
		q.timePasses()
		q.collect()
	}
}

func (q *naiveQueue) timePasses() {
	now := time.Now()
	for len(q.delayed) > 0 && !now.Before(q.delayed[0].due) {
		m := q.delayed[0]
		q.delayed = q.delayed[1:]
		if m.due = (time.Time{}); !past(m.own) {
			q.add(m)
		}
	}
	for _, m := range q.messages {
		if m.holder != nil && past(m.until) {
			c := m.holder
			q.release(m, 0)
			if q.kind != singleActive || c.tokens != nil || c != q.consumers[0] || len(q.consumers) == 1 {
				continue
			}
			q.consumers = append(q.consumers[1:], c)
			for _, o := range q.messages {
				if o.holder == c {
					q.release(o, 0)
				}
			}
		}
	}
	for _, m := range q.messages {
		if !m.gone && m.holder == nil && m.expired() {
			q.h.Settling(m.name, true) // nobody gets it any more
		}
	}
}

// add takes in what is published. What is too much makes the oldest go that
// nobody holds.
func (q *naiveQueue) add(m *naiveMessage) {
	q.h.Published(m.name, m.key)
	if m.expires = m.own; q.ttl > 0 && (m.own.IsZero() || time.Now().Add(q.ttl).Before(m.own)) {
		m.expires = time.Now().Add(q.ttl)
	}
	q.messages = append(q.messages, m)
	n := q.length()
	for _, o := range q.messages {
		if q.bound == drops && n > naiveLength && !o.gone && o.holder == nil {
			q.settle(o, false)
			n--
		}
	}
}

func (q *naiveQueue) length() (n int) {
	for _, m := range q.messages {
		if !m.gone {
			n++
		}
	}
	return n
}

// locate finds out the offsets of what was published; the order of offsets is
// that of the list.
func (q *naiveQueue) locate() {
	if !slices.ContainsFunc(q.messages, func(m *naiveMessage) bool { return m.offset == 0 }) {
		return
	}
	buf := &core.ReadBuffer{MaxRecords: 1 << 20, MaxBytes: 1 << 30}
	if _, err := q.w.engine.Read(context.Background(), 1, 0, core.NewFilterSet("$queue/q", "t"), buf); err != nil {
		q.fail("%v", err)
	}
	for i := range buf.Records {
		var e core.Envelope
		if err := buf.Records[i].Envelope(&e); err != nil {
			q.fail("%v", err)
		}
		for _, m := range q.messages {
			if m.name == string(e.Payload) {
				m.offset = buf.Records[i].Offset
			}
		}
	}
	sort.SliceStable(q.messages, func(i, j int) bool { return q.messages[i].offset < q.messages[j].offset })
}

// collect takes in what was delivered and looks whether more should have been.
func (q *naiveQueue) collect() {
	q.locate()
	lowest := make(map[*naiveConsumer]int) // of what each was given for its first time
	for moved := true; moved && q.fault == nil; {
		moved = false
		for _, c := range q.consumers {
			for _, d := range c.deliveries() {
				moved = true
				q.delivered(c, &d, lowest)
			}
		}
	}
	for _, m := range q.messages {
		if !q.next(m) {
			continue
		}
		for _, c := range q.consumers {
			if l, some := lowest[c]; some && m.attempts == 0 && m.level > l && (c.color == "" || c.color == m.color) {
				q.fail("%s of priority %d waits, and one of %d came to %s", m.name, m.level, l, c.name)
			}
			if q.wants(c, m) {
				q.fail("%s waits, and %s wants it", m.name, c.name)
			}
		}
	}
	if q.bound != boundless {
		if counted, holds := q.w.broker.Metered("q"); counted != holds || holds.Length != int64(q.length()) {
			q.fail("%+v are counted, %+v are there, want %d", counted, holds, q.length())
		}
	}
}

func (q *naiveQueue) delivered(c *naiveConsumer, d *core.Delivery, lowest map[*naiveConsumer]int) {
	q.h.Delivered(c.name, string(d.Payload), int(d.Attempt))
	i := slices.IndexFunc(q.messages, func(m *naiveMessage) bool { return m.name == string(d.Payload) })
	if i < 0 {
		q.fail("%s is unknown", d.Payload)
		return
	}
	m := q.messages[i]
	if l, some := lowest[c]; q.kind == byPriority && m.attempts == 0 {
		if some && l < m.level {
			q.fail("%s of priority %d came behind one of %d", m.name, m.level, l)
		}
		lowest[c] = m.level
	}
	m.attempts++
	if int(d.Attempt) != m.attempts {
		q.fail("%s has attempt %d, not %d", m.name, d.Attempt, m.attempts)
	}
	if !q.next(m) {
		q.fail("%s came and may not yet", m.name)
	}
	if !q.wants(c, m) {
		q.fail("%s of color %s came to %s, who wants %q and has credit for %d", m.name, m.color, c.name, c.color, c.credit)
	}
	m.holder, m.until = c, time.Time{}
	if q.lease > 0 {
		m.until = time.Now().Add(q.lease)
	}
	c.held[d.Offset] = m
	c.credit--
}

// envelope makes a new message.
func (q *naiveQueue) envelope(arg int) (*naiveMessage, *core.Envelope) {
	q.number++
	m := &naiveMessage{name: fmt.Sprint(q.number), key: []string{"x", "y", "z"}[arg%3], color: []string{"red", "blue"}[arg/3%2], level: arg / 6 % 10}
	e := colored("q", m.color, m.name)
	e.Key, e.Priority, e.Guarantee = m.key, core.PriorityOf(m.level), core.AtLeastOnce
	if arg/60%2 == 1 && !q.rewinds { // over a binding, which may not be there
		e.Topic = "t"
	}
	if arg/120%4 == 1 && q.expires {
		m.own = time.Now().Add(time.Duration(1+arg/480%8) * time.Second)
		e.Expires = m.own
	}
	if arg/120%4 == 2 && e.Topic != "t" {
		m.due = time.Now().Add(time.Duration(1+arg/480%8) * time.Second)
		e.DeliverAt = m.due
	}
	return m, &e
}

// publish publishes a message, with what is settled in the same transaction.
func (q *naiveQueue) publish(arg int, settle ...core.Settling) (ok bool) {
	m, e := q.envelope(arg)
	full := q.bound == rejects && m.due.IsZero() && q.length() >= naiveLength && (e.Topic != "t" || q.bindings)
	var err error
	if len(settle) > 0 {
		err = q.pub.Commit(context.Background(), core.Transaction{Publish: []*core.Envelope{e}, Settle: settle}, 0)
	} else {
		err = q.pub.Publish(context.Background(), e, 0)
	}
	synctest.Wait()
	if full != errors.Is(err, core.ErrQueueFull) || err != nil && !full {
		q.fail("there are %d, and publishing: %v", q.length(), err)
	}
	switch {
	case full:
		return false
	case e.Topic == "t" && !q.bindings:
	case !m.due.IsZero():
		q.delayed = append(q.delayed, m)
		sort.SliceStable(q.delayed, func(i, j int) bool { return q.delayed[i].due.Before(q.delayed[j].due) })
	default:
		q.add(m)
	}
	return true
}

func (q *naiveQueue) run(t *testing.T, script []int) error {
	w := &world{t: t, engine: coretest.NewEngine()}
	w.o.Engine = w.engine
	if q.small {
		w.o.StepsFrom = 1
	}
	w.open()
	defer w.close()
	q.w, q.h, q.pub = w, coretest.NewHistory(), w.peer("pub")
	q.h.Ordered = q.kind == byKey && !q.rewinds
	q.pub.exchange(core.ExchangeDefinition{Name: "dlx", Kind: core.Direct})
	q.pub.declare("q.dead", core.QueueSettings{}, core.Binding{Exchange: "dlx", Key: "k"})
	q.pub.declare("q", q.settings())
	q.pub.declare("to", core.QueueSettings{})
	for _, op := range script {
		q.step(op%26, op/26)
		synctest.Wait()
		q.timePasses()
		if q.collect(); q.fault != nil {
			return q.fault
		}
	}
	return q.end()
}

// step does one thing.
func (q *naiveQueue) step(op, arg int) {
	ctx := context.Background()
	var c *naiveConsumer
	if len(q.consumers) > 0 {
		c = q.consumers[arg%len(q.consumers)]
	}
	switch op {
	case 0, 1: // a consumer comes
		if len(q.consumers) == 4 {
			return
		}
		q.number++
		c := &naiveConsumer{peer: q.w.peer("c"), name: fmt.Sprint("c", q.number), color: []string{"", "red", "blue"}[arg%3], credit: arg / 3 % 4, held: make(map[core.Offset]*naiveMessage)}
		where := ""
		if c.color != "" {
			where = fmt.Sprintf("color = '%s'", c.color)
		}
		q.consumers = append(q.consumers, c)
		c.k = c.consumeWhere("q", where, core.Credit{Messages: c.credit, Bytes: 1 << 30})
	case 2: // one goes
		if c == nil {
			return
		}
		q.consumers = slices.DeleteFunc(q.consumers, func(o *naiveConsumer) bool { return o == c })
		q.leave(c)
		c.k.Close()
	case 3, 4, 5, 6, 7: // settle, with new credit perhaps
		if c != nil && len(c.held) > 0 {
			q.settleOne(c, arg/len(q.consumers))
		}
	case 8: // credit
		if c != nil {
			c.credit++
			c.k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
		}
	case 9, 10: // time passes: positions are journaled
		q.pass(1 + arg%7)
	case 11: // some are purged
		color := []string{"red", "blue"}[arg%2]
		if _, err := q.pub.Purge(ctx, "q", core.Selection{Where: fmt.Sprintf("color = '%s'", color)}, false); err != nil {
			q.fail("%v", err)
		}
		for _, m := range q.messages {
			if m.color == color && m.holder == nil && !m.gone && !m.expired() {
				q.settle(m, false)
			}
		}
	case 12: // a binding comes, is replaced, or ends
		if q.rewinds {
			return
		}
		bd := core.Binding{Filter: "t", Settlement: []core.Settlement{core.SettleNever, core.SettleAlways}[arg%2]}
		var err error
		if q.bindings && arg/2%2 == 0 {
			q.bindings, err = false, q.pub.UnbindQueue(ctx, "q", bd)
		} else {
			q.bindings, err = true, q.pub.BindQueue(ctx, "q", bd, core.Latest)
		}
		if err != nil {
			q.fail("%v", err)
		}
	case 13: // the broker ends
		time.Sleep(50 * time.Millisecond) // what was delivered and settled is journaled then
		q.ending = true                   // what had its last attempt comes once more
		for _, c := range append(slices.Clone(q.consumers), q.lessees...) {
			q.leave(c)
		}
		q.consumers, q.lessees, q.ending = nil, nil, false
		if arg%2 == 0 {
			q.w.kill()
		} else {
			q.w.restart()
		}
		q.pub = q.w.peer("pub")
		time.Sleep(950 * time.Millisecond)
	case 14: // a transaction
		if c == nil || len(c.held) == 0 {
			return
		}
		at := slices.Min(offsetsOf(c.held))
		if m := c.held[at]; q.publish(arg, core.Settling{Consumer: c.k, Offset: at, Outcome: core.Accepted}) {
			delete(c.held, at)
			q.settle(m, false)
		}
	case 15: // the oldest of a color is moved
		color := []string{"red", "blue"}[arg%2]
		if _, err := q.pub.Move(ctx, "q", core.Transfer{To: core.QueueTopic("to"), Selection: core.Selection{Limit: 1, Where: fmt.Sprintf("color = '%s'", color)}}); err != nil {
			q.fail("%v", err)
		}
		for _, m := range q.messages {
			if m.color == color && m.holder == nil && !m.gone && !m.expired() {
				q.settle(m, false)
				q.moved = append(q.moved, m)
				break
			}
		}
	case 16: // delayed ones are cancelled
		color := []string{"red", "blue"}[arg%2]
		if _, err := q.pub.Cancel(ctx, core.Selection{Where: fmt.Sprintf("color = '%s'", color)}, false); err != nil {
			q.fail("%v", err)
		}
		q.delayed = slices.DeleteFunc(q.delayed, func(m *naiveMessage) bool { return m.color == color })
	case 17: // it is rewound
		if !q.rewinds || len(q.messages) == 0 {
			q.publish(arg)
			return
		}
		q.rewind(arg)
	case 18:
		q.takeLeases(arg)
	case 19, 20:
		q.settleLeases(arg)
	case 21:
		q.extend(c, arg)
	case 22:
		q.requeue(arg)
	default:
		q.publish(arg)
	}
}

// leave takes away what a consumer holds.
func (q *naiveQueue) leave(c *naiveConsumer) {
	for _, at := range offsetsOf(c.held) {
		q.release(c.held[at], 0)
	}
}

func (q *naiveQueue) settleOne(c *naiveConsumer, arg int) {
	offsets := offsetsOf(c.held)
	slices.Sort(offsets)
	at := offsets[0]
	if arg%2 == 1 {
		at = offsets[len(offsets)-1]
	}
	m := c.held[at]
	outcome := []core.Outcome{core.Accepted, core.Accepted, core.Released, core.Rejected}[arg/2%4]
	more, delay := arg/8%3, core.NoDelay
	if arg/24%2 == 1 {
		delay = time.Duration(1+arg/48%6) * time.Second
	}
	switch outcome {
	case core.Released:
		q.release(m, max(delay, 0))
	default:
		delete(c.held, at)
		q.settle(m, outcome == core.Rejected)
	}
	c.credit += more
	if err := c.k.Settle(at, outcome, core.SettleOptions{Delay: delay, Credit: core.Credit{Messages: more, Bytes: 0}}); err != nil {
		q.fail("%s not settled: %v", m.name, err)
	}
}

// takeLeases takes some messages without a consumer.
func (q *naiveQueue) takeLeases(arg int) {
	q.number++
	c := &naiveConsumer{peer: q.pub, name: fmt.Sprint("l", q.number), color: []string{"", "red", "blue"}[arg%3], credit: 1 + arg/3%3, held: make(map[core.Offset]*naiveMessage), tokens: make(map[core.Offset]string)}
	r := core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: c.credit, For: time.Duration(arg/9%3*4) * time.Second}
	if c.color != "" {
		r.Where = fmt.Sprintf("color = '%s'", c.color)
	}
	leases, err := q.pub.Lease(context.Background(), r)
	if err != nil {
		q.fail("%v", err)
	}
	q.locate()
	q.lessees = append(q.lessees, c)
	lowest := make(map[*naiveConsumer]int)
	for _, l := range leases {
		q.delivered(c, &l.Delivery, lowest)
		lasts := r.For
		switch {
		case lasts > 0:
		case q.lease > 0:
			lasts = q.lease
		default:
			lasts = 5 * time.Minute
		}
		c.tokens[l.Offset] = l.Token
		if m := c.held[l.Offset]; m != nil {
			m.until = time.Now().Add(lasts)
		}
		if !l.Until.Equal(time.Now().Add(lasts)) {
			q.fail("%s is leased until %s, not for %s", l.Payload, l.Until, lasts)
		}
	}
	for _, m := range q.messages {
		if q.next(m) && q.wants(c, m) {
			q.fail("%s waits, and was not leased", m.name)
		}
	}
	c.credit = 0
}

// settleLeases settles all that one lessee has, or the first of it.
func (q *naiveQueue) settleLeases(arg int) {
	if len(q.lessees) == 0 {
		return
	}
	c := q.lessees[arg%len(q.lessees)]
	outcome := []core.Outcome{core.Accepted, core.Released, core.Rejected}[arg/7%3]
	var settle []core.LeaseSettling
	held := offsetsOf(c.held)
	if arg/21%2 == 0 && len(held) > 0 {
		held = held[:1]
	}
	for _, at := range held {
		settle = append(settle, core.LeaseSettling{Token: c.tokens[at], Outcome: outcome, Options: core.SettleOptions{Delay: core.NoDelay}})
		if m := c.held[at]; outcome == core.Released {
			q.release(m, 0)
		} else {
			delete(c.held, at)
			q.settle(m, outcome == core.Rejected)
		}
	}
	for _, err := range q.pub.SettleLeases(context.Background(), settle) {
		if err != nil {
			q.fail("a lease is not settled: %v", err)
		}
	}
	for at, token := range c.tokens { // of those that are over
		if c.held[at] == nil {
			if err := q.pub.SettleLease(context.Background(), token, core.Accepted, core.SettleOptions{}); !errors.Is(err, core.ErrNotHeld) {
				q.fail("a lease that is over is settled: %v", err)
			}
		}
	}
}

// extend has a consumer, or a lessee, hold something for longer.
func (q *naiveQueue) extend(c *naiveConsumer, arg int) {
	if n := len(q.lessees); n > 0 && arg%2 == 0 {
		c = q.lessees[arg/2%n]
	}
	if c == nil || len(c.held) == 0 {
		return
	}
	at, by := slices.Min(offsetsOf(c.held)), time.Duration(1+arg/8%9)*time.Second
	var err error
	if c.tokens == nil {
		err = c.k.Extend(at, by)
	} else {
		_, err = q.pub.ExtendLease(context.Background(), c.tokens[at], by)
	}
	if err != nil {
		q.fail("not extended: %v", err)
	}
	c.held[at].until = time.Now().Add(by)
}

// requeue sends the oldest dead letters of a color back.
func (q *naiveQueue) requeue(arg int) {
	if q.rewinds {
		return // what comes again it would bring twice
	}
	color := []string{"red", "blue"}[arg%2]
	s := core.Selection{Limit: int64(arg / 2 % 4), Where: fmt.Sprintf("color = '%s'", color)}
	var back []*naiveMessage
	for _, name := range strings.Fields(q.w.peer("look").browse("q.dead")) {
		i := slices.IndexFunc(q.messages, func(m *naiveMessage) bool { return m.name == name })
		if m := q.messages[i]; m.color == color && (s.Limit == 0 || len(back) < int(s.Limit)) {
			back = append(back, m)
		}
	}
	got, err := q.pub.Requeue(context.Background(), "q.dead", core.Transfer{Selection: s, Dry: true})
	if err != nil || got.Messages != int64(len(back)) {
		q.fail("%d would be requeued, not %d: %v", got.Messages, len(back), err)
	}
	done := int64(0)
	for _, m := range back {
		if q.bound == rejects && q.length() >= naiveLength {
			break
		}
		q.h.Dead(m.name)
		q.messages = slices.DeleteFunc(q.messages, func(o *naiveMessage) bool { return o == m })
		*m = naiveMessage{name: m.name, key: m.key, color: m.color, level: m.level}
		q.add(m)
		done++
	}
	got, err = q.pub.Requeue(context.Background(), "q.dead", core.Transfer{Selection: s})
	if full := done < int64(len(back)); got.Messages != done || full != errors.Is(err, core.ErrQueueFull) || err != nil && !full {
		q.fail("%d were requeued, not %d of %d: %v", got.Messages, done, len(back), err)
	}
	synctest.Wait()
}

// rewind moves the queue to one of its messages: what was settled from there on
// comes again, what is pending before it does not.
func (q *naiveQueue) rewind(arg int) {
	to := q.messages[arg%len(q.messages)].offset
	again, skipped := int64(0), int64(0)
	for _, m := range q.messages {
		switch {
		case m.holder != nil:
		case m.offset >= to && m.gone:
			again++
			q.number++
			m.gone, m.dead, m.attempts, m.due = false, false, 0, time.Time{}
		case m.offset < to && !m.gone:
			skipped++
			q.settle(m, false)
		}
	}
	got, err := q.pub.Rewind(context.Background(), "q", core.FromOffset(to), false)
	if err != nil || got.Again != again || got.Skipped != skipped {
		q.fail("rewound to %d: %+v, %v, want %d and %d", to, got, err, again, skipped)
	}
}

// end looks at what is left once all has come to rest.
func (q *naiveQueue) end() error {
	for _, c := range q.consumers {
		q.leave(c)
		c.k.Close()
	}
	q.consumers = nil
	for _, c := range q.lessees {
		for at, m := range c.held {
			q.release(m, 0)
			if err := q.pub.SettleLease(context.Background(), c.tokens[at], core.Released, core.SettleOptions{Delay: core.NoDelay}); err != nil {
				q.fail("%s not released: %v", m.name, err)
			}
		}
	}
	q.pass(10)
	if q.ttl > 0 {
		q.pass(15) // the last one's, and a second to bury it
	}
	var want, dead []string
	for _, m := range q.messages {
		switch {
		case m.dead || !m.gone && m.expired() && q.bury:
			dead = append(dead, m.name)
		case m.expired():
		case !m.gone:
			want = append(want, m.name)
		}
	}
	browse := func(queue string) []string { return strings.Fields(q.w.peer("look").browse(queue)) }
	rest := browse("q")
	if !slices.Equal(rest, want) {
		q.fail("the queue holds %v, want %v", rest, want)
	}
	var moved []string
	for _, m := range q.moved {
		if !past(m.own) {
			moved = append(moved, m.name)
		}
	}
	if got := browse("to"); !slices.Equal(got, moved) {
		q.fail("%v were moved, want %v", got, moved)
	}
	letters := browse("q.dead")
	for _, name := range letters {
		q.h.Dead(name)
	}
	if q.rewinds {
		return q.fault // what the history knows of, it does not know of twice
	}
	if q.grave == core.NoDeadLetter {
		dead = nil
	}
	slices.Sort(letters)
	slices.Sort(dead)
	if !slices.Equal(letters, dead) {
		q.fail("the dead letters are %v, want %v", letters, dead)
	}
	if faults := q.h.End(rest...); len(faults) > 0 {
		q.fail("%s", strings.Join(faults, "; "))
	}
	return q.fault
}

func offsetsOf(m map[core.Offset]*naiveMessage) []core.Offset {
	var all []core.Offset
	for at := range m {
		all = append(all, at)
	}
	slices.Sort(all)
	return all
}
