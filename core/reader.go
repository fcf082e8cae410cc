package core

import "context"

// A reader is a live or replaying reader of topics: a cursor with one consumer,
// of which nothing is kept.
type reader struct {
	cursor
	consumer *Consumer
}

// Subscribe begins a reader of topics. It has no credit yet: nothing is
// delivered before the first Grant. An offset outside of the log is an
// *OffsetRemovedError.
func (c *Client) Subscribe(ctx context.Context, s Subscription, recv Receiver) (*Consumer, error) {
	b := c.broker
	for _, bd := range s.Bindings {
		if err := c.mayBind(Subscribe, bd); err != nil {
			return nil, err
		}
		if s.Retained {
			b.ask(ctx, bd.Filter)
		}
	}
	if len(s.Bindings) > 0 {
		if err := c.CatchUp(ctx); err != nil {
			return nil, err
		}
	}
	begin, err := b.resolve(ctx, s.From, s.Bindings)
	if err != nil {
		return nil, err
	}
	r := new(reader)
	k := &Consumer{client: c, receiver: recv, cursor: &r.cursor}
	r.consumer = k
	r.init(b, r)

	d := b.dispatcher
	d.mu.Lock()
	r.mu.Lock()
	r.tail = d.end()
	if s.From.kind == fromLatest {
		begin = r.tail
	}
	r.next = begin
	r.attach()
	r.mu.Unlock()
	d.mu.Unlock()
	for _, bd := range s.Bindings {
		if err := r.bind(bd, begin, s.Retained); err != nil {
			r.end()
			return nil, err
		}
	}
	if err := c.remember(k); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (c *cursor) init(b *Broker, o owner) {
	c.b, c.owner = b, o
	c.bindings.Store(new([]*bound))
}

func (r *reader) take(ds []Delivery, end Offset) (all bool) {
	k, open := r.consumer, r.b.open
	r.mu.Lock()
	n, w := 0, 0
	for ; n < len(ds); n++ {
		if !open && !k.mayReceive(ds[n].Topic) {
			continue
		}
		if !k.credit.positive() {
			break
		}
		k.charge(&ds[n])
		if w != n {
			ds[w] = ds[n]
		}
		w++
	}
	all = n == len(ds)
	if r.next = end; !all {
		r.next = ds[n].Offset
	}
	r.mu.Unlock()
	k.deliver(ds[:w])
	return all
}

func (r *reader) offer(d Delivery, s *snapshot) bool {
	k := r.consumer
	r.mu.Lock()
	may := k.mayReceive(d.Topic)
	if !r.goesOn(s) || may && !k.credit.positive() {
		r.mu.Unlock()
		return false
	}
	if may {
		k.charge(&d)
	}
	r.mu.Unlock()
	if may {
		k.deliver([]Delivery{d})
	}
	return true
}

func (r *reader) chores(*pump) bool             { return true }
func (r *reader) cover([]Delivery, Offset) bool { return true }
func (r *reader) atEnd() bool                   { return true }
func (r *reader) changed()                      {}
func (r *reader) lend() bool                    { return false }
func (r *reader) ready() bool                   { return r.consumer.credit.positive() }
func (r *reader) busy() bool                    { return false }
func (r *reader) full() bool                    { return false }
func (r *reader) owes(from, to Offset) bool     { return false }
func (r *reader) notice(n Notice)               { r.consumer.notice(n) }
func (r *reader) missed(Gap)                    {}
