package seglog

import (
	"context"
	"encoding/binary"
	"sort"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/pause"
)

// What a read buffer without bounds of its own gets.
const (
	defaultReadBytes   = 1 << 20
	defaultReadRecords = 1 << 20
)

// Read implements core.Engine. The newest batches are read from memory, without
// a copy; what is older from its segment.
func (l *Log) Read(ctx context.Context, from, limit core.Offset, filters *core.FilterSet, buf *core.ReadBuffer) (core.Offset, error) {
	r := newReader(filters, buf)
	first, end := l.Bounds()
	if limit != 0 {
		end = min(end, limit)
	}
	from = max(from, 1)
	if from < first && from < end {
		to := min(first, end)
		buf.Gaps = append(buf.Gaps, l.before(from, to)...)
		from = to
	}
	for from < end && !r.full {
		if err := ctx.Err(); err != nil {
			return from, err
		}
		if e, ok := l.tail.find(from); ok {
			from = r.readBatch(&e, from, end)
			continue
		}
		pause.At("not in the tail")
		s := l.segmentAt(from)
		if s == nil {
			// Nothing stands between here and the end: those offsets were
			// never given.
			return end, nil
		}
		next, err := l.readSegment(ctx, r, s, from, end)
		s.leave()
		if err != nil {
			return from, err
		}
		from = next
	}
	return from, nil
}

// before says what has become of offsets in front of the first record left.
func (l *Log) before(from, to core.Offset) []gap {
	return addGap(l.Lost(from, to), gap{From: from, To: to})
}

// Lost implements core.Engine.
func (l *Log) Lost(from, to core.Offset) (gaps []core.Gap) {
	for _, s := range l.segmentsNow() {
		v := s.view()
		gaps = v.before(gaps, from, to)
		if v.opened >= to {
			break
		}
		for _, g := range v.gapsIn(from, to) {
			if g.Lost {
				gaps = addGap(gaps, gap{From: max(g.From, from), To: min(g.To, to), Lost: true})
			}
		}
	}
	return gaps
}

// segmentAt finds the segment with the first record at or after an offset, and
// enters it; nil if there is none.
func (l *Log) segmentAt(at core.Offset) *segment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := sort.Search(len(l.segments), func(i int) bool {
		v := l.segments[i].view()
		return v.next > at
	})
	for ; i < len(l.segments); i++ {
		if s := l.segments[i]; s.tells() {
			s.enter()
			return s
		}
	}
	return nil
}

// A reader fills a read buffer.
type reader struct {
	filters    *core.FilterSet
	buf        *core.ReadBuffer
	scratch    *scratch
	maxRecords int
	bytes      int // that may still be taken
	full       bool
	since      int64 // records before that time are passed over
}

func newReader(filters *core.FilterSet, buf *core.ReadBuffer) *reader {
	s, ok := buf.Scratch.(*scratch)
	if !ok {
		s = new(scratch)
		buf.Scratch = s
	}
	buf.Reset()
	s.reset()
	r := &s.reader
	*r = reader{filters: filters, buf: buf, scratch: s, maxRecords: buf.MaxRecords, bytes: buf.MaxBytes}
	if r.maxRecords <= 0 {
		r.maxRecords = defaultReadRecords
	}
	if r.bytes <= 0 {
		r.bytes = defaultReadBytes
	}
	return r
}

// take takes the record that rec begins with, if the filters match it, and says
// how long it is. It is false, and the reader full, where the record does not
// fit any more. rec is known to be whole.
func (r *reader) take(rec []byte, size int, offset core.Offset, time int64) bool {
	if time < r.since {
		return true
	}
	hash := binary.LittleEndian.Uint64(rec[4:])
	if r.filters != nil && r.filters.Skip(hash) {
		return true
	}
	name := topicIn(rec)
	if r.filters != nil && !r.filters.Match(name) {
		return true
	}
	if n := len(r.buf.Records); n > 0 && (n >= r.maxRecords || size > r.bytes) {
		r.full = true
		return false
	}
	r.buf.Records = append(r.buf.Records, core.Record{Offset: offset, Time: time, Hash: hash, Topic: name, Body: rec[headSize(rec):size:size]})
	r.bytes -= size
	return true
}

// settle says that the buffer is full where not even the smallest record fits.
func (r *reader) settle() {
	if len(r.buf.Records) >= r.maxRecords || r.bytes <= 0 {
		r.full = true
	}
}

// readBatch reads from a batch in memory and says where to go on.
func (r *reader) readBatch(e *tailEntry, from, end core.Offset) core.Offset {
	end = min(end, e.end())
	pos, offset := e.seek(from)
	for rest := e.buf[pos:]; offset < end; offset++ {
		size := recordSize(rest)
		if !r.take(rest, size, offset, e.time) {
			return offset
		}
		rest = rest[size:]
	}
	r.settle()
	return max(offset, from)
}

// recordSize is the length of the record that b begins with, which is whole.
func recordSize(b []byte) int { return 4 + int(binary.LittleEndian.Uint32(b)) }

// headSize is the length of what that record begins with, up to the end of its topic.
func headSize(b []byte) int {
	return core.RecordHeaderSize + int(binary.LittleEndian.Uint16(b[core.RecordHeaderSize-2:]))
}

// checkRecords says whether body is exactly count records.
func checkRecords(body []byte, count uint32) bool {
	for ; count > 0; count-- {
		if len(body) < core.RecordHeaderSize {
			return false
		}
		size := 4 + uint64(binary.LittleEndian.Uint32(body))
		topic := uint64(binary.LittleEndian.Uint16(body[12:]))
		if size > uint64(len(body)) || core.RecordHeaderSize+topic > size {
			return false
		}
		body = body[size:]
	}
	return len(body) == 0
}

// A scratch is what a read buffer keeps for the next read: what was read of a
// segment's file, and room to unpack frames.
type scratch struct {
	reader reader

	// The chunk read last, which the next read may go on with.
	segment  *segment
	chunk    []byte
	chunkPos int64
	// used are the chunks that records of the current read alias, spare ones
	// that may be used again.
	used, spare [][]byte

	// Room for unpacked frames: slabs, of which all before cur are full and
	// cur is up to at.
	slabs   [][]byte
	cur, at int

	selection selection
	ahead     *ahead // nil until there was enough to pick
}

const (
	minChunk  = 16 << 10
	maxChunk  = 256 << 10
	slabSize  = 256 << 10
	maxSlabs  = 16
	maxChunks = 8
)

// reset makes all room free again but for the newest chunk.
func (s *scratch) reset() {
	if s.ahead != nil {
		s.ahead.scratch.reset()
	}
	for _, c := range s.used {
		if len(s.spare) < maxChunks && cap(c) <= 4*maxChunk {
			s.spare = append(s.spare, c[:0])
		}
	}
	clear(s.used)
	s.used = s.used[:0]
	s.cur, s.at = 0, 0
	if len(s.slabs) > maxSlabs {
		clear(s.slabs[maxSlabs:])
		s.slabs = s.slabs[:maxSlabs]
	}
}

// room returns n bytes that are free until the next reset.
func (s *scratch) room(n int) []byte {
	for ; s.cur < len(s.slabs); s.cur, s.at = s.cur+1, 0 {
		if slab := s.slabs[s.cur]; len(slab)-s.at >= n {
			b := slab[s.at : s.at+n : s.at+n]
			s.at += n
			return b
		}
	}
	s.slabs = append(s.slabs, make([]byte, max(n, slabSize)))
	s.at = n
	return s.slabs[s.cur][:n:n]
}

// load returns n bytes of a segment's file at pos, fewer where the file ends.
// If they are not in the chunk at hand, ahead bytes are read from there.
func (s *scratch) load(seg *segment, pos int64, n, ahead int) ([]byte, error) {
	if s.segment == seg && pos >= s.chunkPos && pos+int64(n) <= s.chunkPos+int64(len(s.chunk)) {
		i := int(pos - s.chunkPos)
		return s.chunk[i : i+n : i+n], nil
	}
	if s.chunk != nil {
		s.used = append(s.used, s.chunk)
		s.segment, s.chunk = nil, nil
	}
	size := max(n, ahead)
	var chunk []byte
	for i := len(s.spare) - 1; i >= 0; i-- {
		if cap(s.spare[i]) >= size {
			chunk = s.spare[i]
			s.spare[i] = s.spare[len(s.spare)-1]
			s.spare = s.spare[:len(s.spare)-1]
			break
		}
	}
	if chunk == nil {
		chunk = make([]byte, 0, max(size, minChunk))
	}
	got, err := readFull(seg.file, chunk[:size], pos)
	if err != nil {
		return nil, err
	}
	s.segment, s.chunk, s.chunkPos = seg, chunk[:got], pos
	return s.chunk[:min(n, got):min(n, got)], nil
}
