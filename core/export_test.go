package core

import "time"

// SetWall replaces the machine's clock for delayed messages.
func (b *Broker) SetWall(wall func() time.Time) {
	c := b.delayed.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = wall
}
