package seglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// indexLater hands a segment that gets no more frames to the indexer.
func (l *Log) indexLater(s *segment) {
	l.indexing.Lock()
	l.indexQueue = append(l.indexQueue, s)
	l.indexing.Unlock()
	select {
	case l.indexWake <- struct{}{}:
	default:
	}
}

// indexLoop builds the indexes of sealed segments, one after the other.
func (l *Log) indexLoop() {
	for {
		select {
		case <-l.closing:
			return
		case <-l.indexWake:
			l.buildIndexes(context.Background())
		}
	}
}

// buildIndexes builds those that are waited for, until a context ends, and
// returns when nobody else builds one any more.
func (l *Log) buildIndexes(ctx context.Context) {
	for more := true; more && ctx.Err() == nil; {
		more = l.buildNext()
	}
}

// buildNext builds the next index that is waited for; there is none where it is
// false.
func (l *Log) buildNext() bool {
	l.builder.Lock()
	defer l.builder.Unlock()
	l.indexing.Lock()
	var s *segment
	if len(l.indexQueue) > 0 {
		s, l.indexQueue = l.indexQueue[0], l.indexQueue[1:]
	}
	l.indexing.Unlock()
	if s == nil {
		return false
	}
	if err := l.ensureIndex(s); err != nil {
		if !errors.Is(err, core.ErrClosed) {
			// Reads go on without it; the next start tries again.
			l.log.Error("index cannot be built", "segment", s.name, "err", err)
		}
		return true
	}
	select {
	case l.sealed <- struct{}{}:
	default:
	}
	return true
}

// Sealed implements core.Engine. A segment counts once it has its index, which
// Reclaim goes by.
func (l *Log) Sealed() <-chan struct{} { return l.sealed }

// finishIndexes builds the indexes that are waited for, unless a context ends
// before: the next start has to read a sealed segment that has none.
func (l *Log) finishIndexes(ctx context.Context) {
	finished := make(chan struct{})
	l.background.Go(func() {
		defer close(finished)
		l.buildIndexes(ctx)
	})
	select {
	case <-finished:
	case <-ctx.Done():
	}
}

// ensureIndex builds a sealed segment's index unless it has a good one.
func (l *Log) ensureIndex(s *segment) error {
	s.building.Lock()
	defer s.building.Unlock()
	s.mu.RLock()
	x, removed := s.index, s.removed
	s.mu.RUnlock()
	if removed || s.view().size == segmentHeaderSize {
		return nil
	}
	if x != nil {
		err := x.verify()
		if err == nil {
			return nil
		}
		l.log.Warn("index is bad and is built again", "file", indexName(s.name), "err", err)
	}
	b := s.gathered
	s.gathered = nil
	if b == nil || !b.gatheredAll() {
		b = newIndexBuilder(l, s)
		if err := b.scan(); err != nil {
			return err
		}
	}
	name := path.Join(l.dir, indexName(s.name))
	if err := writeFile(l.fs, name, b.encode()); err != nil {
		return err
	}
	x, sum, err := l.openIndex(s)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index != nil {
		s.former = append(s.former, s.index)
	}
	s.span, s.index = sum, x
	return nil
}

// writeFile makes a file, whole and durable, in place of one of that name.

func writeFile(fs vfs.FS, name string, content []byte) error {
	f, err := fs.Create(name + temporarySuffix)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(name+temporarySuffix, name); err != nil {
		return err
	}
	return fs.SyncDir(path.Dir(name))
}

// An indexBuilder gathers what an index says.
type indexBuilder struct {
	log     *Log
	segment *segment

	span   span
	ids    map[uint64]uint32 // by hash, of the topic seen first with it
	others map[string]uint32 // topics whose hash another one had first
	topics []topicSum
	of     []uint32    // the topic of each record
	runs   []run       // the offset of each record
	expect core.Offset // of the next one, if it goes on a run

	reached int64 // in the file, by what was gathered
}

func newIndexBuilder(l *Log, s *segment) *indexBuilder {
	return &indexBuilder{log: l, segment: s, ids: make(map[uint64]uint32), others: make(map[string]uint32)}
}

// What is gathered of a segment while it is written need not be read for its index.
// That is worth its memory only for a log that fills a segment soon.
const (
	gatherRecords = 4 << 20
	gatherTopics  = 1 << 16
	gatherTime    = 60_000 // milliseconds
)

// gather begins to gather what the active segment gets, if it has no records yet.
func (l *Log) gather() {
	c := &l.committer
	c.gathering = nil
	if s := c.segment; s.span.records == 0 {
		c.gathering = newIndexBuilder(l, s)
		c.gathering.reached = s.span.size
	}
}

// gathered takes what was written to the active segment between two places of its
// file: a batch, nil being one without records, or gives up. Where there are heads,
// they are those of the batch's records.
func (c *committer) gathered(pos, end int64, base core.Offset, batch *core.Batch, heads []byte) {
	b := c.gathering
	if b == nil {
		return
	}
	if b.reached != pos || len(b.of) > gatherRecords || len(b.topics) > gatherTopics || c.time-c.segment.span.firstTime > gatherTime {
		c.gathering = nil
		return
	}
	b.reached = end
	if batch == nil {
		return
	}
	at := uint32(0)
	for i, end := range batch.Ends {
		head := batch.Buf[at:end]
		if len(heads) > 0 {
			n := headSize(heads)
			head, heads = heads[:n], heads[n:]
		}
		b.record(base+core.Offset(i), head, int(end-at))
		at = end
	}
}

// gatheredAll reports whether all that the segment has was gathered, and completes
// it.
func (b *indexBuilder) gatheredAll() bool {
	was := b.segment.view()
	b.span = was.span
	return b.reached == was.size && len(b.of) == int(was.records)
}

// A run is records whose offsets follow each other, from one to the next run.
type run struct {
	record uint32
	offset core.Offset
}

type topicSum struct {
	name  string
	bytes uint64
	count uint32
}

// scan reads the segment.
func (b *indexBuilder) scan() error {
	s := b.segment
	was := s.view()
	b.span = span{size: segmentHeaderSize, opened: was.opened, after: was.after, next: was.opened, first: was.first}
	b.span.gaps = slices.Clone(was.gaps)
	b.of = make([]uint32, 0, was.records)
	sc := newScanner(s.file, s.generation, segmentHeaderSize, was.size)
	var room []byte
	for {
		select {
		case <-b.log.closing:
			return core.ErrClosed
		default:
		}
		f, ok, err := sc.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		h := &f.header
		if h.base < b.span.next {
			continue // the rest of a write that failed and was done again
		}
		body, err := h.unpack(f.stored, func(n int) []byte {
			room = slices.Grow(room[:0], n)[:n]
			return room
		})
		if err == nil && !checkRecords(body[h.prefix:], h.count) {
			err = fmt.Errorf("%w: the frame at byte %d does not hold %d records", core.ErrCorrupt, f.pos, h.count)
		}
		if err != nil {
			continue // it stays a hole
		}
		o, opened := parseOpening(body)
		switch {
		case h.flags&flagOpened != 0 && opened:
			b.hole(o.end, true)
			b.gap(gap{From: o.end, To: o.lost, Lost: true})
		case h.flags&flagOpened == 0:
			for _, g := range lostIn(h, body) {
				b.gap(g)
			}
			b.hole(h.base, f.jumped || !b.segment.rewritten)
		}
		b.records(h, body)
		b.span.add(h, f.pos)
	}
	// A copied segment says itself where it ends, and what is known to be removed
	// is among the gaps.
	b.hole(was.next, true)
	b.span.size, b.span.next = was.size, was.next
	b.span.lastCommit, b.span.lastChange = max(was.lastCommit, b.span.lastCommit), max(was.lastChange, b.span.lastChange)
	return nil
}

// hole notes that the records up to an offset are missing: lost, or, in a copied
// segment, removed by retention.
func (b *indexBuilder) hole(to core.Offset, lost bool) {
	b.gap(gap{From: b.span.next, To: to, Lost: lost})
}

// gap takes a gap, or what is new of it.
func (b *indexBuilder) gap(g gap) { b.span.gaps = addGap(b.span.gaps, g) }

// addGap adds to gaps, which are in order and do not overlap, what they do not
// have of another one.
func addGap(gaps []gap, g gap) []gap {
	i := sort.Search(len(gaps), func(i int) bool { return gaps[i].To > g.From })
	for ; g.From < g.To; i++ {
		if i == len(gaps) || gaps[i].From >= g.To {
			return slices.Insert(gaps, i, g)
		}
		if next := gaps[i]; g.From < next.From {
			gaps = slices.Insert(gaps, i, gap{From: g.From, To: next.From, Lost: g.Lost})
			i++
		}
		g.From = gaps[i].To
	}
	return gaps
}

// records takes the records of a frame.
func (b *indexBuilder) records(h *frameHeader, body []byte) {
	at := newPlaces(h, body)
	rest := body[h.prefix:]
	for range h.count {
		offset, _ := at.next()
		if h.flags&flagSparse != 0 {
			b.hole(offset, false)
			b.span.next = offset + 1
		}
		size := recordSize(rest)
		b.record(offset, rest, size)
		rest = rest[size:]
	}
}

// record takes one record, of which it is given the head, or more, and the size.
func (b *indexBuilder) record(offset core.Offset, head []byte, size int) {
	name := head[core.RecordHeaderSize:headSize(head)]
	id := b.topic(binary.LittleEndian.Uint64(head[4:]), name)
	b.topics[id].bytes += uint64(size)
	b.topics[id].count++
	if len(b.of) == 0 || b.expect != offset {
		b.runs = append(b.runs, run{uint32(len(b.of)), offset})
	}
	b.expect = offset + 1
	b.of = append(b.of, id)
}

// topic is the number of a topic.
func (b *indexBuilder) topic(hash uint64, name []byte) uint32 {
	id, ok := b.ids[hash]
	if ok && b.topics[id].name == string(name) {
		return id
	}
	if ok {
		if id, ok := b.others[string(name)]; ok {
			return id
		}
	}
	id = uint32(len(b.topics))
	own := strings.Clone(string(name))
	b.topics = append(b.topics, topicSum{name: own})
	if ok {
		b.others[own] = id
	} else {
		b.ids[hash] = id
	}
	return id
}

// encode writes the index. Of what it needs for each record, only the topic's
// number is there already: the rest is written to its place at once, as there
// may be ten million.
func (b *indexBuilder) encode() []byte {
	// Topics in order, and where the name and the postings of each begin.
	order := make([]uint32, len(b.topics))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(i, j uint32) int { return strings.Compare(b.topics[i].name, b.topics[j].name) })
	lengths := make([]uint64, len(b.topics))
	b.eachPosting(func(id uint32, delta uint64) { lengths[id] += uint64(uvarintLen(delta)) })
	names, posts := 0, uint64(0)
	ends := lengths // of what is written of each topic's postings
	for _, id := range order {
		names += len(b.topics[id].name)
		ends[id], posts = posts, posts+lengths[id]
	}

	le := binary.LittleEndian
	size := indexHeaderSize + len(b.span.blocks)*indexBlockSize + len(b.span.gaps)*indexGapSize + len(b.topics)*indexTopicSize + names + int(posts)
	out := make([]byte, indexHeaderSize, size)
	for _, k := range b.span.blocks {
		out = le.AppendUint64(out, uint64(k.base))
		out = le.AppendUint64(out, uint64(k.time))
		out = le.AppendUint64(out, uint64(k.pos))
	}
	for _, g := range b.span.gaps {
		out = le.AppendUint64(out, uint64(g.From))
		out = le.AppendUint64(out, uint64(g.To))
		lost := uint64(0)
		if g.Lost {
			lost = 1
		}
		out = le.AppendUint64(out, lost)
	}
	named := uint64(0)
	for _, id := range order {
		t := &b.topics[id]
		out = le.AppendUint64(out, named)
		out = le.AppendUint64(out, t.bytes)
		out = le.AppendUint64(out, ends[id])
		out = le.AppendUint32(out, t.count)
		out = le.AppendUint32(out, uint32(len(t.name)))
		named += uint64(len(t.name))
	}
	for _, id := range order {
		out = append(out, b.topics[id].name...)
	}
	postings := out[len(out):size]
	b.eachPosting(func(id uint32, delta uint64) {
		ends[id] += uint64(binary.PutUvarint(postings[ends[id]:], delta))
	})
	out = out[:size]

	s := &b.span
	copy(out, indexMagic)
	le.PutUint32(out[8:], indexVersion)
	le.PutUint64(out[16:], b.segment.generation)
	le.PutUint64(out[24:], uint64(s.size))
	le.PutUint64(out[32:], uint64(s.opened))
	le.PutUint64(out[40:], uint64(s.first))
	le.PutUint64(out[48:], uint64(s.next))
	le.PutUint64(out[56:], s.after)
	le.PutUint64(out[64:], s.lastCommit)
	le.PutUint64(out[72:], s.lastChange)
	le.PutUint64(out[80:], uint64(s.firstTime))
	le.PutUint64(out[88:], uint64(s.lastTime))
	le.PutUint32(out[96:], s.records)
	le.PutUint32(out[100:], uint32(len(s.blocks)))
	le.PutUint32(out[104:], uint32(len(s.gaps)))
	le.PutUint32(out[108:], uint32(len(b.topics)))
	le.PutUint64(out[112:], uint64(names))
	le.PutUint64(out[120:], posts)
	le.PutUint32(out[128:], crc32.Checksum(out[indexHeaderSize:], castagnoli))
	le.PutUint32(out[12:], headerChecksum(out[:indexHeaderSize]))
	return out
}

// eachPosting goes through the records, in order: the topic of each, and how far
// behind the one before of that topic it stands.
func (b *indexBuilder) eachPosting(do func(topic uint32, delta uint64)) {
	last := make([]core.Offset, len(b.topics))
	for i := range last {
		last[i] = b.span.first
	}
	record := 0
	for i, r := range b.runs {
		end := len(b.of)
		if i+1 < len(b.runs) {
			end = int(b.runs[i+1].record)
		}
		for at := r.offset; record < end; record, at = record+1, at+1 {
			id := b.of[record]
			do(id, uint64(at-last[id]))
			last[id] = at
		}
	}
}

// uvarintLen is how many bytes a number takes.
func uvarintLen(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }
