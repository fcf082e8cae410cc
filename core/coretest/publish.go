package coretest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// compose makes the next message: its envelope and its place in the ledger.
func (w *Workload) compose(within int) (*core.Envelope, *message) {
	l := w.Ledger
	m := message{durable: true, transaction: within}
	e := &core.Envelope{Guarantee: core.AtLeastOnce}
	switch n := w.rand.IntN(20); {
	case n < 8:
		e.Topic = fmt.Sprint("a/", w.rand.IntN(4))
	case n < 10:
		e.Topic = fmt.Sprint("old/kept/", w.rand.IntN(2))
		m.mayGo = true
	case n < 14:
		e.Topic = fmt.Sprint("old/free/", w.rand.IntN(2))
		m.mayGo = true
	case n < 16:
		e.Topic = core.QueueTopic("work")
	case n < 18:
		e.Topic = core.ExchangeTopic("ex", fmt.Sprint("k.", w.rand.IntN(3)))
	default:
		e.Topic, e.Retain = fmt.Sprint("r/", w.rand.IntN(3)), true
	}
	switch n := w.rand.IntN(20); {
	case e.Retain || within != 0:
	case n < 3:
		e.Guarantee, m.durable = core.AtMostOnce, false
	case n < 5:
		e.ID = fmt.Sprint("id", w.rand.Uint64())
	case n < 7:
		e.Once, e.Guarantee = fmt.Sprint("once", w.rand.Uint64()), core.ExactlyOnce
	case n < 8:
		m.delayed, m.due = true, w.rand.IntN(3) > 0
		e.DeliverAt = time.Now().Add(time.Hour)
		if m.due {
			e.DeliverAt = time.Now().Add(2 * time.Millisecond)
		}
	}
	m.topic, m.id, m.once = e.Topic, e.ID, e.Once
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.queues = l.matching(m.topic); m.delayed {
		// When it is due the session may be bound to something else, and a queue
		// that comes and goes may have gone.
		m.queues = slices.DeleteFunc(m.queues, func(q string) bool { return q == sessionID || q == fleeting })
	}
	size := w.rand.IntN(60)
	if w.rand.IntN(10) == 0 {
		size = 200 + w.rand.IntN(3000)
	}
	if w.rand.IntN(4) == 0 && !m.delayed && within == 0 && !e.Retain {
		if r := l.repeatable(w.rand.IntN(1<<20), w.failed.Load()); r != nil {
			m.repeats, m.id, m.once, m.durable, m.mayGo, m.queues = r.number, r.id, r.once, true, false, nil
			m.topic, e.Topic, e.ID, e.Once, e.Guarantee = r.topic, r.topic, r.id, r.once, core.AtLeastOnce
		}
	}
	m.number = len(l.messages) + 1
	m.payload = fmt.Sprint(m.number, " ", strings.Repeat(string(rune('a'+m.number%26)), size))
	e.Payload = []byte(m.payload)
	return e, l.publish(m)
}

// publish takes note of a publish; l.mu is held.
func (l *Ledger) publish(m message) *message {
	l.ask(&m.fact)
	l.messages = append(l.messages, m)
	return &l.messages[len(l.messages)-1]
}

// matching are the queues that must get what is published to a topic now; l.mu
// is held.
func (l *Ledger) matching(topic string) (names []string) {
	binds := func(name string) bool {
		s := l.registers[name]
		return len(s) > 0 && s[len(s)-1].told != 0 && s[len(s)-1].value != "" && s[len(s)-1].value != unbound
	}
	switch {
	case topic == core.QueueTopic("work"):
		return []string{"work"}
	case strings.HasPrefix(topic, core.ExchangePrefix):
		return []string{"routed"}
	case strings.HasPrefix(topic, "old/kept/"):
		return []string{"keep"}
	case strings.HasPrefix(topic, "a/"):
		if names = append(names, "all", groupQueue); binds("queue " + fleeting) {
			names = append(names, fleeting)
		}
	}
	if binds("binding " + topic) {
		names = append(names, sessionID)
	}
	return names
}

// repeatable is a message that may be published once more: one that was
// confirmed, or, as long as nothing has failed, will be. l.mu is held.
func (l *Ledger) repeatable(seed int, failed bool) *message {
	n := len(l.messages)
	for i := range min(n, 40) {
		m := &l.messages[(seed+i*7)%n]
		if (m.id != "" || m.once != "") && m.repeats == 0 && !m.gone && (m.told != 0 || m.asked >= l.opened && !failed) && !l.forgotten(m.once) {
			return m
		}
	}
	return nil
}

// forgotten reports whether a key was to be forgotten; l.mu is held.
func (l *Ledger) forgotten(once string) bool {
	return once != "" && len(l.registers["once "+once]) > 0
}

// publish publishes one message.
func (w *Workload) publish(ctx context.Context) error {
	e, m := w.compose(0)
	retained := w.retain(e, m.number)
	n := m.number
	var r core.Receipt
	r = w.expect(func(c core.Confirmation) {
		w.inOrder(r)
		w.told(n, c, false)
		if c.Err == nil && retained != nil {
			retained()
		}
	})
	publish := w.client.Publish
	if n%4 == 0 {
		publish = w.client.PublishAlone
	}
	if err := publish(ctx, e, r); err != nil {
		w.unexpect(r)
		return err
	}
	return nil
}

// retain takes note of a topic's new retained value.
func (w *Workload) retain(e *core.Envelope, number int) (told func()) {
	if !e.Retain {
		return nil
	}
	return w.Ledger.set("retained "+e.Topic, fmt.Sprint(number))
}

// told takes note of what became of a publish.
func (w *Workload) told(number int, c core.Confirmation, whole bool) {
	l := w.Ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &l.messages[number-1]
	if c.Err != nil {
		return
	}
	l.tell(&m.fact)
	if whole {
		return // of a transaction only the first one's offset is told
	}
	if m.repeats != 0 && !c.Duplicate && l.messages[m.repeats-1].told == 0 {
		m.repeats = 0 // what it repeats was refused
	}
	if c.Duplicate != (m.repeats != 0) {
		l.fault("message %d, which repeats %d, was confirmed as a duplicate: %t", number, m.repeats, c.Duplicate)
		return
	}
	if m.repeats != 0 {
		if r := &l.messages[m.repeats-1]; r.told != 0 && r.offset != 0 && r.offset != c.Offset {
			l.fault("message %d repeats %d at %d and was confirmed at %d", number, r.number, r.offset, c.Offset)
		}
		return
	}
	m.offset = c.Offset
	if other := l.offsets[c.Offset]; other != 0 {
		l.fault("the offset %d of message %d was told of message %d before", c.Offset, number, other)
	}
	l.offsets[c.Offset] = number
}

// commit publishes and settles in one transaction.
func (w *Workload) commit(ctx context.Context) error {
	l := w.Ledger
	l.mu.Lock()
	var f fact
	l.ask(&f)
	l.transactions = append(l.transactions, f)
	tx := len(l.transactions)
	l.mu.Unlock()
	var t core.Transaction
	var numbers []int
	var retained []func()
	for range 2 + w.rand.IntN(3) {
		e, m := w.compose(tx)
		numbers = append(numbers, m.number)
		if told := w.retain(e, m.number); told != nil {
			retained = append(retained, told)
		}
		t.Publish = append(t.Publish, e)
	}
	var settlings []int
	var held []heldMessage
	for range w.rand.IntN(3) {
		h, ok := w.pick()
		if !ok {
			break
		}
		o := core.Accepted
		if w.rand.IntN(4) == 0 {
			o = core.Rejected
		}
		held = append(held, h)
		settlings = append(settlings, w.settling(h, o, tx))
		t.Settle = append(t.Settle, core.Settling{Consumer: h.worker.consumer, Offset: h.offset, Outcome: o, Options: core.SettleOptions{Credit: core.Credit{Messages: 1}}})
	}
	r := w.expect(func(c core.Confirmation) {
		if c.Err != nil {
			return
		}
		for _, n := range numbers {
			w.told(n, c, true)
		}
		for _, told := range retained {
			told()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tell(&l.transactions[tx-1])
		for _, s := range settlings {
			l.tell(&l.settlings[s].fact)
		}
	})
	w.letGo(held...)
	if err := w.client.Commit(ctx, t, r); err != nil {
		w.unexpect(r)
		return err
	}
	return nil
}

// forget ends the memory of one exactly-once publish.
func (w *Workload) forget(ctx context.Context) error {
	l := w.Ledger
	l.mu.Lock()
	i := slices.IndexFunc(l.messages, func(m message) bool { return m.once != "" && m.told != 0 && !l.forgotten(m.once) })
	var once, topic string
	if i >= 0 {
		once, topic = l.messages[i].once, l.messages[i].topic
	}
	l.mu.Unlock()
	if i < 0 {
		return nil
	}
	told := l.set("once "+once, "forgotten")
	r := w.expect(func(c core.Confirmation) {
		if c.Err == nil {
			told()
		}
	})
	if err := w.client.Forget(ctx, once, r); err != nil {
		w.unexpect(r)
		return err
	}
	if err := w.wait(); err != nil {
		return err
	}
	if _, told := l.latest("once " + once); !told {
		return nil
	}
	// The same key is another message's now.
	l.mu.Lock()
	m := message{topic: topic, once: once, durable: true, mayGo: strings.HasPrefix(topic, "old/"), number: len(l.messages) + 1, queues: l.matching(topic)}
	m.payload = fmt.Sprint(m.number, " again")
	n := l.publish(m).number
	l.mu.Unlock()
	r = w.expect(func(c core.Confirmation) { w.told(n, c, false) })
	return w.client.Publish(ctx, &core.Envelope{Topic: topic, Payload: []byte(m.payload), Once: once, Guarantee: core.ExactlyOnce}, r)
}
