package core

import "sort"

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
	// retained says what led to an entry, of those that were given as retained
	// values.
	retained map[Offset]*bound
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
	delete(o.retained, e.offset)
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
