package seglog

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A look is one look at what may go.
type look struct {
	*core.Retention
	log *Log
	// segments are the log's when the look began: one that is sealed meanwhile
	// is not looked at as sealed.
	segments []*segment
	sets     []*core.FilterSet // of the policies
	key      string            // of their filters
	// newer is what each policy keeps of what is newer than the segment that is
	// looked at.
	newer []int64
	of    map[string]int // the policies of topics that were asked for
}

func newLook(l *Log, r *core.Retention) *look {
	k := &look{Retention: r, log: l, segments: l.segmentsNow(), sets: make([]*core.FilterSet, len(r.Policies)), newer: make([]int64, len(r.Policies)), of: make(map[string]int)}
	var key strings.Builder
	for i, p := range r.Policies {
		k.sets[i] = core.NewFilterSet(p.Filters...)
		fmt.Fprintf(&key, "%q", p.Filters)
	}
	k.key = key.String()
	return k
}

// mostKnown bounds the topics whose policies are remembered.
const mostKnown = 1 << 16

// policyOf is the policy that holds for a topic, -1 if none does.
func (k *look) policyOf(topic string) int {
	p, known := k.of[topic]
	if !known {
		p = slices.IndexFunc(k.sets, func(f *core.FilterSet) bool { return f.Match(topic) })
		if len(k.of) >= mostKnown {
			clear(k.of)
		}
		k.of[strings.Clone(topic)] = p
	}
	return p
}

// bounded reports whether any policy keeps so many bytes.
func (k *look) bounded() bool {
	return slices.ContainsFunc(k.Policies, func(p core.Policy) bool { return p.Bytes > 0 })
}

// A share is what each of some policies has of a segment, kept with the index
// since it never changes.
type share struct {
	key   string  // of the policies
	bytes []int64 // of the topics that each holds for
	total int64   // of all topics

	// keeps are the offsets from which on the segment has so many bytes of each
	// policy, or more, as they were asked for last.
	wants []int64
	keeps []core.Offset
}

// shareOf is what the policies have of a segment.
func (k *look) shareOf(x *index) *share {
	if x.share != nil && x.share.key == k.key {
		return x.share
	}
	s := &share{key: k.key, bytes: make([]int64, len(k.sets))}
	for i := range x.numTopics() {
		t := x.topic(i)
		s.total += int64(t.bytes)
		if p := k.policyOf(t.name); p >= 0 {
			s.bytes[p] += int64(t.bytes)
		}
	}
	x.share = s
	return s
}

// judge decides what is kept of one segment, behind all that is newer.
func (k *look) judge(ctx context.Context, s *segment) (p plan, err error) {
	v := s.view()
	x := v.index
	p.segments = []*segment{s}
	if x == nil {
		p.kept = emptied
		return p, nil
	}
	has := k.shareOf(x)
	keeps, err := k.keepsFrom(ctx, s, &v, has)
	some := false
	for i := range k.Policies {
		some = some || keeps[i] > v.first && has.bytes[i] > 0
		k.newer[i] += has.bytes[i]
	}
	if err != nil || !some {
		p.kept = uint64(has.total)
		p.keeps = []keeper{{all: true}}
		return p, err
	}
	keep := keeper{topics: make(map[string]func(core.Offset) bool)}
	var offsets []core.Offset
	for i := range x.numTopics() {
		t := x.topic(i)
		policy := k.policyOf(t.name)
		if policy < 0 || keeps[policy] <= v.first {
			p.kept += t.bytes
			continue
		}
		var needed func(core.Offset) bool
		if k.Needs != nil {
			needed = k.Needs.Of(t.name)
		}
		if from := keeps[policy]; from < v.next {
			older := needed
			needed = func(at core.Offset) bool { return at >= from || older != nil && older(at) }
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
	return p, nil
}

// keepsFrom says from which offset on each policy keeps a segment's records: up to
// the segment's end if it keeps none. In a busy log a policy keeps all or none.
func (k *look) keepsFrom(ctx context.Context, s *segment, v *view, has *share) ([]core.Offset, error) {
	keeps, wants := make([]core.Offset, len(k.Policies)), make([]int64, len(k.Policies))
	over := int64(0) // bytes that are too many for some policy
	for i, p := range k.Policies {
		switch {
		case p.Bytes > 0 && k.newer[i] >= p.Bytes, p.Age > 0 && time.UnixMilli(v.lastTime).Add(p.Age).Before(k.Now):
			keeps[i] = v.next
			continue
		case k.log.pace.busy:
			continue
		case p.Age > 0:
			// What is in front of a block is older than the block.
			n := sort.Search(v.numBlocks(), func(b int) bool { return !time.UnixMilli(v.block(b).time).Add(p.Age).Before(k.Now) })
			if n > 1 {
				keeps[i] = v.block(n - 1).base
			}
		}
		if want := p.Bytes - k.newer[i]; p.Bytes > 0 && has.bytes[i] > want {
			wants[i] = want
			over += has.bytes[i] - want
		}
	}
	if over < max(has.total/idleShare, 1) {
		return keeps, nil
	}
	if !has.answers(wants) {
		from, err := k.newest(ctx, s, v, wants)
		if err != nil {
			return keeps, err
		}
		has.wants, has.keeps = wants, from
	}
	for i := range keeps {
		keeps[i] = max(keeps[i], has.keeps[i])
	}
	return keeps, nil
}

// answers says whether what was asked for last does for what is wanted now: it
// keeps as much, and not much more.
func (s *share) answers(wants []int64) bool {
	for i, n := range wants {
		if s.wants == nil || (n > 0) != (s.wants[i] > 0) || n > s.wants[i] || n < s.wants[i]-s.total/(2*idleShare) {
			return false
		}
	}
	return true
}

// newest finds the offsets from which on a segment has so many bytes of each
// policy, 0 where nothing is asked for.
func (k *look) newest(ctx context.Context, s *segment, v *view, wants []int64) ([]core.Offset, error) {
	from, has := make([]core.Offset, len(wants)), make([]int64, len(wants))
	left := 0
	for _, n := range wants {
		if n > 0 {
			left++
		}
	}
	for b := v.numBlocks() - 1; b >= 0 && left > 0; b-- {
		err := k.count(ctx, s, v.block(b).pos, v.blockEnd(b), v.block(b).base, has)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", s.name, err)
		}
		for i, n := range wants {
			if n > 0 && from[i] == 0 && has[i] >= n {
				from[i] = v.block(b).base
				left--
			}
		}
	}
	return from, nil
}

// count adds to bytes what each policy has of a part of a segment; next is where
// the log had come to there.
func (k *look) count(ctx context.Context, s *segment, pos, end int64, next core.Offset, bytes []int64) error {
	return s.eachFrame(ctx, pos, end, next, func(h *frameHeader, body []byte) error {
		return eachRecord(h, body, func(_ core.Offset, _ int64, record []byte) error {
			if p := k.policyOf(topicIn(record)); p >= 0 {
				bytes[p] += int64(len(record))
			}
			return nil
		})
	})
}

// An activeShare is what policies have of the active segment, as far as it has
// been read.
type activeShare struct {
	share
	of   *segment
	pos  int64
	next core.Offset
}

// countActive counts what the policies have of the active segment as newer than
// all the others: what is in front of it goes without waiting for its index.
func (k *look) countActive(ctx context.Context) error {
	if !k.bounded() {
		return nil
	}
	s := k.segments[len(k.segments)-1]
	v, a := s.view(), &k.log.latest
	if a.of != s || a.key != k.key {
		*a = activeShare{share: share{key: k.key, bytes: make([]int64, len(k.sets))}, of: s, pos: segmentHeaderSize, next: v.opened}
	}
	if err := k.count(ctx, s, a.pos, v.size, a.next, a.bytes); err != nil {
		return fmt.Errorf("reading %s: %w", s.name, err)
	}
	a.pos, a.next = v.size, v.next
	copy(k.newer, a.bytes)
	return nil
}

// isDue says that the active segment is to be sealed for what retention may free:
// a policy's age is behind its first record, or, unless the log is busy, policies
// that keep so many bytes have more than that in it, and nobody needs it. A small
// one is left as it is then, for segments that are small are copied.
func (k *look) isDue(ctx context.Context) (bool, error) {
	s := k.segments[len(k.segments)-1]
	v := s.view()
	if v.records == 0 {
		return false, nil
	}
	if slices.ContainsFunc(k.Policies, func(p core.Policy) bool { return p.Age > 0 && time.UnixMilli(v.firstTime).Add(p.Age).Before(k.Now) }) {
		return true, nil
	}
	if k.log.pace.busy || !k.bounded() {
		return false, nil
	}
	over, sum := make([]int64, len(k.Policies)), int64(0)
	for i, p := range k.Policies {
		if p.Bytes > 0 {
			over[i] = max(k.log.latest.bytes[i]-p.Bytes, 0)
			sum += over[i]
		}
	}
	is := func(dead float64) bool {
		return dead >= max(float64(k.log.o.SegmentBytes/crumb), (k.log.pace.died+dead)/diedShare)
	}
	if !is(float64(sum)) {
		return false, nil
	}
	dead, err := k.sample(ctx, s, &v, over)
	return is(dead), err
}

// samples is how many blocks of a segment stand for all of them.
const samples = 256

// sample estimates how much nobody needs of the oldest bytes of each policy in the
// active segment, of so many.
func (k *look) sample(ctx context.Context, s *segment, v *view, over []int64) (dead float64, err error) {
	type part struct{ bytes, needed int64 }
	var parts [][]part // of blocks, by policies
	sums := make([]int64, len(over))
	needs := make(map[string]func(core.Offset) bool)
	for b := 0; b < v.numBlocks(); b += 1 + v.numBlocks()/samples {
		of := make([]part, len(over))
		err := s.eachFrame(ctx, v.block(b).pos, v.blockEnd(b), v.block(b).base, func(h *frameHeader, body []byte) error {
			return eachRecord(h, body, func(at core.Offset, _ int64, record []byte) error {
				topic := topicIn(record)
				p := k.policyOf(topic)
				if p < 0 || over[p] == 0 {
					return nil
				}
				of[p].bytes += int64(len(record))
				sums[p] += int64(len(record))
				if k.Needs == nil {
					return nil
				}
				needed, known := needs[topic]
				if !known {
					topic = strings.Clone(topic)
					needed = k.Needs.Of(topic)
					needs[topic] = needed
				}
				if needed != nil && needed(at) {
					of[p].needed += int64(len(record))
				}
				return nil
			})
		})
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", s.name, err)
		}
		parts = append(parts, of)
	}
	for p, n := range over {
		// Each byte that was read stands for so many.
		left, each := float64(n), float64(k.log.latest.bytes[p])/float64(max(sums[p], 1))
		for _, of := range parts {
			if of[p].bytes > 0 {
				bytes := min(float64(of[p].bytes)*each, left)
				left -= bytes
				dead += bytes * (1 - float64(of[p].needed)/float64(of[p].bytes))
			}
		}
	}
	return dead, nil
}

// choose says of which segments enough is dead for the rest to be copied: half of
// it. Unless the log is busy others follow, those of which most is dead first,
// until little is left of all that has died lately, or no more may be copied.
func (l *Log) choose(each []plan) {
	var freed, left int64
	var open []*plan
	for i := range each {
		p := &each[i]
		if p.kept == emptied {
			continue
		}
		dead := p.dead()
		if p.worth = dead >= p.copied()*(rewriteShare-1) && dead > 0; p.worth {
			freed += dead
			continue
		}
		left += dead
		if dead > 0 && dead >= p.copied()/(idleShare-1) {
			open = append(open, p)
		}
	}
	if l.pace.busy {
		return
	}
	slices.SortFunc(open, func(a, b *plan) int {
		return cmp.Compare(float64(a.copied())/float64(a.dead()), float64(b.copied())/float64(b.dead()))
	})
	allowance := l.pace.allowance
	for _, p := range open {
		if float64(left*diedShare) <= l.pace.died+float64(freed+left) {
			return
		}
		if copied := float64(p.copied()); copied <= allowance {
			allowance -= copied
			p.worth = true
			left -= p.dead()
			freed += p.dead()
		}
	}
}
