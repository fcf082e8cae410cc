package seglog

import (
	"context"
	"sort"
	"strings"

	"github.com/sluicemq/sluice/core"
)

// Topics implements core.Engine. What a segment's index knows is taken from its
// dictionary; only a segment that has none yet, as the active one, is read
// through, by one caller at a time.
func (l *Log) Topics(ctx context.Context, filter core.Filter, after string, limit int, keep func(string) bool) (sums []core.TopicSum, err error) {
	l.census.Lock()
	defer l.census.Unlock()
	defer faults(faults(true))
	defer guard(&err)
	l.mu.RLock()
	segments := l.segments
	for _, s := range segments {
		s.enter()
	}
	l.mu.RUnlock()
	defer func() {
		for _, s := range segments {
			s.leave()
		}
	}()
	_, end := l.Bounds()
	c := census{filter: filter, after: after, limit: limit, keep: keep, topics: make(map[string]*counted)}
	for i, s := range segments {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := l.sound(s)
		if err != nil {
			return nil, err
		}
		if v.index != nil {
			c.consult(v.index)
			continue
		}
		to := end
		if i+1 < len(segments) {
			to = min(v.next, end)
		}
		if err := c.walk(ctx, l, v.opened, to); err != nil {
			return nil, err
		}
	}
	return c.sums(), nil
}

// A census counts the records of the first topics behind a name. A topic that
// makes room for others in front of it does not come again: the last name that
// is counted only becomes smaller.
type census struct {
	filter core.Filter
	after  string
	limit  int
	keep   func(string) bool

	topics map[string]*counted
	names  []string // of topics, in order
	refuse string   // a topic that was asked for last and is not kept
}

// A counted topic; index and entry are where its last record is found, unless
// last is known.
type counted struct {
	core.TopicSum
	index *index
	entry topicEntry
}

// of is what is counted of a topic, nil where it is not. The name is copied if
// it is kept.
func (c *census) of(name string) *counted {
	if t := c.topics[name]; t != nil {
		return t
	}
	full := len(c.names) == c.limit
	if name <= c.after || full && name > c.names[c.limit-1] || name == c.refuse || !c.filter.Match(name) {
		return nil
	}
	name = strings.Clone(name)
	if !c.keep(name) {
		c.refuse = name
		return nil
	}
	if full {
		delete(c.topics, c.names[c.limit-1])
		c.names = c.names[:c.limit-1]
	}
	at := sort.SearchStrings(c.names, name)
	c.names = append(c.names, "")
	copy(c.names[at+1:], c.names[at:])
	c.names[at] = name
	t := &counted{TopicSum: core.TopicSum{Topic: name}}
	c.topics[name] = t
	return t
}

// consult counts what an index knows.
func (c *census) consult(x *index) {
	prefix, n := c.filter.Prefix(), x.numTopics()
	from := max(prefix, c.after)
	for i := sort.Search(n, func(i int) bool { return x.topic(i).name >= from }); i < n; i++ {
		e := x.topic(i)
		if !strings.HasPrefix(e.name, prefix) || len(c.names) == c.limit && e.name > c.names[c.limit-1] {
			break
		}
		if t := c.of(e.name); t != nil {
			t.Records += int64(e.count)
			t.Bytes += int64(e.bytes)
			t.index, t.entry = x, e
		}
	}
}

// walk counts the records of a range.
func (c *census) walk(ctx context.Context, l *Log, from, end core.Offset) error {
	filters := core.NewFilterSet(c.filter)
	var buf core.ReadBuffer
	for from < end {
		next, err := l.Read(ctx, from, end, filters, &buf)
		if err != nil {
			return err
		}
		for i := range buf.Records {
			r := &buf.Records[i]
			if t := c.of(r.Topic); t != nil {
				t.Records++
				t.Bytes += int64(core.RecordHeaderSize + len(r.Topic) + len(r.Body))
				t.Last, t.index = r.Offset, nil
			}
		}
		if next <= from {
			return nil
		}
		from = next
	}
	return nil
}

func (c *census) sums() []core.TopicSum {
	sums := make([]core.TopicSum, len(c.names))
	var offsets []core.Offset
	for i, name := range c.names {
		t := c.topics[name]
		if t.index != nil {
			offsets = t.index.offsets(offsets[:0], t.entry)
			t.Last = offsets[len(offsets)-1]
		}
		sums[i] = t.TopicSum
	}
	return sums
}
