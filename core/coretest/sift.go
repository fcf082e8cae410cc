package coretest

import (
	"context"
	"errors"
	"slices"

	"github.com/sluicemq/sluice/core"
)

// sift looks at a queue and purges, moves or copies some of what it has, or sends
// dead letters elsewhere. What that is, is named by offsets, so that the ledger
// knows it.
func (w *Workload) sift(ctx context.Context) error {
	queue := []string{"work", "all", "keep", "routed", "all.dead", "work.dead"}[w.rand.IntN(6)]
	most := 1 + w.rand.IntN(4)
	if !w.client.HasQueue(queue) {
		return nil // there was no dead letter yet
	}
	page, err := w.client.Browse(ctx, queue, core.ReadRequest{Limit: most, From: core.Earliest})
	if err != nil {
		return w.unread(err)
	}
	how := w.rand.IntN(3)
	to := ""
	if how > 0 {
		to = movedPrefix + queue
	}
	var s core.Selection
	var facts []int
	for _, d := range page.Messages {
		n, ok := number(d.Payload)
		if !ok {
			w.fault("%s has %q, which was never published", queue, d.Payload)
			continue
		}
		s.Offsets = append(s.Offsets, d.Offset)
		facts = append(facts, w.sifting(queue, n, to))
	}
	if len(s.Offsets) == 0 {
		return nil
	}
	var got core.Sifted
	switch t := (core.Transfer{Selection: s, To: core.QueueTopic(to)}); {
	case how == 0:
		got, err = w.client.Purge(ctx, queue, s, false)
	case queue == "all.dead" || queue == "work.dead":
		got, err = w.client.Requeue(ctx, queue, t)
	default:
		got, err = w.client.Move(ctx, queue, t)
	}
	if err != nil {
		return w.unread(err)
	}
	// What consumers hold is left alone: whose that was is not known.
	if l := w.Ledger; int(got.Messages) == len(facts) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, i := range facts {
			l.tell(&l.settlings[i].fact)
		}
	}
	return nil
}

// unread is the error of looking at a queue, nil where it may be so.
func (w *Workload) unread(err error) error {
	if w.failed.Load() && w.broker.Err() == nil || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return tolerable(err)
}

// sifting takes note that a message is to leave a queue for another, "" is none,
// and returns the index of that.
func (w *Workload) sifting(queue string, n int, to string) int {
	l := w.Ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	s := settling{queue: queue, number: n, outcome: core.Accepted, to: to}
	l.ask(&s.fact)
	l.settlings = append(l.settlings, s)
	return len(l.settlings) - 1
}

// cancel takes one delayed message out, if it has not been published.
func (w *Workload) cancel(ctx context.Context) error {
	l := w.Ledger
	l.mu.Lock()
	i := slices.IndexFunc(l.messages, func(m message) bool {
		return m.delayed && m.told != 0 && m.offset != 0 && m.cancel.asked == 0 && !m.gone
	})
	var at core.Offset
	if i >= 0 {
		at = l.messages[i].offset
		l.ask(&l.messages[i].cancel)
	}
	l.mu.Unlock()
	if i < 0 {
		return nil
	}
	got, err := w.client.Cancel(ctx, core.Selection{Offsets: []core.Offset{at}}, false)
	if err != nil {
		return w.unread(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &l.messages[i]
	switch {
	case got.Messages == 1:
		l.tell(&m.cancel)
	case !m.due:
		l.fault("message %d is not due and cannot be cancelled", m.number)
	default:
		m.cancel = fact{asked: m.cancel.asked} // it had been published
	}
	return nil
}

// recreate deletes the fleeting queue with its consumers and what it has, or makes
// it again.
func (w *Workload) recreate(ctx context.Context) error {
	// What is on its way is published before or after, not at the same time.
	if err := w.wait(); err != nil {
		return err
	}
	l := w.Ledger
	if value, told := l.latest("queue " + fleeting); !told || value == "" {
		told := l.set("queue "+fleeting, "there")
		d := core.QueueDefinition{Name: fleeting, Bindings: []core.Binding{{Filter: allFilter}}, Settings: core.QueueSettings{Backoff: 1, BackoffMax: 1}}
		if err := w.client.DeclareQueue(ctx, d); err != nil {
			return tolerable(err)
		}
		told()
		_, err := w.attach(ctx, fleeting)
		return tolerable(err)
	}
	w.workers = slices.DeleteFunc(w.workers, func(k *worker) bool {
		if k.queue != fleeting {
			return false
		}
		k.mu.Lock()
		k.leaving = true
		k.mu.Unlock()
		return true
	})
	told := l.set("queue "+fleeting, "")
	l.mu.Lock()
	d := deletion{queue: fleeting, through: len(l.messages)}
	l.ask(&d.fact)
	asked := d.asked
	l.deletions = append(l.deletions, d)
	for i := range l.messages {
		m := &l.messages[i]
		m.queues = slices.DeleteFunc(slices.Clone(m.queues), func(q string) bool { return q == fleeting })
	}
	l.mu.Unlock()
	if err := w.client.DeleteQueue(ctx, fleeting); err != nil {
		return tolerable(err)
	}
	told()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.deletions {
		if l.deletions[i].asked == asked {
			l.tell(&l.deletions[i].fact)
		}
	}
	return nil
}
