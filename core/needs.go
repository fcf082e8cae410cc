package core

import (
	"maps"
	"slices"
	"strings"

	"github.com/sluicemq/sluice/core/seeded"
)

// needs gathers what must stay whatever the policies say: retained values,
// delayed messages, and what a pinned queue has not settled.
func (b *Broker) needs() (*brokerNeeds, error) {
	n := &brokerNeeds{b: b}
	// Wills first: one that is left goes over to the delayed messages.
	for s, err := range b.engine.State(keyWill, "") {
		if err != nil {
			return nil, err
		}
		if w, ok := parseKept(s.Value); ok {
			at, _ := retainedOffset([]byte(w.offset))
			n.delayed = append(n.delayed, at)
		}
	}
	for s, err := range b.engine.State(keyDelayed, "") {
		if err != nil {
			return nil, err
		}
		if at, ok := retainedOffset(s.Value); ok {
			n.delayed = append(n.delayed, at)
		}
	}
	slices.Sort(n.delayed)
	b.mu.RLock()
	qs := slices.Collect(maps.Values(b.queues))
	b.mu.RUnlock()
	n.queues = make([]queueNeeds, 0, len(qs))
	for _, q := range qs {
		q.mu.Lock()
		unpinned := q.settings.Unpinned
		q.mu.Unlock()
		if !unpinned && !seeded.On(seeded.UnsettledReclaimed) {
			n.queues = append(n.queues, q.needs())
		}
	}
	return n, nil
}

// A brokerNeeds is what was needed at a moment. There may be many queues, and
// most of them are far from anything that could go, so it has little of each.
type brokerNeeds struct {
	b       *Broker
	delayed []Offset // in order
	queues  []queueNeeds

	// The queues by what the topics that their bindings match begin with, the
	// levels in front of the first wildcard, made when the first topic is asked
	// for; routed are those that are bound to exchanges.
	indexed bool
	below   map[string][]*queueNeeds
	routed  []*queueNeeds
}

type queueNeeds struct {
	bindings *[]*bound
	next     Offset
	left     []runs
	out      []Offset // in order
}

// needs are the queue's now. All of it is of one moment: what is taken from what
// was passed over is outstanding from then on.
func (q *queue) needs() (n queueNeeds) {
	q.atOneMoment(func(next Offset) {
		n = queueNeeds{bindings: q.bindings.Load(), next: next}
		if len(q.out.retained) > 0 {
			bs := slices.Concat(*n.bindings, q.led())
			n.bindings = &bs
		}
		for i := range q.out.live() {
			if e := &q.out.live()[i]; e.state != entryDone {
				n.out = append(n.out, e.offset)
			}
		}
		if q.leftRuns() > 0 {
			n.left = copyRuns(q.left)
		}
	})
	return n
}

// index sorts the queues by where their topics begin.
func (n *brokerNeeds) index() {
	n.indexed, n.below = true, make(map[string][]*queueNeeds)
	for i := range n.queues {
		q := &n.queues[i]
		for _, bd := range *q.bindings {
			if bd.exchange != nil {
				n.routed = append(n.routed, q)
				continue
			}
			stem := stemOf(bd.Filter)
			if of := n.below[stem]; len(of) == 0 || of[len(of)-1] != q {
				n.below[stem] = append(of, q)
			}
		}
	}
}

// stemOf is the levels of a filter in front of its first wildcard, without the
// separator that follows.
func stemOf(f Filter) string {
	stem := f.Prefix()
	if len(stem) < len(f) {
		stem = strings.TrimSuffix(stem, "/")
	}
	return stem
}

// queuesOf are the queues with a binding that matches a topic.
func (n *brokerNeeds) queuesOf(topic string) []*queueNeeds {
	if !n.indexed {
		n.index()
	}
	var of []*queueNeeds
	look := func(qs []*queueNeeds) {
		for _, q := range qs {
			if slices.ContainsFunc(*q.bindings, func(bd *bound) bool { return bd.matches(topic, max(bd.from, 1)) }) {
				of = append(of, q)
			}
		}
	}
	look(n.routed)
	look(n.below[""])
	for i := 1; i < len(topic); i++ {
		if topic[i] == '/' {
			look(n.below[topic[:i]])
		}
	}
	look(n.below[topic])
	return of
}

// Of implements Needs. It has one caller.
func (n *brokerNeeds) Of(topic string) func(Offset) bool {
	if strings.HasPrefix(topic, DelayedPrefix) {
		return func(at Offset) bool { return has(n.delayed, at) }
	}
	of := n.queuesOf(topic)
	value, err := n.b.engine.Get(keyRetained + topic)
	if err != nil {
		n.b.log.Error("retained value not known, the topic's records stay", "topic", topic, "err", err)
		return func(Offset) bool { return true }
	}
	retained, _ := retainedOffset(value)
	if len(of) == 0 && retained == 0 {
		return nil
	}
	return func(at Offset) bool {
		return at == retained || slices.ContainsFunc(of, func(q *queueNeeds) bool { return q.need(topic, at) })
	}
}

func has(offsets []Offset, at Offset) bool {
	_, is := slices.BinarySearch(offsets, at)
	return is
}

// need reports whether the queue needs the topic's record at an offset.
func (q *queueNeeds) need(topic string, at Offset) bool {
	if has(q.out, at) {
		return true
	}
	if at < q.next && !slices.ContainsFunc(q.left, func(l runs) bool { return l.has(at) }) {
		return false
	}
	return slices.ContainsFunc(*q.bindings, func(bd *bound) bool { return bd.matches(topic, at) })
}
