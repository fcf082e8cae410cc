package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/sluicemq/sluice/core/pause"
)

// A snapshot is what is left to deliver of the retained values that a binding
// matches. A binding has one at the most, which ends with it. Of a queue it is as
// durable as the position, and stands in the same commits: so none is left out,
// and none given twice that was settled, whatever happens.
type snapshot struct {
	filter Filter // the binding's, with where
	where  string
	// from is where the log goes on: a value at or behind it is left to that.
	from Offset
	// after is the topic that it has come to.
	after []byte
	// led stands for the binding as it is now. It leads here from what was
	// published before from.
	led *bound
	// among are the cursor's bindings of which that is one.
	among *[]*bound
}

const (
	// snapshotRound is how many retained values are looked at in one go.
	snapshotRound = 128
	// maxGiven is how many a queue has outstanding at the most, however much
	// credit there is: they come in the order of their topics and not of their
	// offsets, and each commit with the queue's position has all of them.
	maxGiven = 1024
)

// snapshot delivers retained values to a cursor for as long as it has credit.
func (p *pump) snapshot(c *cursor, s *snapshot) {
	c.mu.Lock()
	b, after := s.lead(c.bindings.Load()), string(s.after)
	if b == nil {
		c.endSnapshot(s)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	more := false
	looked := 0
	for entry, err := range p.b.retainedState(b.Filter, after) {
		if err != nil {
			p.b.log.Error("retained values not readable", "filter", b.Filter, "err", err)
			p.b.stats.Unreadable.Add(1)
			break
		}
		topic := entry.Key[len(keyRetained):]
		if topic <= after {
			continue
		}
		if looked++; looked > snapshotRound {
			more = true
			break
		}
		if at, ok := retainedOffset(entry.Value); ok && b.Filter.Match(topic) && at < s.from {
			pause.At("retained found")
			d, err := p.retained(b, at)
			if p.ctx.Err() != nil {
				more = true // the broker closes, and the next one goes on here
				break
			}
			if err != nil {
				p.b.log.Error("retained value not readable", "offset", at, "err", err)
				p.b.stats.Unreadable.Add(1)
			}
			if d != nil && !c.owner.offer(*d, s) {
				more = true
				break
			}
		}
		after = topic
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.went(after)
	if !more {
		c.endSnapshot(s)
	}
	c.owner.changed()
}

// endSnapshot ends a snapshot, unless it has ended. cursor.mu is held.
func (c *cursor) endSnapshot(s *snapshot) {
	c.snapshots = slices.DeleteFunc(c.snapshots, func(o *snapshot) bool { return o == s })
	c.owner.changed()
}

// went takes note that a snapshot has come to a topic. cursor.mu is held.
func (s *snapshot) went(topic string) { s.after = append(s.after[:0], topic...) }

// lead returns the snapshot's binding, nil if it has ended, and has led stand for
// it. cursor.mu is held.
func (s *snapshot) lead(bindings *[]*bound) *bound {
	s.among = bindings
	bs := *bindings
	i := slices.IndexFunc(bs, func(b *bound) bool { return b.until == 0 && b.Filter == s.filter && b.Where == s.where })
	if i < 0 {
		return nil
	}
	if b := bs[i]; s.led == nil || s.led.Binding != b.Binding {
		s.led = &bound{Binding: b.Binding, from: 1, until: s.from, where: b.where}
	}
	return bs[i]
}

// goesOn reports whether a value of a snapshot may be given away as lead has
// found it: it has not ended, and no binding has changed since. cursor.mu is
// held.
func (c *cursor) goesOn(s *snapshot) bool {
	return s.among == c.bindings.Load() && slices.Contains(c.snapshots, s)
}

// forgetSnapshot ends the snapshot of a binding, if it has one. cursor.mu is held.
func (c *cursor) forgetSnapshot(b *Binding) {
	c.snapshots = slices.DeleteFunc(c.snapshots, func(s *snapshot) bool { return s.filter == b.Filter && s.where == b.Where })
}

// give takes note of what has led to an entry that was given as a retained value.
func (o *outstanding) give(at Offset, led *bound) {
	if o.retained == nil {
		o.retained = make(map[Offset]*bound)
	}
	o.retained[at] = led
}

// crowded reports whether the next snapshot waits for values that were given, or
// put off, to be dealt with. cursor.mu is held.
func (q *queue) crowded() bool {
	return len(q.snapshots) > 0 && q.comesNext(q.snapshots[0]) &&
		(len(q.out.retained) >= maxGiven || int(q.waiting) >= q.credit())
}

// comesNext reports whether a snapshot comes before what is next in the log. It
// does not before the log has led to where that goes on behind it: what is
// outstanding stands before next. cursor.mu is held.
func (c *cursor) comesNext(s *snapshot) bool {
	return c.next >= min(s.from, c.b.dispatcher.end())
}

// led are the bindings that have led to outstanding retained values. cursor.mu is
// held.
func (q *queue) led() (bs []*bound) {
	known := make(map[*bound]bool)
	for _, b := range q.out.retained {
		if !known[b] {
			known[b] = true
			bs = append(bs, b)
		}
	}
	return bs
}

// A snapshotState is what the state has of a queue's snapshots.
type snapshotState struct {
	Left  []leftState  `json:"left,omitempty"`
	Given []givenState `json:"given,omitempty"`
}

// A leftState is a snapshot.
type leftState struct {
	Filter Filter `json:"filter"`
	Where  string `json:"where,omitempty"`
	From   Offset `json:"from"`
	After  string `json:"after,omitempty"`
}

// A givenState is the outstanding messages that were given as retained values
// under a binding as it was then.
type givenState struct {
	Filter     Filter     `json:"filter"`
	Tag        uint64     `json:"tag,omitempty"`
	Settlement Settlement `json:"settlement,omitempty"`
	From       Offset     `json:"from"` // the snapshot's
	Offsets    []Offset   `json:"offsets"`
}

// journalSnapshots adds to a commit with the queue's position what there is of
// snapshots. cursor.mu is held.
func (q *queue) journalSnapshots(p *commit) {
	if len(q.snapshots) == 0 && len(q.out.retained) == 0 {
		q.forgetSnapshots(p)
		return
	}
	var s snapshotState
	for _, left := range q.snapshots {
		s.Left = append(s.Left, leftState{left.filter, left.where, left.from, string(left.after)})
	}
	of := make(map[*bound]int) // which of s.Given
	for _, at := range slices.Sorted(maps.Keys(q.out.retained)) {
		b := q.out.retained[at]
		i, known := of[b]
		if !known {
			i, of[b] = len(s.Given), len(s.Given)
			s.Given = append(s.Given, givenState{Filter: b.Filter, Tag: b.Tag, Settlement: b.Settlement, From: b.until})
		}
		s.Given[i].Offsets = append(s.Given[i].Offsets, at)
	}
	value, err := json.Marshal(&s)
	if err != nil {
		panic("core: " + err.Error()) // there is nothing in it that JSON has not
	}
	p.Changes = append(p.Changes, Change{Key: keySnapshots + q.name, Value: value})
	q.snapshotted = true
}

// forgetSnapshots adds to a commit that there is nothing of snapshots. cursor.mu
// is held.
func (q *queue) forgetSnapshots(p *commit) {
	if q.snapshotted {
		p.Changes = append(p.Changes, Change{Key: keySnapshots + q.name})
		q.snapshotted = false
	}
}

// loadSnapshots takes over what the state has of snapshots. The queues and their
// positions are loaded.
func (b *Broker) loadSnapshots() error {
	for entry, err := range b.engine.State(keySnapshots, "") {
		if err != nil {
			return err
		}
		q := b.queues[entry.Key[len(keySnapshots):]]
		if q == nil {
			b.followed = append(b.followed, entry.Key)
			continue
		}
		var s snapshotState
		if err := json.Unmarshal(entry.Value, &s); err != nil {
			return fmt.Errorf("state %q: %w: %w", entry.Key, ErrCorrupt, err)
		}
		q.snapshotted = true
		for _, l := range s.Left {
			q.snapshots = append(q.snapshots, &snapshot{filter: l.Filter, where: l.Where, from: l.From, after: []byte(l.After)})
		}
		for _, g := range s.Given {
			led := &bound{Binding: Binding{Filter: g.Filter, Tag: g.Tag, Settlement: g.Settlement}, from: 1, until: g.From}
			for _, at := range g.Offsets {
				if q.out.find(at) != nil {
					q.out.give(at, led)
				}
			}
		}
	}
	return nil
}
