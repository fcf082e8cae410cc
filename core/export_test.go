package core

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"time"
)

// SetWall replaces the machine's clock for delayed messages.
func (b *Broker) SetWall(wall func() time.Time) {
	c := b.delayed.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = wall
}

// A Tally is what a queue holds.
type Tally struct{ Length, Bytes int64 }

// Metered is what a metered queue has counted, and what it holds.
func (b *Broker) Metered(queue string) (counted, holds Tally) {
	q := b.queue(queue)
	stands := q.stands()
	n, err := b.reads(context.Background(), q, &stands, stands.floor(), b.dispatcher.end(), new(atomic.Int64), nil)
	if err != nil {
		panic(err)
	}
	return Tally{q.meter.length.Load(), q.meter.bytes.Load()}, Tally{n.count, n.bytes}
}

// Journaled says in how many steps a queue's position is in the state, and where
// it differs from what it is now; -1 is that it is yet to be journaled.
func (b *Broker) Journaled(name string) (steps int, err error) {
	q := b.queue(name)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dirty {
		return -1, nil
	}
	value, err := b.engine.Get(keyPosition + name)
	if err != nil {
		return 0, err
	}
	was, err := parsePosition(value)
	if err != nil {
		return 0, err
	}
	var values [][]byte
	for s, err := range b.engine.State(keyStep, "") {
		if err != nil {
			return 0, err
		}
		if queueOfStep(s.Key) == name {
			values = append(values, []byte(strings.Clone(string(s.Value))))
		}
	}
	if err := followSteps(&was, values); err != nil {
		return 0, err
	}
	now, err := parsePosition(q.appendPosition(nil, was.id, time.Time{}))
	if err != nil {
		return 0, err
	}
	was.idle = time.Time{}
	was.next = max(was.next, now.next) // it is not journaled as others' messages pass
	for _, p := range []*position{&was, &now} {
		p.maybe.cut(0, q.floor())
		p.out.list = append([]outEntry{}, p.out.list...)
		for i := range p.out.list {
			if e := &p.out.list[i]; time.Duration(e.due) <= b.aging.age() {
				e.due = 0 // which is not journaled
			}
		}
	}
	if !reflect.DeepEqual(was, now) {
		for i := range min(len(was.out.list), len(now.out.list)) {
			if was, now := was.out.list[i], now.out.list[i]; was != now {
				return 0, fmt.Errorf("the state has %+v, the queue has %+v", was, now)
			}
		}
		return 0, fmt.Errorf("the state has %+v, the queue is at %+v", was, now)
	}
	return len(values), nil
}
