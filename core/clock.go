package core

import (
	"encoding/binary"
	"sync"
	"time"
)

// A clock is what delayed messages go by: it follows the machine's clock ahead,
// and never goes back. Where that was set back, it goes on from where it was by
// the time that passes, so a message that was to come in an hour comes in an
// hour. So that this holds across restarts, it is kept in the state while it is
// ahead.
type clock struct {
	mu   sync.Mutex // guards what follows
	wall func() time.Time
	base time.Time // when at was noted; its monotonic reading counts
	at   int64     // in milliseconds since 1970
}

// keyClock is where the state keeps it, in milliseconds since 1970.
const keyClock = "c/clock"

func newClock() *clock {
	return &clock{wall: time.Now, base: time.Now(), at: time.Now().UnixMilli()}
}

// now is the clock's time in milliseconds since 1970.
func (c *clock) now() int64 {
	ms, _ := c.ahead()
	return ms
}

// ahead returns the clock's time, and whether the machine's is behind it.
func (c *clock) ahead() (ms int64, ahead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := c.at + time.Since(c.base).Milliseconds()
	wall := c.wall().UnixMilli()
	if wall >= passed {
		c.base, c.at = time.Now(), wall
		return wall, false
	}
	return passed, passed-wall > 1000
}

// left is how long it is until a moment of the machine's clock.
func (c *clock) left(t time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Sub(c.wall())
}

// when turns a moment of the machine's clock into one of this clock: the same one,
// to the nanosecond, unless this clock is ahead.
func (c *clock) when(t time.Time) time.Time {
	ms := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Add(time.Duration(max(0, ms-c.wall().UnixMilli())) * time.Millisecond)
}

// moment turns a moment of this clock into one of the machine's clock.
func (c *clock) moment(ms int64) time.Time {
	now, ahead := c.ahead()
	if !ahead {
		return time.UnixMilli(ms)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall().Add(time.Duration(ms-now) * time.Millisecond)
}

// until is how long it is until a moment of this clock.
func (c *clock) until(ms int64) time.Duration {
	return time.Duration(ms-c.now()) * time.Millisecond
}

// load goes on from where the clock was when the broker ended.
func (c *clock) load(value []byte) {
	if len(value) != 8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = max(c.at, int64(binary.BigEndian.Uint64(value)))
}

// put keeps the clock while it is ahead.
func (c *clock) put(p *commit) {
	if ms, ahead := c.ahead(); ahead {
		p.Changes = append(p.Changes, Change{Key: keyClock, Value: binary.BigEndian.AppendUint64(nil, uint64(ms))})
	}
}
