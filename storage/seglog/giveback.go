package seglog

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"time"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/storage/vfs"
)

// giveBack gives back what a log that is not busy does not want soon: to the disk
// the spare files and what stands behind the log's end in files that were used
// before; and the memory of large commits, and of what was gathered for an index that
// is not made soon. It is for the one who reclaims.
func (l *Log) giveBack(ctx context.Context) error {
	if err := l.dropSpares(); err != nil {
		return err
	}
	if err := l.request(ctx, l.shrinkActive); err != nil {
		return err
	}
	pause.At("given back")
	segments := l.segmentsNow()
	for _, s := range segments[:len(segments)-1] {
		// One that has no index yet may have to be read to its file's end.
		if v := s.view(); v.index != nil && !s.shrunk {
			if err := l.shrink(s.file, v.size); err != nil {
				return err
			}
			s.shrunk = true
		}
	}
	return nil
}

// dropSpares removes the spare files.
func (l *Log) dropSpares() error {
	l.sparing.Lock()
	defer l.sparing.Unlock()
	names, err := l.spares()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := l.fs.Remove(path.Join(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// shrinkActive is giveBack for the active segment, and for the next one if that
// is ready. It is for the committer.
func (l *Log) shrinkActive() error {
	c := &l.committer
	if c.failed != nil {
		return nil
	}
	if at := &c.segment.span; at.records > 0 && time.Now().UnixMilli()-at.firstTime > gatherTime {
		c.gathering = nil // the next commit would say so, but there may be none
	}
	for range cap(l.free) {
		select {
		case p := <-l.free:
			p.frames.rest(true)
			l.free <- p
		default:
		}
	}
	var err error
	select {
	case next := <-c.ready:
		if next.segment != nil {
			err = l.shrink(next.segment.file, segmentHeaderSize)
		}
		c.ready <- next
	default:
	}
	return errors.Join(err, l.zeros.shrink(func(f vfs.File, ahead int64) error {
		return l.shrink(f, c.segment.span.size+ahead)
	}))
}

// shrink cuts off what a file has behind a place, if that is worth it. Nothing of
// the log stands there: it need not be durable that it is gone.
func (l *Log) shrink(f vfs.File, end int64) error {
	end += -end & (vfs.Page - 1)
	size, err := f.Size()
	if err != nil || size < end+l.o.SegmentBytes/crumb/16 {
		return err
	}
	return f.Truncate(end)
}

// shrink has the active file cut behind what is written ahead of the log's end.
func (z *zeros) shrink(cut func(f vfs.File, ahead int64) error) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.file == nil {
		return nil
	}
	if err := cut(z.file, max(z.window, 0)); err != nil {
		return err
	}
	size, err := z.file.Size()
	z.frontier = size
	return err
}
