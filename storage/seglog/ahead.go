package seglog

import (
	"context"
	"runtime"
	"slices"

	"github.com/sluicemq/sluice/core"
)

// Each record that is picked out of a sealed segment costs reading, checking and
// unpacking a block of it. Where there are many to pick, a second goroutine picks
// the second half of what a read has room for, while the reader's own picks the
// first.

// worthHalving is how many records it takes.
const worthHalving = 64

// An ahead is the second half of a read: a reader of its own, with room of its
// own for what it has read.
type ahead struct {
	reader  reader
	buf     core.ReadBuffer
	scratch scratch
	next    core.Offset
	err     error
	done    chan struct{}
}

// half says where the second half begins of what there is room for of the
// records chosen in a range, and how many that half has; none where it is not
// worth it. A block is in one half: what is lost with it is told once.
func (r *reader) half(v *view, from, end core.Offset) (middle core.Offset, most int) {
	c := &r.scratch.selection
	i, _ := slices.BinarySearch(c.offsets, from)
	j, _ := slices.BinarySearch(c.offsets, end)
	n := min(j-i, r.maxRecords-len(r.buf.Records), r.bytes/max(c.average, 1))
	if n < worthHalving || runtime.GOMAXPROCS(0) < 2 {
		return 0, 0
	}
	if middle = v.block(v.blockAt(c.offsets[i+n/2])).base; middle <= from {
		return 0, 0
	}
	k, _ := slices.BinarySearch(c.offsets, middle)
	return middle, i + n - k
}

// pickTogether is pickFrom for both halves of a range at once, the second of
// which has at most so many records.
func (l *Log) pickTogether(ctx context.Context, r *reader, s *segment, v view, from, middle, end core.Offset, most int) (core.Offset, error) {
	a := r.scratch.ahead
	if a == nil {
		a = &ahead{done: make(chan struct{}, 1)}
		r.scratch.ahead = a
	}
	a.buf.Reset()
	a.reader = reader{buf: &a.buf, scratch: &a.scratch, maxRecords: most, bytes: r.bytes, since: r.since}
	a.scratch.selection.offsets = r.scratch.selection.offsets
	go l.pickAhead(ctx, a, s, v, middle, end)
	next, err := l.pickFrom(ctx, r, s, v, from, middle)
	<-a.done
	a.scratch.selection.offsets = nil
	if err != nil || r.full {
		return next, err
	}
	if a.err != nil {
		return from, a.err
	}
	next = a.next
	for i := range a.buf.Records {
		rec := &a.buf.Records[i]
		size := core.RecordHeaderSize + len(rec.Topic) + len(rec.Body)
		if len(r.buf.Records) > 0 && size > r.bytes {
			next, r.full = rec.Offset, true
			break
		}
		r.buf.Records = append(r.buf.Records, *rec)
		r.bytes -= size
	}
	for _, g := range a.buf.Gaps {
		if g.From < next {
			r.buf.Gaps = append(r.buf.Gaps, g)
		}
	}
	r.settle()
	return next, nil
}

func (l *Log) pickAhead(ctx context.Context, a *ahead, s *segment, v view, from, end core.Offset) {
	defer func() { a.done <- struct{}{} }()
	defer faults(faults(true))
	defer guard(&a.err)
	a.next, a.err = l.pickFrom(ctx, &a.reader, s, v, from, end)
}
