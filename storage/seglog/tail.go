package seglog

import (
	"encoding/binary"
	"sort"
	"sync"

	"github.com/sluicemq/sluice/core"
)

// tailStride is how many records there are between two positions that a tail
// entry remembers.
const tailStride = 64

// tailOverhead is what an entry of the tail costs beside its records.
const tailOverhead = 96

// A tail is the log's newest batches in memory. Readers get records that alias
// the batches' own bytes, which nobody ever writes again.
type tail struct {
	limit int

	mu      sync.RWMutex // guards what follows
	entries []tailEntry  // a ring; its length is a power of two
	head, n int
	bytes   int
}

type tailEntry struct {
	base  core.Offset
	time  int64
	count uint32
	buf   []byte
	// every is where in buf each tailStride-th record begins, but for the
	// first.
	every []uint32
}

func (e *tailEntry) end() core.Offset { return e.base + core.Offset(e.count) }

func (e *tailEntry) cost() int { return cap(e.buf) + 4*len(e.every) + tailOverhead }

// push adds a batch and lets the oldest ones go that do not fit any more.
func (t *tail) push(b *core.Batch, base core.Offset, time int64) {
	e := tailEntry{base: base, time: time, count: uint32(len(b.Ends)), buf: b.Buf}
	if n := (len(b.Ends) - 1) / tailStride; n > 0 {
		e.every = make([]uint32, n)
		for i := range e.every {
			e.every[i] = b.Ends[(i+1)*tailStride-1]
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.n > 0 && t.bytes+e.cost() > t.limit {
		t.bytes -= t.entries[t.head].cost()
		t.entries[t.head] = tailEntry{}
		t.head = (t.head + 1) & (len(t.entries) - 1)
		t.n--
	}
	if e.cost() > t.limit {
		return
	}
	if t.n == len(t.entries) {
		grown := make([]tailEntry, max(64, 2*len(t.entries)))
		for i := range t.n {
			grown[i] = *t.at(i)
		}
		t.entries, t.head = grown, 0
	}
	*t.at(t.n) = e
	t.n++
	t.bytes += e.cost()
}

func (t *tail) at(i int) *tailEntry { return &t.entries[(t.head+i)&(len(t.entries)-1)] }

// find returns the entry that the record at an offset is in, or the first one
// behind it; has is false where the tail does not reach back to the offset.
func (t *tail) find(at core.Offset) (e tailEntry, has bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.n == 0 || at < t.at(0).base {
		return tailEntry{}, false
	}
	i := sort.Search(t.n, func(i int) bool { return t.at(i).end() > at })
	if i == t.n {
		return tailEntry{}, false
	}
	return *t.at(i), true
}

// seek is where in the entry's bytes a record begins that stands at or before
// an offset, and that record's offset.
func (e *tailEntry) seek(at core.Offset) (pos uint32, offset core.Offset) {
	if at <= e.base {
		return 0, e.base
	}
	skip := int(at-e.base) / tailStride
	if skip > 0 {
		pos = e.every[skip-1]
	}
	offset = e.base + core.Offset(skip*tailStride)
	for ; offset < at; offset++ {
		pos += 4 + binary.LittleEndian.Uint32(e.buf[pos:])
	}
	return pos, offset
}
