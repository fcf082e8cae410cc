package seglog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"

	"github.com/sluicemq/sluice/core"
)

// A freed range is segments that stood side by side until retention took them
// out of the log. The state has a note of each, which is durable before the
// first of their files goes: a number that is missing, and that no note has, is
// of a file that was lost.
type freed struct {
	first, through uint64 // sequence numbers
	// opened and after are the offset and the commit that the log had come to
	// in front of them, next and last those that it had come to behind them.
	// An offset of 0 says that it is not known, as where the segments went
	// before there were notes.
	opened, next core.Offset
	after, last  uint64
}

const freedSize = 48

func encodeFreed(ranges []freed) []byte {
	b := make([]byte, 0, len(ranges)*freedSize)
	for _, f := range ranges {
		for _, v := range []uint64{f.first, f.through, uint64(f.opened), uint64(f.next), f.after, f.last} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	return b
}

func parseFreed(b []byte) (ranges []freed, err error) {
	before := uint64(0)
	for ; len(b) >= freedSize; b = b[freedSize:] {
		u := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
		f := freed{first: u(0), through: u(1), opened: core.Offset(u(2)), next: core.Offset(u(3)), after: u(4), last: u(5)}
		if f.first <= before || f.through < f.first {
			return nil, fmt.Errorf("%w: segments %d to %d are freed behind %d", core.ErrCorrupt, f.first, f.through, before)
		}
		before = f.through
		ranges = append(ranges, f)
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the freed segments", core.ErrCorrupt, len(b))
	}
	return ranges, nil
}

// without is what is left of ranges where a segment is there.
func without(ranges []freed, s *segment) (left []freed) {
	if !slices.ContainsFunc(ranges, func(f freed) bool { return f.first <= s.through && s.sequence <= f.through }) {
		return ranges
	}
	for _, f := range ranges {
		if s.through < f.first || f.through < s.sequence {
			left = append(left, f)
			continue
		}
		if f.first < s.sequence {
			left = append(left, freed{first: f.first, through: s.sequence - 1, opened: f.opened, after: f.after})
		}
		if s.through < f.through {
			left = append(left, freed{first: s.through + 1, through: f.through, next: f.next, last: f.last})
		}
	}
	return left
}

// joined puts ranges together that follow each other.
func joined(ranges []freed) (all []freed) {
	for _, f := range ranges {
		if n := len(all); n > 0 && all[n-1].through+1 == f.first {
			all[n-1].through, all[n-1].next, all[n-1].last = f.through, f.next, f.last
			continue
		}
		all = append(all, f)
	}
	return all
}

// noteFreed is what is to be noted before retention carries out plans. Those
// that it frees stay apart until they have gone, so that each can be told from
// the others by what is there. What was lost in front of outlived is not told
// any more. It is for the one who reclaims.
func (l *Log) noteFreed(plans []plan) (ranges []freed, outlived core.Offset) {
	segments := l.segmentsNow()
	ranges = l.freed
	for _, s := range segments {
		ranges = without(ranges, s)
	}
	ranges = joined(ranges)
	if len(plans) > 0 && plans[0].kept == 0 && plans[0].segments[0] == segments[0] {
		ranges, outlived = absorbed(ranges, segments[0].sequence)
	}
	for _, p := range plans {
		if p.kept > 0 {
			continue // its numbers stand in the header of the copy
		}
		for _, s := range p.segments {
			v := s.view()
			ranges = append(ranges, freed{first: s.sequence, through: s.through, opened: v.opened, next: v.next, after: v.after, last: v.lastCommit})
		}
	}
	slices.SortFunc(ranges, func(a, b freed) int { return cmp.Compare(a.first, b.first) })
	return ranges, outlived
}

// absorbed counts what was lost among what retention had freed in front of the
// log's first segment, whose number is given, as freed with it: nobody can ask
// for more there. That is what was lost in front of the offset returned.
func absorbed(ranges []freed, first uint64) ([]freed, core.Offset) {
	n := slices.IndexFunc(ranges, func(f freed) bool { return f.first > first })
	if n < 0 {
		n = len(ranges)
	}
	if n == 0 {
		return ranges, 0
	}
	f := ranges[n-1]
	if f.first > 1 {
		f = freed{first: 1, through: f.through, next: f.next, last: f.last}
	}
	return append([]freed{f}, ranges[n:]...), f.next
}

// A stretch is sequence numbers that are missing, from first to the one before
// end: freed, or else put aside or lost.
type stretch struct {
	first, end uint64
	freed      *freed
}

// missing are the stretches from one number to another, exclusive, where no
// segment is.
func (l *Log) missing(from, to uint64) (all []stretch) {
	for i := range l.freed {
		f := &l.freed[i]
		if f.through < from || f.first >= to {
			continue
		}
		if from < f.first {
			all = append(all, stretch{first: from, end: f.first})
		}
		at := max(f.first, from)
		from = min(f.through+1, to)
		all = append(all, stretch{first: at, end: from, freed: f})
	}
	if from < to {
		all = append(all, stretch{first: from, end: to})
	}
	return all
}

// isAside says whether a stretch was put aside, or is noted as lost. A segment
// may have stood for those behind it, too, so that the first one is enough.
func (l *Log) isAside(s stretch) bool { return slices.Contains(l.asides, s.first) }

// loadFreed takes what the state has noted as freed. Where nothing was noted
// yet, what is missing is taken to have been freed, but for what was put aside
// and what is behind that.
func (l *Log) loadFreed() {
	noted := l.state != nil && l.state.noted
	if noted {
		l.freed = l.state.freed
	}
	through := uint64(0)
	for _, s := range l.segments {
		if noted {
			l.freed = without(l.freed, s)
		} else {
			end := s.sequence
			for _, n := range l.asides {
				if n > through {
					end = min(end, n)
				}
			}
			if through+1 < end {
				l.freed = append(l.freed, freed{first: through + 1, through: end - 1})
			}
		}
		through = s.through
	}
	// Numbers behind the last one are given again.
	l.freed = joined(slices.DeleteFunc(slices.Clone(l.freed), func(f freed) bool { return f.first > through }))
}

// everythingBefore is what was lost in front of a segment where it is not known
// where that begins.
var everythingBefore = []gap{{To: math.MaxUint64, Lost: true}}

// measureFreed finds out of the segments around them where the log went on
// behind those that were freed before there were notes.
func (l *Log) measureFreed() {
	for i, s := range l.segments {
		v, through := s.view(), uint64(0)
		if i > 0 {
			through = l.segments[i-1].through
		}
		m := l.missing(through+1, s.sequence)
		if len(m) != 1 || m[0].freed == nil || v.opened == 0 || len(s.lostBefore) > 0 {
			continue
		}
		f := m[0].freed
		if f.next == 0 {
			f.next, f.last = v.opened, v.after
		}
		if f.opened == 0 && i > 0 {
			b := l.segments[i-1].view()
			f.opened, f.after = b.next, b.lastCommit
		}
	}
}

// placeLosses says of what was lost in front of a segment where it begins and
// ends, also where the judge did not know that. A segment of which nothing is
// left stands behind the one before it, so that all are in order.
func (l *Log) placeLosses() {
	behind := core.Offset(0) // the segment before
	for _, s := range l.segments {
		if s.span.size == segmentHeaderSize && s.span.next == 0 {
			s.span.opened, s.span.first, s.span.next = behind, behind, behind
		}
		v := s.view()
		s.lostBefore = v.before(nil, behind, v.opened)
		behind = max(behind, v.next)
	}
}

// A lostFile is a segment's file, or several side by side, that are not there
// though nobody has freed them.
type lostFile struct {
	stretch
	behind *segment // the first one behind them that is there
	loss   *loss    // what was lost with them; nil if that is nothing
	told   int      // of the losses, the first that may be that
}

// name is that of the first file.
func (f *lostFile) name() string { return segmentName(f.first) }

// files says which files they are.
func (f *lostFile) files() string {
	if f.first+1 == f.end {
		return f.name()
	}
	return fmt.Sprintf("%s to %s", f.name(), segmentName(f.end-1))
}

// between takes what is missing in front of a segment. What was freed there says
// where the log had come to in front of it, and behind it, if that is known: what
// the segments around it do not have of that was lost. Where a part was not freed,
// the judge finds out what was lost with that.
func (r *recovery) between(through uint64, s *segment) {
	l, j := r.log, &r.judge
	r.among = true
	defer func() { r.among = false }()
	for _, m := range l.missing(through+1, s.sequence) {
		if m.freed == nil {
			if !l.isAside(m) {
				r.gone = append(r.gone, lostFile{stretch: m, behind: s, told: len(r.losses)})
			}
			if j.fresh {
				// Where it begins is not known.
				s.lostBefore = everythingBefore
				r.losses = append(r.losses, loss{at: s, front: true})
				l.log.Error("log is damaged, confirmed data was lost with a segment that is not there", "before", s.name)
			}
			continue
		}
		f := m.freed
		if f.opened > 0 {
			j.know(f.after)
			if !j.fresh {
				j.boundary(s, f.after, f.opened)
			}
		} else {
			j.know(j.applied) // what stood behind it is not there to say so
		}
		j.know(f.last)
		j.waiting = j.waiting[:0]
		if j.begin(); f.next > 0 {
			j.fresh, j.last, j.whole, j.next = false, f.last, true, f.next
		}
	}
}

// lostFiles are the files that are missing, each with what was lost with it.
func (r *recovery) lostFiles() []lostFile {
	for i := range r.gone {
		g, end := &r.gone[i], len(r.losses)
		if i+1 < len(r.gone) {
			end = r.gone[i+1].told
		}
		if k := slices.IndexFunc(r.losses[g.told:end], func(x loss) bool { return x.at == g.behind && x.front }); k >= 0 {
			g.loss = &r.losses[g.told+k]
		}
	}
	return r.gone
}

// noteLost leaves an empty file, as of a segment that was put aside, for each
// that is missing, so that what was lost with it is told from then on.
func (r *recovery) noteLost() error {
	l := r.log
	for _, f := range r.lostFiles() {
		if f.loss == nil {
			continue // the one before it stands for it, too
		}
		g := f.loss.gap
		if g.To == 0 {
			v := f.behind.view()
			g.To = v.opened
		}
		l.log.Error("segment is missing and was not removed by retention, confirmed data was lost with it", "file", f.files(), "from", g.From, "to", g.To)
		l.asides = append(l.asides, f.first)
		name := path.Join(l.dir, f.name()+badSuffix)
		file, err := l.fs.Create(name)
		if err == nil {
			err = errors.Join(file.Close(), l.fs.SyncDir(l.dir))
		}
		if isFull(err) {
			l.log.Warn("the loss cannot be noted, it is found again at the next start", "file", name, "err", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}
