package core

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/core/pause"
)

// The dispatcher takes durable commits in order, delivers their records to the
// cursors that are live, and then confirms them. It takes one at a time, so what
// it does for one connection is in the log's order; it never waits for a
// socket or the disk.
type dispatcher struct {
	b  *Broker
	in chan *commit
	// given counts what its goroutine has not yet dispatched. Until that runs
	// it counts one more.
	given atomic.Int32
	// cost is what dispatching a commit took lately, in nanoseconds.
	cost atomic.Int64

	mu    sync.Mutex // guards index; taken before any cursor's or queue's
	index index
	// position is the first offset not yet dispatched; written under mu, so
	// that a cursor that stands there can become live without a gap or a
	// repeat.
	position atomic.Uint64
	// grown is how many bytes the records had that were dispatched; it comes
	// behind position.
	grown atomic.Uint64

	// What follows is the dispatcher's own scratch.

	records    [chunk]Record
	envelopes  [chunk]Envelope
	decoded    [chunk]bool
	touched    []*cursor
	deliveries []Delivery
	spareHits  [][]hit
	confirmed  []*Client
	spareConfs [][]Confirmation

	stopped sync.WaitGroup
}

// chunk is how many records are matched, and then delivered, at a time: enough
// that a socket gets many in one write, few enough to stay in the cache.
const chunk = 128

// A hit is one record for one cursor.
type hit struct {
	record int // in the chunk
	match  *match
}

func newDispatcher(b *Broker) *dispatcher {
	d := &dispatcher{b: b, in: make(chan *commit, 1), index: newIndex()}
	d.given.Store(1)
	return d
}

func (d *dispatcher) start() {
	d.given.Add(-1)
	d.stopped.Go(func() {
		for c := range d.in {
			d.dispatch(c)
			d.given.Add(-1)
		}
	})
}

// give hands a commit to the dispatcher's goroutine, and blocks while that is two
// behind. One at a time calls give and here.
func (d *dispatcher) give(c *commit) {
	d.given.Add(1)
	d.in <- c
}

// here dispatches a commit on the caller's goroutine, which spares the wake-up of
// another, unless something is in front of it or it would take long.
func (d *dispatcher) here(c *commit) bool {
	if d.given.Load() > 0 || d.cost.Load() > int64(mostHere) {
		return false
	}
	d.dispatch(c)
	return true
}

// mostHere is what dispatching may have cost for the next commit to be dispatched
// where it was written: not much more than to wake somebody who does it.
const mostHere = 20 * time.Microsecond

// end is the first offset not yet dispatched.
func (d *dispatcher) end() Offset { return Offset(d.position.Load()) }

func (d *dispatcher) dispatch(c *commit) {
	began := time.Now()
	if c.err == nil {
		n := c.Len()
		d.b.stats.Published.Add(uint64(n))
		for i := 0; i < n; i += chunk {
			d.deliver(c, i, min(i+chunk, n))
		}
		d.grown.Add(uint64(len(c.Buf)))
		if d.b.refusals.full.Load() && !c.empty() {
			d.b.refusals.full.Store(false)
		}
	} else {
		d.b.storageFailed(c)
	}
	pause.At("delivered")
	d.b.journal.finish(c)
	c.settled()
	for _, f := range c.after {
		f(c.first, c.err)
	}
	if noRoom(c.err) {
		d.b.owe(c)
		d.b.journal.goOn()
	}
	pause.At("before confirming")
	d.confirm(c)
	d.b.journal.recycle(c)
	cost := d.cost.Load()
	d.cost.Store(cost + (int64(time.Since(began))-cost)/8)
}

// deliver delivers the records from i to j of a commit.
func (d *dispatcher) deliver(c *commit, i, j int) {
	now := time.Now()
	d.mu.Lock()
	for k := i; k < j; k++ {
		r := &d.records[k-i]
		*r = c.mustRecord(k)
		r.Offset, r.Time = c.first+Offset(k), c.Time
		d.decoded[k-i] = false
	}
	for k, n := 0, j-i; k < n; {
		first := k
		for k++; k < n && d.records[k].Topic == d.records[first].Topic; k++ {
		}
		ms := d.index.match(d.records[first].Topic)
		for m := range ms {
			d.touch(ms[m].cursor, first, k, &ms[m])
		}
	}
	end := c.first + Offset(j)
	d.position.Store(uint64(end))
	d.mu.Unlock()
	pause.At("hits in hand")

	for t, cur := range d.touched {
		d.touched[t] = nil
		ds := d.deliveries[:0]
		for _, h := range cur.hits {
			e := &d.envelopes[h.record]
			if !d.decoded[h.record] {
				d.decoded[h.record] = true
				if err := d.records[h.record].Envelope(e); err != nil {
					panic(err) // it was encoded here a moment ago
				}
			}
			if !cur.keepsExpired && e.Expired(now) {
				d.b.stats.Expired.Add(1)
				continue
			}
			at := d.records[h.record].Offset
			tags, settlement, ok := h.match.of(e, at)
			if !ok {
				continue
			}
			ds = append(ds, Delivery{Envelope: e, Offset: at, Attempt: 1, Tags: tags, Settled: settled(settlement, e)})
		}
		clear(cur.hits)
		d.spareHits = append(d.spareHits, cur.hits[:0])
		cur.hits = nil
		cur.fed(ds, end)
		clear(ds)
		d.deliveries = ds
	}
	d.touched = d.touched[:0]
}

// touch notes the records from first to end, which a match leads to its cursor.
func (d *dispatcher) touch(cur *cursor, first, end int, m *match) {
	if !cur.live {
		return
	}
	if cur.hits == nil {
		if n := len(d.spareHits); n > 0 {
			cur.hits, d.spareHits = d.spareHits[n-1], d.spareHits[:n-1]
		} else {
			cur.hits = make([]hit, 0, chunk)
		}
		d.touched = append(d.touched, cur)
		cur.feeding.Store(true)
	}
	for k := first; k < end; k++ {
		cur.hits = append(cur.hits, hit{k, m})
	}
}

// settled reports whether a delivery under a settlement waits for nobody.
func settled(s Settlement, e *Envelope) bool {
	return s == SettleNever || s == SettleGuaranteed && e.Guarantee == AtMostOnce
}

// confirm tells the publishers of a commit, each client once, with all of its
// confirmations in order.
func (d *dispatcher) confirm(c *commit) {
	for i := range c.entries {
		e := &c.entries[i]
		conf := Confirmation{Receipt: e.receipt, Err: e.err}
		switch {
		case e.err != nil:
		case c.err != nil:
			conf.Err = c.err
		case e.repeats != nil:
			conf.Offset, conf.Duplicate, conf.Err = e.repeats.offset, true, e.repeats.err
		case e.record >= 0:
			conf.Offset = c.first + Offset(e.record)
		}
		if len(e.client.confirmations) == 0 {
			d.confirmed = append(d.confirmed, e.client)
			if n := len(d.spareConfs); n > 0 {
				e.client.confirmations, d.spareConfs = d.spareConfs[n-1], d.spareConfs[:n-1]
			}
		}
		e.client.confirmations = append(e.client.confirmations, conf)
	}
	for i, client := range d.confirmed {
		d.spareConfs = append(d.spareConfs, client.confirm())
		d.confirmed[i] = nil
	}
	d.confirmed = d.confirmed[:0]
}

// finish settles what the journal remembers of a commit.
func (j *journal) finish(c *commit) {
	if len(c.remembered)+len(c.forgotten) == 0 && c.err == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if c.err != nil {
		if !noRoom(c.err) {
			j.failed = c.err
		}
		j.memory.failed(c)
		return
	}
	j.memory.done(c)
}

func (b *Batch) mustRecord(i int) Record {
	r, err := b.Record(i)
	if err != nil {
		panic(err) // it was encoded here a moment ago
	}
	return r
}
