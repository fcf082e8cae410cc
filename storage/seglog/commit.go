package seglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A pending commit is a batch on its way into the log.
type pending struct {
	batch *core.Batch
	done  func(*core.Batch, core.Offset, error)
	// section holds its state changes, frames are complete but for what the seal
	// adds.
	section []byte
	frames  frames
	// heads are those of its records, where these are large; see packer.append.
	heads []byte
	// before is how many bytes of frames were appended before it.
	before int64
}

// Frames are those of one commit, in memory that begins with a page. In front of
// them is as much room as in the page of the file that they will begin in, as far
// as that is foreseen, so that they can be written together with what stands there.
type frames struct {
	lead int
	all  []byte // behind lead bytes
}

func (f *frames) bytes() []byte { return f.all[f.lead:] }

// begin empties it and makes the room in front.
func (f *frames) begin(lead int) {
	f.all = grow(f.all[:0], lead)[:lead]
	f.lead = lead
}

// move gives the frames another lead.
func (f *frames) move(lead int) {
	if lead == f.lead {
		return
	}
	size := len(f.all) - f.lead
	f.all = grow(f.all, lead)
	all := f.all[:lead+size]
	copy(all[lead:], f.bytes())
	f.all, f.lead = all, lead
}

// fill returns the frames, with so many zeros behind them.
func (f *frames) fill(n int) []byte {
	size := len(f.all)
	f.all = grow(f.all, n)
	whole := f.all[:size+n]
	clear(whole[size:])
	return whole[f.lead:]
}

// maxIdleBuffer is how large a frame buffer may be that is kept for later although
// little of it was used.
const maxIdleBuffer = 4 << 20

// rest gives back the memory if it is much more than was used, or used now, as the
// log is idle.
func (f *frames) rest(idle bool) {
	if cap(f.all) > maxIdleBuffer && (idle || len(f.all) < cap(f.all)/4) {
		f.all, f.lead = nil, 0
	}
}

// Append implements core.Engine. The batch is turned into frames here, on the
// caller's goroutine, while the committer still waits for the disk with the
// batch before; it blocks while another one is queued already.
func (l *Log) Append(b *core.Batch, done func(*core.Batch, core.Offset, error)) {
	p := <-l.free
	p.batch, p.done = b, done
	p.section, p.heads, p.before = p.section[:0], p.heads[:0], l.framed
	p.frames.begin(int((l.framed + l.shift.Load()) & (vfs.Page - 1)))
	if len(b.Changes) > 0 {
		p.section = appendChanges(p.section, b.Changes)
	}
	if len(b.Ends) > 0 || len(b.Changes) > 0 {
		p.frames.all, p.heads = l.packer.append(p.frames.all, p.heads, p.section, b, l.o.PackRecords)
		l.framed += int64(len(p.frames.bytes()))
	}
	if b.Here {
		l.carryOut(p)
		return
	}
	l.commits <- p
}

// A committer is what belongs to whoever has the turn: the commit goroutine, or a
// caller of Append who waits for his batch.
type committer struct {
	turn sync.Mutex

	segment *segment    // the active one
	commit  uint64      // of the last one written
	synced  uint64      // of the last one durable
	next    core.Offset // of the next record
	time    int64       // of the last one
	page    lastPage    // that it ends in

	gathering *indexBuilder // of the active segment; nil where its index will be made of the file

	refused time.Time // when the disk last had no room for what had been begun
	failed  error     // why nothing is appended any more

	ready chan prepared // will have the next segment, once one is being prepared

	// The state has a mark of the log's end, so that the loss of the last
	// segment's file shows: in which segment, and the offset.
	marked   *segment
	markedAt core.Offset

	unsyncedBytes   int
	unsyncedRecords int
	timer           *time.Timer // runs while something is unsynced
}

// commitLoop is the goroutine that writes. One commit is outstanding at a time:
// what comes meanwhile is the next batch.
func (l *Log) commitLoop() {
	defer close(l.committed)
	c := &l.committer
	for {
		select {
		case p, ok := <-l.commits:
			if !ok {
				return
			}
			l.carryOut(p)
		case r := <-l.requests:
			r.answer <- c.inTurn(r.do)
		case <-c.timer.C:
			if err := c.inTurn(l.sync); err != nil {
				l.log.Error("log sync failed, nothing is accepted any more", "err", err)
			}
		}
	}
}

// inTurn does something once it has the turn.
func (c *committer) inTurn(do func() error) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	return do()
}

// carryOut takes one batch through the log and says that it is done.
func (l *Log) carryOut(p *pending) {
	l.committer.turn.Lock()
	first, err := l.commit(p)
	l.committer.turn.Unlock()
	b, done := p.batch, p.done
	p.batch, p.done = nil, nil
	p.frames.rest(false)
	l.free <- p
	done(b, first, err)
}

// commit takes one batch through the log: written, durable, readable, applied
// to the state.
func (l *Log) commit(p *pending) (core.Offset, error) {
	c := &l.committer
	if c.failed != nil {
		return 0, c.failed
	}
	b, size := p.batch, len(p.frames.bytes())
	if size == 0 {
		if b.Sync {
			if err := l.sync(); err != nil {
				return 0, err
			}
		}
		return c.next, nil
	}
	if len(b.Changes) > 0 && l.state.shield.full() {
		return 0, fmt.Errorf("%w: the state waits for room", core.ErrStorageFull)
	}
	if err := l.makeRoom(int64(size)); err != nil {
		return 0, err
	}
	s := c.segment
	base, pos := c.next, s.span.size
	l.shift.Store(pos - p.before)
	c.time = max(c.time, b.Time)
	seal{generation: s.generation, commit: c.commit + 1, synced: c.synced, base: base, time: c.time}.apply(p.frames.bytes())
	if err := l.write(s, &p.frames, pos); err != nil {
		return 0, err
	}
	c.commit++
	c.unsyncedBytes += size
	c.unsyncedRecords += len(b.Ends)
	// Changes to the state are synced at once, even if nobody waits: the
	// state must not be ahead of the log, or it would remember, say, the ID
	// of a message that a power cut took.
	if seeded.On(seeded.StateBeforeSync) && len(b.Changes) > 0 {
		if err := errors.Join(l.state.apply(p.section, c.commit, base, base+core.Offset(len(b.Ends))), l.state.sync()); err != nil {
			return 0, l.fail(err)
		}
	}
	early := len(b.Changes) == 0 && (seeded.On(seeded.EarlyConfirm) || seeded.On(seeded.RollWithoutSync) && s.span.size > l.o.SegmentBytes/2)
	if !early && (b.Sync || len(b.Changes) > 0) || c.unsyncedBytes >= maxUnsyncedBytes || c.unsyncedRecords >= maxUnsyncedRecords {
		if err := l.sync(); err != nil {
			return 0, err
		}
	} else if c.unsyncedBytes == size {
		c.timer.Reset(l.o.SyncDelay)
	}
	c.next = base + core.Offset(len(b.Ends))
	pause.At("durable")
	// What the state names can be read.
	l.publish(s, p, pos, base)
	pause.At("readable")
	if len(b.Changes) > 0 {
		if err := l.state.apply(p.section, c.commit, base, c.next); err != nil {
			return 0, l.fail(err)
		}
		c.marked, c.markedAt = s, c.next
	} else if (s != c.marked || c.next-c.markedAt >= markEvery) && c.synced == c.commit && !l.state.shield.full() {
		if err := l.state.mark(c.commit, c.next); err != nil {
			return 0, l.fail(err)
		}
		c.marked, c.markedAt = s, c.next
	}
	return base, nil
}

// markEvery so many records the state has a mark of where the log is, if it has
// no changes to take. It is less than crashSkip, which covers what it lags
// behind.
const markEvery = crashSkip / 4

// publish makes a commit readable.
func (l *Log) publish(s *segment, p *pending, pos int64, base core.Offset) {
	s.mu.Lock()
	from := pos
	for buf := p.frames.bytes(); len(buf) > 0; {
		h := decodeFrameHeader(buf)
		s.span.add(&h, pos)
		pos += h.size()
		buf = buf[h.size():]
	}
	s.mu.Unlock()
	l.committer.gathered(from, pos, base, p.batch, p.heads)
	if n := len(p.batch.Ends); n > 0 {
		l.tail.push(p.batch, base, l.committer.time)
		l.end.Store(uint64(base) + uint64(n))
	}
}

// write writes frames at the log's end. The page that they end in is filled up
// with zeros: of a file that was used before, what is left in a page that is
// written in part would have to be read first. Where the disk has no room the
// batch is refused and the next one is written in the same place; after any other
// error nothing is written any more.
func (l *Log) write(s *segment, f *frames, pos int64) error {
	n, err := l.put(s, f, pos)
	switch {
	case err == nil, n > 0 && seeded.On(seeded.ShortWriteAccepted):
		return nil
	case isFull(err):
		l.committer.turnAway()
		return fmt.Errorf("%w: %w", core.ErrStorageFull, err)
	}
	return l.fail(fmt.Errorf("%w: writing the log: %w", core.ErrStorage, err))
}

// put writes frames, and zeros up to the end of a page. What is large is written
// past the operating system's cache, and what then follows it begins with what is in
// its first page already, which is not in the cache either.
func (l *Log) put(s *segment, f *frames, pos int64) (n int, err error) {
	c := &l.committer
	end := pos + int64(len(f.bytes()))
	zeros := int(-end & (vfs.Page - 1))
	large := l.o.DirectBytes > 0 && len(f.bytes())+zeros >= l.o.DirectBytes
	whole := large || c.page.is(s, pos)
	if whole {
		f.move(int(pos & (vfs.Page - 1)))
		if c.page.lead(s, f.all[:f.lead], pos) != nil {
			large, whole = false, false // what stands in the page is durable or not, as it was
		}
	}
	buf, start := f.fill(zeros), pos
	if whole {
		buf, start = f.all[:f.lead+len(buf)], pos-int64(f.lead)
	}
	c.page.segment = nil
	if !large {
		l.zeros.reach(end)
		return s.file.WriteAt(buf, start)
	}
	l.zeros.exclude(start+int64(len(buf)), func() { n, err = s.file.WriteDirect(buf, start) })
	if err == nil {
		c.page.keep(s, end, buf)
	}
	return n, err
}

// A lastPage is the page that the log ends in, while the operating system need not
// have it in its cache.
type lastPage struct {
	segment *segment // nil while there is none
	end     int64    // of the log
	bytes   [vfs.Page]byte
}

func (p *lastPage) is(s *segment, pos int64) bool { return p.segment == s && p.end == pos }

// keep takes the page that the log ends in from what has been written.
func (p *lastPage) keep(s *segment, end int64, whole []byte) {
	p.segment, p.end = s, end
	copy(p.bytes[:], whole[len(whole)-vfs.Page:])
}

// lead reads what stands in front of pos in the same page.
func (p *lastPage) lead(s *segment, head []byte, pos int64) error {
	if p.is(s, pos) {
		copy(head, p.bytes[:])
		return nil
	}
	n, err := readFull(s.file, head, pos-int64(len(head)))
	if err == nil && n < len(head) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// turnAway sees to it that the next commit has another time than one that the disk
// had no room for, and that is written over: a power cut may leave frames of both,
// at any moment of what is written past the cache. It waits, so that there is no
// more than one in a millisecond and the log's time does not run ahead.
func (c *committer) turnAway() {
	time.Sleep(time.Millisecond - time.Since(c.refused))
	c.refused = time.Now()
	c.time++
}

// sync makes durable what was written. It is never tried again after an error:
// the kernel may have dropped what it could not write.
func (l *Log) sync() error {
	c := &l.committer
	if c.failed != nil {
		return c.failed
	}
	if c.unsyncedBytes == 0 {
		return nil
	}
	err := c.segment.file.SyncData()
	if err != nil && seeded.On(seeded.RetriedSync) {
		err = c.segment.file.SyncData()
	}
	if err != nil && !seeded.On(seeded.ConfirmAfterFailedSync) {
		return l.fail(fmt.Errorf("%w: syncing the log: %w", core.ErrStorage, err))
	}
	c.synced = c.commit
	c.unsyncedBytes, c.unsyncedRecords = 0, 0
	c.timer.Stop()
	return nil
}

// fail stops the log: every later append gets the error.
func (l *Log) fail(err error) error {
	c := &l.committer
	if c.failed == nil {
		c.failed = err
		c.timer.Stop()
		l.log.Error("log failed, nothing is accepted any more until it is opened again", "err", err)
	}
	return c.failed
}

// A request is something that the committer is asked to do between commits.
type request struct {
	do     func() error
	answer chan error
}

// request has the committer do something and waits for it.
func (l *Log) request(ctx context.Context, do func() error) error {
	r := request{do, make(chan error, 1)}
	select {
	case l.requests <- r:
	case <-l.committed:
		return core.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-r.answer
}

// Sync makes durable all that has been confirmed.
func (l *Log) Sync(ctx context.Context) error { return l.request(ctx, l.sync) }
