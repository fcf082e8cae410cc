package core

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluicemq/sluice/core/seeded"
)

// What a metered queue holds is counted from the log when the broker is opened.
// So that this need not read all of a long queue, the state has for each how many
// messages lead to it in which part of the log, whether they are settled or not:
// where the queue stands says which parts it has yet to come to, and for these
// that is what it holds. Only the part where it stands, those with something
// outstanding or passed over, and the log's end are read.
//
// What leads to a queue does not change, but for its bindings, and for what
// retention removes once it is settled, if the queue is moved back to it. Both
// have the counting begin anew, at the log's end; and a value is of no use under
// other bindings than those that it was written under.
const keyCounted = "n/"

const (
	countedVersion = 1
	// maxParts is how many parts there are at the most: where there are more, two
	// become one. At first they have so many offsets as the broker's stepsFrom.
	maxParts = 128
	// countedEvery so many messages the state gets what was counted.
	countedEvery = 1 << 16
)

func newCounted(b *Broker) *counted { return &counted{least: Offset(b.stepsFrom)} }

// A counted is what leads to a queue from one offset to another. Queues that are
// not metered have none.
type counted struct {
	least    Offset     // the first grain
	mu       sync.Mutex // guards what follows; no other is taken under it
	from, to Offset     // from 0 is that nothing is known
	grain    Offset
	parts    []part // in order, those that have any
	fresh    int    // messages that the state does not know of
	due      bool   // the state is to have it

	// refused is what the meter has counted and counted off again because the log
	// had no room for it; cursor.mu guards it.
	refused tally
}

// A part is what leads to a queue from at*grain on, to (at+1)*grain.
type part struct {
	at Offset
	tally
}

// begin forgets all that was counted and has the counting begin at an offset; 0
// is not yet.
func (c *counted) begin(at Offset) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from, c.to, c.grain, c.parts, c.fresh, c.due = at, at, c.least, nil, 0, true
}

// stop is begin for one that is not to begin.
func (c *counted) stop() {
	if c != nil && c.known() {
		c.begin(0)
	}
}

func (c *counted) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.from != 0
}

// add counts a message. They are counted in the log's order. It reports whether
// the state should have it.
func (c *counted) add(at Offset, size int64) (due bool) {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from == 0 || at < c.to {
		return false
	}
	c.put(at, tally{1, size})
	c.to = at + 1
	c.fresh++
	c.due = c.due || c.fresh >= countedEvery
	return c.fresh >= countedEvery
}

// put counts what leads to the queue from an offset on, in its part. c.mu is held.
func (c *counted) put(at Offset, some tally) {
	last := func() *part {
		if n := len(c.parts); n > 0 && c.parts[n-1].at == at/c.grain {
			return &c.parts[n-1]
		}
		return nil
	}
	if last() == nil && len(c.parts) == maxParts {
		c.coarsen()
	}
	if last() == nil {
		c.parts = append(c.parts, part{at: at / c.grain})
	}
	p := last()
	p.count += some.count
	p.bytes += some.bytes
}

// coarsen makes one of each two parts.
func (c *counted) coarsen() {
	for len(c.parts) > maxParts/2 {
		c.grain *= 2
		all := c.parts[:0]
		for _, p := range c.parts {
			if p.at /= 2; len(all) > 0 && all[len(all)-1].at == p.at {
				all[len(all)-1].count += p.count
				all[len(all)-1].bytes += p.bytes
			} else {
				all = append(all, p)
			}
		}
		c.parts = all
	}
}

// reach says that all before an offset was counted. It reports whether the state
// should have it.
func (c *counted) reach(to Offset, now bool) (due bool) {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from == 0 {
		return false
	}
	due = c.fresh > 0 || to >= c.to+countedEvery || now && to > c.to
	c.to = max(c.to, to)
	c.due = c.due || due
	return due
}

// restart has the counting begin at an offset, with parts as large as they were. It
// returns what was counted.
func (c *counted) restart(at Offset) (was *counted) {
	was = &counted{from: c.from, to: c.to, grain: c.grain, parts: c.parts}
	c.from, c.to, c.parts = at, at, nil
	return was
}

// forget forgets what is before an offset. c.mu is held.
func (c *counted) forget(before Offset) {
	c.from = max(c.from, before)
	c.parts = slices.DeleteFunc(c.parts, func(p part) bool { return (p.at+1)*c.grain <= before })
}

// owe has the state get it with the next position.
func (c *counted) owe() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = true
}

// in is what leads to the queue from an offset up to one that is returned; ok is
// false where that is not known.
func (c *counted) in(from, end Offset) (n tally, to Offset, ok bool) {
	at := from / c.grain
	if c.from == 0 || from != at*c.grain || from < c.from || from >= c.to {
		return n, from, false
	}
	if i, is := slices.BinarySearchFunc(c.parts, at, func(p part, at Offset) int { return int(int64(p.at) - int64(at)) }); is {
		n = c.parts[i].tally
	}
	if to = min((at+1)*c.grain, c.to); to > end {
		return tally{}, from, false
	}
	return n, to, true
}

// change is what the state gets: nil where that has all that it needs. What is in
// front of an offset is not needed any more.
func (c *counted) change(q *queue, floor Offset) *Change {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.due {
		return nil
	}
	c.due, c.fresh = false, 0
	change := &Change{Key: keyCounted + q.name}
	if c.from == 0 {
		return change
	}
	c.forget(min(floor-floor%c.grain, c.to))
	b := []byte{countedVersion}
	b = binary.LittleEndian.AppendUint64(b, stamp(q.bound()))
	for _, v := range []Offset{c.from, c.to - c.from, c.grain, Offset(len(c.parts))} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	last := Offset(0)
	for _, p := range c.parts {
		b = binary.AppendUvarint(b, uint64(p.at-last))
		b = binary.AppendUvarint(b, uint64(p.count))
		b = binary.AppendUvarint(b, uint64(p.bytes))
		last = p.at
	}
	change.Value = b
	return change
}

// parse takes what the state has; nothing where that was written under other
// bindings, or is not known.
func (c *counted) parse(value []byte, stamp uint64) {
	c.from, c.to, c.grain, c.parts = 0, 0, c.least, nil
	if len(value) < 9 || value[0] != countedVersion || binary.LittleEndian.Uint64(value[1:]) != stamp {
		return
	}
	d := bodyDecoder{rest: value[9:]}
	from := Offset(d.uvarint())
	to, grain := from+Offset(d.uvarint()), Offset(d.uvarint())
	var parts []part
	last := Offset(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		last += Offset(d.uvarint())
		parts = append(parts, part{last, tally{int64(d.uvarint()), int64(d.uvarint())}})
	}
	if d.bad || len(d.rest) > 0 || grain == 0 {
		return
	}
	c.from, c.to, c.grain, c.parts = from, to, grain, parts
}

// stamp is a number for what bindings lead to a queue.
func stamp(bs []*bound) uint64 {
	h := fnv.New64a()
	for _, b := range bs {
		fmt.Fprintf(h, "%q %q %q %q %d %d\n", b.Filter, b.Exchange, b.Key, b.Where, b.from, b.until)
	}
	return h.Sum64()
}

// counts reports whether what leads to the queue is counted for the next start: it
// can be said beforehand, and stays as long as the queue needs it.
func (q *queue) counts() bool {
	return q.settings.metered() && !q.settings.Unpinned && !q.settings.Exclusive && !slices.ContainsFunc(q.bound(), func(b *bound) bool { return b.exchange != nil })
}

// journalCounted adds to a commit what was counted. cursor.mu is held.
func (q *queue) journalCounted(p *commit) {
	if !q.counts() {
		q.meter.counted.stop()
	}
	if change := q.meter.counted.change(q, q.floor()); change != nil {
		p.Changes = append(p.Changes, *change)
	}
}

// holds is what a queue that stands somewhere holds of what is before an offset,
// as the broker is opened: see [keyCounted]. It notes the sizes of what is
// outstanding, which a position does not have, and adds to done how many offsets
// it has passed.
func (b *Broker) holds(ctx context.Context, q *queue, stands *standing, end Offset, done *atomic.Int64) (n tally, err error) {
	c := q.meter.counted
	if !q.counts() {
		return b.reads(ctx, q, stands, stands.floor(), end, done, nil)
	}
	value, err := b.engine.Get(keyCounted + q.name)
	if err != nil {
		return n, err
	}
	c.parse(value, stamp(stands.bindings))
	first, _ := b.engine.Bounds()
	// What is in front of the position, and is not done.
	var some runs
	for i := range stands.out {
		some = append(some, run{stands.out[i].offset, stands.out[i].offset + 1})
	}
	for _, l := range stands.left {
		some = append(some, l...)
	}
	slices.SortFunc(some, func(a, b run) int { return int(int64(a.from) - int64(b.from)) })
	joined := some[:0]
	for _, r := range some {
		if i := len(joined) - 1; i >= 0 && r.from <= joined[i].to {
			joined[i].to = max(joined[i].to, r.to)
		} else {
			joined = append(joined, r)
		}
	}
	some = joined
	at := max(stands.floor(), first)
	was := c.restart(at)
	for at < end {
		stop := min((at/was.grain+1)*was.grain, end)
		known, to, ok := was.in(at, end)
		switch touched := touches(some, at, stop); {
		case !touched && stop <= stands.next: // it is done with
			done.Add(int64(stop - at))
			at = stop
			c.restart(at)
			continue
		case !touched && ok && at >= stands.next:
			n.count += known.count
			n.bytes += known.bytes
			if known.count > 0 {
				c.put(at, known)
			}
			done.Add(int64(to - at))
			at, c.to = to, to
			continue
		}
		// All that has to be read is read in one go.
		for stop < end {
			next := min(stop+was.grain, end)
			if _, _, ok := was.in(stop, end); !touches(some, stop, next) && (next <= stands.next || ok && stop >= stands.next) {
				break
			}
			stop = next
		}
		here, err := b.reads(ctx, q, stands, at, stop, done, c)
		if err != nil {
			return n, err
		}
		n.count += here.count
		n.bytes += here.bytes
		at, c.to = stop, stop
	}
	c.to = max(c.to, end)
	c.due = true
	return n, nil
}

// touches reports whether any of runs, in order, reaches into a range of offsets.
func touches(l runs, from, to Offset) bool {
	i, _ := slices.BinarySearchFunc(l, from, func(r run, from Offset) int {
		if r.to <= from {
			return -1
		}
		return 1
	})
	return i < len(l) && l[i].from < to
}

// reads is what a queue that stands somewhere holds of a range of offsets, which
// is read. All that leads to it is added to c, if that is not nil.
func (b *Broker) reads(ctx context.Context, q *queue, stands *standing, from, end Offset, done *atomic.Int64, c *counted) (n tally, err error) {
	out := make(map[Offset]entryState, len(stands.out))
	for i := range stands.out {
		out[stands.out[i].offset] = stands.out[i].state
	}
	buf := &ReadBuffer{MaxRecords: 4096, MaxBytes: 4 << 20}
	var e Envelope
	first, _ := b.engine.Bounds()
	for from = max(from, first); from < end; {
		buf.Reset()
		after, err := b.engine.Read(ctx, from, end, stands.filters, buf)
		if err != nil {
			return n, err
		}
		for i := range buf.Records {
			r := &buf.Records[i]
			if !matchesRecord(stands.bindings, r, &e, true) {
				continue
			}
			size := int64(e.Size())
			state, is := out[r.Offset]
			if is && state != entrySettled || !is && (r.Offset >= stands.next || stands.left[q.lane(&e)].has(r.Offset)) {
				n.count++
				n.bytes += size
			}
			if is {
				q.mu.Lock()
				if o := q.out.find(r.Offset); o != nil && o.size == 0 {
					o.size = uint32(e.Size())
				}
				q.mu.Unlock()
			}
			if c != nil {
				c.add(r.Offset, size)
			}
		}
		if after <= from {
			break
		}
		done.Add(int64(after - from))
		from = after
	}
	return n, nil
}

// tellCounted has the state say what was counted of all queues up to here: of each
// that has got enough since it did, or, at the end, of each that has got any. It
// may be waited for.
func (b *Broker) tellCounted(last bool) (told <-chan struct{}) {
	done := make(chan struct{})
	var metered []*queue
	if b.meters.n.Load() > 0 {
		b.mu.RLock()
		for _, q := range b.queues {
			q.mu.Lock()
			if q.meter.counted != nil {
				metered = append(metered, q)
			}
			q.mu.Unlock()
		}
		b.mu.RUnlock()
	}
	if len(metered) == 0 {
		close(done)
		return done
	}
	p, err := b.journal.enterUnbounded()
	if err != nil {
		close(done)
		return done
	}
	records := p.Len()
	p.after = append(p.after, func(_ Offset, err error) {
		defer close(done)
		if err != nil {
			return
		}
		end := b.dispatcher.end()
		if !seeded.On(seeded.CountedAhead) {
			end -= Offset(p.Len() - records)
		}
		for _, q := range metered {
			q.counted(func(c *counted) bool { return c.reach(end, last) })
		}
	})
	b.journal.leave()
	return done
}

// counted has the state get what was counted, if do says so.
func (q *queue) counted(do func(c *counted) (due bool)) {
	if do(q.meter.counted) {
		q.mu.Lock()
		q.changed()
		q.mu.Unlock()
	}
}

// Miscounts says how a queue's bounds count it wrong, nil if they count what it
// holds. That takes reading it: it is for tests, and for a broker that is left
// alone.
func (b *Broker) Miscounts(ctx context.Context, queue string) error {
	q := b.queue(queue)
	if q == nil {
		return fmt.Errorf("%w: there is no queue %q", ErrNotFound, queue)
	}
	if !q.settings.metered() {
		return nil
	}
	stands := q.stands()
	holds, err := b.reads(ctx, q, &stands, stands.floor(), b.dispatcher.end(), new(atomic.Int64), nil)
	if err != nil {
		return err
	}
	if counted := (tally{q.meter.length.Load(), q.meter.bytes.Load()}); counted != holds {
		return fmt.Errorf("the queue %q counts %d messages with %d bytes, and holds %d with %d", queue, counted.count, counted.bytes, holds.count, holds.bytes)
	}
	return nil
}
