package seglog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sluicemq/sluice/core"
)

// denseShare is the share of a segment's records, one in that many, from which
// on it is read through instead of by postings.
const denseShare = 8

// A selection is what filters match in one segment, kept by a scratch from one
// read to the next.
type selection struct {
	filters *core.FilterSet
	index   *index
	dense   bool
	topics  []int32
	offsets []core.Offset
	average int // bytes of a record of those topics

	// The block looked at last.
	segment  *segment
	block    int
	data     []byte
	unpacked []byte
}

// choose finds the records of a segment that filters match; it is false where
// they are so many that the segment is better read through.
func (c *selection) choose(x *index, filters *core.FilterSet) bool {
	if c.index == x && c.filters == filters {
		return !c.dense
	}
	c.index, c.filters = x, filters
	c.topics = x.matching(c.topics[:0], filters)
	total, bytes := uint64(0), uint64(0)
	for _, i := range c.topics {
		t := x.topic(int(i))
		total, bytes = total+uint64(t.count), bytes+t.bytes
	}
	c.average = int(bytes / max(total, 1))
	c.offsets = c.offsets[:0]
	if c.dense = total*denseShare > uint64(x.records); c.dense {
		return false
	}
	for _, i := range c.topics {
		c.offsets = x.offsets(c.offsets, x.topic(int(i)))
	}
	if len(c.topics) > 1 {
		slices.Sort(c.offsets)
	}
	return true
}

// pick reads the records that were chosen.
func (l *Log) pick(ctx context.Context, r *reader, s *segment, v view, from, end core.Offset) (next core.Offset, err error) {
	filters := r.filters
	r.filters = nil // all that is picked matches
	defer func() { r.filters = filters }()

	if middle, most := r.half(&v, from, end); most > 0 {
		next, err = l.pickTogether(ctx, r, s, v, from, middle, end, most)
	} else {
		next, err = l.pickFrom(ctx, r, s, v, from, end)
	}
	if err != nil {
		return from, err
	}
	r.addGaps(&v, from, next)
	return next, nil
}

// pickFrom picks from a range of offsets as much as the reader takes, and says
// where to go on.
func (l *Log) pickFrom(ctx context.Context, r *reader, s *segment, v view, from, end core.Offset) (core.Offset, error) {
	c := &r.scratch.selection
	start := from
	i, _ := slices.BinarySearch(c.offsets, from)
	var f pickedFrame
	for ; i < len(c.offsets) && c.offsets[i] < end; i++ {
		at := c.offsets[i]
		if at >= f.end {
			if err := ctx.Err(); err != nil {
				return from, err
			}
			err := l.findPicked(c, &f, s, &v, at)
			if errors.Is(err, core.ErrCorrupt) {
				// All that the damage may have taken is gone, whether the
				// filters match it or not.
				lost, to := max(f.next, start), min(f.end, end)
				if !covered(v.gapsIn(lost, to), lost, to) {
					r.buf.Gaps = append(r.buf.Gaps, core.Gap{From: lost, To: to, Lost: true})
					l.reportDamage(s, f.pos, lost, to, err)
				}
				for i+1 < len(c.offsets) && c.offsets[i+1] < f.end {
					i++
				}
				continue
			}
			if err != nil {
				return from, fmt.Errorf("%w: reading %s: %w", core.ErrStorage, s.name, err)
			}
		}
		time, rec := f.seek(at)
		size := len(rec)
		if n := len(r.buf.Records); n > 0 && (n >= r.maxRecords || size > r.bytes) {
			r.full = true
			from = at
			break
		}
		own := r.scratch.room(size)
		copy(own, rec)
		r.take(own, size, at, time)
		if r.settle(); r.full {
			from = at + 1
			break
		}
	}
	if !r.full {
		from = end
	}
	return from, nil
}

// A pickedFrame is the frame that a chosen record stands in; where it cannot be
// read, what is lost with it.
type pickedFrame struct {
	pos       int64
	next, end core.Offset // where rest begins, and where the frame ends
	places    places
	rest      []byte
}

// seek returns the time and the bytes of the record at an offset, which is
// there, at or behind the last one.
func (f *pickedFrame) seek(at core.Offset) (int64, []byte) {
	for {
		offset, time := f.places.next()
		size := recordSize(f.rest)
		rec := f.rest[:size]
		f.rest = f.rest[size:]
		if offset >= at {
			return time, rec
		}
	}
}

// findPicked finds the frame that holds the record at an offset. Where the error
// wraps core.ErrCorrupt, f says what is lost.
func (l *Log) findPicked(c *selection, f *pickedFrame, s *segment, v *view, at core.Offset) error {
	i := v.blockAt(at)
	k, end := v.block(i), v.blockEnd(i)
	f.pos, f.next, f.end = k.pos, k.base, v.next
	if i+1 < v.numBlocks() {
		f.end = v.block(i + 1).base
	}
	if c.segment != s || c.block != i || int64(len(c.data)) != end-k.pos {
		c.segment = nil
		c.data = slices.Grow(c.data[:0], int(end-k.pos))[:end-k.pos]
		n, err := readFull(s.file, c.data, k.pos)
		if err != nil {
			return err
		}
		c.data = c.data[:n]
		c.segment, c.block = s, i
	}
	for data := c.data; ; {
		h, ok := parseFrameHeader(data, s.generation)
		if !ok || h.size() > int64(len(data)) {
			return fmt.Errorf("%w: no frame at byte %d", core.ErrCorrupt, f.pos)
		}
		if h.end() <= at {
			f.pos, f.next = f.pos+h.size(), h.end()
			data = data[h.size():]
			continue
		}
		f.next, f.end = h.base, h.end()
		stored := data[frameHeaderSize:][:h.stored]
		if !h.checkBody(stored) {
			return fmt.Errorf("%w: the frame at byte %d fails its checksum", core.ErrCorrupt, f.pos)
		}
		body, err := h.unpack(stored, func(n int) []byte {
			c.unpacked = slices.Grow(c.unpacked[:0], n)[:n]
			return c.unpacked
		})
		if err == nil && !checkRecords(body[h.prefix:], h.count) {
			err = fmt.Errorf("%w: the frame at byte %d does not hold %d records", core.ErrCorrupt, f.pos, h.count)
		}
		if err != nil {
			return err
		}
		f.places, f.rest = newPlaces(&h, body), body[h.prefix:]
		return nil
	}
}

// addGaps takes the gaps of a segment that reach into what was read of it.
func (r *reader) addGaps(v *view, from, to core.Offset) {
	for _, g := range v.gapsIn(from, to) {
		r.buf.Gaps = append(r.buf.Gaps, core.Gap{From: max(g.From, from), To: min(g.To, to), Lost: g.Lost})
	}
}
