package seglog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/sluicemq/sluice/core"
)

// denseShare is the share of a segment's records, one in that many, from which
// on it is read through instead of by postings.
const denseShare = 8

// A selection is what filters match in one segment, kept by a scratch from one
// read to the next.
type selection struct {
	filters  *core.FilterSet
	index    *index
	dense    bool
	topics   []int32
	ordinals []uint32

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
	total, records := uint64(0), uint64(0)
	for _, i := range c.topics {
		total += uint64(x.topic(int(i)).count)
	}
	if n := x.numBlocks(); n > 0 {
		records = uint64(x.block(n-1).ordinal) + 1
	}
	c.ordinals = c.ordinals[:0]
	if c.dense = total*denseShare > records && total > 64; c.dense {
		return false
	}
	for _, i := range c.topics {
		c.ordinals = x.ordinals(c.ordinals, x.topic(int(i)))
	}
	if len(c.topics) > 1 {
		slices.Sort(c.ordinals)
	}
	return true
}

// pick reads the records that were chosen.
func (l *Log) pick(ctx context.Context, r *reader, s *segment, v view, from, end core.Offset) (core.Offset, error) {
	c := &r.scratch.selection
	filters := r.filters
	r.filters = nil // all that is picked matches
	defer func() { r.filters = filters }()

	start := from
	least := v.block(v.blockAt(from)).ordinal
	i := sort.Search(len(c.ordinals), func(i int) bool { return c.ordinals[i] >= least })
	var f pickedFrame
	for ; i < len(c.ordinals) && from < end && !r.full; i++ {
		ordinal := c.ordinals[i]
		if ordinal >= f.end {
			if err := ctx.Err(); err != nil {
				return from, err
			}
			err := l.findPicked(c, &f, s, &v, ordinal)
			if errors.Is(err, core.ErrCorrupt) {
				// Everything that the damage may have taken is gone, whether
				// the filters match it or not.
				to := min(max(f.to, from), end)
				if to > from && !covered(v.gapsIn(from, to), from, to) {
					lost := max(f.base, from)
					r.buf.Gaps = append(r.buf.Gaps, core.Gap{From: lost, To: to, Lost: true})
					l.reportDamage(s, f.pos, lost, to, err)
				}
				for i+1 < len(c.ordinals) && c.ordinals[i+1] < f.end {
					i++
				}
				continue
			}
			if err != nil {
				return from, fmt.Errorf("%w: reading %s: %w", core.ErrStorage, s.name, err)
			}
		}
		offset, time, rec := f.seek(ordinal)
		if offset < from {
			continue
		}
		if offset >= end {
			break
		}
		size := len(rec)
		if n := len(r.buf.Records); n > 0 && (n >= r.maxRecords || size > r.bytes) {
			r.full = true
			from = offset
			break
		}
		own := r.scratch.room(size)
		copy(own, rec)
		r.take(own, size, offset, time)
		from = offset + 1
		r.settle()
	}
	if !r.full {
		from = end
	}
	r.addGaps(&v, start, from)
	return from, nil
}

// A pickedFrame is the frame that a chosen record stands in.
type pickedFrame struct {
	next, end uint32 // the ordinals of the record that rest begins with, and behind its last
	places    places
	rest      []byte

	// Where it cannot be read: the range that is lost with it.
	pos      int64
	base, to core.Offset
}

// seek returns the record with an ordinal at or behind the last one.
func (f *pickedFrame) seek(ordinal uint32) (core.Offset, int64, []byte) {
	for {
		offset, time := f.places.next()
		size := recordSize(f.rest)
		rec := f.rest[:size]
		f.rest = f.rest[size:]
		f.next++
		if f.next > ordinal {
			return offset, time, rec
		}
	}
}

// findPicked finds the frame that holds the record with an ordinal. Where the
// error wraps core.ErrCorrupt, f says what is lost.
func (l *Log) findPicked(c *selection, f *pickedFrame, s *segment, v *view, ordinal uint32) error {
	i := v.index.blockOf(ordinal)
	k := v.block(i)
	end := v.blockEnd(i)
	f.pos, f.base, f.to, f.next, f.end = k.pos, k.base, v.next, k.ordinal, v.records
	if i+1 < v.numBlocks() {
		f.to, f.end = v.block(i+1).base, v.block(i+1).ordinal
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
		if f.next+h.count <= ordinal {
			f.pos += h.size()
			f.next += h.count
			f.base = max(f.base, h.end())
			data = data[h.size():]
			continue
		}
		f.base = h.base
		stored := data[frameHeaderSize:][:h.stored]
		if !h.checkBody(stored) {
			f.end = f.next + h.count
			if h.flags&flagSparse == 0 {
				f.to = h.end()
			}
			return fmt.Errorf("%w: the frame at byte %d fails its checksum", core.ErrCorrupt, f.pos)
		}
		body, err := h.unpack(stored, func(n int) []byte {
			c.unpacked = slices.Grow(c.unpacked[:0], n)[:n]
			return c.unpacked
		})
		if err == nil && !checkRecords(body[h.prefix:], h.count) {
			err = fmt.Errorf("%w: the frame at byte %d does not hold %d records", core.ErrCorrupt, f.pos, h.count)
		}
		f.end = f.next + h.count
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
