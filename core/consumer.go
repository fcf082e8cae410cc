package core

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

// A Consumer is one attachment to a queue, or a reader of topics. None of its
// methods blocks for the disk unless it says so.
type Consumer struct {
	client   *Client
	receiver Receiver
	cursor   *cursor
	place    int    // in client.consumers; guarded by client.mu
	queue    *queue // nil for a reader of topics
	whole    bool   // its queue is neither a group nor a session: the right to consume it is the right to all that is in it
	where    *where // of a queue's consumer
	alone    bool   // likewise: Consumption.Alone
	session  string // likewise: Consumption.Session
	class    *class // likewise; guarded by cursor.mu
	denied   bool   // likewise: it may not have what others may

	calling sync.Mutex // held while the receiver is called
	ended   bool       // the receiver is not called any more; guarded by calling

	// What follows is guarded by cursor.mu.

	credit Credit
	// settlement and once are the Consumption's, retired that it is given
	// nothing any more.
	settlement Settlement
	once       bool
	retired    bool

	rights map[string]bool // whether a topic may be delivered
	rules  uint64          // the authorizer's version that rights are of
	who    *Principal      // whose rights they are

	// low and high are the first and the last offset that it was ever given to
	// hold; 0 is none.
	low, high Offset

	batch []Delivery // the scratch of whoever runs the cursor
}

// deliver calls the receiver, unless the consumer has ended, which it reports.
func (k *Consumer) deliver(ds []Delivery) (delivered bool) {
	if len(ds) == 0 {
		return true
	}
	k.calling.Lock()
	defer k.calling.Unlock()
	if k.ended {
		return false
	}
	k.client.broker.stats.Delivered.Add(uint64(len(ds)))
	k.receiver.Deliver(ds)
	return true
}

func (k *Consumer) notice(n Notice) {
	k.calling.Lock()
	defer k.calling.Unlock()
	if !k.ended {
		k.receiver.Notice(n)
	}
}

// end lets the receiver finish what it is in, and never calls it again.
func (k *Consumer) end() {
	k.calling.Lock()
	defer k.calling.Unlock()
	k.ended = true
}

// mayReceive asks the authorizer, once for each topic. Queues, exchanges and
// inboxes are asked for when a consumer begins, and again by
// [Broker.RightsChanged]. cursor.mu is held.
func (k *Consumer) mayReceive(topic string) bool {
	b := k.client.broker
	if b.open || k.whole || own(topic) && !strings.HasPrefix(topic, SysPrefix) {
		return true
	}
	p := k.client.Principal()
	if v := b.authorizer.Version(); k.rights == nil || k.rules != v || k.who != p || len(k.rights) >= rightsTopics {
		k.rights, k.rules, k.who = make(map[string]bool), v, p
	}
	may, known := k.rights[topic]
	if !known {
		may = b.authorizer.Authorize(p, Deliver, topic) == nil
		k.rights[strings.Clone(topic)] = may
	}
	if !may {
		b.stats.Withheld.Add(1)
	}
	return may
}

// rightsTopics bounds how many topics' answers of the authorizer are kept.
const rightsTopics = 1024

// charge takes a delivery's cost from the credit. cursor.mu is held.
func (k *Consumer) charge(d *Delivery) {
	k.credit.Bytes -= d.Size()
	if !d.Settled {
		k.credit.Messages--
	}
}

func (c Credit) positive() bool { return c.Messages > 0 && c.Bytes > 0 }

// Grant adds credit.
func (k *Consumer) Grant(c Credit) {
	k.cursor.mu.Lock()
	had := k.credit.positive()
	k.credit.Messages += c.Messages
	k.credit.Bytes += c.Bytes
	passedOver := false
	if q := k.queue; q != nil && !had && k.credit.positive() && k.class != nil {
		if k.class.again {
			k.class.again = false
			clear(k.class.looked)
		}
		q.wave++
		passedOver = q.state == cursorLive && q.busy()
	}
	k.cursor.wake()
	k.cursor.mu.Unlock()
	if passedOver {
		k.cursor.kick()
	}
}

// Settle ends a delivery. An offset that this consumer does not hold is
// ErrNotHeld; a reader of topics holds nothing, and there Settle only grants
// opts.Credit and confirms opts.Receipt. Where that is refused nothing was
// settled or granted: the consumer holds what it held.
func (k *Consumer) Settle(at Offset, o Outcome, opts SettleOptions) error {
	if k.queue == nil {
		k.Grant(opts.Credit)
		if opts.Receipt != 0 {
			return k.client.confirmLater(opts.Receipt)
		}
		return nil
	}
	return k.queue.settle(k, at, o, opts)
}

// confirmLater confirms a receipt behind what was handed in before.
func (c *Client) confirmLater(r Receipt) error {
	p, err := c.broker.journal.enterUnbounded()
	if err != nil {
		return err
	}
	p.entries = append(p.entries, entry{client: c, receipt: r, record: -1})
	c.broker.journal.leave()
	return nil
}

// Holds reports whether the consumer of a queue holds the message at an offset.
func (k *Consumer) Holds(at Offset) bool { return k.queue != nil && k.queue.mayCommit(k, at) == nil }

// Pending reports whether the queue has yet to be done with the message at an
// offset: it is still to be delivered, or it was and is not settled. Of a reader
// of topics nothing is pending.
func (k *Consumer) Pending(at Offset) bool {
	if k.queue == nil {
		return false
	}
	k.queue.mu.Lock()
	defer k.queue.mu.Unlock()
	return at >= k.queue.next || k.queue.out.find(at) != nil
}

// Extend lengthens the lease of a held delivery to by from now.
func (k *Consumer) Extend(at Offset, by time.Duration) error {
	if k.queue == nil {
		return nil
	}
	return k.queue.extend(func(e *outEntry) bool { return e.holder == k && e.state == entryHeld }, at, by)
}

// Change replaces the Settlement and Once of a queue's consumer. What it holds is
// not touched by it.
func (k *Consumer) Change(s Settlement, once bool) {
	k.cursor.mu.Lock()
	defer k.cursor.mu.Unlock()
	k.settlement, k.once = s, once
}

// KeepsOrder wraps [ErrConflict] where the group of a consumer was made without the
// order of keys.
func (k *Consumer) KeepsOrder() error { return k.queue.keepsOrder() }

// Retire has a queue's consumer be given nothing new, while it settles what it
// holds. [Consumer.Close] still has to follow.
func (k *Consumer) Retire() {
	if k.queue != nil {
		k.queue.retire(k)
	}
}

// Bind adds a binding, or replaces the one with the same filter (or the same
// exchange and key), from now on: it blocks until what was published before is
// dispatched, and with a queue until the binding is durable.
func (k *Consumer) Bind(ctx context.Context, b Binding, opts BindOptions) error {
	a := Subscribe
	if k.whole {
		a = Bind
	}
	if err := k.client.mayBind(a, b); err != nil {
		return err
	}
	if opts.Retained {
		k.client.broker.ask(ctx, b.Filter)
	}
	if !opts.Unsaved {
		if err := k.client.CatchUp(ctx); err != nil {
			return err
		}
	}
	if err := k.cursor.bind(b, fromNow, opts.Retained); err != nil {
		return err
	}
	if opts.Unsaved {
		return nil
	}
	return k.Save(ctx)
}

// Save blocks until the bindings of a queue are durable.
func (k *Consumer) Save(ctx context.Context) error {
	if k.queue == nil || seeded.On(seeded.LostBinding) {
		return nil
	}
	return k.queue.save(ctx)
}

// Unbind removes one, with a queue durably. One that is not there is
// ErrNotFound.
func (k *Consumer) Unbind(ctx context.Context, b Binding) error {
	if err := k.cursor.unbind(b); err != nil {
		return err
	}
	if k.queue == nil {
		return nil
	}
	return k.queue.save(ctx)
}

// Bindings are those it has, in order.
func (k *Consumer) Bindings() []Binding { return k.cursor.list() }

// Bound is the one of them that [Consumer.Bind] of b would replace, if it has it.
func (k *Consumer) Bound(b Binding) (had Binding, ok bool) {
	for _, o := range k.cursor.bound() {
		if o.until == 0 && o.same(&b) {
			return o.Binding, true
		}
	}
	return Binding{}, false
}

// Queue is the queue's name, empty for a reader.
func (k *Consumer) Queue() string {
	if k.queue == nil {
		return ""
	}
	return k.queue.name
}

// Position is the offset of the next message that it looks at.
func (k *Consumer) Position() Offset {
	d := k.cursor.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	k.cursor.mu.Lock()
	defer k.cursor.mu.Unlock()
	if k.cursor.live && !k.cursor.feeding.Load() {
		return d.end()
	}
	return k.cursor.next
}

// Close releases what the consumer holds, at once and without backoff. After it
// has returned, the receiver is not called any more. Who calls it must hold no
// lock that the receiver takes.
func (k *Consumer) Close() {
	pause.At("closing")
	if k.queue != nil {
		k.queue.leave(k)
	} else {
		k.cursor.end()
	}
	k.end()
	k.client.forgetConsumer(k)
}

// fromNow, as the offset at which a binding begins, is where the dispatcher
// stands once nothing can come in between.
const fromNow Offset = 0

// bind adds a binding that begins at an offset; one that is there already stays
// as it is.
func (c *cursor) bind(b Binding, from Offset, retained bool) error {
	nb, err := c.b.newBound(b, from)
	if err != nil {
		return err
	}
	b = nb.Binding
	pause.At("about to bind")
	d := c.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return ErrClosed
	}
	if from == fromNow {
		nb.from = d.end()
	}
	var bs []*bound
	var replaced *bound
	same := false
	ended := 0
	for _, o := range c.bound() {
		switch {
		case o.until != 0:
			if !c.spent(o) {
				bs = append(bs, o)
				ended++
			}
		case o.same(&b) && o.Tag == b.Tag && o.Settlement == b.Settlement && o.from <= nb.from:
			same = true
			bs = append(bs, o)
		case o.same(&b):
			replaced = o
			if o = c.ended(o); o != nil {
				bs = append(bs, o)
				ended++
			}
		default:
			bs = append(bs, o)
		}
	}
	if !same {
		// Those that have ended are bounded by themselves.
		most := c.b.limits.Subscriptions
		if in := len(bs) - ended; in >= most {
			return fmt.Errorf("%w: %d bindings, at most %d are allowed", ErrLimit, in+1, most)
		}
		if ended > most {
			return fmt.Errorf("%w: %d bindings have ended that messages still wait under, at most %d are allowed", ErrLimit, ended, most)
		}
		if !nb.register(true) {
			return fmt.Errorf("%w: there is no exchange %q", ErrNotFound, b.Exchange)
		}
		if replaced != nil {
			c.drop(replaced)
		}
		if c.attached {
			d.index.add(c, nb)
		}
		c.rebind(append(bs, nb))
	}
	if retained && b.Exchange == "" {
		c.unlive()
		c.forgetSnapshot(&b)
		c.snapshots = append(c.snapshots, &snapshot{filter: b.Filter, where: b.Where, from: nb.from})
		c.owner.changed()
		c.wake()
	}
	return nil
}

// spent reports whether nothing is left to do for a binding that has ended: all
// before its end was read and is dealt with. Until then it stays, or what it led
// here would be taken for what never came. Both locks are held.
func (c *cursor) spent(o *bound) bool {
	return (o.until <= c.next || c.live && !c.feeding.Load()) && !c.owner.owes(o.from, o.until)
}

// drop ends what a binding in force brings about. Both locks are held.
func (c *cursor) drop(o *bound) {
	if c.attached {
		c.b.dispatcher.index.remove(o)
	}
	o.register(false)
}

// ended returns a binding as it is once it has ended, nil if it is spent then.
// Both locks are held.
func (c *cursor) ended(o *bound) *bound {
	ended := *o
	ended.until = c.b.dispatcher.end()
	if c.spent(&ended) {
		return nil
	}
	return &ended
}

func (c *cursor) unbind(b Binding) error {
	if w, err := parseWhere(b.Where); err != nil {
		return err
	} else if w != nil {
		b.Where = w.text
	}
	d := c.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	var bs []*bound
	found := false
	for _, o := range c.bound() {
		switch {
		case o.until != 0:
			if c.spent(o) {
				continue
			}
		case o.same(&b):
			found = true
			c.forgetSnapshot(&b)
			c.drop(o)
			if o = c.ended(o); o == nil {
				continue
			}
		}
		bs = append(bs, o)
	}
	if !found {
		return fmt.Errorf("%w: no such binding", ErrNotFound)
	}
	c.rebind(bs)
	return nil
}

// list returns the bindings that have not ended.
func (c *cursor) list() []Binding {
	var bs []Binding
	for _, b := range c.bound() {
		if b.until == 0 {
			bs = append(bs, b.Binding)
		}
	}
	return bs
}

// count is how many there are of them.
func (c *cursor) count() (n int) {
	for _, b := range c.bound() {
		if b.until == 0 {
			n++
		}
	}
	return n
}

// end takes the cursor out of everything, for good.
func (c *cursor) end() {
	d := c.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	c.detach()
	c.gone = true
	for _, b := range c.bound() {
		if b.until == 0 {
			b.register(false)
		}
	}
}
