package coretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A worker is a consumer of a queue that holds what it is given until the
// workload settles it.
type worker struct {
	w        *Workload
	queue    string
	consumer *core.Consumer

	mu      sync.Mutex // guards what follows
	held    []heldMessage
	leaving bool // what it holds may come to others
}

// A heldMessage is one that a worker, or the holder of a lease, has.
type heldMessage struct {
	worker *worker
	number int
	offset core.Offset
}

// attach makes a worker of a queue.
func (w *Workload) attach(ctx context.Context, queue string) (*worker, error) {
	k := &worker{w: w, queue: queue}
	cn := core.Consumption{Queue: queue, Settlement: core.SettleAlways}
	if queue == groupQueue {
		s := core.DefaultGroupSettings()
		s.Backoff, s.BackoffMax = 1, 1
		cn.Create, cn.Settings, cn.Bindings = true, &s, []core.Binding{{Filter: allFilter}}
	}
	told := w.Ledger.set("queue "+queue, "there")
	c, err := w.client.Consume(ctx, cn, k)
	if err != nil {
		return nil, err
	}
	told()
	k.consumer = c
	w.workers = append(w.workers, k)
	c.Grant(core.Credit{Messages: workerCredit, Bytes: 1 << 30})
	return k, nil
}

const workerCredit = 8

// Deliver implements core.Receiver.
func (k *worker) Deliver(batch []core.Delivery) {
	for i := range batch {
		d := &batch[i]
		n, ok := number(d.Payload)
		if !ok {
			k.w.fault("%s delivers %q, which was never published", k.queue, d.Payload)
			continue
		}
		k.w.got(k, n, d)
		k.mu.Lock()
		k.held = append(k.held, heldMessage{k, n, d.Offset})
		k.mu.Unlock()
	}
}

// Notice implements core.Receiver.
func (k *worker) Notice(n core.Notice) {
	if n.Kind == core.NoticeFailed && !k.w.failed.Load() {
		k.w.fault("%s cannot be read: %v", k.queue, n.Err)
	}
}

// got checks and takes note of a delivery.
func (w *Workload) got(k *worker, n int, d *core.Delivery) {
	w.mu.Lock()
	of := w.holders[k.queue]
	if of == nil {
		of = make(map[int]*worker)
		w.holders[k.queue] = of
	}
	other := of[n]
	of[n] = k
	w.mu.Unlock()
	if other != nil {
		other.mu.Lock()
		if !other.leaving {
			w.fault("message %d of %s came to a second consumer while the first held it", n, k.queue)
		}
		other.mu.Unlock()
	}
	k.mu.Lock()
	leaves := k.leaving
	k.mu.Unlock()
	l := w.Ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > len(l.messages) {
		l.fault("%s delivers message %d, which was never published", k.queue, n)
		return
	}
	m := &l.messages[n-1]
	if string(d.Payload) != m.payload {
		l.fault("%s delivers message %d as %.20q, want %.20q", k.queue, n, d.Payload, m.payload)
	}
	if m.gone || m.repeats != 0 {
		l.fault("%s delivers message %d, which is not there", k.queue, n)
	}
	for _, s := range l.settlings {
		if s.queue == k.queue && s.number == n && s.outcome != core.Released && s.told != 0 {
			l.fault("%s delivers message %d again, which was settled", k.queue, n)
		}
	}
	if m.cancel.told != 0 {
		l.fault("%s delivers message %d, which was cancelled", k.queue, n)
	}
	if !leaves && l.deletedWith(place{k.queue, n}) {
		l.fault("%s delivers message %d, which was deleted with the queue", k.queue, n)
	}
	if before := l.attempts(k.queue, n, l.now+1); int(d.Attempt) <= before && d.Attempt != 0 && l.lives == 0 {
		l.fault("%s delivers message %d as attempt %d after attempt %d", k.queue, n, d.Attempt, before)
	}
	l.now++
	l.deliveries = append(l.deliveries, delivery{at: l.now, queue: k.queue, number: n, attempt: d.Attempt})
}

// attempts is the greatest attempt of a message before a moment; l.mu is held.
func (l *Ledger) attempts(queue string, n int, before Moment) int {
	most := 0
	for i := range l.deliveries {
		if d := &l.deliveries[i]; d.number == n && d.queue == queue && d.at < before {
			most = max(most, int(d.attempt))
		}
	}
	return most
}

// pick takes one message that some worker holds.
func (w *Workload) pick() (heldMessage, bool) {
	if len(w.workers) == 0 {
		return heldMessage{}, false
	}
	from := w.rand.IntN(len(w.workers))
	for i := range w.workers {
		k := w.workers[(from+i)%len(w.workers)]
		k.mu.Lock()
		if n := len(k.held); n > 0 {
			j := w.rand.IntN(n)
			h := k.held[j]
			k.held = slices.Delete(k.held, j, j+1)
			k.mu.Unlock()
			return h, true
		}
		k.mu.Unlock()
	}
	return heldMessage{}, false
}

// letGo says that messages may have another holder from now on.
func (w *Workload) letGo(held ...heldMessage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range held {
		delete(w.holders[h.worker.queue], h.number)
	}
}

// settling takes note of a settlement and returns its index.
func (w *Workload) settling(h heldMessage, o core.Outcome, tx int) int {
	l := w.Ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	s := settling{queue: h.worker.queue, number: h.number, outcome: o, transaction: tx}
	l.ask(&s.fact)
	l.settlings = append(l.settlings, s)
	return len(l.settlings) - 1
}

// settle settles one message.
func (w *Workload) settle() error {
	h, ok := w.pick()
	if !ok {
		return nil
	}
	o := core.Accepted
	switch n := w.rand.IntN(10); {
	case n < 3:
		o = core.Released
	case n < 5:
		o = core.Rejected
	}
	i := w.settling(h, o, 0)
	opts := core.SettleOptions{Credit: core.Credit{Messages: 1}, Delay: core.NoDelay}
	if w.rand.IntN(2) == 0 {
		opts.Receipt = w.expect(func(c core.Confirmation) {
			if c.Err == nil {
				l := w.Ledger
				l.mu.Lock()
				defer l.mu.Unlock()
				l.tell(&l.settlings[i].fact)
			}
		})
	}
	w.letGo(h)
	if err := h.worker.consumer.Settle(h.offset, o, opts); err != nil {
		w.unexpect(opts.Receipt)
		if w.broker.Err() == nil {
			w.fault("message %d of %s cannot be settled: %v", h.number, h.worker.queue, err)
		}
		return w.broker.Err()
	}
	return nil
}

// leaseTime bounds how long a lease may wait for a queue that cannot be read.
const leaseTime = 200 * time.Millisecond

// lease takes some messages of a queue for a time and settles some of them.
func (w *Workload) lease(ctx context.Context) error {
	k := &worker{w: w, queue: []string{"work", "all"}[w.rand.IntN(2)]}
	limited, cancel := context.WithTimeout(ctx, leaseTime)
	defer cancel()
	leases, err := w.client.Lease(limited, core.LeaseRequest{Consumption: core.Consumption{Queue: k.queue}, Max: 1 + w.rand.IntN(3)})
	if errors.Is(err, context.DeadlineExceeded) || err != nil && w.failed.Load() {
		return nil // the queue waits for the log to be readable again
	}
	if err != nil {
		return tolerable(err)
	}
	var settlings []core.LeaseSettling
	var facts []int
	for i := range leases {
		n, ok := number(leases[i].Payload)
		if !ok {
			w.fault("a lease of %s is of %q, which was never published", k.queue, leases[i].Payload)
			continue
		}
		w.got(k, n, &leases[i].Delivery)
		if w.rand.IntN(3) > 0 {
			h := heldMessage{k, n, leases[i].Offset}
			facts = append(facts, w.settling(h, core.Accepted, 0))
			settlings = append(settlings, core.LeaseSettling{Token: leases[i].Token, Outcome: core.Accepted})
			w.letGo(h)
		}
	}
	l := w.Ledger
	for i, err := range w.client.SettleLeases(ctx, settlings) {
		if err == nil {
			l.mu.Lock()
			l.tell(&l.settlings[facts[i]].fact)
			l.mu.Unlock()
		} else if w.broker.Err() == nil && tolerable(err) != nil {
			w.fault("a lease of %s cannot be settled: %v", k.queue, err)
		}
	}
	return w.broker.Err()
}

// reattach has one worker leave and another one come in its place.
func (w *Workload) reattach(ctx context.Context) error {
	if len(w.workers) == 0 {
		return nil
	}
	i := w.rand.IntN(len(w.workers))
	k := w.workers[i]
	w.workers = slices.Delete(w.workers, i, i+1)
	k.mu.Lock()
	k.leaving = true
	k.mu.Unlock()
	k.consumer.Close()
	_, err := w.attach(ctx, k.queue)
	return tolerable(err)
}

// unbound is the value of a binding that was removed.
const unbound = "unbound"

// openSession attaches to the session, which is made at first.
func (w *Workload) openSession(ctx context.Context) error {
	s := core.QueueSettings{Kind: core.KindSession, Backoff: 1, BackoffMax: 1}
	told := w.Ledger.set("queue "+sessionID, "there")
	c, err := w.client.Consume(ctx, core.Consumption{Queue: sessionID, Create: true, Settings: &s}, idleReceiver{})
	if err != nil {
		return err
	}
	told()
	w.session = c
	return nil
}

// changeSession binds or unbinds a filter of the session, or changes its
// settings. It has no credit, so all that matches stays in it.
func (w *Workload) changeSession(ctx context.Context) error {
	if w.session == nil {
		return nil
	}
	if w.rand.IntN(4) == 0 {
		version := fmt.Sprint(w.rand.IntN(1000))
		told := w.Ledger.set("session "+sessionName, version)
		s := core.QueueSettings{Kind: core.KindSession, Backoff: 1, BackoffMax: 1, Meta: []byte(version)}
		err := w.session.UpdateSession(ctx, s)
		if err == nil {
			told()
		}
		return tolerable(err)
	}
	// What is on its way is published before or after, not at the same time.
	if err := w.wait(); err != nil {
		return err
	}
	topic := []string{"a/0", "a/1", "r/0", "old/free/0"}[w.rand.IntN(4)]
	binding := core.Binding{Filter: core.Filter(topic), Settlement: core.SettleAlways}
	if value, told := w.Ledger.latest("binding " + topic); told && value == "bound" {
		told := w.Ledger.set("binding "+topic, unbound)
		err := w.session.Unbind(ctx, binding)
		if err == nil {
			told()
		}
		return tolerable(err)
	}
	told := w.Ledger.set("binding "+topic, "bound")
	err := w.session.Bind(ctx, binding, core.BindOptions{})
	if err == nil {
		told()
	}
	return tolerable(err)
}

// idleReceiver is a consumer's that has no credit.
type idleReceiver struct{}

func (idleReceiver) Deliver([]core.Delivery) {}
func (idleReceiver) Notice(core.Notice)      {}

// declare makes something that comes and goes, or deletes it.
func (w *Workload) declare(ctx context.Context) error {
	name := fmt.Sprint("x", w.rand.IntN(2))
	exchange := w.rand.IntN(2) == 0
	kind, there := "queue ", "there"
	if exchange {
		kind, there = "exchange ", "direct"
	}
	// What was refused is there, or is not: to declare it again is right either way.
	next := there
	if value, told := w.Ledger.latest(kind + name); told && value == there {
		next = ""
	}
	told := w.Ledger.set(kind+name, next)
	var err error
	switch {
	case exchange && next != "":
		err = w.client.DeclareExchange(ctx, core.ExchangeDefinition{Name: name, Kind: core.Direct})
	case exchange:
		err = w.client.DeleteExchange(ctx, name)
	case next != "":
		err = w.client.DeclareQueue(ctx, core.QueueDefinition{Name: name})
	default:
		err = w.client.DeleteQueue(ctx, name)
	}
	if err == nil {
		told()
	}
	return tolerable(err)
}
