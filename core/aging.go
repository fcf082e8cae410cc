package core

import (
	"encoding/binary"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"
)

// Aging tells how old things are without trusting the machine's clock, which
// may jump by years in both directions: nothing is deleted because of a jump.
//
// The log has an age of its own, which counts the time that the broker has been
// running with it, by the clock that cannot be set. Now and then a mark in the
// state says which age belongs to which time of records and of the machine's
// clock: what was appended before a mark is at least as old as the mark.
//
// Time that the clock claims and nobody has seen passing, because the broker
// was stopped, the machine slept, or the clock was set, is counted only once
// the clock has run evenly for confirmAfter, and at most confirmMost of it; or
// at once, and all of it, where the operator says that the clock can be
// trusted. What is not counted keeps things longer, never shorter; how much
// there is can still be bounded by bytes.
type aging struct {
	b     *Broker
	wall  func() time.Time
	trust bool

	mu      sync.Mutex // guards what follows; it is the last one taken
	started time.Time  // when the broker was, for its monotonic reading
	base    time.Duration
	counted time.Duration // of what was not seen passing
	from    time.Time     // what the clock showed when the age was base
	marks   []mark        // oldest first
	records Offset        // the log's end at the last mark
	steady  struct {      // how the clock has been running lately
		ahead time.Duration // of what the age says
		since time.Duration // since the start
		told  bool          // of what is not counted
	}
}

// A mark is the age of the log at a moment.
type mark struct {
	age   time.Duration
	stamp int64 // the records before it have earlier times, those behind do not
	wall  int64 // what the machine's clock showed
}

const (
	// markEvery is how far apart marks are while records come, idleMark while
	// none do.
	markEvery = 15 * time.Second
	idleMark  = time.Hour
	// A mark may be a markShare-th of its age away from the next.
	markShare = 64
	// keepMarks is how long marks are kept at least; queues may ask for them.
	keepMarks = 10 * 365 * 24 * time.Hour

	// confirmAfter is how long the clock must have run evenly, within
	// unevenness, before what it claims is counted; confirmMost is the most
	// that is counted without the operator's word.
	confirmAfter = time.Hour
	confirmMost  = 7 * 24 * time.Hour
	unevenness   = 10 * time.Second
)

func newAging(b *Broker, wall func() time.Time, trust bool) *aging {
	if wall == nil {
		wall = time.Now
	}
	a := &aging{b: b, wall: wall, trust: trust, started: time.Now()}
	a.from = wall().Round(0)
	return a
}

// load reads the marks that the state has.
func (a *aging) load(e Engine) error {
	for s, err := range e.State(keyAge, "") {
		if err != nil {
			return err
		}
		if len(s.Key) != len(keyAge)+8 || len(s.Value) != 16 {
			continue
		}
		a.marks = append(a.marks, mark{
			age:   time.Duration(binary.BigEndian.Uint64([]byte(s.Key[len(keyAge):]))) * time.Millisecond,
			stamp: int64(binary.BigEndian.Uint64(s.Value)),
			wall:  int64(binary.BigEndian.Uint64(s.Value[8:])),
		})
	}
	if n := len(a.marks); n > 0 {
		last := a.marks[n-1]
		a.base, a.from = last.age, time.UnixMilli(last.wall)
	}
	_, a.records = e.Bounds()
	a.steady.ahead = a.ahead()
	if a.trust {
		a.count(a.steady.ahead)
	}
	return nil
}

// last is the time of records at the newest mark, 0 if there is none.
func (a *aging) last() int64 {
	if n := len(a.marks); n > 0 {
		return a.marks[n-1].stamp
	}
	return 0
}

// seen is how much time the broker has seen passing since it was started.
func (a *aging) seen() time.Duration { return time.Since(a.started) }

// age is the log's.
func (a *aging) age() time.Duration { return a.base + a.seen() + a.counted }

// begun is the age that the log had when nothing of this run had been seen.
func (a *aging) begun() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.base + a.counted
}

// until is how long it is, by what is known when the broker is opened, until the
// log has an age. What the clock says has passed meanwhile is believed here: that
// something comes again too early does no harm.
func (a *aging) until(age time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return age - a.age() - max(a.ahead(), 0)
}

// ahead is what the clock claims to have passed beyond the age. Both clocks are
// read close to each other.
func (a *aging) ahead() time.Duration {
	return a.wall().Round(0).Sub(a.from) - a.seen() - a.counted
}

// count takes time that nobody saw passing into the age. a.mu is held, or the
// broker is not yet open.
func (a *aging) count(d time.Duration) {
	if d <= 0 {
		return
	}
	a.counted += d
	a.steady.ahead -= d
}

// look watches the clock. It returns what of its claims was counted now.
func (a *aging) look() (counted time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ahead := a.ahead()
	if d := ahead - a.steady.ahead; d > unevenness || d < -unevenness {
		a.b.log.Warn("the clock was set, or the machine slept", "by", d.Round(time.Second))
		a.steady.ahead, a.steady.since, a.steady.told = ahead, a.seen(), false
	}
	switch evenly := a.seen() - a.steady.since; {
	case ahead < time.Second:
	case a.trust, evenly >= confirmAfter && ahead <= confirmMost:
		a.count(ahead)
		return ahead
	case evenly >= confirmAfter && !a.steady.told:
		a.steady.told = true
		a.b.log.Warn("the clock is far ahead of the time that the broker has been running; what is to be deleted by age waits for so much longer. If the clock is right, set retention.trust_clock and start again",
			slog.Duration("ahead", ahead.Round(time.Second)))
	}
	return 0
}

// due says whether it is time for another mark.
func (a *aging) due(end Offset) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.marks) == 0 {
		return true
	}
	passed := a.age() - a.marks[len(a.marks)-1].age
	return passed >= idleMark || passed >= markEvery && end != a.records
}

// put adds a mark to a commit, and removes those that are not needed any more:
// longest is the longest time that anything is kept by age. The journal is
// entered, and stamp is its time now.
func (a *aging) put(p *commit, stamp int64, end Offset, longest time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := mark{age: a.age().Truncate(time.Millisecond), stamp: stamp, wall: a.wall().UnixMilli()}
	if n := len(a.marks); n > 0 && m.age <= a.marks[n-1].age {
		return
	}
	p.Changes = append(p.Changes, m.change())
	kept := []mark{m}
	a.records = end
	for i, o := range slices.Backward(a.marks) {
		// Nobody asks for what is older than keepMarks, and where a mark is old
		// those on both sides of it do as well.
		newer := kept[len(kept)-1]
		if m.age-newer.age > max(keepMarks, longest) || i > 0 && newer.age-a.marks[i-1].age < (m.age-o.age)/markShare {
			p.Changes = append(p.Changes, Change{Key: o.key()})
		} else {
			kept = append(kept, o)
		}
	}
	slices.Reverse(kept)
	a.marks = kept
}

func (m mark) key() string {
	return keyAge + string(binary.BigEndian.AppendUint64(nil, uint64(m.age/time.Millisecond)))
}

func (m mark) change() Change {
	value := binary.BigEndian.AppendUint64(nil, uint64(m.stamp))
	return Change{Key: m.key(), Value: binary.BigEndian.AppendUint64(value, uint64(m.wall))}
}

// before is a time of records: those with an earlier one are older than age.
// It is false where that is known of none.
func (a *aging) before(age time.Duration) (stamp int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.age()
	for _, m := range slices.Backward(a.marks) {
		if now-m.age >= age {
			return m.stamp, true
		}
	}
	return 0, false
}

// since is how much of the log's age has passed since the clock showed a time,
// as far as that is known.
func (a *aging) since(t time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, at := a.age(), t.UnixMilli()
	next := now
	for _, m := range slices.Backward(a.marks) {
		if m.wall <= at {
			return now - min(m.age+time.Duration(at-m.wall)*time.Millisecond, next)
		}
		next = m.age
	}
	return now - next
}

// policies are the broker's, with their ages in the time of records, as counted
// back from now.
func (a *aging) policies(policies []Policy, now time.Time) []Policy {
	list := slices.Clone(policies)
	for i := range list {
		p := &list[i]
		if p.Age <= 0 {
			continue
		}
		stamp, ok := a.before(p.Age)
		if p.Age = 0; ok {
			p.Age = max(now.Sub(time.UnixMilli(stamp)), 0)
		}
	}
	return list
}

// age puts a mark into the state if it is time for one, or in any case, and
// makes the queues that wait for their end as much older as the log has become
// besides.
func (b *Broker) age(mark bool) {
	if counted := b.aging.look(); counted > 0 {
		b.mu.RLock()
		for _, q := range b.queues {
			q.older(counted)
		}
		b.mu.RUnlock()
	}
	end := b.dispatcher.end()
	if !mark && !b.aging.due(end) {
		return
	}
	longest := time.Duration(0)
	for i := range b.policies {
		longest = max(longest, b.policies[i].Age)
	}
	p, err := b.journal.enterUnbounded()
	if err != nil {
		return
	}
	b.aging.put(p, b.journal.divide(), end, longest)
	b.journal.leave()
}

// loadTime makes the time of records go on behind that of the last one.
func (b *Broker) loadTime() error {
	b.journal.time = b.aging.last()
	// The last thing before a broker is closed is a mark.
	if closed, err := b.wasClosed(); err != nil || closed {
		return err
	}
	last, err := b.lastTime(b.journal.time)
	b.journal.time = max(b.journal.time, last)
	return err
}

// lastTime is the time of the last record, if that is later than after, or else
// after. However far the log's end is from its last record, where offsets were
// left out after crashes, this takes a few dozen questions for a time.
func (b *Broker) lastTime(after int64) (int64, error) {
	_, end := b.engine.Bounds()
	is := func(at int64) (bool, error) {
		o, err := b.engine.OffsetAt(time.UnixMilli(at))
		return o < end, err
	}
	// There is a record at low, or low is after; none is at or behind high.
	low, high, step := after, after+1, int64(1)
	for high < math.MaxInt64/4 {
		there, err := is(high)
		if err != nil {
			return after, err
		}
		if !there {
			break
		}
		low, high, step = high, high+2*step, 2*step
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		there, err := is(middle)
		if err != nil {
			return after, err
		}
		if there {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// older makes a queue that has no consumer so much older.
func (q *queue) older(by time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.idle.IsZero() {
		return
	}
	q.idle = q.idle.Add(-by)
	q.awaitExpiry()
}
