package core

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A bound is a binding in force: where it began and what it leads to.
type bound struct {
	Binding
	// from is the offset at which the binding began, until the one at which
	// it ended; 0 is not yet. A queue keeps an ended binding until it has
	// read past until.
	from, until Offset
	// order is its place among its cursor's bindings.
	order int
	// exchange is set where Binding.Exchange is.
	exchange *exchange
	// where is Binding.Where; nil holds for all.
	where *where
}

// newBound makes a binding that begins at an offset, with strings of its own:
// those of a caller may only be lent.
func (b *Broker) newBound(bd Binding, from Offset) (*bound, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return newBound(bd, from, b.exchanges)
}

func newBound(b Binding, from Offset, exchanges map[string]*exchange) (*bound, error) {
	nb := &bound{Binding: b.clone(), from: from}
	if err := nb.find(exchanges); err != nil {
		return nil, err
	}
	return nb, nil
}

// find finds what the binding names, and reads its condition.
func (b *bound) find(exchanges map[string]*exchange) (err error) {
	if b.where, err = parseWhere(b.Where); err != nil {
		return err
	}
	if b.Exchange != "" {
		if b.exchange = exchanges[b.Exchange]; b.exchange == nil {
			return fmt.Errorf("%w: there is no exchange %q", ErrNotFound, b.Exchange)
		}
	}
	if b.Where = ""; b.where != nil {
		b.Where = b.where.text
	}
	return nil
}

// conditional reports whether more than the topic says what matches.
func (b *bound) conditional() bool {
	return b.where != nil || b.exchange != nil && b.exchange.conditional.Load()
}

// holds reports whether the binding's condition, if it has one, holds for what
// it matches.
func (b *bound) holds(e *Envelope, at Offset) bool {
	if !b.where.match(e, at) {
		return false
	}
	if b.exchange == nil || !b.exchange.conditional.Load() {
		return true
	}
	name, key, ok := ExchangeOf(e.Topic)
	return ok && b.exchange.leads(name, key, e, at)
}

// matches reports whether the binding leads here from a topic at an offset.
func (b *bound) matches(topic string, at Offset) bool {
	if at < b.from || (b.until != 0 && at >= b.until) {
		return false
	}
	if b.exchange == nil {
		return b.Filter.Match(topic)
	}
	name, key, ok := ExchangeOf(topic)
	return ok && b.exchange.matches(b.Key, key) && b.exchange.leads(name, key, nil, at)
}

// register tells the binding's exchange that it is in force, or not any more;
// false if the exchange has been deleted.
func (b *bound) register(is bool) bool { return b.exchange == nil || b.exchange.bind(b, is) }

// filters are what an engine reads with to find what the binding may match.
func (b *bound) filters() []Filter {
	if b.exchange == nil {
		return []Filter{b.Filter}
	}
	var fs []Filter
	for _, name := range b.exchange.upstream(nil) {
		fs = append(fs, Filter(ExchangeTopic(name, "#")))
	}
	return fs
}

// clone returns the binding with strings of its own: those of a caller may only
// be lent.
func (b Binding) clone() Binding {
	b.Filter = Filter(strings.Clone(string(b.Filter)))
	b.Exchange, b.Key = strings.Clone(b.Exchange), strings.Clone(b.Key)
	return b
}

func (b *Binding) same(o *Binding) bool {
	return b.Filter == o.Filter && b.Exchange == o.Exchange && b.Key == o.Key && b.Where == o.Where
}

// An index finds the cursors that a topic leads to. Only attached cursors stand
// in it. It is guarded by the dispatcher's mutex.
type index struct {
	exact     map[string]bounds
	wild      node
	exchanges map[string]bounds
	cache     map[string][]match
}

type bounds map[*bound]*cursor

// A node is one level of the wildcard filters.
type node struct {
	children map[string]*node // by level; "+" is the wildcard
	here     bounds           // filters that end here
	rest     bounds           // filters that end here with "#"
}

// A match is one cursor that a topic leads to, with what its bindings say.
type match struct {
	cursor     *cursor
	tags       []uint64
	settlement Settlement
	// bounds is set where the record has to be looked at as well.
	bounds []*bound
}

// of returns the tags and the settlement for one envelope, and whether it
// matches.
func (m *match) of(e *Envelope, at Offset) (tags []uint64, s Settlement, ok bool) {
	if m.bounds == nil {
		return m.tags, m.settlement, true
	}
	for _, b := range m.bounds {
		if b.holds(e, at) {
			tags, s = append(tags, b.Tag), max(s, b.Settlement)
		}
	}
	return tags, s, len(tags) > 0
}

// cacheTopics bounds how many topics' matches are remembered.
const cacheTopics = 1 << 16

func newIndex() index {
	return index{exact: make(map[string]bounds), exchanges: make(map[string]bounds), cache: make(map[string][]match)}
}

func (x *index) add(c *cursor, b *bound) {
	clear(x.cache)
	switch {
	case b.exchange != nil:
		put(x.exchanges, b.Exchange, b, c)
	case b.Filter.Exact():
		put(x.exact, string(b.Filter), b, c)
	default:
		x.wild.add(string(b.Filter), b, c)
	}
}

func (x *index) remove(b *bound) {
	clear(x.cache)
	switch {
	case b.exchange != nil:
		drop(x.exchanges, b.Exchange, b)
	case b.Filter.Exact():
		drop(x.exact, string(b.Filter), b)
	default:
		x.wild.remove(string(b.Filter), b)
	}
}

func put(m map[string]bounds, key string, b *bound, c *cursor) {
	if m[key] == nil {
		m[key] = make(bounds)
	}
	m[key][b] = c
}

func drop(m map[string]bounds, key string, b *bound) {
	delete(m[key], b)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

func (n *node) add(filter string, b *bound, c *cursor) {
	for {
		level, rest, more := strings.Cut(filter, "/")
		if level == "#" {
			if n.rest == nil {
				n.rest = make(bounds)
			}
			n.rest[b] = c
			return
		}
		child := n.children[level]
		if child == nil {
			if n.children == nil {
				n.children = make(map[string]*node)
			}
			child = new(node)
			n.children[level] = child
		}
		if n = child; !more {
			if n.here == nil {
				n.here = make(bounds)
			}
			n.here[b] = c
			return
		}
		filter = rest
	}
}

// remove takes a filter out and reports whether the node is empty.
func (n *node) remove(filter string, b *bound) (empty bool) {
	level, rest, more := strings.Cut(filter, "/")
	if level == "#" {
		delete(n.rest, b)
	} else if child := n.children[level]; child != nil {
		if more {
			if child.remove(rest, b) {
				delete(n.children, level)
			}
		} else {
			delete(child.here, b)
			if child.empty() {
				delete(n.children, level)
			}
		}
	}
	return n.empty()
}

func (n *node) empty() bool { return len(n.children) == 0 && len(n.here) == 0 && len(n.rest) == 0 }

// visit calls f for every filter below the node that matches the topic.
func (n *node) visit(topic string, first bool, f func(bounds)) {
	dollar := first && strings.HasPrefix(topic, "$")
	if !dollar {
		f(n.rest)
	}
	level, rest, more := strings.Cut(topic, "/")
	for _, name := range [2]string{level, "+"} {
		child := n.children[name]
		if child == nil || name == "+" && dollar {
			continue
		}
		if more {
			child.visit(rest, false, f)
		} else {
			f(child.here)
			f(child.rest) // "a/#" matches "a"
		}
		if level == "+" {
			break
		}
	}
}

// match returns the cursors that a topic leads to, one match each. The result
// is shared: it is not changed, and stays as it is when the index changes.
func (x *index) match(topic string) []match {
	if ms, ok := x.cache[topic]; ok {
		return ms
	}
	found := make(map[*cursor][]*bound)
	collect := func(bs bounds) {
		for b, c := range bs {
			found[c] = append(found[c], b)
		}
	}
	collect(x.exact[topic])
	x.wild.visit(topic, true, collect)
	if name, key, ok := ExchangeOf(topic); ok {
		for _, bs := range x.exchanges {
			for b, c := range bs {
				if b.Exchange != name && len(*b.exchange.in.Load()) == 0 {
					break // nor does anything else lead to that exchange
				}
				if b.exchange.matches(b.Key, key) && b.exchange.leads(name, key, nil, math.MaxUint64) {
					found[c] = append(found[c], b)
				}
			}
		}
	}
	ms := make([]match, 0, len(found))
	for c, bs := range found {
		slices.SortFunc(bs, func(a, b *bound) int { return a.order - b.order })
		m := match{cursor: c, tags: make([]uint64, 0, len(bs))}
		for _, b := range bs {
			m.tags = append(m.tags, b.Tag)
			m.settlement = max(m.settlement, b.Settlement)
			if b.conditional() {
				m.bounds = bs
			}
		}
		ms = append(ms, m)
	}
	if len(x.cache) >= cacheTopics {
		clear(x.cache)
	}
	x.cache[strings.Clone(topic)] = ms
	return ms
}
