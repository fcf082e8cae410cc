package seglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/seeded"
	"github.com/sluicemq/sluice/storage/vfs"
)

// rewriteChunk is how much of a copy is written at once.
const rewriteChunk = 1 << 20

// rewrite copies what a plan keeps to a new file that takes the name of the
// plan's first segment. The others' files are superseded by it from then on, as
// its header says, but still there.
func (l *Log) rewrite(ctx context.Context, p plan) (s *segment, err error) {
	first, last := p.segments[0], p.segments[len(p.segments)-1]
	name := path.Join(l.dir, first.name)
	f, err := l.fs.Create(name + temporarySuffix)
	if err != nil {
		return nil, err
	}
	s = newSegment(segmentHeader{generation: newGeneration(), sequence: first.sequence, through: last.through, rewritten: true}, first.name, f)
	w := rewriter{file: f, segment: s, buf: s.encode()}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), l.fs.Remove(name+temporarySuffix))
			s = nil
		}
	}()
	if err := w.begin(p.segments); err != nil {
		return nil, err
	}
	for i, source := range p.segments {
		if err := w.copy(ctx, source, &p.keeps[i]); err != nil {
			return nil, fmt.Errorf("copying %s: %w", source.name, err)
		}
	}
	if err := w.finish(last.view()); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := l.fs.Rename(name+temporarySuffix, name); err != nil {
		return nil, err
	}
	if seeded.On(seeded.RewriteNoDirSync) {
		return s, nil
	}
	return s, l.fs.SyncDir(l.dir)
}

// A rewriter writes a segment of records that do not follow each other.
type rewriter struct {
	file    vfs.File
	segment *segment
	packer  packer

	buf []byte // to be written at pos
	pos int64

	// The frame that is being gathered.
	header   frameHeader
	prefix   []byte
	records  []byte
	lastTime int64
}

// begin writes the frame that says where the log goes on in this segment, and
// what had been lost of those that it is copied from.
func (w *rewriter) begin(sources []*segment) error {
	v := sources[0].view()
	h := frameHeader{commit: v.after + 1, base: v.opened, synced: uint64(v.opened), time: v.firstTime, flags: flagSparse}
	at := v.opened
	for i, s := range sources {
		v := s.view()
		lost := v.index.gaps
		if i > 0 {
			lost = slices.Concat(v.lostBefore, lost)
		}
		for _, g := range lost {
			if g.From = max(g.From, at); g.Lost && g.From < g.To {
				w.segment.span.gaps = append(w.segment.span.gaps, g)
				w.prefix = binary.AppendUvarint(w.prefix, uint64(g.From-at))
				w.prefix = binary.AppendUvarint(w.prefix, uint64(g.To-g.From))
				at = g.To
			}
		}
	}
	w.segment.span.next = v.opened
	return w.frame(&h)
}

// lostIn are the gaps that the first frame of a copied segment names.
func lostIn(h *frameHeader, body []byte) (gaps []gap) {
	if h.flags&flagSparse == 0 || h.count > 0 || int(h.prefix) > len(body) {
		return nil
	}
	at := h.base
	for b := body[:h.prefix]; len(b) > 0; {
		skip, n := binary.Uvarint(b)
		b = b[max(n, 0):]
		length, m := binary.Uvarint(b)
		b = b[max(m, 0):]
		if n <= 0 || m <= 0 {
			break
		}
		from := at + core.Offset(skip)
		at = from + core.Offset(length)
		gaps = append(gaps, gap{From: from, To: at, Lost: true})
	}
	return gaps
}

// copy copies what is kept of a segment. What is damaged is left out: the index
// has it as a gap.
func (w *rewriter) copy(ctx context.Context, source *segment, keep *keeper) error {
	v := source.view()
	return source.eachFrame(ctx, segmentHeaderSize, v.size, v.opened, func(h *frameHeader, body []byte) error {
		return eachRecord(h, body, func(at core.Offset, time int64, record []byte) error {
			if !keep.keeps(topicIn(record), at) {
				return nil
			}
			return w.add(h.commit, at, time, record)
		})
	})
}

// add takes a record that is kept.
func (w *rewriter) add(commit uint64, offset core.Offset, time int64, record []byte) error {
	h := &w.header
	if h.count > 0 && len(w.records)+len(record) > frameTarget {
		if err := w.flushFrame(); err != nil {
			return err
		}
	}
	if h.count == 0 {
		h.base, h.time, w.lastTime = offset, time, time
		h.synced = uint64(offset)
	}
	w.prefix = binary.AppendUvarint(w.prefix, uint64(offset)-h.synced)
	w.prefix = binary.AppendUvarint(w.prefix, uint64(time-w.lastTime))
	w.records = append(w.records, record...)
	w.lastTime = time
	h.synced, h.commit = uint64(offset), commit
	h.count++
	return nil
}

// flushFrame ends the frame that is being gathered.
func (w *rewriter) flushFrame() error {
	h := w.header
	w.header = frameHeader{}
	h.synced++ // behind the last record
	h.flags = flagSparse
	return w.frame(&h)
}

// frame writes a frame with the prefix and records gathered.
func (w *rewriter) frame(h *frameHeader) error {
	h.generation = w.segment.generation
	h.prefix = uint32(len(w.prefix))
	body := append(w.prefix, w.records...)
	h.raw = uint32(len(body))
	at := len(w.buf)
	w.buf = w.packer.appendFrame(w.buf, h, body, h.count >= packRecords)
	w.prefix, w.records = body[:0], w.records[:0]

	span := &w.segment.span
	if h.count > 0 {
		w.hole(h.base)
		places := newPlaces(h, body)
		for range h.count {
			offset, _ := places.next()
			w.hole(offset)
			span.next = offset + 1
		}
	}
	span.add(h, w.pos+int64(at))
	if len(w.buf) < rewriteChunk {
		return nil
	}
	return w.flush()
}

// hole notes that the records up to an offset are not kept.
func (w *rewriter) hole(to core.Offset) {
	s := &w.segment.span
	s.gaps = addGap(s.gaps, gap{From: s.next, To: to})
}

// finish ends the segment where the last one that was copied ended.
func (w *rewriter) finish(last view) error {
	if w.header.count > 0 {
		if err := w.flushFrame(); err != nil {
			return err
		}
	}
	span := &w.segment.span
	w.hole(last.next)
	end := frameHeader{commit: last.lastCommit, base: last.next, time: last.lastTime, flags: flagClosed}
	if err := w.frame(&end); err != nil {
		return err
	}
	span.lastCommit = last.lastCommit
	return w.flush()
}

func (w *rewriter) flush() error {
	if _, err := w.file.WriteAt(w.buf, w.pos); err != nil {
		return err
	}
	w.pos += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// scanRewritten reads a copied segment that has no index: all its frames are
// its own, and what is missing between them is missing on purpose.
func (r *recovery) scanRewritten(s *segment, size int64) error {
	sc := newScanner(s.file, s.generation, segmentHeaderSize, size)
	sc.read = &r.log.progress.Done
	for {
		f, ok, err := sc.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if r.look != nil {
			r.look(s, &f)
		}
		h := &f.header
		if h.base < s.span.next {
			continue
		}
		if body, err := h.unpack(f.stored, func(n int) []byte { return make([]byte, n) }); err == nil {
			s.span.gaps = append(s.span.gaps, lostIn(h, body)...)
		}
		switch n := s.span.next; {
		case n == 0 && f.jumped && r.judge.fresh:
			s.lostBefore = everythingBefore
			r.losses = append(r.losses, loss{at: s, gap: gap{From: h.base, To: h.base}})
		case n > 0 && f.jumped:
			// What was copied there, and what was not, is not known.
			r.lost(s, gap{From: n, To: h.base, Lost: true}, s.span.lastCommit, h.commit)
		case n > 0:
			s.span.gaps = addGap(s.span.gaps, gap{From: n, To: h.base})
		}
		s.span.add(h, f.pos)
	}
	if s.span.size > segmentHeaderSize {
		r.known(s)
	}
	return nil
}
