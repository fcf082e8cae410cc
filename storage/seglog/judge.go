package seglog

import (
	"encoding/binary"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/seeded"
)

// A judge decides, frame by frame, which of those found after a crash are the
// log's. Two things leave a hole: bytes that were never durable (the torn tail,
// behind which later bytes may have survived), and bytes that were and are
// damaged. Every frame says which commits were durable when it was written. So
// if a frame behind the hole, wherever it stands, says that the missing commit
// was durable, confirmed data was lost: the hole becomes a gap and the log goes
// on behind it. If none says so, the log ends at the hole.
//
// The rejected alternative, to take any later valid frame for proof, loses
// nothing but raises the alarm after every power cut in which unsynced writes
// reached the disk out of order.
type judge struct {
	durable uint64 // the newest commit that frames say was durable
	// applied is the newest one that the state says was. It counts at the end
	// alone: what an opening has voided has lower numbers than the opening, and
	// that the state may know of.
	applied uint64
	last    uint64      // the commit of the last frame accepted
	whole   bool        // that frame was its commit's last
	next    core.Offset // behind the last record accepted

	// fresh says that the next frame begins the log, or follows what retention
	// removed: what stands before it is not missed.
	fresh bool

	// waiting holds the frames found of commits not known to have been durable,
	// segment is where the last frame was found.
	waiting []candidate
	segment *segment

	// lost is told of each hole: the segment behind it, the offsets, and the
	// first and the last commit that is missing.
	lost func(at *segment, g gap, first, last uint64)
}

// A candidate is a frame that was found.
type candidate struct {
	segment *segment
	pos     int64
	header  frameHeader
	opening opening // where the header says flagOpened
}

// An opening is the prefix of a frame that was written when a log was opened.
type opening struct {
	// end is the offset behind the last record that the log had then, lost
	// the one behind the last that it is known to have had.
	end, lost core.Offset
}

const openingSize = 16

func (o opening) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(o.end))
	return binary.LittleEndian.AppendUint64(b, uint64(o.lost))
}

func parseOpening(b []byte) (o opening, ok bool) {
	if len(b) != openingSize {
		return o, false
	}
	return opening{
		end:  core.Offset(binary.LittleEndian.Uint64(b)),
		lost: core.Offset(binary.LittleEndian.Uint64(b[8:])),
	}, true
}

// see takes the next frame that was found.
func (j *judge) see(c candidate) {
	h := &c.header
	opened := h.flags&flagOpened != 0
	if j.fresh {
		// A new segment is begun only once the one before is durable, or cut.
		after, next := h.commit-1, h.base
		if opened {
			after, next = h.synced, c.opening.end
		}
		j.know(after)
		j.waiting = j.waiting[:0]
		j.fresh, j.last, j.whole, j.next = false, after, true, next
		if h.flags&flagContinued != 0 {
			j.last, j.whole = h.commit, false
		}
	}
	j.know(h.synced)
	if c.segment != j.segment {
		// As all before it is durable, what is still waiting was left in the one
		// before by a write that failed.
		j.segment, j.waiting = c.segment, j.waiting[:0]
	}
	if !opened {
		j.waiting = append(j.waiting, c)
		return
	}
	// What the log did not go on from is void.
	j.waiting = j.waiting[:0]
	j.boundary(c.segment, h.synced, c.opening.end)
	j.accept(c)
}

// begin says that what comes next need not follow what there was.
func (j *judge) begin() { j.fresh = true }

// know takes note that all commits up to one were durable.
func (j *judge) know(durable uint64) {
	j.durable = max(j.durable, durable)
	n := 0
	for n < len(j.waiting) && j.waiting[n].header.commit <= j.durable {
		j.confirmed(j.waiting[n])
		n++
	}
	j.waiting = append(j.waiting[:0], j.waiting[n:]...)
}

// confirmed takes a frame that was durable.
func (j *judge) confirmed(c candidate) {
	h := &c.header
	if (h.commit < j.last || h.commit == j.last && j.whole || h.base < j.next) && !seeded.On(seeded.StaleFrames) {
		return // the rest of a write that failed and was done again
	}
	follows := h.commit == j.last+1 && j.whole && h.flags&flagContinued == 0 ||
		h.commit == j.last && !j.whole && h.flags&flagContinued != 0
	if !follows || h.base != j.next {
		j.lost(c.segment, gap{From: j.next, To: h.base, Lost: true}, j.last+1, h.commit-1)
	}
	j.accept(c)
}

// boundary says that the log goes on from a commit, and an offset, in a new
// segment: what is missing before is lost.
func (j *judge) boundary(s *segment, after uint64, end core.Offset) {
	if after > j.last || end > j.next {
		j.lost(s, gap{From: j.next, To: max(end, j.next), Lost: true}, j.last+1, after)
	}
	j.last, j.whole = max(j.last, after), true
	j.next = max(j.next, end)
}

func (j *judge) accept(c candidate) {
	h := &c.header
	j.last, j.whole = h.commit, h.flags&flagMore == 0
	j.next = h.end()
	if h.flags&flagOpened != 0 {
		if o := c.opening; o.lost > o.end {
			c.segment.span.gaps = append(c.segment.span.gaps, gap{From: o.end, To: o.lost, Lost: true})
		}
		if c.segment.span.size == segmentHeaderSize {
			c.segment.span.opened, c.segment.span.after = c.opening.end, h.synced
		}
	}
	c.segment.span.add(h, c.pos)
}

// finish ends the log: of what is still waiting it takes the commits that are
// whole and follow each other. Frames of another time are of a write that was
// refused, and done again with other records. torn says that something was left over.
func (j *judge) finish() (torn bool) {
	if !seeded.On(seeded.LastFrameDropped) {
		j.know(max(j.durable, j.applied)) // the last frame that was found has not been looked at
	}
	if len(j.waiting) > 0 && j.durable > j.last {
		// What the first one waits for was durable, as it says itself, and is
		// lost; it may have been confirmed.
		if c := &j.waiting[0]; c.header.commit == j.durable+1 && c.header.flags&flagContinued == 0 && c.header.base >= j.next {
			j.boundary(c.segment, j.durable, c.header.base)
		}
	}
	for i := 0; i < len(j.waiting); {
		n, base := i, j.next
		for ; n < len(j.waiting); n++ {
			h := &j.waiting[n].header
			if h.commit != j.last+1 || h.base != base || (h.flags&flagContinued != 0) != (n > i) || h.time != j.waiting[i].header.time {
				return true
			}
			base = h.end()
			if h.flags&flagMore == 0 {
				break
			}
		}
		if n == len(j.waiting) || !j.whole {
			return true
		}
		for ; i <= n; i++ {
			j.accept(j.waiting[i])
		}
	}
	j.waiting = nil
	return false
}
