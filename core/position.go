package core

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

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
// besides. Version 5 is 4 with an ID, a uvarint, behind the version: steps with
// that ID follow.
const (
	positionVersion  = 4
	positionSteps    = 5
	positionRejected = 1
	positionKept     = 2
)

// appendPosition appends a position, which steps with the ID follow; 0 is none.
// begun is how old the log was when the times of the outstanding entries were 0.
func appendPosition(dst []byte, id uint64, next Offset, idle time.Time, reach Offset, maybe runs, left []runs, o *outstanding, begun time.Duration) []byte {
	if id == 0 {
		dst = append(dst, positionVersion)
	} else {
		dst = binary.AppendUvarint(append(dst, positionSteps), id)
	}
	dst = appendPlace(dst, next, idle, reach)
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
		if e := &o.live()[i]; e.state != entryDone && e.state != entrySettled {
			dst = binary.AppendUvarint(dst, uint64(e.offset-last))
			dst = appendEntry(dst, e, o.kept[e.offset], 0, begun)
			last = e.offset
		}
	}
	return dst
}

// appendEntry appends what a position says of an outstanding message besides its
// offset; more is added to the attempts. session is the one that it is kept for,
// "" if it is for none.
func appendEntry(dst []byte, e *outEntry, session string, more uint64, begun time.Duration) []byte {
	attempts, state := e.attempts, e.state
	if seeded.On(seeded.AttemptsForgotten) {
		attempts = 0
	}
	if seeded.On(seeded.RejectForgotten) && state == entryRejected {
		state = entryHeld
	}
	dst = binary.AppendUvarint(dst, uint64(attempts)+more)
	switch {
	case session != "":
		dst = binary.AppendUvarint(dst, positionKept)
		return appendString(dst, session)
	case state == entryRejected:
		dst = binary.AppendUvarint(dst, positionRejected)
		return appendString(dst, e.reason)
	case state == entryWaiting:
		age := uint64(0)
		if e.due != 0 {
			age = uint64(max((time.Duration(e.due) + begun).Milliseconds(), positionKept+1))
		}
		return binary.AppendUvarint(dst, age)
	}
	return append(dst, 0)
}

// appendPlace appends what a position and a step begin with.
func appendPlace(dst []byte, next Offset, idle time.Time, reach Offset) []byte {
	dst = binary.AppendUvarint(dst, uint64(next))
	if idle.IsZero() {
		dst = append(dst, 0)
	} else {
		dst = binary.AppendUvarint(dst, uint64(idle.UnixMilli()))
	}
	return binary.AppendUvarint(dst, uint64(reach))
}

// A position is what parsePosition reads.
type position struct {
	id       uint64
	next     Offset
	idle     time.Time
	reach    Offset
	maybe    runs
	left     []runs
	out      outstanding
	rejected int32
	wall     bool // the entries' times are of the machine's clock
}

// parsePosition reads a position back; what was held waits to be delivered
// again, what is kept for a session waits for that, and what was rejected is still
// on its way to the dead letters.
func parsePosition(value []byte) (p position, err error) {
	if len(value) == 0 || value[0] < 1 || value[0] > positionSteps {
		return p, fmt.Errorf("%w: a position of an unknown version", ErrCorrupt)
	}
	p.wall = value[0] < 3
	d := bodyDecoder{rest: value[1:]}
	if value[0] == positionSteps {
		p.id = d.uvarint()
	}
	p.next, p.idle = Offset(d.uvarint()), d.idle()
	if value[0] >= 2 {
		p.reach, p.maybe = Offset(d.uvarint()), d.runs()
		for n := d.uvarint(); n > 0 && !d.bad; n-- {
			p.left = append(p.left, d.runs())
		}
	}
	at := Offset(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		at += Offset(d.uvarint())
		e, session := d.entry(at, uint16(d.uvarint()), value[0])
		switch e.state {
		case entryRejected:
			p.rejected++
		case entryKept:
			p.out.keep(&e, session)
		}
		p.out.list = append(p.out.list, e)
	}
	if d.bad || len(d.rest) > 0 {
		return p, fmt.Errorf("%w: a position that ends early or late", ErrCorrupt)
	}
	return p, nil
}

func (d *bodyDecoder) idle() (t time.Time) {
	if ms := d.uvarint(); ms != 0 {
		t = time.UnixMilli(int64(ms))
	}
	return t
}

// entry reads what follows the attempts of an outstanding message, in a position
// of a version, and for which session it is kept, if it is.
func (d *bodyDecoder) entry(at Offset, attempts uint16, version byte) (e outEntry, session string) {
	e = outEntry{offset: at, attempts: attempts, state: entryWaiting}
	due := d.uvarint()
	switch {
	case version >= 2 && due == positionRejected:
		e.state, e.reason = entryRejected, string(d.bytes())
	case version >= 4 && due == positionKept:
		e.state, session = entryKept, string(d.bytes())
	default:
		e.due = int64(due) * int64(time.Millisecond)
	}
	return e, session
}
