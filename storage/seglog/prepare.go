package seglog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/seeded"
	"github.com/sluicemq/sluice/storage/vfs"
)

// maxSpares is how many files that retention has freed are kept to be used
// again, while the log is busy.
const maxSpares = 2

// newGeneration is a number that no frame written before has.
func newGeneration() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// createSegment makes the file of a segment, of a spare one if there is any. The
// file is durable, name and header, before it can get a frame.
func (l *Log) createSegment(h segmentHeader) (*segment, error) {
	l.sparing.Lock()
	defer l.sparing.Unlock()
	f, name, err := l.takeSpare()
	if err != nil {
		return nil, err
	}
	if f == nil {
		name = spareName(h.generation)
		if f, err = l.fs.Create(path.Join(l.dir, name)); err != nil {
			return nil, err
		}
	}
	s := newSegment(h, segmentName(h.sequence), f)
	_, err = f.WriteAt(h.encode(), 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.Rename(path.Join(l.dir, name), path.Join(l.dir, s.name))
	}
	if err == nil && !seeded.On(seeded.NoDirSync) {
		err = l.fs.SyncDir(l.dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// takeSpare opens a spare file; nil if there is none. It may be written to: that
// it is a spare one is durable, so that a crash does not bring it back under the
// name of a segment with what is written now.
func (l *Log) takeSpare() (vfs.File, string, error) {
	names, err := l.spares()
	if err != nil || len(names) == 0 {
		return nil, "", err
	}
	if !seeded.On(seeded.SpareUnsynced) {
		if err := l.fs.SyncDir(l.dir); err != nil {
			return nil, "", err
		}
	}
	f, err := l.fs.Open(path.Join(l.dir, names[0]))
	return f, names[0], err
}

// spares are the names of the spare files.
func (l *Log) spares() ([]string, error) {
	names, err := l.fs.List(l.dir)
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, sparePrefix) }), err
}

func spareName(generation uint64) string { return fmt.Sprintf("%s%016x", sparePrefix, generation) }

// A prepared segment is the next one, made ready in the background.
type prepared struct {
	segment *segment
	err     error
}

// prepare begins to make the next segment ready.
func (l *Log) prepare() {
	c := &l.committer
	h := segmentHeader{generation: newGeneration(), sequence: c.segment.through + 1}
	h.through = h.sequence
	ready := make(chan prepared, 1)
	c.ready = ready
	l.background.Go(func() {
		s, err := l.createSegment(h)
		ready <- prepared{s, err}
	})
}

// makeRoom goes over to the next segment if n bytes do not fit the active one.
func (l *Log) makeRoom(n int64) error {
	c := &l.committer
	s := c.segment
	if c.ready == nil && s.span.size+n > l.o.SegmentBytes/4*3 {
		l.prepare()
	}
	if s.span.size+n <= l.o.SegmentBytes || s.span.size == segmentHeaderSize {
		return nil
	}
	return l.roll()
}

// roll goes over to the next segment.
func (l *Log) roll() error {
	c := &l.committer
	s := c.segment
	if seeded.On(seeded.RollWithoutSync) {
		c.unsyncedBytes, c.synced = 0, c.commit
	} else if err := l.sync(); err != nil {
		return err
	}
	early := c.ready != nil
	if !early {
		l.prepare()
	}
	next := <-c.ready
	if early && isFull(next.err) {
		// There may be room by now.
		l.prepare()
		next = <-c.ready
	}
	c.ready = nil
	if err := next.err; err != nil {
		if isFull(err) {
			return fmt.Errorf("%w: beginning a segment: %w", core.ErrStorageFull, err)
		}
		return l.fail(fmt.Errorf("%w: beginning a segment: %w", core.ErrStorage, err))
	}
	s.file.EndDirect()
	// Before the segment can be seen to be sealed: whoever builds its index then
	// has it, and holds nobody up here.
	s.building.Lock()
	s.gathered = c.gathering
	s.building.Unlock()
	if err := l.activate(next.segment); err != nil {
		return l.fail(fmt.Errorf("%w: beginning a segment: %w", core.ErrStorage, err))
	}
	l.indexLater(s)
	return nil
}

// retire seals the active segment although it is not full, so that retention can
// free what has become old in it. The next one says at once where the log goes
// on.
func (l *Log) retire() error {
	if l.active().view().records == 0 {
		return nil
	}
	return l.seal()
}

// seal goes over to the next segment and says in it where the log goes on.
func (l *Log) seal() error {
	if err := l.roll(); err != nil {
		return err
	}
	return l.writeMark(&frameHeader{base: l.committer.next}, nil)
}

// Seal seals the active segment although it is not full, and waits until every
// sealed one has its index. It is for tools; a broker has no need of it.
func (l *Log) Seal(ctx context.Context) error {
	if err := l.request(ctx, l.retire); err != nil {
		return err
	}
	segments := l.segmentsNow()
	for _, s := range segments[:len(segments)-1] {
		if err := errors.Join(l.ensureIndex(s), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// activate makes a segment the one that commits go to.
func (l *Log) activate(s *segment) error {
	size, err := s.file.Size()
	if err != nil {
		return err
	}
	s.span.opened, s.span.first, s.span.next = l.committer.next, l.committer.next, l.committer.next
	s.span.after = l.committer.commit
	l.zeros.begin(s.file, size)
	if former := l.committer.segment; former != nil {
		l.filled += former.span.size
	}
	l.committer.segment = s
	l.gather()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = append(l.segments[:len(l.segments):len(l.segments)], s)
	return nil
}

// Writing zeros ahead is not worth its bytes while more than zeroMaxRate bytes are
// appended per second, or past the operating system's cache, which would have to be
// rid of them first. That is looked at no more often than zeroLook: of a log that is
// written with large batches a moment says nothing.
const (
	zeroMaxRate = 8 << 20
	zeroLook    = 50 * time.Millisecond
)

// zeroPiece is how much is zeroed at once.
const zeroPiece = 256 << 10

// zeros keeps the active file written with zeros for some way ahead of the
// log's end: to sync what overwrites them costs less than to sync a file that
// grows. A recycled file needs none.
type zeros struct {
	window int64 // how far ahead; at most 0 is not at all
	wake   chan struct{}

	mu       sync.Mutex // guards what follows
	file     vfs.File
	frontier int64 // up to which the file has been written
	end      int64 // of the log
	direct   bool  // it was written past the cache since the last look
}

func (z *zeros) begin(f vfs.File, size int64) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.file, z.frontier, z.end = f, size, 0
}

// reach says that the log is about to be written up to end. It waits for zeros
// that are on their way to the same place.
func (z *zeros) reach(end int64) {
	z.mu.Lock()
	z.advance(end)
	z.mu.Unlock()
}

// exclude is reach, and writes past the operating system's cache while no zeros are
// written; up to end there will be none later.
func (z *zeros) exclude(end int64, write func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.direct = true
	z.advance(end)
	write()
}

func (z *zeros) advance(end int64) {
	z.end = end
	z.frontier = max(z.frontier, end)
	if z.window > 0 && z.frontier-end < z.window/2 {
		select {
		case z.wake <- struct{}{}:
		default:
		}
	}
}

// run writes zeros until closing is closed.
func (z *zeros) run(closing <-chan struct{}) {
	nothing := make([]byte, zeroPiece)
	var file vfs.File
	var end int64
	began := time.Now()
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-closing:
			return
		case <-z.wake:
		}
		// There may be no other commit to ask again.
		for busy := true; busy; {
			look.Reset(zeroLook - time.Since(began))
			select {
			case <-closing:
				return
			case <-look.C:
			}
			passed := time.Since(began)
			z.mu.Lock()
			grown := z.end - end
			if z.file != file {
				grown = z.end
			}
			file, end, began = z.file, z.end, time.Now()
			busy, z.direct = z.direct || float64(grown) > zeroMaxRate*passed.Seconds(), false
			z.mu.Unlock()
		}
		z.write(file, nothing, closing)
	}
}

// write writes zeros to the file as far ahead of the log's end as they are to be,
// piece by piece, as long as the log is in that file.
func (z *zeros) write(file vfs.File, piece []byte, closing <-chan struct{}) {
	for {
		select {
		case <-closing:
			return
		default:
		}
		z.mu.Lock()
		n := min(z.window-(z.frontier-z.end), int64(len(piece)))
		if n <= 0 || z.file != file {
			z.mu.Unlock()
			return
		}
		_, err := z.file.WriteAt(piece[:n], z.frontier)
		if err == nil {
			z.frontier += n
		}
		z.mu.Unlock()
		if err != nil {
			// The log will meet the error itself, or not, if it is about room that
			// it does not need.
			return
		}
	}
}
