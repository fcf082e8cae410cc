package core

import (
	"encoding/binary"
	"slices"
	"sort"
)

// A run is a range of offsets, to exclusive.
type run struct{ from, to Offset }

// Runs are ranges of offsets, in order and apart from each other: what a queue
// has passed over. All of the queue's messages within a run are pending and
// nobody has been given them, so one run stands for any number of messages.
type runs []run

// find returns the index of the first run that ends behind an offset.
func (l runs) find(at Offset) int {
	return sort.Search(len(l), func(i int) bool { return l[i].to > at })
}

func (l runs) has(at Offset) bool {
	i := l.find(at)
	return i < len(l) && l[i].from <= at
}

// after returns what the first run at or behind an offset has from there on.
func (l runs) after(at Offset) (run, bool) {
	i := l.find(at)
	if i == len(l) {
		return run{}, false
	}
	return run{max(l[i].from, at), l[i].to}, true
}

// append adds a run behind all others, or to the last one where it goes on with
// that.
func (l *runs) append(r run) {
	if n := len(*l); n > 0 && (*l)[n-1].to == r.from {
		(*l)[n-1].to = r.to
		return
	}
	*l = append(*l, r)
}

// add adds a run anywhere.
func (l *runs) add(r run) {
	i := sort.Search(len(*l), func(i int) bool { return (*l)[i].to >= r.from })
	j := i
	for ; j < len(*l) && (*l)[j].from <= r.to; j++ {
		r = run{min(r.from, (*l)[j].from), max(r.to, (*l)[j].to)}
	}
	*l = slices.Replace(*l, i, j, r)
}

// cut removes a range.
func (l *runs) cut(from, to Offset) {
	if from >= to {
		return
	}
	i := l.find(from)
	if i == len(*l) || (*l)[i].from >= to {
		return
	}
	j := i
	for j < len(*l) && (*l)[j].from < to {
		j++
	}
	var rest []run
	if first := (*l)[i]; first.from < from {
		rest = append(rest, run{first.from, from})
	}
	if last := (*l)[j-1]; last.to > to {
		rest = append(rest, run{to, last.to})
	}
	*l = slices.Replace(*l, i, j, rest...)
	if len(*l) == 0 {
		*l = nil
	}
}

// appendRuns appends the count and, for each run, the distance from the end of
// the one before it and its length, as uvarints.
func appendRuns(dst []byte, l runs) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(l)))
	end := Offset(0)
	for _, r := range l {
		dst = binary.AppendUvarint(dst, uint64(r.from-end))
		dst = binary.AppendUvarint(dst, uint64(r.to-r.from))
		end = r.to
	}
	return dst
}

func (d *bodyDecoder) runs() runs {
	var l runs
	end := Offset(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		from := end + Offset(d.uvarint())
		end = from + Offset(d.uvarint())
		l = append(l, run{from, end})
	}
	return l
}

// The lanes of a queue: one, or one for each priority, the highest last. Each
// has its own runs, so that taking the higher priorities first leaves one run
// for each of the lower ones, however many messages that is.
const lanes = 10

// defaultLane is that of messages whose publisher gave no priority: 4, as JMS
// has it.
const defaultLane = 4

// lane is the lane of an envelope in the queue.
func (q *queue) lane(e *Envelope) int {
	if !q.settings.Priority {
		return 0
	}
	if level, ok := e.Priority.Level(); ok {
		return level
	}
	return defaultLane
}

// passOver notes that a message that was read is passed over. cursor.mu is held.
func (q *queue) passOver(at Offset, lane int) {
	l := q.left[lane]
	n, from := len(l), at
	if n > 0 && l[n-1].to > q.passed[lane] {
		from = l[n-1].to
	}
	q.left[lane].append(run{from, at + 1})
	q.moves(lane, from, at+1, false)
	q.runs = -1
	q.changed()
}

// taken notes that a message of a lane is not left any more, or was not to
// begin with. cursor.mu is held.
func (q *queue) taken(at Offset, lane int) {
	q.passed[lane] = max(q.passed[lane], at)
	if len(q.left[lane]) > 0 {
		q.cutLeft(lane, at, at+1)
	}
}

// cutLeft takes a range out of what was passed over. cursor.mu is held.
func (q *queue) cutLeft(lane int, from, to Offset) {
	q.left[lane].cut(from, to)
	q.moves(lane, from, to, true)
	q.runs = -1
}

// leftRuns counts the runs of all lanes. cursor.mu is held.
func (q *queue) leftRuns() int {
	if q.runs < 0 {
		q.runs = 0
		for _, l := range q.left {
			q.runs += int32(len(l))
		}
	}
	return int(q.runs)
}
