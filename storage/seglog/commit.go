package seglog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
	"github.com/sluicemq/sluice/storage/vfs"
)

// maxIdleBuffer is how large the buffer may be that is kept for later frames.
const maxIdleBuffer = 4 << 20

// A committer is what belongs to the one who has the log's turn.
type committer struct {
	segment *segment    // the active one
	commit  uint64      // of the last one written
	synced  uint64      // of the last one durable
	next    core.Offset // of the next record
	time    int64       // of the last one
	failed  error       // why nothing is appended any more

	ready chan prepared // will have the next segment, once one is being prepared

	packer packer
	// section holds a commit's state changes, encoded.
	section []byte
	// buf begins with what the block that the log ends in holds so far, lead
	// bytes, for whole blocks are written; the frames of a commit stand behind it.
	buf  []byte
	lead int

	unsyncedBytes   int
	unsyncedRecords int
	timer           *time.Timer // runs while something is unsynced
}

// Append implements core.Engine. The batch is written, and durable where it has
// to be, and done is called, before Append returns: all on the caller's
// goroutine, for each goroutine more that a batch passes through makes its
// confirmation later.
func (l *Log) Append(b *core.Batch, done func(*core.Batch, core.Offset, error)) {
	l.turn <- struct{}{}
	first, err := l.commit(b)
	<-l.turn
	done(b, first, err)
}

// syncLoop syncs what nobody waits for.
func (l *Log) syncLoop() {
	for {
		select {
		case <-l.committer.timer.C:
			if err := l.request(context.Background(), l.sync); err != nil && !errors.Is(err, core.ErrClosed) {
				l.log.Error("log sync failed, nothing is accepted any more", "err", err)
			}
		case <-l.closing:
			return
		}
	}
}

// commit takes one batch through the log: written, durable, readable, applied
// to the state.
func (l *Log) commit(b *core.Batch) (core.Offset, error) {
	c := &l.committer
	if c.failed != nil {
		return 0, c.failed
	}
	if len(b.Ends) == 0 && len(b.Changes) == 0 {
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
	c.section = c.section[:0]
	if len(b.Changes) > 0 {
		c.section = appendChanges(c.section, b.Changes)
	}
	c.buf = c.packer.append(c.buf[:c.lead], c.section, b)
	if err := l.makeRoom(int64(len(c.frames()))); err != nil {
		return 0, err
	}
	s := c.segment
	base, pos := c.next, s.span.size
	c.time = max(c.time, b.Time)
	seal{generation: s.generation, commit: c.commit + 1, synced: c.synced, base: base, time: c.time}.apply(c.frames())
	// Changes to the state are synced at once, even if nobody waits: the
	// state must not be ahead of the log, or it would remember, say, the ID
	// of a message that a power cut took.
	sync := b.Sync || len(b.Changes) > 0
	n, err := l.write(sync)
	if err != nil {
		return 0, err
	}
	c.commit++
	c.unsyncedBytes += n
	c.unsyncedRecords += len(b.Ends)
	if seeded.On(seeded.StateBeforeSync) && len(b.Changes) > 0 {
		if err := errors.Join(l.state.apply(c.section, c.commit, base, base+core.Offset(len(b.Ends))), l.state.sync()); err != nil {
			return 0, l.fail(err)
		}
	}
	early := len(b.Changes) == 0 && (seeded.On(seeded.EarlyConfirm) || seeded.On(seeded.RollWithoutSync) && s.span.size > l.o.SegmentBytes/2)
	if !early && sync || c.unsyncedBytes >= maxUnsyncedBytes || c.unsyncedRecords >= maxUnsyncedRecords {
		if err := l.sync(); err != nil {
			return 0, err
		}
	} else if c.unsyncedBytes == n {
		c.timer.Reset(l.o.SyncDelay)
	}
	c.next = base + core.Offset(len(b.Ends))
	pause.At("durable")
	// What the state names can be read.
	l.publish(b, pos, base)
	pause.At("readable")
	c.advance()
	if len(b.Changes) > 0 {
		if err := l.state.apply(c.section, c.commit, base, c.next); err != nil {
			return 0, l.fail(err)
		}
	}
	return base, nil
}

// frames are those that stand in the buffer.
func (c *committer) frames() []byte { return c.buf[c.lead:] }

// advance makes the end of what was written the beginning of what is to be.
func (c *committer) advance() {
	n := len(c.buf)
	c.lead = n % vfs.BlockSize
	copy(c.buf, c.buf[n-c.lead:])
	c.buf = c.buf[:c.lead]
	if cap(c.buf) > maxIdleBuffer {
		c.buf = append(vfs.Blocks(vfs.BlockSize)[:0], c.buf...)
	}
}

// follow has the log go on in a segment, behind what it holds.
func (c *committer) follow(s *segment) error {
	frames := c.frames()
	lead := int(s.span.size % vfs.BlockSize)
	buf := vfs.Blocks(lead + len(frames))[:lead]
	if n, err := readFull(s.file, buf, s.span.size-int64(lead)); err != nil {
		return err
	} else if n < lead {
		return fmt.Errorf("%w: the log's last block has %d bytes of %d", core.ErrCorrupt, n, lead)
	}
	c.segment, c.buf, c.lead = s, append(buf, frames...), lead
	return nil
}

// publish makes a commit readable.
func (l *Log) publish(b *core.Batch, pos int64, base core.Offset) {
	c := &l.committer
	s := c.segment
	s.mu.Lock()
	for buf := c.frames(); len(buf) > 0; {
		h := decodeFrameHeader(buf)
		s.span.add(&h, pos)
		pos += h.size()
		buf = buf[h.size():]
	}
	s.mu.Unlock()
	if n := len(b.Ends); n > 0 {
		l.tail.push(b, base, c.time)
		l.end.Store(uint64(base) + uint64(n))
	}
}

// write writes the buffer's frames at the log's end and says how many bytes they
// are: what is to be synced at once goes straight to the disk. Where that has no
// room the batch is refused and the next one is written in the same place; after
// any other error nothing is written any more.
func (l *Log) write(straight bool) (n int, err error) {
	c := &l.committer
	n = len(c.frames())
	at := c.segment.span.size - int64(c.lead)
	whole := c.buf
	if over := len(whole) % vfs.BlockSize; over > 0 {
		whole = grow(whole, vfs.BlockSize)
		c.buf = whole[:len(c.buf)]
		whole = whole[:len(whole)+vfs.BlockSize-over]
		clear(whole[len(c.buf):])
	}
	l.zeros.reach(at + int64(len(whole)))
	var written int
	if straight {
		written, err = c.segment.file.WriteBlocks(whole, at)
	} else {
		written, err = c.segment.file.WriteAt(whole, at)
	}
	switch {
	case err == nil, written > 0 && seeded.On(seeded.ShortWriteAccepted):
		return n, nil
	case isFull(err):
		return 0, fmt.Errorf("%w: %w", core.ErrStorageFull, err)
	}
	return 0, l.fail(fmt.Errorf("%w: writing the log: %w", core.ErrStorage, err))
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

// request does something between two commits.
func (l *Log) request(ctx context.Context, do func() error) error {
	select {
	case l.turn <- struct{}{}:
	case <-l.closing:
		return core.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	return do()
}

// Sync makes durable all that has been confirmed.
func (l *Log) Sync(ctx context.Context) error { return l.request(ctx, l.sync) }
