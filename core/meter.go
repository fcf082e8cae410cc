package core

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Queues with a bound on their length or bytes are metered: what is published
// to them is counted as it enters the journal, so that a full queue refuses the
// very publish that is too much, and what leaves them is counted off. What
// counts is all that is not settled, held messages included, with the size that
// Envelope.Size says. Sessions are not metered: trimQueue sees to them.
type meters struct {
	n  atomic.Int32 // how many metered queues there are
	mu sync.RWMutex // guards what follows; the last mutex to be taken
	// exact finds the queues all of whose bindings are topics; others are to
	// be asked for every message.
	exact  map[string][]*queue // lists are replaced, never changed: find lends them
	others map[*queue]bool
	topics map[*queue][]string // the keys of exact that lead to a queue
}

// A meter counts what is in a queue. cursor.mu guards the rest of it.
type meter struct {
	length, bytes atomic.Int64
	// miscounts says that the queue was made to hold something else than what was
	// counted, or is about to be: it has to be counted anew.
	miscounts bool
	counted   *counted
}

// metered reports whether a queue's length or bytes are bounded exactly.
func (s *QueueSettings) metered() bool {
	return (s.MaxLength > 0 || s.MaxBytes > 0) && s.Kind != KindSession
}

// set takes in a queue's bindings; without any it forgets the queue.
func (m *meters) set(q *queue, bs []*bound) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exact == nil {
		m.exact, m.others, m.topics = make(map[string][]*queue), make(map[*queue]bool), make(map[*queue][]string)
	}
	for _, t := range m.topics[q] {
		if m.exact[t] = slices.DeleteFunc(slices.Clone(m.exact[t]), func(o *queue) bool { return o == q }); len(m.exact[t]) == 0 {
			delete(m.exact, t)
		}
	}
	delete(m.topics, q)
	delete(m.others, q)
	var topics []string
	exact := true
	for _, b := range bs {
		if b.until != 0 {
			continue
		}
		exact = exact && b.exchange == nil && b.where == nil && b.Filter.Exact()
		topics = append(topics, string(b.Filter))
	}
	switch {
	case len(topics) == 0:
	case exact:
		slices.Sort(topics)
		m.topics[q] = slices.Compact(topics)
		for _, t := range m.topics[q] {
			m.exact[t] = append(m.exact[t], q)
		}
	default:
		m.others[q] = true
	}
	m.n.Store(int32(len(m.topics) + len(m.others)))
}

// find returns the metered queues that a message to a topic gets to.
func (m *meters) find(topic string, e *Envelope) []*queue {
	if m.n.Load() == 0 {
		return nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	qs := m.exact[topic]
	if len(m.others) == 0 {
		return qs
	}
	qs = slices.Clone(qs)
	for q := range m.others {
		for _, b := range q.bound() {
			if b.until == 0 && b.matches(topic, ^Offset(0)) && b.holds(e, 0) {
				qs = append(qs, q)
				break
			}
		}
	}
	return qs
}

// room says which queue has no room for n messages of size bytes.
func (q *queue) room(n, size int64) error {
	s := &q.settings
	length, bytes := q.meter.length.Load(), q.meter.bytes.Load()
	switch {
	case s.Overflow != OverflowReject:
		return nil
	case s.MaxLength > 0 && length+n > s.MaxLength:
		return fmt.Errorf("%w: %q holds %d of at most %d messages", ErrQueueFull, q.name, length, s.MaxLength)
	case s.MaxBytes > 0 && bytes+size > s.MaxBytes:
		return fmt.Errorf("%w: %q holds %d of at most %d bytes, and %d more are too many", ErrQueueFull, q.name, bytes, s.MaxBytes, size)
	}
	return nil
}

// over reports whether the queue holds more than its bounds, of what is in the log:
// that may yet refuse the rest.
func (q *queue) over() bool {
	s := &q.settings
	if !s.metered() {
		return false
	}
	c := q.meter.counted
	return s.MaxLength > 0 && q.meter.length.Load()-c.coming.Load() > s.MaxLength || s.MaxBytes > 0 && q.meter.bytes.Load()-c.comingBytes.Load() > s.MaxBytes
}

// count counts a message that is about to be put into a commit to a topic. The
// journal is entered.
func (b *Broker) count(p *commit, e *Envelope, topic string) {
	record := Offset(p.Len())
	for _, q := range b.meters.find(topic, e) {
		size := int64(e.Size())
		q.meter.length.Add(1)
		q.meter.bytes.Add(size)
		q.meter.counted.coming.Add(1)
		q.meter.counted.comingBytes.Add(size)
		p.after = append(p.after, func(first Offset, err error) {
			q.meter.counted.coming.Add(-1)
			q.meter.counted.comingBytes.Add(-size)
			if err == nil {
				q.counted(func(c *counted) bool { return c.add(first+record, size) })
			}
			if err != nil {
				q.uncount(size)
				q.mu.Lock()
				q.meter.counted.refused.count++
				q.meter.counted.refused.bytes += size
				q.mu.Unlock()
			} else if q.settings.Overflow == OverflowDropOldest && q.over() {
				q.mu.Lock()
				q.shrinks = true
				q.mu.Unlock()
				q.kick()
			}
		})
	}
}

// uncount counts off a message that leaves the queue.
func (q *queue) uncount(size int64) {
	if q.settings.metered() {
		q.meter.length.Add(-1)
		q.meter.bytes.Add(-size)
	}
}

// recount counts again what was counted off.
func (q *queue) recount(e *outEntry) {
	if q.settings.metered() {
		q.meter.length.Add(1)
		q.meter.bytes.Add(int64(e.size))
	}
}

// rooms says which queue has no room for messages to topics, all together. The
// journal is entered.
func (b *Broker) rooms(es []*Envelope, to []string) error {
	if b.meters.n.Load() == 0 {
		return nil
	}
	type sum struct{ n, size int64 }
	sums := make(map[*queue]sum)
	for i, e := range es {
		if b.waits(e) || (e.ID != "" || e.Once != "") && b.journal.memory.repeats(e) != nil {
			continue
		}
		for _, q := range b.meters.find(to[i], e) {
			s := sums[q]
			s.n, s.size = s.n+1, s.size+int64(e.Size())
			sums[q] = s
			if err := q.room(s.n, s.size); err != nil {
				return err
			}
		}
	}
	return nil
}

// recountUnpinned has those metered queues counted anew for which nothing is kept:
// retention may have removed what they had counted.
func (b *Broker) recountUnpinned() {
	b.meters.mu.RLock()
	qs := slices.AppendSeq(slices.Collect(maps.Keys(b.meters.topics)), maps.Keys(b.meters.others))
	b.meters.mu.RUnlock()
	for _, q := range qs {
		q.mu.Lock()
		unpinned := q.settings.Unpinned
		q.meter.miscounts = q.meter.miscounts || unpinned
		q.mu.Unlock()
		if unpinned {
			q.kick()
		}
	}
}

// recount has the meter say what the queue holds, after what leads to it has
// changed, or it was moved. What is published and settled meanwhile is counted as
// ever: what is put right is by how much the meter is wrong at one moment, at
// which it has counted what the log gets before an offset. Whoever runs the cursor
// calls it; it blocks for a commit.
func (p *pump) recount(q *queue) error {
	c, err := p.b.journal.enterUnbounded()
	if err != nil {
		return err
	}
	records := c.Len()
	var end Offset
	var refused tally
	done := make(chan error, 1)
	c.after = append(c.after, func(_ Offset, err error) {
		// What the log had no room for is not in it, and has been counted off.
		if end = p.b.dispatcher.end(); noRoom(err) {
			err = nil
		} else {
			end -= Offset(c.Len() - records)
		}
		refused = q.meter.counted.refused
		q.mu.Lock()
		if err == nil && q.counts() {
			q.meter.counted.begin(end)
		}
		q.mu.Unlock()
		done <- err
	})
	q.mu.Lock()
	stands := q.standsNow(q.next)
	counted := tally{q.meter.length.Load(), q.meter.bytes.Load()}
	before := q.meter.counted.refused
	q.meter.miscounts = false
	q.mu.Unlock()
	p.b.journal.leave()
	if err := <-done; err != nil {
		return err
	}
	holds, err := p.b.reads(p.ctx, q, &stands, stands.floor(), end, new(atomic.Int64), nil)
	if err != nil {
		return err
	}
	q.mu.Lock()
	for _, r := range stands.lost {
		q.meter.counted.lost.add(r)
	}
	q.meter.counted.lost.cut(0, stands.floor())
	q.mu.Unlock()
	q.meter.length.Add(holds.count - counted.count + refused.count - before.count)
	q.meter.bytes.Add(holds.bytes - counted.bytes + refused.bytes - before.bytes)
	for _, at := range stands.gone {
		if r, err := p.readOne(at); err != nil {
			return err
		} else if r == nil {
			q.lost(at) // if it waits
		}
	}
	return nil
}

// misses has the queue counted anew where what the log has lost may have been
// counted, and reports whether it has to be. cursor.mu is held.
func (q *queue) misses(g Gap) bool {
	if !q.settings.metered() {
		return false
	}
	lost := &q.meter.counted.lost
	if r, ok := lost.after(g.From); ok && r.from == g.From && r.to >= g.To {
		return false
	}
	lost.add(run{g.From, g.To})
	q.meter.miscounts = true
	return true
}

// floor is the lowest offset that may be pending. cursor.mu is held.
func (q *queue) floor() Offset { return floorOf(q.next, q.left, q.out.live()) }

// shrink drops a queue's oldest messages that nobody holds, until it keeps its
// bounds.
func (p *pump) shrink(q *queue) {
	if !q.over() || q.settings.Overflow != OverflowDropOldest {
		return
	}
	q.mu.Lock()
	at, filters := q.floor(), q.filterSet()
	q.mu.Unlock()
	end := p.b.dispatcher.end()
	var e Envelope
	for at < end && q.over() {
		p.limit(pumpRecords, pumpBytes)
		after, err := p.b.engine.Read(p.ctx, at, end, filters, &p.buf)
		if err != nil {
			if p.ctx.Err() == nil {
				p.b.log.Error("log not readable", "queue", q.name, "offset", at, "err", err)
			}
			return
		}
		bs := q.bound()
		q.mu.Lock()
		for _, g := range p.buf.Gaps {
			if g.Lost && q.misses(g) {
				q.mu.Unlock()
				return // it may hold less than was counted
			}
		}
		for i := range p.buf.Records {
			r := &p.buf.Records[i]
			if !q.over() {
				after = r.Offset
				break
			}
			if !matchesRecord(bs, r, &e, true) {
				continue
			}
			o, lane := q.out.find(r.Offset), q.lane(&e)
			switch {
			case o != nil && (o.state == entryWaiting || o.state == entryParked):
				if o.state == entryWaiting {
					q.waiting--
				}
				q.settled(o)
			case o == nil && (r.Offset >= q.next || q.left[lane].has(r.Offset)):
				q.taken(r.Offset, lane)
				q.uncount(int64(e.Size()))
			default:
				continue
			}
			p.b.stats.Overflowed.Add(1)
		}
		if after > q.next {
			q.next = after
		}
		q.changed()
		q.mu.Unlock()
		if after <= at {
			return
		}
		at = after
	}
}
