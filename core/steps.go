package core

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

// A large position is not journaled whole each time that something of it
// changes, but in steps: each is what has changed since the one before, under a
// key of its own. When the steps have become as large as the position, or many,
// it is journaled whole again, and they go. So what is written grows with what
// changes, and not with what is outstanding.
//
// Steps belong to the position whose ID they have. Others are what a commit that
// was refused has left behind, and mean nothing.
type steps struct {
	id          uint64
	count       int // how many are in the state
	size, bytes int // of the position, and of its steps

	touched []Offset // which outstanding messages have changed
	moved   []move   // how what was passed over has changed, in order
	// whole says that the position has to be journaled whole next: more has
	// changed than is worth a step, or was not noted, or a commit was refused.
	whole bool
}

// A move is a change of what was passed over in a lane: a run that was added at
// the end, or a range that was cut out.
type move struct {
	run
	lane int
	cut  bool
}

const (
	// stepsFrom is from how many bytes on a position is journaled in steps.
	stepsFrom = 1 << 10
	// maxSteps is how many follow a position at the most.
	maxSteps = 1024
)

// touch notes that an outstanding message has changed, or is not there any more.
// cursor.mu is held.
func (q *queue) touch(at Offset) {
	if s := q.steps; s != nil && s.noting(len(s.touched)) {
		s.touched = append(s.touched, at)
	}
}

// moves notes a change of what was passed over. cursor.mu is held.
func (q *queue) moves(lane int, from, to Offset, cut bool) {
	if s := q.steps; s != nil && s.noting(len(s.moved)) {
		s.moved = append(s.moved, move{run{from, to}, lane, cut})
	}
}

// noting reports whether one more change is worth noting: so many, in a step,
// are about half of the position.
func (s *steps) noting(n int) bool {
	if n > s.room()/8 {
		s.whole = true
	}
	return !s.whole
}

// room is how many bytes the steps may have before the position is journaled
// whole.
func (s *steps) room() int { return max(s.size, 1<<10) }

// journalWhole has the position journaled whole the next time. cursor.mu is
// held.
func (q *queue) journalWhole() {
	if q.steps != nil {
		q.steps.whole = true
	}
}

func stepKey(queue string, n int) string {
	return string(binary.BigEndian.AppendUint64([]byte(keyStep+queue), uint64(n)))
}

// queueOfStep is the name of a step's queue.
func queueOfStep(key string) string { return key[len(keyStep) : len(key)-8] }

// journalPosition adds to a commit what makes the position durable. The journal
// is entered, and cursor.mu held.
func (q *queue) journalPosition(p *commit) {
	if len(q.maybe) > 0 {
		q.maybe.cut(0, q.floor())
	}
	idle := q.idle
	if q.settings.AutoDelete && q.used {
		idle = time.Time{} // it is over once nobody is there, now or after a restart
	} else if !idle.IsZero() {
		idle = q.b.aging.wall().Add(-time.Since(idle))
	}
	q.journalCounted(p)
	q.journalSnapshots(p)
	s := q.steps
	simple := q.rewound == 0 && len(q.out.kept) == 0 // or more has changed than what is noted
	if simple && s != nil && !s.whole && s.count < maxSteps {
		value := q.appendStep(nil, idle)
		if s.bytes+len(value) <= s.room() {
			p.Changes = append(p.Changes, Change{Key: stepKey(q.name, s.count), Value: value})
			s.count++
			s.bytes += len(value)
			s.touched, s.moved = s.touched[:0], s.moved[:0]
			return
		}
	}
	id := uint64(0)
	if simple && 2*(q.out.len()+q.leftRuns()) >= q.b.stepsFrom {
		id = max(rand.Uint64(), 1)
	}
	value := q.appendPosition(nil, id, idle)
	p.Changes = append(p.Changes, Change{Key: keyPosition + q.name, Value: value})
	q.forgetSteps(p)
	if id == 0 {
		q.steps = nil
		return
	}
	if s == nil {
		s = new(steps)
		q.steps = s
	}
	*s = steps{id: id, size: len(value), touched: s.touched[:0], moved: s.moved[:0]}
}

// appendPosition appends the position as it is, which steps with the ID follow; 0
// is none. cursor.mu is held.
func (q *queue) appendPosition(dst []byte, id uint64, idle time.Time) []byte {
	next, left, maybe, reach := q.next, q.left, q.maybe, max(q.reach, q.wanted)
	if q.next < q.rewound {
		next, left = q.aroundSettled()
		if reach > q.next && next > q.next {
			maybe = append(slices.Clone(maybe), run{q.next, min(reach, next)})
		}
	}
	return appendPosition(dst, id, next, idle, reach, maybe, left, &q.out, q.b.aging.begun())
}

// forgetSteps adds to a commit that the steps are gone. cursor.mu is held.
func (q *queue) forgetSteps(p *commit) {
	if s := q.steps; s != nil {
		for n := range s.count {
			p.Changes = append(p.Changes, Change{Key: stepKey(q.name, n)})
		}
		s.count = 0
	}
}

// A step's value is a version byte, the ID of its position, the next offset, the
// idle time and the reach as they are now, the count of changes of what was
// passed over, and for each its lane, doubled, and one more where it is a cut,
// its first offset and its length; then the count of outstanding messages that
// have changed, and for each the distance to the offset before it, one more than
// its attempts, and the rest as in a position; or 0 where it is gone. All but the
// version are uvarints.
const stepVersion = 1

// appendStep appends what has changed. cursor.mu is held.
func (q *queue) appendStep(dst []byte, idle time.Time) []byte {
	s, begun := q.steps, q.b.aging.begun()
	dst = append(dst, stepVersion)
	dst = binary.AppendUvarint(dst, s.id)
	dst = appendPlace(dst, q.next, idle, max(q.reach, q.wanted))
	dst = binary.AppendUvarint(dst, uint64(len(s.moved)))
	for _, m := range s.moved {
		kind := uint64(2 * m.lane)
		if m.cut {
			kind++
		}
		dst = binary.AppendUvarint(dst, kind)
		dst = binary.AppendUvarint(dst, uint64(m.from))
		dst = binary.AppendUvarint(dst, uint64(m.to-m.from))
	}
	slices.Sort(s.touched)
	s.touched = slices.Compact(s.touched)
	dst = binary.AppendUvarint(dst, uint64(len(s.touched)))
	last := Offset(0)
	for _, at := range s.touched {
		dst = binary.AppendUvarint(dst, uint64(at-last))
		last = at
		if e := q.out.find(at); e != nil && !(seeded.On(seeded.HeldForgotten) && e.state == entryHeld) {
			dst = appendEntry(dst, e, "", 1, begun)
		} else {
			dst = append(dst, 0)
		}
	}
	return dst
}

// A follower takes the steps of a position in their order.
type follower struct {
	p       *position
	changed map[Offset]outEntry // as the last step has it; entryDone is gone
}

// follow takes one step.
func (f *follower) follow(value []byte) error {
	if len(value) == 0 || value[0] != stepVersion {
		return fmt.Errorf("%w: a step of an unknown version", ErrCorrupt)
	}
	d := bodyDecoder{rest: value[1:]}
	if id := d.uvarint(); id != f.p.id || id == 0 {
		return nil
	}
	f.p.next, f.p.idle, f.p.reach = Offset(d.uvarint()), d.idle(), Offset(d.uvarint())
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		kind, from := d.uvarint(), Offset(d.uvarint())
		lane, to := int(kind/2), from+Offset(d.uvarint())
		switch {
		case d.bad || lane >= len(f.p.left):
			d.bad = true
		case kind%2 == 1:
			f.p.left[lane].cut(from, to)
		default:
			f.p.left[lane].append(run{from, to})
		}
	}
	at := Offset(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		at += Offset(d.uvarint())
		e := outEntry{offset: at, state: entryDone}
		if attempts := d.uvarint(); attempts > 0 {
			e, _ = d.entry(at, uint16(attempts-1), positionSteps)
			d.bad = d.bad || e.state == entryKept // such a position has no steps
		}
		f.changed[at] = e
	}
	if d.bad || len(d.rest) > 0 {
		return fmt.Errorf("%w: a step that ends early or late", ErrCorrupt)
	}
	return nil
}

// end brings the position to where the last step has led.
func (f *follower) end() {
	p := f.p
	list := slices.DeleteFunc(p.out.list, func(e outEntry) bool { _, is := f.changed[e.offset]; return is })
	for _, e := range f.changed {
		if e.state != entryDone {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b outEntry) int { return int(int64(a.offset) - int64(b.offset)) })
	p.out, p.rejected = outstanding{list: list, kept: p.out.kept}, 0
	for i := range list {
		if list[i].state == entryRejected {
			p.rejected++
		}
	}
}

// followSteps brings a position to where the steps lead that the state has for
// its queue.
func followSteps(p *position, values [][]byte) error {
	f := follower{p: p, changed: make(map[Offset]outEntry)}
	for _, value := range values {
		if err := f.follow(value); err != nil {
			return err
		}
	}
	f.end()
	return nil
}

// loadSteps reads the steps that the state has, by queue, and notes their keys:
// their positions are journaled whole as the broker is opened.
func (b *Broker) loadSteps() (map[string][][]byte, error) {
	values := make(map[string][][]byte)
	for s, err := range b.engine.State(keyStep, "") {
		if err != nil {
			return nil, err
		}
		if len(s.Key) < len(keyStep)+8 {
			continue
		}
		name := queueOfStep(s.Key)
		values[name] = append(values[name], slices.Clone(s.Value))
		b.followed = append(b.followed, s.Key)
	}
	return values, nil
}
