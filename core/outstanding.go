package core

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

// The outstanding messages of a queue are those before its next offset that
// have not been accepted: held by a consumer, leased, or waiting to be
// delivered again. All others before next are settled, so this list and next
// are a queue's whole position. The list is in the order of offsets.
type outstanding struct {
	list []outEntry // from head on; entries whose state is entryDone are gone
	head int
	done int // how many entries from head on are done
	// kept says for which session an entry is kept, of those that are.
	kept map[Offset]string
}

// An outEntry is one outstanding message.
type outEntry struct {
	offset   Offset
	attempts uint16
	state    entryState
	holder   *Consumer // of a held one
	token    uint64    // of a leased one
	// due is when a held or leased one is released, when a waiting one may be
	// delivered, or a rejected one written to the dead letters; 0 is never, or
	// at once. As queue.now counts.
	due    int64
	reason string // of a rejected one
	// seen is the queue's wave in which no consumer took a waiting one.
	seen uint64
	size uint32 // in a metered queue
	// ends is when it expires, in a queue that is swept, in milliseconds since
	// 1970; 0 is never, or not known before the first sweep.
	ends int64
}

type entryState uint8

const (
	entryHeld entryState = iota
	entryLeased
	entryWaiting
	entryParked   // behind an earlier one of the same key
	entryKept     // for a session that has no consumer now
	entryRejected // on its way to the dead letters
	entrySettled  // and the queue was rewound behind it ([queue.rewound])
	entryDone
)

func (o *outstanding) len() int { return len(o.list) - o.head - o.done }

// live returns the entries, some of which may be done.
func (o *outstanding) live() []outEntry { return o.list[o.head:] }

// find returns the entry at an offset, nil if it is settled.
func (o *outstanding) find(at Offset) *outEntry {
	l := o.live()
	if len(l) == 0 || at > l[len(l)-1].offset {
		return nil
	}
	i := sort.Search(len(l), func(i int) bool { return l[i].offset >= at })
	if i == len(l) || l[i].offset != at || l[i].state == entryDone {
		return nil
	}
	return &l[i]
}

// within returns the entries from an offset to another, inclusive, some of which
// may be done.
func (o *outstanding) within(from, to Offset) []outEntry {
	l := o.live()
	i := sort.Search(len(l), func(i int) bool { return l[i].offset >= from })
	j := sort.Search(len(l), func(i int) bool { return l[i].offset > to })
	return l[min(i, j):j]
}

// add adds an entry whose offset is not there. Pointers to entries are valid
// until the next add.
func (o *outstanding) add(e outEntry) {
	if o.head > 64 && o.head > len(o.list)/2 {
		n := copy(o.list, o.list[o.head:])
		clear(o.list[n:])
		o.list, o.head = o.list[:n], 0
	}
	l := o.live()
	if len(l) == 0 || e.offset > l[len(l)-1].offset {
		o.list = append(o.list, e)
		return
	}
	i := sort.Search(len(l), func(i int) bool { return l[i].offset >= e.offset })
	if l[i].offset == e.offset {
		o.done--
		l[i] = e
		return
	}
	o.list = append(o.list, outEntry{})
	l = o.live()
	copy(l[i+1:], l[i:])
	l[i] = e
}

// count returns how many entries are in a state.
func (o *outstanding) count(s entryState) (n int) {
	for i := range o.live() {
		if o.live()[i].state == s {
			n++
		}
	}
	return n
}

// settle removes an entry.
func (o *outstanding) settle(e *outEntry) {
	delete(o.kept, e.offset)
	*e = outEntry{offset: e.offset, state: entryDone}
	o.done++
	for o.head < len(o.list) && o.list[o.head].state == entryDone {
		o.head++
		o.done--
	}
	switch {
	case o.head == len(o.list):
		if cap(o.list) > 64 {
			o.list = nil
		}
		o.list, o.head = o.list[:0], 0
	case o.done > 64 && o.done > o.len():
		l := o.list[:0]
		for _, e := range o.live() {
			if e.state != entryDone {
				l = append(l, e)
			}
		}
		clear(o.list[len(l):])
		o.list, o.head, o.done = l, 0, 0
	}
}

// A position's value in the state is a version byte, the next offset, the time
// in milliseconds since which the queue has no consumer (0: it has one), the
// offset before which messages may have been delivered, what was passed over (the count of lanes, and for each its runs: count, then the
// distance from the end of the one before it and its length), and the
// outstanding entries: count, then for each the distance to the offset before
// it, the attempts, and the age of the log in milliseconds before which it is
// not delivered again (0: at once; 1: it is on its way to the dead letters, and
// the reason follows as a length and bytes; 2: it is kept for a session, whose
// name follows likewise). All but the version, the reason and the name are
// uvarints. Version 3 kept nothing for sessions, version 2 had times of the
// machine's clock instead of ages, version 1 no reach, no runs and no reasons
// besides.
const (
	positionVersion  = 4
	positionRejected = 1
	positionKept     = 2
)

// appendPosition appends a position. begun is how old the log was when the times
// of the outstanding entries were 0.
func appendPosition(dst []byte, next Offset, idle time.Time, reach Offset, maybe runs, left []runs, o *outstanding, begun time.Duration) []byte {
	dst = append(dst, positionVersion)
	dst = binary.AppendUvarint(dst, uint64(next))
	if idle.IsZero() {
		dst = append(dst, 0)
	} else {
		dst = binary.AppendUvarint(dst, uint64(idle.UnixMilli()))
	}
	dst = binary.AppendUvarint(dst, uint64(reach))
	dst = appendRuns(dst, maybe)
	dst = binary.AppendUvarint(dst, uint64(len(left)))
	for _, l := range left {
		dst = appendRuns(dst, l)
	}
	if seeded.On(seeded.HeldForgotten) {
		o = &outstanding{list: slices.DeleteFunc(slices.Clone(o.live()), func(e outEntry) bool { return e.state == entryHeld || e.state == entryDone })}
	}
	dst = binary.AppendUvarint(dst, uint64(o.len()-o.count(entrySettled)))
	last := Offset(0)
	for i := range o.live() {
		e := &o.live()[i]
		if e.state == entryDone || e.state == entrySettled {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(e.offset-last))
		attempts, state := e.attempts, e.state
		if seeded.On(seeded.AttemptsForgotten) {
			attempts = 0
		}
		if seeded.On(seeded.RejectForgotten) && state == entryRejected {
			state = entryHeld
		}
		dst = binary.AppendUvarint(dst, uint64(attempts))
		session, kept := o.kept[e.offset]
		switch {
		case kept:
			dst = binary.AppendUvarint(dst, positionKept)
			dst = appendString(dst, session)
		case state == entryRejected:
			dst = binary.AppendUvarint(dst, positionRejected)
			dst = appendString(dst, e.reason)
		case state == entryWaiting:
			age := uint64(0)
			if e.due != 0 {
				age = uint64(max((time.Duration(e.due) + begun).Milliseconds(), positionKept+1))
			}
			dst = binary.AppendUvarint(dst, age)
		default:
			dst = append(dst, 0)
		}
		last = e.offset
	}
	return dst
}

// A position is what parsePosition reads.
type position struct {
	next     Offset
	idle     time.Time
	reach    Offset
	maybe    runs
	left     []runs
	out      outstanding
	rejected int
	wall     bool // the entries' times are of the machine's clock
}

// parsePosition reads a position back; what was held waits to be delivered
// again, what is kept for a session waits for that, and what was rejected is still
// on its way to the dead letters.
func parsePosition(value []byte) (p position, err error) {
	if len(value) == 0 || value[0] < 1 || value[0] > positionVersion {
		return p, fmt.Errorf("%w: a position of an unknown version", ErrCorrupt)
	}
	p.wall = value[0] < 3
	d := bodyDecoder{rest: value[1:]}
	p.next = Offset(d.uvarint())
	if ms := d.uvarint(); ms != 0 {
		p.idle = time.UnixMilli(int64(ms))
	}
	if value[0] >= 2 {
		p.reach, p.maybe = Offset(d.uvarint()), d.runs()
		for n := d.uvarint(); n > 0 && !d.bad; n-- {
			p.left = append(p.left, d.runs())
		}
	}
	at := Offset(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		at += Offset(d.uvarint())
		e := outEntry{offset: at, attempts: uint16(d.uvarint()), state: entryWaiting}
		due := d.uvarint()
		switch {
		case value[0] >= 2 && due == positionRejected:
			e.state, e.reason = entryRejected, string(d.bytes())
			p.rejected++
		case value[0] >= 4 && due == positionKept:
			e.state = entryKept
			p.out.keep(&e, string(d.bytes()))
		default:
			e.due = int64(due) * int64(time.Millisecond)
		}
		p.out.list = append(p.out.list, e)
	}
	if d.bad || len(d.rest) > 0 {
		return p, fmt.Errorf("%w: a position that ends early or late", ErrCorrupt)
	}
	return p, nil
}
