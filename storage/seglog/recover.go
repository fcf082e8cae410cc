package seglog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/seeded"
)

// A recovery is one opening of the log.
type recovery struct {
	log   *Log
	judge judge
	// scanned is the last segment, if it was scanned.
	scanned *segment
	seen    uint64 // the newest commit found, the log's or not
	time    int64  // of the newest frame accepted
	// closed says that the last frame found says the log was closed; clean
	// that it goes on where it was.
	closed, clean bool
	// losses are the holes found in what had been durable.
	losses []loss
	// gone are the files that are missing and were not freed.
	gone []lostFile
	// among says that the judge looks at what is missing among segments that
	// were freed, in front of the one that it is told.
	among bool
	// look, where it is set, is told of each frame found. Then all segments
	// are scanned, also those that have an index.
	look func(*segment, *found)
}

// A loss is a hole in what had been durable: offsets, which may be none, and
// commits, from the first to the last that is missing. at is the segment behind
// it.
type loss struct {
	at, before  *segment // before where that one's end is missing
	front       bool     // it is in front of the segment's first frame
	gap         gap
	first, last uint64
}

func newRecovery(l *Log) *recovery {
	r := &recovery{log: l, judge: judge{whole: true, next: 1}}
	if l.state != nil {
		r.judge.applied = l.state.applied
	}
	r.judge.lost = r.lost
	return r
}

// run goes through the segments. Those with an index are taken as it says; the
// others, normally just the last one, are scanned.
func (r *recovery) run(ctx context.Context) error {
	l := r.log
	l.loadFreed()
	total := int64(0)
	for _, s := range l.segments {
		size, err := s.file.Size()
		if err != nil {
			return fmt.Errorf("%w: %w", core.ErrStorage, err)
		}
		total += size
	}
	l.progress.Begin("reading the log", total)
	var through uint64
	for i, s := range l.segments {
		if err := ctx.Err(); err != nil {
			return err
		}
		if through+1 < s.sequence {
			r.between(through, s)
		}
		through = s.through
		if i < len(l.segments)-1 && r.look == nil {
			ok, err := l.loadIndex(s)
			if err != nil {
				return err
			}
			if ok {
				l.progress.Done.Add(s.span.size)
				r.known(s)
				r.scanned = nil
				continue
			}
		}
		if err := r.scan(ctx, s); err != nil {
			return fmt.Errorf("scanning %s: %w", s.name, err)
		}
		r.scanned = s
	}
	if torn := r.judge.finish(); torn || r.seen > r.judge.last {
		r.closed = false
		l.log.Info("log was cut behind its last whole commit, what followed had never been made durable", "offset", r.judge.next, "commit", r.judge.last)
	}
	for _, s := range l.segments {
		if v := s.view(); v.records > 0 {
			r.time = max(r.time, v.lastTime)
		}
	}
	l.measureFreed()
	l.placeLosses()
	return nil
}

// follows says whether a segment follows the one whose last sequence number is
// through: nothing between them was freed, so what is missing there is lost.
func (l *Log) follows(through uint64, s *segment) bool {
	return !slices.ContainsFunc(l.missing(through+1, s.sequence), func(m stretch) bool { return m.freed != nil })
}

// known takes a segment as its index describes it.
func (r *recovery) known(s *segment) {
	j, v := &r.judge, s.view()
	j.know(v.after)
	j.waiting = j.waiting[:0]
	if !j.fresh {
		j.boundary(s, v.after, v.opened)
	}
	j.fresh, j.last, j.whole, j.next = false, v.lastCommit, true, v.next
	j.know(v.lastCommit)
	r.seen = max(r.seen, v.lastCommit)
	r.closed = false
}

// scan reads a segment's frames.
func (r *recovery) scan(ctx context.Context, s *segment) error {
	l := r.log
	size, err := s.file.Size()
	if err != nil {
		return err
	}
	l.progress.Done.Add(segmentHeaderSize)
	if s.rewritten {
		return r.scanRewritten(s, size)
	}
	sc := newScanner(s.file, s.generation, segmentHeaderSize, size)
	sc.read = &l.progress.Done
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, ok, err := sc.next()
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if r.look != nil {
			r.look(s, &f)
		}
		c := candidate{segment: s, pos: f.pos, header: f.header}
		if f.header.flags&flagOpened != 0 {
			if c.opening, ok = parseOpening(f.stored); !ok {
				continue
			}
		}
		if r.judge.fresh && f.pos > segmentHeaderSize {
			s.lostBefore = everythingBefore
			r.losses = append(r.losses, loss{at: s, gap: gap{From: f.header.base, To: f.header.base}})
			l.log.Error("log is damaged, confirmed data was lost at a segment's beginning", "file", s.name, "bytes", f.pos-segmentHeaderSize, "before", f.header.base)
		}
		r.seen = max(r.seen, f.header.commit)
		r.closed = f.header.flags&flagClosed != 0
		r.judge.see(c)
	}
}

// lost is told by the judge of a hole in what had been durable.
func (r *recovery) lost(s *segment, g gap, first, last uint64) {
	front := r.among || s.index != nil || s.span.size == segmentHeaderSize || g.To <= s.span.opened
	r.losses = append(r.losses, loss{at: s, front: front, gap: g, first: first, last: last})
	r.log.log.Error("log is damaged, confirmed data was lost", "from", g.From, "to", g.To, "commit", first)
	if b := r.before(s); b != nil && front && !r.among {
		// It is the end of the one before, whose index is yet to be built.
		r.losses[len(r.losses)-1].before = b
		b.span.gaps = addGap(b.span.gaps, g)
		b.span.next, b.span.lastCommit = max(b.span.next, g.To), max(b.span.lastCommit, last)
		return
	}
	if g.From >= g.To {
		return
	}
	if r.among || s.index != nil || front && s.span.size > segmentHeaderSize {
		s.lostBefore = addGap(s.lostBefore, g)
		return
	}
	if s.span.size == segmentHeaderSize {
		s.lostBefore = addGap(s.lostBefore, g)
		s.span.opened, s.span.after = g.From, first-1
	}
	s.span.gaps = addGap(s.span.gaps, g)
	s.span.next = max(s.span.next, g.To)
}

// before is the segment that another one follows directly, if it was scanned.
func (r *recovery) before(s *segment) *segment {
	i := slices.Index(r.log.segments, s) - 1
	if i < 0 {
		return nil
	}
	b := r.log.segments[i]
	if !r.log.follows(b.through, s) || b.index != nil || b.span.size == segmentHeaderSize {
		return nil
	}
	return b
}

// resume decides where the log goes on and says so in it.
func (r *recovery) resume() error {
	l, j, c := r.log, &r.judge, &r.log.committer
	lost := max(j.next, l.state.next)
	if l.state.applied > j.last {
		l.log.Error("log ends before what its state says, confirmed data was lost", "from", j.next, "to", lost)
	}
	r.clean = (len(l.segments) == 0 && l.state.applied == 0 || r.closed && l.state.applied <= j.last) && !l.restored
	c.commit = max(r.seen, j.last, l.state.applied)
	c.synced = j.last
	c.next = max(j.next, 1)
	c.time = r.time
	if !r.clean {
		// Where the log's end was lost, the state knows of a part of it.
		c.next = max(lost, 1) + crashSkip
		if seeded.On(seeded.ReusedOffset) {
			c.next = max(lost, 1)
		}
	}
	if l.restored {
		c.next += restoreSkip
	}
	// What was found may not have been durable so far, or not its name.
	if r.scanned != nil {
		if err := r.scanned.file.SyncData(); err != nil {
			return fmt.Errorf("%w: %w", core.ErrStorage, err)
		}
	}
	if err := r.dropEmpty(); err != nil {
		return err
	}
	if err := r.begin(); err != nil {
		return err
	}
	for _, s := range l.segments[:len(l.segments)-1] {
		if s.index == nil {
			l.indexLater(s)
		}
	}
	o := opening{end: max(j.next, 1), lost: max(lost, 1)}
	if l.state.applied > j.last {
		o.lost = c.next
	}
	if s := c.segment; s.span.size == segmentHeaderSize {
		s.span.after = j.last
		s.span.opened = min(s.span.opened, o.end)
	}
	if err := l.writeMark(&frameHeader{flags: flagOpened, synced: j.last, base: c.next}, o.encode()); err != nil {
		return err
	}
	if o.lost > o.end {
		c.segment.span.gaps = append(c.segment.span.gaps, gap{From: o.end, To: o.lost, Lost: true})
	}
	if l.restored {
		// The offsets to leave out stand in the log now.
		if err := l.fs.Remove(path.Join(l.o.Dir, RestoredName)); err != nil {
			return err
		}
	}
	l.end.Store(uint64(c.next))
	l.setFirst()
	return r.noteState(max(lost, 1))
}

// noteState has the state say what was freed, if it does not, and that there is
// a segment that goes on from an offset: without it the log ends too early.
func (r *recovery) noteState(from core.Offset) error {
	l, st, commit := r.log, r.log.state, r.log.committer.commit
	switch {
	case st.shield.full():
		return nil // the next start does
	case st.noted && slices.Equal(st.freed, l.freed):
		return st.mark(commit, from)
	}
	return st.note(l.freed, commit, from)
}

// dropEmpty removes segments at the end that never got a frame.
func (r *recovery) dropEmpty() error {
	l := r.log
	dropped := false
	for n := len(l.segments); n > 0 && l.segments[n-1].span.size == segmentHeaderSize; n = len(l.segments) {
		s := l.segments[n-1]
		l.segments = l.segments[:n-1]
		dropped = true
		if err := errors.Join(s.file.Close(), l.fs.Remove(path.Join(l.dir, s.name))); err != nil {
			return err
		}
	}
	if dropped {
		return l.fs.SyncDir(l.dir)
	}
	return nil
}

// begin makes the segment active that commits go to: the last one if the log
// was closed, or else a new one. A torn tail is never written over.
func (r *recovery) begin() error {
	l, c := r.log, &r.log.committer
	if n := len(l.segments); n > 0 && (r.clean || seeded.On(seeded.TornTailContinued)) && !l.segments[n-1].rewritten {
		s := l.segments[n-1]
		size, err := s.file.Size()
		if err != nil {
			return err
		}
		c.segment = s
		l.zeros.begin(s.file, size)
		return nil
	}
	h := segmentHeader{generation: newGeneration(), sequence: 1}
	if n := len(l.segments); n > 0 {
		h.sequence = l.segments[n-1].through + 1
	}
	h.through = h.sequence
	s, err := l.createSegment(h)
	if err != nil {
		return err
	}
	return l.activate(s)
}

// writeMark writes a frame without records and syncs it.
func (l *Log) writeMark(h *frameHeader, prefix []byte) error {
	c := &l.committer
	if h.flags&flagOpened == 0 {
		h.synced = c.synced
	}
	s := c.segment
	h.generation, h.commit, h.time = s.generation, c.commit+1, c.time
	var p packer
	f := frames{all: p.appendFrame(nil, h.withBody(prefix), prefix, false)}
	pos := s.span.size
	if err := l.write(s, &f, pos); err != nil {
		return err
	}
	c.commit++
	c.unsyncedBytes += len(f.bytes())
	if err := l.sync(); err != nil {
		return err
	}
	s.mu.Lock()
	s.span.add(h, pos)
	s.mu.Unlock()
	c.gathered(pos, pos+h.size(), 0, nil, nil)
	return nil
}

// withBody completes the header for a body that is all prefix.
func (h *frameHeader) withBody(prefix []byte) *frameHeader {
	h.prefix, h.raw = uint32(len(prefix)), uint32(len(prefix))
	return h
}

// stateDamage says why the state cannot be brought up to date from the log: it
// lacks changes that the log does not have any more. It never does, unless it
// has lost what it had.
func (r *recovery) stateDamage() error {
	l := r.log
	applied := l.state.applied
	for i, s := range l.segments {
		v := s.view()
		through, missing := uint64(0), uint64(0)
		if i > 0 {
			through = l.segments[i-1].through
		}
		for _, m := range l.missing(through+1, s.sequence) {
			if m.freed == nil {
				continue // what was lost with it is said
			}
			if missing = v.after; m.freed.next > 0 {
				missing = m.freed.last
			}
		}
		if s.rewritten {
			missing = max(missing, v.lastCommit)
		}
		if missing > applied {
			return fmt.Errorf("%w: the state in %s has the changes up to commit %d only, and those up to %d have left the log", core.ErrCorrupt, l.stateDir(), applied, missing)
		}
	}
	return nil
}

func (l *Log) stateDir() string { return path.Join(l.o.Dir, stateDirName) }

// rebuildState begins the state anew, for replay to make it of the log, if the
// log still has all that ever changed it. Otherwise the damage is the error.
func (r *recovery) rebuildState(ctx context.Context, damage error) error {
	l := r.log
	whole, err := r.hasAllChanges(ctx)
	if err != nil {
		return err
	}
	if !whole {
		return fmt.Errorf("%w: %w; it cannot be made again, for the log does not have all that made it", core.ErrStorage, damage)
	}
	l.log.Error("state is damaged, it is put aside and made again of the log, which has all of it", "err", damage)
	if l.state != nil {
		err := l.state.close()
		l.state = nil
		if err != nil {
			return err
		}
	}
	if err := l.putStateAside(); err != nil {
		return err
	}
	l.state, err = openState(l.stateDir(), l.fs, l.log)
	return err
}

// hasAllChanges says whether the log has all that ever changed the state.
func (r *recovery) hasAllChanges(ctx context.Context) (bool, error) {
	l := r.log
	whole := len(r.losses) == 0 && len(l.asides) == 0 && len(l.segments) > 0
	for i, s := range l.segments {
		whole = whole && s.sequence == uint64(i)+1 && !s.rewritten
	}
	if whole {
		missing := 0
		if err := l.eachChanged(ctx, 0, nil, func(uint64, uint64) { missing++ }); err != nil {
			return false, err
		}
		whole = missing == 0
	}
	return whole, nil
}

// putStateAside moves the state's files out of the way.
func (l *Log) putStateAside() error {
	dir := l.stateDir()
	if _, err := l.fs.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	aside, err := l.asideName(dir)
	if err != nil {
		return err
	}
	return moveAll(l.fs, dir, aside)
}

// asideName is a name that is not taken yet for what is put aside.
func (l *Log) asideName(name string) (string, error) {
	for n := 1; ; n++ {
		aside := name + badSuffix
		if n > 1 {
			aside = fmt.Sprint(aside, n)
		}
		if _, err := l.fs.Stat(aside); errors.Is(err, fs.ErrNotExist) {
			return aside, nil
		} else if err != nil {
			return "", err
		}
	}
}

// replay applies to the state what the log holds beyond it.
func (l *Log) replay(ctx context.Context) error {
	n := 0
	err := l.eachChanged(ctx, l.state.applied,
		func(h *frameHeader, section []byte) error {
			n++
			return l.state.apply(section, h.commit, h.base, h.end())
		},
		func(from, to uint64) {
			l.log.Error("log is damaged, changes to the state may be lost", "from commit", from, "to commit", to)
		})
	if n > 0 {
		l.log.Info("state brought up to date", "commits", n)
	}
	return err
}

// eachChanged calls do for each frame behind a commit that has state changes,
// and missing for each range of commits, both inclusive, that the segments
// should have and do not.
func (l *Log) eachChanged(ctx context.Context, applied uint64, do func(h *frameHeader, section []byte) error, missing func(from, to uint64)) error {
	total := int64(0)
	for _, s := range l.segments {
		if v := s.view(); v.lastChange > applied {
			total += v.size
		}
	}
	l.progress.Begin("bringing the state up to date", total)
	for _, s := range l.segments {
		v := s.view()
		if v.lastChange <= applied {
			continue
		}
		last := v.after
		skipped := func(to uint64) {
			if from := max(last, applied) + 1; from <= to {
				missing(from, to)
			}
		}
		sc := newScanner(s.file, s.generation, segmentHeaderSize, v.size)
		sc.read = &l.progress.Done
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			f, ok, err := sc.next()
			if err != nil {
				return fmt.Errorf("%w: reading %s: %w", core.ErrStorage, s.name, err)
			}
			if !ok {
				break
			}
			h := &f.header
			if h.commit <= last {
				continue // goes on, or is the rest of a write that failed
			}
			switch {
			case h.flags&flagOpened != 0:
				skipped(h.synced)
			case h.flags&flagContinued != 0:
				skipped(h.commit) // its first frame had them
			default:
				skipped(h.commit - 1)
			}
			last = h.commit
			if !h.hasChanges() || h.commit <= applied {
				continue
			}
			body, err := h.unpack(f.stored, func(n int) []byte { return make([]byte, n) })
			if err != nil {
				missing(h.commit, h.commit)
				continue
			}
			if do == nil {
				continue
			}
			if err := do(h, body[:h.prefix]); err != nil {
				return err
			}
		}
		skipped(v.lastChange)
	}
	return nil
}

// setFirst finds the earliest record that is left.
func (l *Log) setFirst() {
	first := l.end.Load()
	for _, s := range l.segmentsNow() {
		if v := s.view(); v.records > 0 {
			first = min(first, uint64(v.first))
			break
		}
	}
	l.first.Store(first)
}
