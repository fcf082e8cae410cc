// Package coretest holds what tests of the core and of engines share: a model
// of an engine to compare with.
package coretest

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
)

// An Engine is the model of a core.Engine: the simplest thing that keeps its
// contract, for as long as the process lives. Fail makes every later Append
// fail. Hold, where it is set, is called before each Append is done. Refuse, where
// it is set, says why a batch fails, if it does; it is called behind Hold.
type Engine struct {
	Hold   func()
	Refuse func(*core.Batch) error

	mu         sync.Mutex // guards what follows
	records    []core.Record
	state      map[string][]byte
	first      core.Offset
	end        core.Offset
	failed     error
	closed     bool
	last       chan struct{} // closed when the last batch is done
	reclaiming func()
}

// NewEngine makes an empty model.
func NewEngine() *Engine {
	return &Engine{state: make(map[string][]byte), first: 1, end: 1}
}

// WhenReclaiming has f called once Reclaim knows what goes, before it goes, if
// anything does; nil has nothing called.
func (g *Engine) WhenReclaiming(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reclaiming = f
}

// Fail makes every later Append fail.
func (g *Engine) Fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = err
}

// Kill makes every later Append fail, as if the process had ended, and returns
// what is durable: the engine of the process that is started next.
func (g *Engine) Kill() *Engine {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = errKilled
	return &Engine{records: slices.Clone(g.records), state: maps.Clone(g.state), first: g.first, end: g.end}
}

var errKilled = errors.New("killed")

// Append implements core.Engine.
func (g *Engine) Append(b *core.Batch, done func(*core.Batch, core.Offset, error)) {
	g.mu.Lock()
	before, over := g.last, make(chan struct{})
	g.last = over
	g.mu.Unlock()
	carryOut := func() {
		defer close(over)
		if before != nil {
			<-before
		}
		if g.Hold != nil {
			g.Hold()
		}
		first, err := g.append(b)
		done(b, first, err)
	}
	if b.Here {
		carryOut()
		return
	}
	go carryOut()
}

func (g *Engine) append(b *core.Batch) (core.Offset, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first, err := g.end, g.failed
	if err == nil && g.Refuse != nil {
		err = g.Refuse(b)
	}
	if err == nil {
		for i := range b.Len() {
			r, perr := b.Record(i)
			if perr != nil {
				panic(perr)
			}
			r.Offset, r.Time = g.end, b.Time
			g.records = append(g.records, r)
			g.end++
		}
		for _, c := range b.Changes {
			switch {
			case c.Value == nil:
				delete(g.state, c.Key)
			case c.OffsetOf > 0:
				v := slices.Clone(c.Value)
				g.state[c.Key] = binary.BigEndian.AppendUint64(v, uint64(first)+uint64(c.OffsetOf-1))
			default:
				g.state[c.Key] = slices.Clone(c.Value)
			}
		}
	}
	return first, err
}

// Read implements core.Engine.
func (g *Engine) Read(ctx context.Context, from, limit core.Offset, filters *core.FilterSet, buf *core.ReadBuffer) (core.Offset, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if from < g.first {
		buf.Gaps = append(buf.Gaps, core.Gap{From: from, To: g.first})
		from = g.first
	}
	i, _ := slices.BinarySearchFunc(g.records, from, func(r core.Record, o core.Offset) int { return int(r.Offset) - int(o) })
	bytes := 0
	for at := from; i < len(g.records); i++ {
		r := g.records[i]
		if r.Offset > at {
			buf.Gaps = append(buf.Gaps, core.Gap{From: at, To: r.Offset})
		}
		at = r.Offset + 1
		if limit != 0 && r.Offset >= limit {
			return max(limit, from), nil
		}
		if filters != nil && !filters.Match(r.Topic) {
			continue
		}
		if len(buf.Records) >= buf.MaxRecords || bytes > 0 && bytes+len(r.Body) > buf.MaxBytes {
			return r.Offset, nil
		}
		bytes += len(r.Body) + 1
		buf.Records = append(buf.Records, r)
	}
	if limit != 0 && limit < g.end {
		return max(limit, from), nil
	}
	return max(g.end, from), nil
}

// Lost implements core.Engine: nothing is.
func (g *Engine) Lost(from, to core.Offset) []core.Gap { return nil }

// Bounds implements core.Engine.
func (g *Engine) Bounds() (core.Offset, core.Offset) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.first, g.end
}

// OffsetAt implements core.Engine.
func (g *Engine) OffsetAt(t time.Time) (core.Offset, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.records {
		if r.Time >= t.UnixMilli() {
			return r.Offset, nil
		}
	}
	return g.end, nil
}

// Topics implements core.Engine.
func (g *Engine) Topics(_ context.Context, filter core.Filter, after string, limit int, keep func(string) bool) ([]core.TopicSum, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	sums := make(map[string]core.TopicSum)
	for _, r := range g.records {
		s := sums[r.Topic]
		sums[r.Topic] = core.TopicSum{
			Topic: r.Topic, Records: s.Records + 1, Last: r.Offset,
			Bytes: s.Bytes + int64(core.RecordHeaderSize+len(r.Topic)+len(r.Body)),
		}
	}
	var page []core.TopicSum
	for _, topic := range slices.Sorted(maps.Keys(sums)) {
		if topic > after && filter.Match(topic) && keep(topic) && len(page) < limit {
			page = append(page, sums[topic])
		}
	}
	return page, nil
}

// Get implements core.Engine.
func (g *Engine) Get(key string) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.state[key]), nil
}

// State implements core.Engine.
func (g *Engine) State(prefix, from string) iter.Seq2[core.Entry, error] {
	return func(yield func(core.Entry, error) bool) {
		g.mu.Lock()
		state := maps.Clone(g.state)
		g.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(state)) {
			if strings.HasPrefix(key, prefix) && key >= from && !yield(core.Entry{Key: key, Value: state[key]}, nil) {
				return
			}
		}
	}
}

// Sealed implements core.Engine: it never says so.
func (g *Engine) Sealed() <-chan struct{} { return nil }

// Reclaim implements core.Engine: it drops from the log's beginning what is not
// kept, up to the first record that is.
func (g *Engine) Reclaim(_ context.Context, r core.Retention) (core.Reclaimed, error) {
	g.mu.Lock()
	records, reclaiming := slices.Clone(g.records), g.reclaiming
	g.mu.Unlock()
	// Needs may ask the engine.
	gone := make(map[core.Offset]bool)
	var got core.Reclaimed
	for _, rec := range records {
		if !keeps(r, rec) && (r.Before == 0 || rec.Offset < r.Before) {
			gone[rec.Offset] = true
			got.Records++
			got.Bytes += int64(len(rec.Body))
		}
	}
	if reclaiming != nil && len(gone) > 0 {
		reclaiming()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	kept := slices.DeleteFunc(slices.Clone(g.records), func(rec core.Record) bool { return gone[rec.Offset] })
	g.records = kept
	if g.first = g.end; len(kept) > 0 {
		g.first = kept[0].Offset
	}
	got.First = g.first
	return got, nil
}

func keeps(r core.Retention, rec core.Record) bool {
	for _, p := range r.Policies {
		if slices.ContainsFunc(p.Filters, func(f core.Filter) bool { return f.Match(rec.Topic) }) {
			if p.Age > 0 && r.Now.UnixMilli()-rec.Time > p.Age.Milliseconds() {
				need := r.Needs.Of(rec.Topic)
				return need != nil && need(rec.Offset)
			}
			return true
		}
	}
	return true
}

// Close implements core.Engine. The model can be opened again: it is as it was.
func (g *Engine) Close(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return nil
}

// Clone returns another engine with all that is durable in this one: what a
// process finds after it was killed at this moment.
func (g *Engine) Clone() *Engine {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &Engine{records: slices.Clone(g.records), state: maps.Clone(g.state), first: g.first, end: g.end}
}
