package core

import (
	"context"
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
	n, err := b.holds(context.Background(), q, &stands, b.dispatcher.end())
	if err != nil {
		panic(err)
	}
	return Tally{q.meter.length.Load(), q.meter.bytes.Load()}, Tally{n.count, n.bytes}
}
