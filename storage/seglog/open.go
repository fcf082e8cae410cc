package seglog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// Open opens the log in a directory, or begins one, and recovers it if it was
// not closed. It blocks for the disk; ctx ends it early. Where the disk has no
// room for what has to be written, that is core.ErrStorageFull. A directory that
// another process has open is vfs.ErrLocked, one that a newer version wrote is
// refused and left as it is.
func Open(ctx context.Context, o Options) (_ *Log, err error) {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.TailBytes == 0 {
		o.TailBytes = defaultTailBytes
	}
	if o.SyncDelay == 0 {
		o.SyncDelay = defaultSyncDelay
	}
	if o.DirectBytes == 0 {
		o.DirectBytes = defaultDirectBytes
	}
	if o.ZeroBytes == 0 {
		o.ZeroBytes = defaultZeroBytes
	}
	if o.PackRecords == 0 {
		o.PackRecords = defaultPackRecords
	}
	l := &Log{
		o:         o,
		fs:        o.FS,
		dir:       path.Join(o.Dir, logDir),
		log:       o.Logger,
		tail:      tail{limit: o.TailBytes},
		commits:   make(chan *pending, 1),
		requests:  make(chan request),
		free:      make(chan *pending, 3),
		committed: make(chan struct{}),
		closing:   make(chan struct{}),
		indexWake: make(chan struct{}, 1),
		sealed:    make(chan struct{}, 1),
		zeros:     zeros{window: o.ZeroBytes, wake: make(chan struct{}, 1)},
	}
	l.committer.timer = time.NewTimer(time.Hour)
	l.committer.timer.Stop()
	for range cap(l.free) {
		l.free <- new(pending)
	}
	defer func() {
		if isFull(err) {
			if !errors.Is(err, core.ErrStorageFull) {
				err = fmt.Errorf("%w: %w", core.ErrStorageFull, err)
			}
			err = fmt.Errorf("%w; make room on the disk and start again", err)
		}
		if err != nil {
			err = errors.Join(fmt.Errorf("opening %s: %w", o.Dir, err), l.abandon())
		}
	}()
	if err := makeDirs(l.fs, o.Dir, l.dir); err != nil {
		return nil, err
	}
	if l.lock, err = l.fs.Lock(path.Join(o.Dir, "LOCK")); err != nil {
		return nil, err
	}
	if l.restored, err = checkRestored(l.fs, o.Dir); err != nil {
		return nil, err
	}
	if err := l.recover(ctx); err != nil {
		return nil, err
	}
	if err := l.state.shield.wait(func() error { l.state.shield.patient.Store(true); return nil }); err != nil {
		return nil, err
	}
	l.pace = newPace(&l.o, l.appended())
	go l.commitLoop()
	if l.zeros.window > 0 {
		l.background.Go(func() { l.zeros.run(l.closing) })
	}
	l.background.Go(l.indexLoop)
	return l, nil
}

// makeDirs makes the directories and their names durable.
func makeDirs(f vfs.FS, dir, logDir string) error {
	if _, err := f.Stat(logDir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f.MkdirAll(logDir); err != nil {
		return err
	}
	if err := f.SyncDir(dir); err != nil {
		return err
	}
	return f.SyncDir(path.Dir(dir))
}

// recover finds the segments, decides what the log holds, brings the state up
// to date with it and begins where it goes on.
func (l *Log) recover(ctx context.Context) error {
	began := time.Now()
	defer l.progress.Tell(l.log, "log is being recovered")()
	l.progress.Begin("opening files", 0)
	if err := checkStateVersion(l.stateDir(), l.fs); err != nil {
		return err
	}
	if step, _, err := readSwap(l.fs, l.o.Dir); err != nil || step != 0 {
		l.log.Warn("the state's mending was interrupted, it is finished", "err", err)
		if _, err := finishSwap(l.fs, l.o.Dir); err != nil {
			return err
		}
	}
	found, err := l.survey()
	if err != nil {
		return err
	}
	if err := l.tidy(found); err != nil {
		return err
	}
	l.progress.Begin("opening the state", 0)
	var damage error
	if l.state, damage = openState(l.stateDir(), l.fs, l.log); damage != nil && !errors.Is(damage, core.ErrCorrupt) {
		return damage
	}
	r := newRecovery(l)
	if err := r.run(ctx); err != nil {
		return err
	}
	if damage == nil {
		damage = r.stateDamage()
	}
	if damage != nil {
		if err := r.rebuildState(ctx, damage); err != nil {
			return err
		}
	}
	if err := r.noteLost(); err != nil {
		return err
	}
	if err := l.replay(ctx); err != nil {
		return err
	}
	if err := r.resume(); err != nil {
		return err
	}
	if err := l.removeSnapshots(); err != nil {
		return err
	}
	first, end := l.Bounds()
	l.log.Info("log opened", "first", first, "end", end, "segments", len(l.segments), "clean", r.clean, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// A survey is what was found in the log's folder beside the segments.
type survey struct {
	stale []string // files that nobody needs
	bad   []string // segments in which nothing can be read
}

// survey opens the segments' files, in order. It changes nothing: only once all
// files are known to be of this version may anything be.
func (l *Log) survey() (v survey, err error) {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return v, err
	}
	spares := 0
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, sparePrefix):
			if spares++; spares > maxSpares || !l.goodSpare(name) {
				v.stale = append(v.stale, name)
			}
			continue
		case strings.HasSuffix(name, temporarySuffix):
			v.stale = append(v.stale, name)
			continue
		case strings.HasSuffix(name, indexSuffix):
			if err := l.checkIndexVersion(name); err != nil {
				return v, err
			}
			if _, found := slices.BinarySearch(names, strings.TrimSuffix(name, indexSuffix)+segmentSuffix); !found {
				v.stale = append(v.stale, name)
			}
			continue
		}
		if sequence, ok := parseSegmentName(strings.TrimSuffix(name, badSuffix)); !ok {
			continue
		} else if strings.HasSuffix(name, badSuffix) {
			l.asides = append(l.asides, sequence)
			continue
		}
		s, err := l.openSegment(name)
		if errors.Is(err, core.ErrCorrupt) {
			l.log.Error("segment put aside, nothing in it can be read", "file", name, "err", err)
			v.bad = append(v.bad, name)
			continue
		}
		if err != nil {
			return v, err
		}
		if s.headerDamage != nil {
			l.log.Error("segment header is damaged, it is told from the frames", "file", name, "err", s.headerDamage)
		}
		if n := len(l.segments); n > 0 && s.sequence <= l.segments[n-1].through {
			// It was put together with others into the one before.
			v.stale = append(v.stale, name, indexName(name))
			if err := s.file.Close(); err != nil {
				return v, err
			}
			continue
		}
		l.segments = append(l.segments, s)
	}
	for _, name := range v.bad {
		sequence, _ := parseSegmentName(name)
		l.asides = append(l.asides, sequence)
	}
	return v, nil
}

// tidy puts aside and removes what a survey found.
func (l *Log) tidy(v survey) error {
	for _, name := range v.bad {
		if err := l.fs.Rename(path.Join(l.dir, name), path.Join(l.dir, name+badSuffix)); err != nil {
			return err
		}
	}
	for _, name := range v.stale {
		if err := l.fs.Remove(path.Join(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// openSegment opens a segment's file. Where just its header is damaged, what it
// said is told from the frames.
func (l *Log) openSegment(name string) (*segment, error) {
	f, err := l.fs.Open(path.Join(l.dir, name))
	if err != nil {
		return nil, err
	}
	b := make([]byte, segmentHeaderUsed)
	n, err := readFull(f, b, 0)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	h, err := parseSegmentHeader(b[:n])
	damage := err
	if errors.Is(damage, core.ErrCorrupt) {
		h, err = guessSegmentHeader(f, name, damage)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	s := newSegment(h, name, f)
	s.headerDamage = damage
	return s, nil
}

// guessSegmentHeader makes a header of what the frames in a file say: those of
// the newest use of the file have the highest commit numbers. Where there is no
// frame it returns the damage.
func guessSegmentHeader(f vfs.File, name string, damage error) (h segmentHeader, err error) {
	size, err := f.Size()
	if err != nil {
		return h, err
	}
	sequence, _ := parseSegmentName(name)
	newest := uint64(0)
	copied := make(map[uint64]bool) // generations that have sparse frames
	for sc := newScanner(f, anyGeneration, segmentHeaderSize, size); ; {
		found, ok, err := sc.next()
		if err != nil {
			return h, err
		}
		if !ok {
			break
		}
		g := found.header.generation
		copied[g] = copied[g] || found.header.flags&flagSparse != 0
		if found.header.commit > newest {
			newest = found.header.commit
			h = segmentHeader{generation: g, sequence: sequence, through: sequence}
		}
	}
	if newest == 0 {
		return h, damage
	}
	h.rewritten = copied[h.generation]
	return h, nil
}

// checkIndexVersion says whether an index is of a version that is not known.
func (l *Log) checkIndexVersion(name string) error {
	f, err := l.fs.OpenRead(path.Join(l.dir, name))
	if err != nil {
		return err
	}
	b := make([]byte, indexHeaderSize)
	n, err := readFull(f, b, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if n < 16 {
		return nil
	}
	if err := checkHeader(b[:n], "index", indexMagic, indexVersion); errors.As(err, new(errVersion)) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// goodSpare says whether a spare file is worth keeping.
func (l *Log) goodSpare(name string) bool {
	i, err := l.fs.Stat(path.Join(l.dir, name))
	return err == nil && i.Size >= l.o.SegmentBytes/2
}

// Close implements core.Engine.
func (l *Log) Close(ctx context.Context) error {
	close(l.commits)
	select {
	case <-l.committed:
	case <-ctx.Done():
		// What is on its way to the disk cannot be called back.
		<-l.committed
	}
	c := &l.committer
	err := l.sync()
	if err == nil {
		err = l.writeMark(&frameHeader{flags: flagClosed, base: c.next}, nil)
	}
	if err == nil && !l.state.shield.full() {
		// The state, too, knows where the log ends: no frame behind the last
		// one can.
		err = l.state.mark(c.commit, c.next)
	}
	if c.failed != nil {
		err = c.failed
	}
	if c.ready != nil {
		// The segment that was made ready is removed at the next start.
		if next := <-c.ready; next.segment != nil {
			err = errors.Join(err, next.segment.file.Close())
		}
	}
	if err == nil {
		l.finishIndexes(ctx)
	}
	close(l.closing)
	l.background.Wait()
	return errors.Join(err, l.abandon())
}

// abandon frees what the log holds.
func (l *Log) abandon() (err error) {
	for _, s := range l.segments {
		err = errors.Join(err, s.close())
	}
	if l.state != nil {
		err = errors.Join(err, l.state.close())
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	return err
}
