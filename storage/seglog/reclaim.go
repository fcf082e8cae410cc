package seglog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

const (
	// rewriteShare is the share of a segment's bytes, one in that many, that
	// must be dead before the rest is copied.
	rewriteShare = 2
	// crumb is the share of a segment's full size, one in that many, that is not
	// worth a change to a file.
	crumb = 256
	// diedShare of what has died lately may stay where it is, unless it is more
	// than half of its segment; and so may what is less than idleShare of one.
	diedShare = 20
	idleShare = 16
	// smallShare of a segment's full size is small, and so many small
	// neighbours are put together.
	smallShare = 8
	smallRun   = 4
)

// Reclaim implements core.Engine. A segment that nothing is kept of is freed
// whole; of one that little is kept of, that is copied and the rest freed. What
// is decided per topic comes from the segments' indexes: only what must be asked
// of needs is looked at one by one. What stands in the active segment, or in one
// that has no index yet, stays.
func (l *Log) Reclaim(ctx context.Context, r core.Retention) (done core.Reclaimed, err error) {
	l.reclaim.Lock()
	defer l.reclaim.Unlock()
	defer faults(faults(true))
	defer guard(&err)
	k := newLook(l, &r)
	var appended int64
	if err := l.request(ctx, func() error { appended = l.appended(); return nil }); err != nil {
		return done, err
	}
	if l.pace.look(time.Now(), appended); !l.pace.busy {
		if err := errors.Join(l.giveBack(ctx), k.countActive(ctx)); err != nil {
			return done, err
		}
	}
	if due, err := k.isDue(ctx); err != nil {
		return done, err
	} else if due {
		// Its index is built in the background; the next call looks at it. Where
		// there is no room for another one, there may be by then.
		if err := l.request(ctx, l.retire); err != nil && !errors.Is(err, core.ErrStorageFull) {
			return done, err
		}
	}
	plans, err := l.plan(ctx, k)
	if err != nil || len(plans) == 0 {
		done.First, _ = l.Bounds()
		return done, err
	}
	// The state must not need what goes, and has to have a note of it; and
	// where the log goes on must not be told by it alone.
	note, outlived := l.noteFreed(plans)
	if seeded.On(seeded.FreedUnnoted) {
		note = l.freed
	}
	if err := l.request(ctx, func() error { return l.markState(note) }); err != nil {
		return done, err
	}
	l.freed = note
	l.segmentsNow()[0].outlive(outlived)
	if !seeded.On(seeded.ReclaimBeforeStateSync) {
		if err := l.state.sync(); err != nil {
			return done, err
		}
	}
	pause.At("planned")
	var full error // why nothing more is copied: what is freed whole makes room
	for _, p := range plans {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		if p.kept > 0 && full != nil {
			continue
		}
		var replacement *segment
		if p.kept > 0 {
			if replacement, err = l.rewrite(ctx, p); isFull(err) {
				full = err
				continue
			} else if err != nil {
				return done, err
			}
		}
		for _, s := range p.segments {
			v := s.view()
			done.Records += int64(v.records)
			done.Bytes += v.size
		}
		if replacement != nil {
			v := replacement.view()
			done.Records -= int64(v.records)
			done.Bytes -= v.size
		}
		if err := l.replace(p.segments, replacement); err != nil {
			return done, err
		}
		l.pace.freed(p.dead(), p.copied())
	}
	l.setFirst()
	done.First, _ = l.Bounds()
	if done.Records == 0 {
		return done, full
	}
	return done, nil
}

// markState has the state say which segments are freed, and that it has
// everything up to here: if it ever says less, it is damaged, for the log will
// not have it any more.
func (l *Log) markState(note []freed) error {
	if err := l.sync(); err != nil {
		return err
	}
	if l.state.shield.full() {
		return fmt.Errorf("%w: the state waits for room", core.ErrStorageFull)
	}
	return l.state.note(note, l.committer.commit, l.committer.next)
}

// emptied is what is kept of a segment of which nothing is left but its file: more
// than is worth a copy.
const emptied = 1 << 62

// A plan is what is to become of one segment, or of several that stand side by
// side: they are freed, what is kept being copied to one segment in their place.
type plan struct {
	segments []*segment
	keeps    []keeper
	kept     uint64 // bytes
	worth    bool   // enough is dead for the rest to be copied
}

// dead is how many bytes are freed.
func (p *plan) dead() (bytes int64) {
	for _, s := range p.segments {
		if x := s.view().index; x != nil {
			bytes += x.share.total
		}
	}
	return max(bytes-p.copied(), 0)
}

// copied is how many bytes are kept.
func (p *plan) copied() int64 {
	if p.kept == emptied {
		return 0
	}
	return int64(p.kept)
}

// A keeper says which of a segment's records are kept.
type keeper struct {
	all bool
	// topics has those that are not kept whole: which of their records are,
	// nil for none.
	topics map[string]func(core.Offset) bool
}

// keeps says whether a record is kept.
func (k *keeper) keeps(topic string, at core.Offset) bool {
	if k.all {
		return true
	}
	needed, some := k.topics[topic]
	return !some || needed != nil && needed(at)
}

// plan decides what is to become of the segments.
func (l *Log) plan(ctx context.Context, k *look) ([]plan, error) {
	segments := k.segments
	sealed := segments[:len(segments)-1]
	if active := segments[len(segments)-1]; active.view().size == segmentHeaderSize && len(sealed) > 0 {
		// Nothing in the active one says yet where the log goes on.
		sealed = sealed[:len(sealed)-1]
	}
	if i := slices.IndexFunc(sealed, func(s *segment) bool { return k.Before > 0 && s.view().next > k.Before }); i >= 0 {
		sealed = sealed[:i]
	}
	// What a segment opened with tells how the one before is to be read,
	// unless that has its index. One of which nothing is left never gets any.
	for i, s := range sealed {
		if v := s.view(); v.size > segmentHeaderSize && (v.index == nil || v.index.verify() != nil) {
			sealed = sealed[:i]
			break
		}
	}
	each := make([]plan, len(sealed))
	for i := len(sealed) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var err error
		if each[i], err = k.judge(ctx, sealed[i]); err != nil {
			return nil, err
		}
	}
	l.choose(each)
	return l.group(each), nil
}

// group puts the plans of neighbours together and leaves out those that are not
// worth it.
func (l *Log) group(each []plan) []plan {
	var plans []plan
	for i := 0; i < len(each); {
		p := each[i]
		if p.kept == 0 {
			plans = append(plans, p)
			i++
			continue
		}
		worth := p.worth
		j := i + 1
		if worth || l.small(&p) {
			for ; j < len(each) && each[j].kept > 0 && (each[j].worth || l.small(&each[j])) && int64(p.kept+each[j].kept) <= l.o.SegmentBytes/2; j++ {
				worth = worth || each[j].worth
				p.segments = append(p.segments, each[j].segments...)
				p.keeps = append(p.keeps, each[j].keeps...)
				p.kept += each[j].kept
			}
		}
		if worth || j-i >= smallRun {
			plans = append(plans, p)
		}
		i = j
	}
	return plans
}

// small says whether little is kept of a segment.
func (l *Log) small(p *plan) bool { return int64(p.kept) < l.o.SegmentBytes/smallShare }

// replace takes segments out of the log, in favour of another one that already
// has the first one's name if there is any, and frees their files once nobody
// reads them.
func (l *Log) replace(old []*segment, replacement *segment) error {
	l.mu.Lock()
	i := slices.Index(l.segments, old[0])
	segments := slices.Clone(l.segments[:i])
	behind := l.segments[i+len(old):]
	if replacement != nil {
		replacement.lostBefore = old[0].view().lostBefore
		segments = append(segments, replacement)
	} else {
		// What was lost in front of them was not removed with them. The active
		// segment stays, so there is one behind.
		for _, s := range old {
			behind[0].lose(s.view().lostBefore)
		}
	}
	l.segments = append(segments, behind...)
	l.mu.Unlock()
	// What is read from here on sees the new bounds.
	l.setFirst()
	for _, s := range old {
		s.building.Lock()
		s.mu.Lock()
		s.removed = true
		s.mu.Unlock()
		s.building.Unlock()
		s.leave()
	}
	var err error
	for i, s := range old {
		if s.snapshots.Load() > 0 {
			// A backup may take long: just the name goes now.
			if replacement == nil || i > 0 {
				err = errors.Join(err, l.fs.Remove(path.Join(l.dir, s.name)), l.removeIndex(s))
			}
			l.background.Go(func() {
				<-s.idle
				if err := s.close(); err != nil {
					l.log.Warn("segment not closed", "file", s.name, "err", err)
				}
			})
			continue
		}
		<-s.idle
		err = errors.Join(err, s.close())
		if replacement != nil && i == 0 {
			continue // its name is the replacement's
		}
		err = errors.Join(err, l.freeFile(s))
	}
	if err == nil {
		err = l.fs.SyncDir(l.dir)
	}
	if replacement != nil && err == nil {
		err = l.ensureIndex(replacement)
	}
	return err
}

// freeFile keeps a segment's file as a spare one, or removes it.
func (l *Log) freeFile(s *segment) error {
	name := path.Join(l.dir, s.name)
	l.sparing.Lock()
	defer l.sparing.Unlock()
	spares, err := l.spares()
	if err != nil {
		return err
	}
	info, err := l.fs.Stat(name)
	if err != nil {
		return err
	}
	if l.pace.busy && len(spares) < maxSpares && info.Size >= l.o.SegmentBytes/2 && info.Size <= 2*l.o.SegmentBytes {
		err = l.fs.Rename(name, path.Join(l.dir, spareName(s.generation)))
	} else {
		err = l.fs.Remove(name)
	}
	if err != nil {
		return err
	}
	return l.removeIndex(s)
}

// removeIndex removes the file of a segment's index.
func (l *Log) removeIndex(s *segment) error {
	if err := l.fs.Remove(path.Join(l.dir, indexName(s.name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
