package core

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

// A cursor is a place in the log from which a reader or a queue goes on. It is
// in one of four states:
//
//	idle     it waits for credit; nobody works on it
//	queued   a pump will work on it
//	running  a pump reads the log for it and delivers
//	live     it stands at the log's end and the dispatcher feeds it
//
// From live it becomes idle when the dispatcher finds no credit for a record,
// or when it is kicked because there is something besides new records to
// deliver. From idle, credit or a kick queues it. A pump makes it live once it
// stands where the dispatcher does. No state needs a goroutine of its own.
type cursor struct {
	b     *Broker
	owner owner

	// bindings is replaced, not changed, under the dispatcher's mutex.
	bindings atomic.Pointer[[]*bound]

	// live and hits are guarded by the dispatcher's mutex; hits is the
	// dispatcher's own once it is taken.
	hits []hit
	live bool
	// keepsExpired says that the owner itself sees to what has expired. It is set
	// once.
	keepsExpired bool
	// feeding is set while the dispatcher has hits that it has not delivered:
	// then next is not yet true and a pump keeps its hands off.
	feeding atomic.Bool

	mu        sync.Mutex // guards what follows; the owner's fields too
	next      Offset     // the next offset to look at; while live, the dispatcher's position counts
	snapshots []*snapshot
	tail      Offset     // where the log ended when a reader began; 0 once it was told
	filters   *FilterSet // of the bindings, once it was asked for
	asks      uint32     // how often tail was asked for
	state     cursorState
	attached  bool // its bindings stand in the index
	// stuck says that the log could not be read: the cursor stays where it is
	// until it is tried again.
	stuck bool
	gone  bool // closed, for good
}

type cursorState uint8

const (
	cursorIdle cursorState = iota
	cursorQueued
	cursorRunning
	cursorLive
)

// An owner is what a cursor delivers for: a reader, or a queue.
type owner interface {
	// take gives away deliveries, in order, and sets the cursor's next offset:
	// to end, or to the first that was not taken because credit ended, which
	// it reports. It is called by whoever runs the cursor, without a lock, and
	// may change ds.
	take(ds []Delivery, end Offset) (all bool)
	// offer gives away one retained value of a snapshot, which has come to it
	// then, and reports whether there was credit for it and the snapshot goes on.
	offer(d Delivery, s *snapshot) bool
	// changed takes note that a snapshot has gone on; cursor.mu is held.
	changed()
	// chores does what is due besides reading on, such as redeliveries.
	// It returns false if it has to come back.
	chores(p *pump) (done bool)
	// cover reports whether deliveries, read up to after, may be given away;
	// without any, whether those at the log's end may. If not, the owner has
	// the cursor looked at again.
	cover(ds []Delivery, after Offset) bool
	// atEnd reports whether it may be live; cursor.mu is held.
	atEnd() bool
	// lend gives the running cursor to somebody who waits for it, if anybody
	// does; then nobody else works on it until it is handed back.
	lend() bool
	// ready reports whether a delivery could be taken; cursor.mu is held.
	ready() bool
	// busy reports whether there are chores to do now; cursor.mu is held.
	busy() bool
	// full reports whether it reads on only once something is settled; cursor.mu
	// is held.
	full() bool
	// owes reports whether it has read, and is not done with, a message of a
	// range of offsets; cursor.mu is held.
	owes(from, to Offset) bool
	// missed takes note that the log has lost a range of offsets.
	missed(Gap)
	// notice tells the consumers.
	notice(Notice)
}

// setBindings replaces the bindings. The dispatcher's mutex and cursor.mu are
// held.
func (c *cursor) setBindings(bs []*bound) {
	for i, b := range bs {
		b.order = i
	}
	c.bindings.Store(&bs)
	c.filters = nil
	if q, is := c.owner.(*queue); is {
		q.changes++
		if q.slack = (slack{}); q.settings.metered() {
			c.b.meters.set(q, bs)
			q.meter.miscounts = true
			if q.meter.counted == nil {
				q.meter.counted = newCounted(c.b)
			}
			q.meter.counted.begin(0)
		}
	}
}

// rebind is setBindings for a cursor that is in use: a pump looks at it if that
// gives it something to do. Both locks are held.
func (c *cursor) rebind(bs []*bound) {
	c.setBindings(bs)
	if c.owner.busy() {
		c.unlive()
		c.wake()
	}
}

func (c *cursor) bound() []*bound { return *c.bindings.Load() }

// filterSet is what the log is read with for the cursor. It is kept for as long
// as the cursor is attached: most queues are away and are never read for.
// cursor.mu is held.
func (c *cursor) filterSet() *FilterSet {
	if c.filters != nil {
		return c.filters
	}
	var filters []Filter
	for _, b := range c.bound() {
		filters = append(filters, b.filters()...)
	}
	set := NewFilterSet(filters...)
	if c.attached {
		c.filters = set
	}
	return set
}

// attach puts the cursor's bindings into the index. The dispatcher's mutex and
// cursor.mu are held.
func (c *cursor) attach() {
	if c.attached {
		return
	}
	c.attached = true
	for _, b := range c.bound() {
		if b.until == 0 {
			c.b.dispatcher.index.add(c, b)
		}
	}
}

// detach takes the cursor out of the index and out of the dispatcher's hands.
// The dispatcher's mutex and cursor.mu are held.
func (c *cursor) detach() {
	if c.attached {
		c.attached, c.filters = false, nil
		for _, b := range c.bound() {
			if b.until == 0 {
				c.b.dispatcher.index.remove(b)
			}
		}
	}
	c.unlive()
}

// unlive takes a live cursor from the dispatcher. Both locks are held.
func (c *cursor) unlive() {
	if !c.live {
		return
	}
	c.live = false
	c.state = cursorIdle
	if !c.feeding.Load() {
		c.next = c.b.dispatcher.end()
	}
}

// kick makes a pump look at the cursor, whatever state it is in. No lock is
// held.
func (c *cursor) kick() {
	d := c.b.dispatcher
	d.mu.Lock()
	c.mu.Lock()
	c.unlive()
	c.wake()
	c.mu.Unlock()
	d.mu.Unlock()
}

// wake queues an idle cursor. cursor.mu is held. While the dispatcher has hits
// in hand it does nothing: fed looks again.
func (c *cursor) wake() {
	if c.state == cursorIdle && !c.feeding.Load() && !c.gone && !c.stuck && (c.ready() || c.owner.busy() || c.standsStill()) {
		c.state = cursorQueued
		c.b.pumps.push(c)
	}
}

func (c *cursor) ready() bool { return c.attached && !c.stuck && c.owner.ready() }

// standsStill reports whether somebody waits to be told that all has been given
// away, and nothing more is going to be for now. cursor.mu is held.
func (c *cursor) standsStill() bool { return c.tail != 0 && !c.stuck && c.owner.full() }

// stuckFor is how long to wait before the log is read again for a cursor for
// which it could not be read.
const stuckFor = time.Second

// failed has a cursor wait where it is: nothing that was not read is passed
// over. While the broker closes, that is for good.
func (p *pump) failed(c *cursor, at Offset, err error) {
	c.mu.Lock()
	c.stuck = true
	c.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	p.b.log.Error("log not readable", "offset", at, "err", err)
	c.owner.notice(Notice{Kind: NoticeStalled, Err: err})
	time.AfterFunc(stuckFor, func() {
		c.mu.Lock()
		c.stuck = false
		c.mu.Unlock()
		c.kick()
	})
}

// fed delivers what the dispatcher has for the cursor, up to end.
func (c *cursor) fed(ds []Delivery, end Offset) {
	all := c.owner.take(ds, end)
	pause.At("fed")
	if !all {
		c.b.dispatcher.mu.Lock()
		c.live = false
		c.b.dispatcher.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.feeding.Store(false)
	if !all {
		c.state = cursorIdle
	}
	if c.state == cursorIdle {
		c.wake()
	}
}

// goLive hands the cursor to the dispatcher if it stands where the dispatcher
// does. A pump calls it.
func (c *cursor) goLive() bool {
	d := c.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next < d.end() || len(c.snapshots) > 0 || !c.ready() || c.owner.busy() || !c.owner.atEnd() || c.gone || c.tail != 0 {
		return false
	}
	c.state = cursorLive
	c.live = true
	return true
}

// A pumpPool works on the cursors that are behind: a few goroutines, each with
// buffers of its own, take turns over the cursors that are queued.
type pumpPool struct {
	mu     sync.Mutex // guards queue and closed
	more   sync.Cond
	queue  []*cursor
	closed bool

	ctx     context.Context // ends when close begins
	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// pumpCount is how many cursors are read for at the same time.
const pumpCount = 4

func newPumpPool() *pumpPool {
	p := new(pumpPool)
	p.more.L = &p.mu
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

func (p *pumpPool) start(b *Broker) {
	for range pumpCount {
		p.stopped.Go(func() { (&pump{b: b, ctx: p.ctx}).run(p) })
	}
}

func (p *pumpPool) push(c *cursor) {
	p.mu.Lock()
	p.queue = append(p.queue, c)
	p.mu.Unlock()
	p.more.Signal()
}

func (p *pumpPool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.more.Broadcast()
	p.stopped.Wait()
}

// A pump reads the log for one cursor at a time.
type pump struct {
	b   *Broker
	ctx context.Context

	buf        ReadBuffer
	envelopes  []Envelope
	deliveries []Delivery
	tags       []uint64
}

const (
	pumpRecords = 256
	pumpBytes   = 256 << 10
	// pumpRounds is how many reads a cursor gets before the next one's turn.
	pumpRounds = 8
)

func (p *pump) run(pool *pumpPool) {
	for {
		pool.mu.Lock()
		for len(pool.queue) == 0 && !pool.closed {
			pool.more.Wait()
		}
		if pool.closed {
			pool.mu.Unlock()
			return
		}
		c := pool.queue[0]
		pool.queue[0] = nil
		if pool.queue = pool.queue[1:]; len(pool.queue) == 0 {
			pool.queue = nil
		}
		pool.mu.Unlock()
		p.turn(c)
	}
}

// turn works on a cursor until it is live, has nothing to do, or has had its
// share.
func (p *pump) turn(c *cursor) {
	pause.At("turn")
	c.mu.Lock()
	c.state = cursorRunning
	c.mu.Unlock()
	if c.owner.lend() {
		return
	}
	for range pumpRounds {
		if !p.step(c) {
			pause.At("going live")
			if c.goLive() {
				return
			}
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = cursorIdle
	if c.gone {
		return
	}
	// What is left to do keeps it in the queue; a credit that came in the
	// meantime is seen here.
	if c.owner.busy() || c.standsStill() || c.ready() && (len(c.snapshots) > 0 || c.tail != 0 || c.next <= c.b.dispatcher.end()) {
		c.wake()
	}
}

// step does one read's worth of work and reports whether there may be more.
func (p *pump) step(c *cursor) bool {
	c.mu.Lock()
	asks := c.asks
	c.mu.Unlock()
	if !c.owner.chores(p) {
		return true
	}
	c.mu.Lock()
	if c.gone || !c.ready() {
		stands := !c.gone && c.standsStill()
		c.mu.Unlock()
		if stands {
			c.caughtUp(asks)
		}
		return false
	}
	if len(c.snapshots) > 0 && c.comesNext(c.snapshots[0]) {
		s := c.snapshots[0]
		c.mu.Unlock()
		p.snapshot(c, s)
		return true
	}
	// The end before the filters: what is bound from here on begins behind it.
	end := p.b.dispatcher.end()
	next, filters, tail := c.next, c.filterSet(), c.tail
	c.mu.Unlock()
	pause.At("about to read")

	if next >= end {
		if tail != 0 {
			c.caughtUp(asks)
		}
		c.owner.cover(nil, everywhere)
		return false
	}
	p.limit(pumpRecords, pumpBytes)
	after, err := p.b.engine.Read(p.ctx, next, end, filters, &p.buf)
	if err != nil {
		if seeded.On(seeded.PositionAtEnd) {
			c.mu.Lock()
			c.next = end
			c.mu.Unlock()
			return false
		}
		if p.failed(c, next, err); p.ctx.Err() == nil {
			c.owner.notice(Notice{Kind: NoticeFailed, Err: err})
		}
		return false
	}
	p.tellGaps(c.owner)
	ds := p.decode(c.bound(), c.keepsExpired)
	if len(ds) > 0 && !c.owner.cover(ds, after) {
		clear(p.deliveries)
		return false
	}
	pause.At("read")
	all := c.owner.take(ds, after)
	clear(p.deliveries)
	if tail != 0 && after >= tail && all {
		c.caughtUp(asks)
	}
	return all
}

// tellGaps tells whose cursor it is what is not there of what has been read.
func (p *pump) tellGaps(o owner) {
	for _, g := range p.b.untold(p.buf.Gaps) {
		if g.Lost {
			o.missed(g)
		}
		o.notice(Notice{Kind: NoticeGap, From: g.From, To: g.To})
	}
}

// tellCaughtUp has the cursor's consumers told once all that is there now, and
// all that waits to be delivered again, has been given away as far as there is
// credit now, and room in the queue's position.
func (c *cursor) tellCaughtUp() {
	c.mu.Lock()
	c.tail = c.b.dispatcher.end()
	c.asks++
	c.mu.Unlock()
	c.kick()
}

// caughtUp tells the consumers, unless there is more to do, or that was asked
// again since the chores: then it may not be so for who has asked.
func (c *cursor) caughtUp(asks uint32) {
	c.mu.Lock()
	if c.asks != asks || c.owner.busy() {
		c.mu.Unlock()
		return
	}
	tail := c.tail
	c.tail = 0
	c.mu.Unlock()
	c.owner.notice(Notice{Kind: NoticeCaughtUp, To: tail})
}

func (p *pump) limit(records, bytes int) {
	p.buf.Reset()
	p.buf.MaxRecords, p.buf.MaxBytes = records, bytes
}

// decode makes deliveries of what was read and matches the bindings; of what
// has expired, if asked.
func (p *pump) decode(bs []*bound, expired bool) []Delivery {
	now := time.Now()
	n := len(p.buf.Records)
	p.envelopes = slices.Grow(p.envelopes[:0], n)[:n]
	ds := p.deliveries[:0]
	p.tags = p.tags[:0]
	for i := range p.buf.Records {
		r := &p.buf.Records[i]
		e := &p.envelopes[i]
		decoded := false
		start := len(p.tags)
		settlement := SettleNever
		for _, b := range bs {
			if !b.matches(r.Topic, r.Offset) {
				continue
			}
			if !decoded {
				if err := r.Envelope(e); err != nil {
					p.b.log.Error("record not readable", "offset", r.Offset, "err", err)
					p.b.stats.Unreadable.Add(1)
					break
				}
				decoded = true
			}
			if b.holds(e, r.Offset) {
				p.tags = append(p.tags, b.Tag)
				settlement = max(settlement, b.Settlement)
			}
		}
		if len(p.tags) == start {
			continue
		}
		if !expired && e.Expired(now) {
			p.b.stats.Expired.Add(1)
			continue
		}
		ds = append(ds, Delivery{
			Envelope: e, Offset: r.Offset, Attempt: 1,
			Tags: p.tags[start:len(p.tags):len(p.tags)], Settled: settled(settlement, e),
		})
	}
	p.deliveries = ds
	return ds
}

// readOne reads the record at an offset; nil if it is not there any more.
func (p *pump) readOne(at Offset) (*Record, error) {
	p.limit(1, pumpBytes)
	if _, err := p.b.engine.Read(p.ctx, at, at+1, nil, &p.buf); err != nil {
		return nil, err
	}
	if len(p.buf.Records) == 0 {
		return nil, nil
	}
	return &p.buf.Records[0], nil
}
