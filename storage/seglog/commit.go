package seglog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
	// section holds its state changes, buf its frames, complete but for what
	// the seal adds.
	section, buf []byte
}

// maxIdleBuffer is how large a frame buffer may be that is kept for later although
// little of it was used.
const maxIdleBuffer = 4 << 20

// Append implements core.Engine. The batch is turned into frames here, on the
// caller's goroutine, while the committer still waits for the disk with the
// batch before; it blocks while another one is queued already.
func (l *Log) Append(b *core.Batch, done func(*core.Batch, core.Offset, error)) {
	p := <-l.free
	p.batch, p.done = b, done
	p.buf, p.section = p.buf[:0], p.section[:0]
	if len(b.Changes) > 0 {
		p.section = appendChanges(p.section, b.Changes)
	}
	if len(b.Ends) > 0 || len(b.Changes) > 0 {
		p.buf = l.packer.append(p.buf, p.section, b, l.o.PackRecords)
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
	if cap(p.buf) > maxIdleBuffer && len(p.buf) < cap(p.buf)/4 {
		p.buf = nil
	}
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
	b := p.batch
	if len(p.buf) == 0 {
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
	if err := l.makeRoom(int64(len(p.buf))); err != nil {
		return 0, err
	}
	s := c.segment
	base, pos := c.next, s.span.size
	c.time = max(c.time, b.Time)
	seal{generation: s.generation, commit: c.commit + 1, synced: c.synced, base: base, time: c.time}.apply(p.buf)
	if err := l.write(s, &p.buf, pos); err != nil {
		return 0, err
	}
	c.commit++
	c.unsyncedBytes += len(p.buf)
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
	} else if c.unsyncedBytes == len(p.buf) {
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
	for buf := p.buf; len(buf) > 0; {
		h := decodeFrameHeader(buf)
		s.span.add(&h, pos)
		pos += h.size()
		buf = buf[h.size():]
	}
	s.mu.Unlock()
	l.committer.gathered(from, pos, base, p.batch)
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
func (l *Log) write(s *segment, frames *[]byte, pos int64) error {
	size := len(*frames)
	fill := int(-(pos + int64(size)) & (vfs.Page - 1))
	*frames = slices.Grow(*frames, fill)
	buf := (*frames)[:size+fill]
	clear(buf[size:])
	n, err := l.put(s, buf, pos, size)
	switch {
	case err == nil, n > 0 && seeded.On(seeded.ShortWriteAccepted):
		return nil
	case isFull(err):
		l.committer.turnAway()
		return fmt.Errorf("%w: %w", core.ErrStorageFull, err)
	}
	return l.fail(fmt.Errorf("%w: writing the log: %w", core.ErrStorage, err))
}

// put writes frames of so many bytes, and zeros up to the end of a page. What is
// large is written past the operating system's cache, and what then follows it
// begins with what is in its first page already, which is not in the cache either.
func (l *Log) put(s *segment, buf []byte, pos int64, size int) (n int, err error) {
	c := &l.committer
	defer c.page.rest(len(buf))
	large, start := l.o.DirectBytes > 0 && len(buf) >= l.o.DirectBytes, pos
	if large || c.page.is(s, pos) {
		if whole, err := c.page.lead(s, buf, pos); err == nil {
			buf, start = whole, pos-pos%vfs.Page
		} else {
			large = false // what stands in the page is durable or not, as it was
		}
	}
	c.page.segment = nil
	if !large {
		l.zeros.reach(pos + int64(size))
		return s.file.WriteAt(buf, start)
	}
	l.zeros.exclude(start+int64(len(buf)), func() { n, err = s.file.WriteDirect(buf, start) })
	if err == nil {
		c.page.keep(s, pos+int64(size), buf)
	}
	return n, err
}

// A lastPage is the page that the log ends in, while the operating system need not
// have it in its cache.
type lastPage struct {
	segment *segment // nil while there is none
	end     int64    // of the log
	bytes   [vfs.Page]byte

	pages []byte // for what is written
}

func (p *lastPage) is(s *segment, pos int64) bool { return p.segment == s && p.end == pos }

// keep takes the page that the log ends in from what has been written.
func (p *lastPage) keep(s *segment, end int64, whole []byte) {
	p.segment, p.end = s, end
	copy(p.bytes[:], whole[len(whole)-vfs.Page:])
}

// rest gives back the memory of a much larger write than the one of so many bytes.
func (p *lastPage) rest(bytes int) {
	if cap(p.pages) > maxIdleBuffer && bytes < cap(p.pages)/4 {
		p.pages = nil
	}
}

// lead returns what is to be written at pos, and what stands in front of it in the
// same page, in memory that is valid until the next call.
func (p *lastPage) lead(s *segment, buf []byte, pos int64) ([]byte, error) {
	head := int(pos % vfs.Page)
	if size := head + len(buf); cap(p.pages) < size {
		p.pages = vfs.MakePages((size + vfs.Page - 1) / vfs.Page)
	}
	whole := p.pages[:head+len(buf)]
	if p.is(s, pos) {
		copy(whole, p.bytes[:head])
	} else if n, err := readFull(s.file, whole[:head], pos-int64(head)); err != nil || n < head {
		return nil, cmp.Or(err, io.ErrUnexpectedEOF)
	}
	copy(whole[head:], buf)
	return whole, nil
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
