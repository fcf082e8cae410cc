package seglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// readFull reads b at pos and says how much of it there was before the file's
// end.
func readFull(f vfs.File, b []byte, pos int64) (int, error) {
	n, err := f.ReadAt(b, pos)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// readSegment reads from one segment, which the caller has entered, and says
// where to go on.
func (l *Log) readSegment(ctx context.Context, r *reader, s *segment, from, end core.Offset) (next core.Offset, err error) {
	defer faults(faults(true))
	defer guard(&err)
	v, err := l.sound(s)
	if err != nil {
		return from, err
	}
	if from < v.opened {
		// What stood between this segment and the one before it is removed,
		// or lost.
		to := min(v.opened, end)
		r.buf.Gaps = addGap(v.before(r.buf.Gaps, from, to), gap{From: from, To: to})
		from = to
	}
	end = min(end, v.next)
	if from >= end {
		return from, nil
	}
	if v.index != nil && r.filters != nil && r.scratch.selection.choose(v.index, r.filters) {
		return l.pick(ctx, r, s, v, from, end)
	}
	return l.walk(ctx, r, s, v, from, end)
}

// sound is the segment's view, with an index that has been checked if it has
// any.
func (l *Log) sound(s *segment) (view, error) {
	v := s.view()
	if v.index == nil || v.index.verify() == nil {
		return v, nil
	}
	if err := l.ensureIndex(s); err != nil {
		return v, fmt.Errorf("%w: an index is bad: %w", core.ErrStorage, err)
	}
	return s.view(), nil
}

// walk reads a segment frame by frame.
func (l *Log) walk(ctx context.Context, r *reader, s *segment, v view, from, end core.Offset) (core.Offset, error) {
	start := from
	i := v.blockAt(from)
	pos := v.block(i).pos
	ahead := min(max(r.bytes, minChunk), maxChunk)
	for from < end && pos < v.size {
		if err := ctx.Err(); err != nil {
			return from, err
		}
		h, body, err := r.scratch.frame(s, pos, v.size, ahead, from)
		if errors.Is(err, core.ErrCorrupt) {
			next, to, ferr := l.skipDamage(s, v, h, pos)
			if ferr != nil {
				return from, fmt.Errorf("%w: reading %s: %w", core.ErrStorage, s.name, ferr)
			}
			to = min(max(to, from), end)
			if to > from && !covered(v.gapsIn(from, to), from, to) {
				r.buf.Gaps = append(r.buf.Gaps, core.Gap{From: from, To: to, Lost: true})
				l.reportDamage(s, pos, from, to, err)
			}
			pos, from = next, to
			continue
		}
		if err != nil {
			return from, fmt.Errorf("%w: reading %s: %w", core.ErrStorage, s.name, err)
		}
		pos += h.size()
		if body == nil {
			continue // all of it is before from
		}
		if from = r.readFrame(&h, body, from, end); r.full {
			break
		}
	}
	if !r.full && from < end {
		from = end
	}
	r.addGaps(&v, start, from)
	return from, nil
}

// reportDamage tells the operator once of each place that is damaged.
func (l *Log) reportDamage(s *segment, pos int64, from, to core.Offset, err error) {
	if _, told := s.damage.LoadOrStore(pos, true); !told {
		l.log.Error("log is damaged, records were lost", "file", s.name, "from", from, "to", to, "err", err)
	}
}

// covered says whether gaps that are known hold all of a range.
func covered(gaps []gap, from, to core.Offset) bool {
	for _, g := range gaps {
		if g.From <= from {
			from = max(from, g.To)
		}
	}
	return from >= to
}

// frame reads and checks the frame at pos. The body is nil where all its
// records stand before from. An error that wraps core.ErrCorrupt comes with the
// header if that at least is sound.
func (s *scratch) frame(seg *segment, pos, size int64, ahead int, from core.Offset) (frameHeader, []byte, error) {
	if room := size - pos; int64(ahead) > room {
		ahead = int(room)
	}
	b, err := s.load(seg, pos, min(frameHeaderSize, int(size-pos)), ahead)
	if err != nil {
		return frameHeader{}, nil, err
	}
	h, ok := parseFrameHeader(b, seg.generation)
	if !ok || h.size() > size-pos {
		return frameHeader{}, nil, fmt.Errorf("%w: no frame at byte %d", core.ErrCorrupt, pos)
	}
	if h.end() <= from {
		return h, nil, nil
	}
	stored, err := s.load(seg, pos+frameHeaderSize, int(h.stored), ahead)
	if err != nil {
		return frameHeader{}, nil, err
	}
	if !h.checkBody(stored) {
		return h, nil, fmt.Errorf("%w: the frame at byte %d fails its checksum", core.ErrCorrupt, pos)
	}
	body, err := h.unpack(stored, s.room)
	if err != nil {
		return h, nil, err
	}
	if !checkRecords(body[h.prefix:], h.count) {
		return h, nil, fmt.Errorf("%w: the frame at byte %d does not hold %d records", core.ErrCorrupt, pos, h.count)
	}
	return h, body, nil
}

// readFrame takes the records of a frame from an offset on and says where to go
// on.
func (r *reader) readFrame(h *frameHeader, body []byte, from, end core.Offset) core.Offset {
	places := newPlaces(h, body)
	rest := body[h.prefix:]
	for range h.count {
		offset, time := places.next()
		size := recordSize(rest)
		if offset >= from {
			if offset >= end {
				return end
			}
			if !r.take(rest, size, offset, time) {
				return offset
			}
			from = offset + 1
		}
		rest = rest[size:]
	}
	r.settle()
	return from
}

// eachFrame calls do for each whole frame of the segment from one place to
// another, in order; next is where the log had come to at the first. The header
// and the body are valid until do returns.
func (s *segment) eachFrame(ctx context.Context, pos, end int64, next core.Offset, do func(h *frameHeader, body []byte) error) error {
	sc := newScanner(s.file, s.generation, pos, end)
	var room []byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, ok, err := sc.next()
		if err != nil {
			return fmt.Errorf("%w: %w", core.ErrStorage, err)
		}
		if !ok {
			return nil
		}
		h := &f.header
		if h.base < next {
			continue // the rest of a write that failed and was done again
		}
		next = h.end()
		body, err := h.unpack(f.stored, func(n int) []byte {
			room = slices.Grow(room[:0], n)[:n]
			return room
		})
		if err != nil || !checkRecords(body[h.prefix:], h.count) {
			continue
		}
		if err := do(h, body); err != nil {
			return err
		}
	}
}

// eachRecord calls do for each record of a frame, in order.
func eachRecord(h *frameHeader, body []byte, do func(at core.Offset, time int64, record []byte) error) error {
	at := newPlaces(h, body)
	rest := body[h.prefix:]
	for range h.count {
		offset, time := at.next()
		size := recordSize(rest)
		if err := do(offset, time, rest[:size]); err != nil {
			return err
		}
		rest = rest[size:]
	}
	return nil
}

// topicIn is the topic of a record that has been checked. It aliases the record.
func topicIn(record []byte) string {
	name := record[core.RecordHeaderSize:headSize(record)]
	return unsafe.String(unsafe.SliceData(name), len(name))
}

// places yields the offset and time of each record of a frame in turn.
type places struct {
	offset core.Offset
	time   int64
	sparse []byte
	dense  bool
}

func newPlaces(h *frameHeader, body []byte) places {
	p := places{offset: h.base, time: h.time, dense: h.flags&flagSparse == 0}
	if p.dense {
		p.offset--
	} else {
		p.sparse = body[:h.prefix]
	}
	return p
}

func (p *places) next() (core.Offset, int64) {
	if p.dense {
		p.offset++
		return p.offset, p.time
	}
	d, n := binary.Uvarint(p.sparse)
	p.sparse = p.sparse[max(n, 0):]
	t, n := binary.Uvarint(p.sparse)
	p.sparse = p.sparse[max(n, 0):]
	p.offset += core.Offset(d)
	p.time += int64(t)
	return p.offset, p.time
}

// skipDamage says where to go on behind a frame that is damaged: behind the
// frame if its header h is sound, or else at the next header that is. to is the
// offset of what stands there.
func (l *Log) skipDamage(s *segment, v view, h frameHeader, pos int64) (next int64, to core.Offset, err error) {
	if h.generation != 0 {
		return pos + h.size(), h.end(), nil
	}
	at, found, ok, err := findFrame(s.file, s.generation, pos+frameAlign, v.size)
	switch {
	case err != nil:
		return pos, 0, err
	case ok:
		return at, found.base, nil
	}
	return v.size, v.next, nil
}
