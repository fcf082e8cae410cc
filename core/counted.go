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

	// coming and comingBytes are what the meter has counted of commits that are not
	// done.
	coming, comingBytes atomic.Int64

	// refused is what the meter has counted and counted off again because the log
	// had no room for it; cursor.mu guards it.
	refused tally
	// lost is what the meter has not counted because the log was found to have lost
	// it; cursor.mu guards it.
	lost runs
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

// in is what leads to the queue from an offset up to one that is returned: of the
// part that begins there, or nothing, up to the next part; ok is false where that
// is not known.
func (c *counted) in(from, end Offset) (n tally, to Offset, ok bool) {
	at := from / c.grain
	if c.from == 0 || from != at*c.grain || from < c.from || from >= c.to {
		return n, from, false
	}
	i, is := slices.BinarySearchFunc(c.parts, at, func(p part, at Offset) int { return int(int64(p.at) - int64(at)) })
	switch to = c.to; {
	case is:
		n, to = c.parts[i].tally, min((at+1)*c.grain, to)
	case i < len(c.parts):
		to = min(c.parts[i].at*c.grain, to)
	}
	if to > end && is {
		return tally{}, from, false
	}
	return n, min(to, end), true
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
// as the broker is opened: see [keyCounted]. What was counted of what the log has
// lost since is not; and so that nothing counts less than it does when it leaves
// the queue, the sizes of what is outstanding are noted, which a position does not
// have. done is added how many offsets have been passed.
func (b *Broker) holds(ctx context.Context, q *queue, stands *standing, end Offset, done *atomic.Int64) (n tally, err error) {
	c := q.meter.counted
	at := stands.floor()
	if !q.counts() {
		return b.reads(ctx, q, stands, at, end, done, nil)
	}
	value, err := b.engine.Get(keyCounted + q.name)
	if err != nil {
		return n, err
	}
	c.parse(value, stamp(stands.bindings))
	first, _ := b.engine.Bounds()
	if at < first {
		if n, err = b.reads(ctx, q, stands, at, first, done, nil); err != nil {
			return n, err
		}
		at = first
	}
	s := spared{was: c.restart(at), next: stands.next, end: end}
	// What is in front of the position, and is not done.
	for i := range stands.out {
		s.not.add(run{stands.out[i].offset, stands.out[i].offset + 1})
	}
	for _, l := range stands.left {
		for _, r := range l {
			s.not.add(r)
		}
	}
	for _, g := range b.engine.Lost(at, end) {
		s.not.add(run{g.From, g.To})
	}
	for at < end {
		known, to, ok := s.from(at)
		switch {
		case !ok:
			to = s.after(at)
			here, err := b.reads(ctx, q, stands, at, to, done, c)
			if err != nil {
				return n, err
			}
			n.add(here)
			c.to = to
		case to <= stands.next: // it is done with
			done.Add(int64(to - at))
			c.restart(to)
		default:
			done.Add(int64(to - at))
			if n.add(known); known.count > 0 {
				c.put(at, known)
			}
			c.to = to
		}
		at = to
	}
	c.to = max(c.to, end)
	c.due = true
	return n, nil
}

// What is spared is what need not be read of the log up to an offset for knowing
// what a queue holds of it: what it is done with, in front of where it stands, and
// what was counted, behind that; but for some of both. Between what is read and
// what is spared there is a part's boundary. Offsets may be missing by the billion,
// so no step is only as long as a part.
type spared struct {
	was       *counted
	not       runs
	next, end Offset
}

// from says up to where nothing need be read from an offset on, and what the queue
// holds of that; ok is false where it has to be.
func (s *spared) from(at Offset) (n tally, to Offset, ok bool) {
	until, all := s.end, s.end
	if r, ok := s.not.after(at); ok {
		until = min(until, r.from)
	}
	if at < s.next {
		to = min(until, s.next)
	} else {
		if n, to, ok = s.was.in(at, s.end); !ok || n.count > 0 {
			return n, to, ok && to <= until
		}
		to, all = min(to, until), min(all, s.was.to)
	}
	if to < all {
		to -= to % s.was.grain
	}
	return tally{}, to, to > at
}

// after is up to where has to be read what has to be from an offset on: all that
// has to be is read in one go.
func (s *spared) after(at Offset) Offset {
	grain := s.was.grain
	up := func(at Offset) Offset { return (at + grain - 1) / grain * grain }
	for at = up(at + 1); at < s.end; {
		if r, ok := s.not.after(at); ok && r.from == at {
			at = up(r.to)
			continue
		}
		if _, _, ok := s.from(at); ok {
			return at
		}
		switch {
		case at < s.next || at >= s.was.from && at < s.was.to:
			at += grain // some of this part has to be
		case at < s.was.from:
			at = up(s.was.from)
		default:
			return s.end
		}
	}
	return s.end
}

// reads is what a queue that stands somewhere holds of a range of offsets, which
// is read. All that leads to it is added to c, if that is not nil. What is
// outstanding counts until the queue lets go of it, with the size that is known,
// also where it was not found: the log may have lost it.
func (b *Broker) reads(ctx context.Context, q *queue, stands *standing, from, end Offset, done *atomic.Int64, c *counted) (n tally, err error) {
	out := make(map[Offset]*outEntry, len(stands.out))
	for i := range stands.out {
		if o := &stands.out[i]; o.offset >= from && o.offset < end {
			out[o.offset] = o
		}
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
		for _, g := range buf.Gaps {
			if g.Lost {
				stands.lost.add(run{g.From, g.To})
			}
		}
		for i := range buf.Records {
			r := &buf.Records[i]
			if !matchesRecord(stands.bindings, r, &e, true) {
				continue
			}
			size := int64(e.Size())
			o := out[r.Offset]
			if o != nil && o.state != entrySettled || o == nil && (r.Offset >= stands.next || stands.left[q.lane(&e)].has(r.Offset)) {
				n.add(tally{1, size})
			}
			if o != nil {
				delete(out, r.Offset)
				q.mu.Lock()
				if o := q.out.find(r.Offset); o != nil && o.size == 0 {
					o.size = uint32(size)
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
	for _, o := range out {
		if o.state != entrySettled {
			n.add(tally{1, int64(o.size)})
			stands.gone = append(stands.gone, o.offset)
		}
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
