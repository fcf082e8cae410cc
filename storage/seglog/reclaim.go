package seglog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

const (
	// rewriteShare is the share of a segment's bytes, one in that many, that
	// must be dead before the rest is copied.
	rewriteShare = 2
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
	if l.isDue(&r) {
		// Its index is built in the background; the next call looks at it.
		if err := l.request(ctx, l.retire); err != nil {
			return done, err
		}
	}
	plans, err := l.plan(ctx, &r)
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
	for _, p := range plans {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		var replacement *segment
		if p.kept > 0 {
			if replacement, err = l.rewrite(ctx, p); err != nil {
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
	}
	l.setFirst()
	done.First, _ = l.Bounds()
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

// isDue says that the active segment is to be sealed for what retention may free:
// a policy's age is behind its first record, or it may have as much as a policy
// keeps, which counts only once it has an index, and then frees what is in front.
// A small one is left as it is then, for segments that are small are copied.
func (l *Log) isDue(r *core.Retention) bool {
	segments := l.segmentsNow()
	v := segments[len(segments)-1].view()
	return v.records > 0 && slices.ContainsFunc(r.Policies, func(p core.Policy) bool {
		return p.Age > 0 && time.UnixMilli(v.firstTime).Add(p.Age).Before(r.Now) ||
			p.Bytes > 0 && len(segments) > 1 && v.size >= max(p.Bytes, l.o.SegmentBytes/smallShare)
	})
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
func (l *Log) plan(ctx context.Context, r *core.Retention) ([]plan, error) {
	segments := l.segmentsNow()
	sealed := segments[:len(segments)-1]
	if active := segments[len(segments)-1]; active.view().size == segmentHeaderSize && len(sealed) > 0 {
		// Nothing in the active one says yet where the log goes on.
		sealed = sealed[:len(sealed)-1]
	}
	if i := slices.IndexFunc(sealed, func(s *segment) bool { return r.Before > 0 && s.view().next > r.Before }); i >= 0 {
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
	sets := make([]*core.FilterSet, len(r.Policies))
	var key strings.Builder
	for i, p := range r.Policies {
		sets[i] = core.NewFilterSet(p.Filters...)
		fmt.Fprintf(&key, "%q", p.Filters)
	}
	newer := make([]int64, len(r.Policies)) // bytes that each policy keeps in newer segments
	each := make([]plan, len(sealed))
	for i := len(sealed) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		each[i] = l.judgeSegment(sealed[i], r, sets, key.String(), newer)
	}
	return l.group(each), nil
}

// A share is what each of some policies has of a segment, kept with the index
// since it never changes.
type share struct {
	key   string  // of the policies
	bytes []int64 // of the topics that each holds for
	total int64   // of all topics
}

// policyOf is the policy that holds for a topic, -1 if none does.
func policyOf(sets []*core.FilterSet, topic string) int {
	return slices.IndexFunc(sets, func(f *core.FilterSet) bool { return f.Match(topic) })
}

// shareOf is what the policies of a key have of a segment. It is for the one
// who reclaims.
func (x *index) shareOf(sets []*core.FilterSet, key string) *share {
	if x.share != nil && x.share.key == key {
		return x.share
	}
	s := &share{key: key, bytes: make([]int64, len(sets))}
	for i := range x.numTopics() {
		t := x.topic(i)
		s.total += int64(t.bytes)
		if p := policyOf(sets, t.name); p >= 0 {
			s.bytes[p] += int64(t.bytes)
		}
	}
	x.share = s
	return s
}

// judgeSegment decides what is kept of one segment. newer is what each policy
// keeps of the segments behind it, to which this one's is added.
func (l *Log) judgeSegment(s *segment, r *core.Retention, sets []*core.FilterSet, key string, newer []int64) plan {
	v := s.view()
	x := v.index
	p := plan{segments: []*segment{s}}
	if x == nil {
		p.kept = emptied
		return p
	}
	has := x.shareOf(sets, key)
	over, some := make([]bool, len(sets)), false
	for i, policy := range r.Policies {
		over[i] = policy.Bytes > 0 && newer[i] >= policy.Bytes ||
			policy.Age > 0 && time.UnixMilli(v.lastTime).Add(policy.Age).Before(r.Now)
		some = some || over[i] && has.bytes[i] > 0
		newer[i] += has.bytes[i]
	}
	if !some {
		p.kept = uint64(has.total)
		p.keeps = []keeper{{all: true}}
		return p
	}
	keep := keeper{topics: make(map[string]func(core.Offset) bool)}
	var offsets []core.Offset
	for i := range x.numTopics() {
		t := x.topic(i)
		if policy := policyOf(sets, t.name); policy < 0 || !over[policy] {
			p.kept += t.bytes
			continue
		}
		var needed func(core.Offset) bool
		if r.Needs != nil {
			needed = r.Needs.Of(t.name)
		}
		if needed != nil {
			offsets = x.offsets(offsets[:0], t)
			count := uint64(0)
			for _, at := range offsets {
				if needed(at) {
					count++
				}
			}
			p.kept += t.bytes * count / uint64(t.count)
			if count == 0 {
				needed = nil
			}
		}
		keep.topics[strings.Clone(t.name)] = needed
	}
	keep.all = len(keep.topics) == 0
	p.keeps = []keeper{keep}
	return p
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
		worth := l.worth(&p)
		j := i + 1
		if worth || l.small(&p) {
			for ; j < len(each) && each[j].kept > 0 && (l.worth(&each[j]) || l.small(&each[j])) && int64(p.kept+each[j].kept) <= l.o.SegmentBytes/2; j++ {
				worth = worth || l.worth(&each[j])
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

// worth says whether enough of a segment is dead to copy the rest.
func (l *Log) worth(p *plan) bool {
	return p.kept != emptied && p.kept <= uint64(p.segments[0].view().index.share.total)/rewriteShare
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
	spares, err := l.spares()
	if err != nil {
		return err
	}
	info, err := l.fs.Stat(name)
	if err != nil {
		return err
	}
	if len(spares) < maxSpares && info.Size >= l.o.SegmentBytes/2 && info.Size <= 2*l.o.SegmentBytes {
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
