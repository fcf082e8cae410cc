package seglog

import (
	"slices"
	"sort"

	"github.com/sluicemq/sluice/core"
)

// A view is what a segment holds, as far as it is read. It is a value: who has
// one, and has entered the segment, is not troubled by what the log does next.
// The block table and the gaps are in memory, or, once it has been built, in
// the index.
type view struct {
	span
	index      *index
	lostBefore []gap
}

// view is what the segment holds now.
func (s *segment) view() view {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return view{s.span, s.index, s.lostBefore}
}

// tells says whether the segment has a record, or a gap, or knows of what was
// lost in front of it.
func (s *segment) tells() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.lostBefore) > 0 || s.span.records > 0 || len(s.span.gaps) > 0 || s.index != nil && len(s.index.gaps) > 0
}

// before adds to gaps what was lost in front of the segment, of a range of
// offsets.
func (v *view) before(gaps []gap, from, to core.Offset) []gap {
	for _, g := range v.lostBefore {
		gaps = addGap(gaps, gap{From: max(g.From, from), To: min(g.To, to), Lost: true})
	}
	return gaps
}

// lose takes note of what was lost between the segment and the one that is now
// before it.
func (s *segment) lose(gaps []gap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.lostBefore)
	for _, g := range gaps {
		all = addGap(all, g)
	}
	s.lostBefore = all
}

// outlive forgets what was lost in front of an offset.
func (s *segment) outlive(at core.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lostBefore = slices.DeleteFunc(slices.Clone(s.lostBefore), func(g gap) bool { return g.To <= at })
}

func (v *view) numBlocks() int {
	if v.index != nil {
		return v.index.numBlocks()
	}
	return len(v.blocks)
}

func (v *view) block(i int) block {
	if v.index != nil {
		return v.index.block(i)
	}
	return v.blocks[i]
}

// blockAt is the block to begin with for the record at an offset.
func (v *view) blockAt(at core.Offset) int {
	return max(sort.Search(v.numBlocks(), func(i int) bool { return v.block(i).base > at })-1, 0)
}

// blockEnd is where block i ends in the file.
func (v *view) blockEnd(i int) int64 {
	if i+1 < v.numBlocks() {
		return v.block(i + 1).pos
	}
	return v.size
}

// gapsIn are the gaps that reach into a range of offsets.
func (v *view) gapsIn(from, to core.Offset) []gap {
	gaps := v.gaps
	if v.index != nil {
		gaps = v.index.gaps
	}
	i := sort.Search(len(gaps), func(i int) bool { return gaps[i].To > from })
	j := sort.Search(len(gaps), func(j int) bool { return gaps[j].From >= to })
	return gaps[min(i, j):j]
}
